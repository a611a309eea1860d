"""The table at the end of a sweep, printed by a Hydra callback."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from harness.cli import chosen
from harness.leaderboard import Scores, build
from harness.leaderboard.tables.leaderboard import main_table
from harness.store import Store, read_record
from harness.types import Record

_SUFFIX = ".cell"
_begun: list[Path] = []


def leave_for_table(job: Path, record: Path) -> None:
    """Note for the sweep's table, also from another process, where the record of a job lies."""
    job.parent.mkdir(parents=True, exist_ok=True)
    job.with_suffix(_SUFFIX).write_text(str(record.resolve()))


def show(records: list[Record], scores: Scores | None = None) -> None:
    """Print the board of some records on stdout, tested where their per-query scores are given."""
    metric = next((name for record in records for name in record.metrics), "ndcg@10")
    chosen.show_tables([main_table(build(records, metric, scores))])


def show_sweep() -> None:
    """Print the board of the sweep that began last, if it was not printed yet."""
    while _begun:
        noted = sorted(_begun.pop().glob(f"*{_SUFFIX}"), key=lambda path: int(path.stem))
        paths = [Path(path.read_text()) for path in noted]
        if paths:
            records = [read_record(path) for path in paths]
            root = next(folder.parent for folder in paths[0].parents if folder.name == "records")
            show(records, Store(root).scores(records) if len(records) > 1 else None)


class SweepTable(Callback):
    """Remembers a sweep's folder when it begins and prints its table when it ends."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep begins."""
        _begun.append(Path(str(config.hydra.sweep.dir)))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Every job of the sweep has ended well; after a failure the command line prints the table."""
        show_sweep()
