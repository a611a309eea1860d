"""`experiment=mteb dataset.benchmark=NAME`: a benchmark of mteb as a sweep over its tasks, and its aggregates."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import say
from harness.errors import ConfigError, HarnessError

if TYPE_CHECKING:
    from harness.leaderboard.table import Table
    from harness.types import Record

_KEY = "dataset.benchmark="


def swept(words: Sequence[str]) -> list[str]:
    """The words of a sweep over a benchmark with its tasks among them. Raises `ConfigError` where none is named."""
    if "experiment=mteb" not in words:
        return list(words)
    name = named(words)
    if name is None:
        raise ConfigError("no benchmark is named; add: dataset.benchmark=BEIR, or another of: harness list benchmarks")
    from harness.interop.mteb.benchmark import cells  # imports mteb, which takes seconds

    places = cells(name)
    others = [word for word in words if not word.startswith(_KEY)]
    chosen = [*others, f"{_KEY}{_quoted(name)}"]
    if any(word.startswith("dataset.task=") for word in words):
        return chosen
    return [*chosen, f"dataset.task={','.join(_quoted(str(place)) for place in places)}"]


def named(words: Sequence[str]) -> str | None:
    """The benchmark that the words name, without quotes."""
    found = [word.removeprefix(_KEY) for word in words if word.startswith(_KEY)]
    return found[-1].strip("'\"") if found and found[-1].strip("'\"") else None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def table(name: str, records: "Iterable[Record]") -> "Table":
    """Return a row for each retriever: the benchmark's own aggregates, or the tasks that it lacks."""
    from harness.interop.mteb.benchmark import aggregates
    from harness.leaderboard.table import Table

    found = aggregates(name, records)
    columns = list(dict.fromkeys(key for aggregate in found for key in aggregate.scores))
    rows = [[aggregate.label, *(_figure(aggregate.scores.get(key)) for key in columns)] for aggregate in found]
    notes = [
        f"{aggregate.label}: no mean, {len(aggregate.missing)} tasks are not measured: "
        + ", ".join([*aggregate.missing[:5], *(["..."] if len(aggregate.missing) > 5 else [])])
        for aggregate in found
        if aggregate.missing
    ]
    title = f"{name} as mteb aggregates it, over its tasks that rank texts"
    headings = ["retriever", *columns] if found else []
    return Table(title, headings, rows, notes if found else ["None of its tasks is measured."])


def _figure(value: float | None) -> str:
    """Format a mean with four digits, a rank without."""
    return "-" if value is None else f"{value:.0f}" if value == int(value) and value >= 1 else f"{value:.4f}"


def show(words: Sequence[str], code: int) -> None:
    """After a sweep over a benchmark that has ended: its aggregates, over all of the results folder."""
    name = named(words)
    flags = [word for word in words if word.startswith("-") and not word.startswith(("-m", "--multirun", "--config-d"))]
    if "experiment=mteb" not in words or name is None or flags or code not in (0, 1):
        return
    from harness.cli import chosen
    from harness.config import build
    from harness.store import Store

    try:
        settings = [word for word in words if word.startswith("results_dir=")]
        results = Path(str(build.composed(["retriever=bm25", *settings])["results_dir"])).expanduser()
        chosen.show("\n")
        chosen.show_tables([table(name, Store(results).latest())])
    except HarnessError as error:
        say(f"error: {error}")
