"""`harness report`: the leaderboard, printed and written in every format."""

import argparse
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import mteb, record_options
from harness.console import say, show_tables
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.leaderboard import Leaderboard, Scores
    from harness.leaderboard.published import PublishedRow
    from harness.leaderboard.table import Table
    from harness.store import Store
    from harness.types import Record

_FILES = ("md", "csv", "tex", "html")
_FORMATS = (*_FILES, "json", "svg", "png")


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the parser of `harness report`."""
    report: argparse.ArgumentParser = commands.add_parser(
        "report", help="print the leaderboard and write it to results/"
    )
    report.add_argument("--only", choices=_FORMATS, help="this format only; text goes to stdout, pictures to results/")
    report.add_argument("--baseline", metavar="NAME", help="compare every row with this retriever")
    report.add_argument("--published", action="store_true", help="show published figures next to ours")
    report.add_argument("--benchmark", metavar="NAME", help="add mteb's aggregates of this benchmark")
    report.add_argument("--readme", type=Path, metavar="FILE", help="also update the block `leaderboard` of this file")
    report.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if a written file differs from the records"
    )
    report.set_defaults(command=_report)
    record_options.add(report)
    return report


def _report(options: argparse.Namespace) -> int:
    from harness.leaderboard import build
    from harness.store import Store

    _refuse_contradictions(options)
    store = Store(options.results)
    records = record_options.latest(options, store)
    scores = store.scores(records, [options.metric])
    is_shown = record_options.selection(options)
    leaderboard = build(records, options.metric, scores, options.baseline, is_shown)
    shown = records if is_shown is None else list(filter(is_shown, records))
    leaderboard = replace(leaderboard, machines=store.machines(shown))
    report = _Report(options, store, records, leaderboard, scores)
    if options.json:
        print(report.text("json"), end="")
    elif options.check:
        return report.check()
    elif options.only in ("svg", "png"):
        report.write({options.results / f"pareto.{options.only}": report.picture(options.only)})
    elif options.only is not None:
        print(report.text(options.only), end="")
    else:
        name = options.benchmark
        show_tables([*report.tables, *([mteb.table(name, shown)] if name else [])])
        report.write(report.files())
    return 0


def _refuse_contradictions(options: argparse.Namespace) -> None:
    """Raise `ConfigError` for a pair of options that exclude each other."""
    pairs = {
        "check": ("only", "json"),
        "only": ("json", "readme"),
        "json": ("readme",),
        "benchmark": ("only", "json", "check"),
    }
    for option, excluded in pairs.items():
        for other in excluded:
            if getattr(options, option) and getattr(options, other):
                raise ConfigError(f"--{option} and --{other} exclude each other; give one of them")


@dataclass
class _Report:
    """A leaderboard, and its files in the formats that the options request."""

    options: argparse.Namespace
    store: "Store"
    records: "list[Record]"
    """All newest records, of which the leaderboard shows those that the options select."""
    leaderboard: "Leaderboard"
    scores: "Scores"

    @property
    def tables(self) -> "list[Table]":
        """Tables of the leaderboard."""
        from harness.leaderboard.tables.leaderboard import tables

        return tables(self.leaderboard, self._published)

    def text(self, format_name: str) -> str:
        """Return the leaderboard in one of the text formats."""
        from harness.leaderboard import frame, writers
        from harness.leaderboard.page import html

        if format_name in ("md", "tex"):
            return (writers.markdown if format_name == "md" else writers.latex)(self.tables)
        leaderboards, scores = self._leaderboards
        if format_name == "csv":
            return frame.to_csv(frame.to_frame(leaderboards, self._published or ()))
        if format_name == "json":
            return frame.to_json(frame.leaderboards_data(leaderboards, self._published))
        return html.render(leaderboards, scores, self.store.table, self._published)

    @cached_property
    def _published(self) -> "list[PublishedRow] | None":
        """Published figures: imported ones always, the built-in table's if requested; None without any."""
        from harness.leaderboard.published import published_rows

        imported, requested = self.store.published(), self.options.published
        figures = published_rows(self.leaderboard, imported, table=requested) if requested or imported else None
        return figures if figures or requested else None

    def picture(self, format_name: str) -> bytes:
        """Return the Pareto front as SVG or PNG. Raises `ConfigError` without matplotlib."""
        from harness.leaderboard import pareto

        return pareto.render(self.leaderboard, format_name)

    def files(self) -> dict[Path, bytes]:
        """Return the content of every file that a report writes, the README included."""
        files = {
            self.options.results / f"leaderboard.{format_name}": self.text(format_name).encode()
            for format_name in _FILES
        }
        if (readme := self.options.readme) is not None:
            files[readme] = self._with_block(readme).encode()
        return files

    def write(self, files: dict[Path, bytes]) -> None:
        """Write files, each atomically."""
        from harness.store import write_atomic

        if self.options.dataset or self.options.retriever:
            say("this leaderboard has only some of the records")
        for path, content in files.items():
            write_atomic(path, content)
        say(f"wrote {', '.join(map(str, files))}")

    def check(self) -> int:
        """Return 1 if a file differs from the current leaderboard. Pictures are checked only if they exist."""
        from harness.leaderboard.pareto import digest

        stale = [str(path) for path, content in self.files().items() if not _has_content(path, content)]
        pictures = [self.options.results / f"pareto.{format_name}" for format_name in ("svg", "png")]
        expected = digest(self.leaderboard).encode()
        stale += [str(path) for path in pictures if path.is_file() and expected not in path.read_bytes()]
        if stale:
            commands = [f"harness report{self._option_text()}"]
            stale_pictures = [path for path in stale if Path(path).suffix in (".svg", ".png")]
            commands += [
                f"harness report{self._option_text()} --only {Path(path).suffix[1:]}" for path in stale_pictures
            ]
            say(f"stale: {', '.join(stale)}; write again: {' && '.join(commands[len(stale) == len(stale_pictures) :])}")
        return 1 if stale else 0

    def _option_text(self) -> str:
        """Return the options that affect the files, as typed on the command line."""
        words: list[str] = []
        for name in ("results", "baseline", "metric", "dataset", "retriever", "readme"):
            value = getattr(self.options, name)
            if value and (name, str(value)) not in (("results", "results"), ("metric", "ndcg@10")):
                words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
        words += ["--published"] if self.options.published else []
        return "".join(f" {shlex.quote(word)}" for word in words)

    def _with_block(self, readme: Path) -> str:
        """Return the text of a README with the current leaderboard between its two comments."""
        from harness.leaderboard import writers
        from harness.leaderboard.tables.leaderboard import main_table

        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        block = "board" if "<!-- begin: board -->" in text else "leaderboard"  # `board` in older READMEs
        begin, end = f"<!-- begin: {block} -->\n", f"<!-- end: {block} -->"
        if end not in text.partition(begin)[2]:
            raise ConfigError(
                f"{readme} has no block to fill; add these two lines to it, in this order: {begin.strip()} {end}"
            )
        before, _, rest = text.partition(begin)
        return f"{before}{begin}{writers.markdown([main_table(self.leaderboard)])}{end}{rest.partition(end)[2]}"

    @cached_property
    def _leaderboards(self) -> "tuple[dict[str, Leaderboard], Scores]":
        """The leaderboard of every measured metric, the requested one first, and the scores for significance tests."""
        from harness.leaderboard import build

        metric = self.leaderboard.metric
        is_shown = record_options.selection(self.options)
        shown = self.records if is_shown is None else list(filter(is_shown, self.records))
        other_metrics = sorted({name for record in shown for name in record.metrics} - {metric})
        scores = self.store.scores(self.records)
        baseline = self.leaderboard.baseline
        of_baseline = {name for each in shown if each.retriever.label == baseline for name in each.metrics}
        leaderboards = {
            name: build(self.records, name, scores, baseline if name in of_baseline else None, is_shown)
            for name in other_metrics
        }
        leaderboards = {
            name: replace(leaderboard, machines=self.leaderboard.machines) for name, leaderboard in leaderboards.items()
        }
        return {metric: self.leaderboard, **leaderboards}, scores


def _has_content(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
