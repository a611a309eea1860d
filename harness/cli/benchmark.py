"""`experiment=mteb dataset.benchmark=NAME`: a benchmark of mteb as a sweep over its tasks, and its aggregates."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.console import say
from harness.errors import ConfigError, HarnessError

if TYPE_CHECKING:
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


def render(name: str, records: "Iterable[Record]", width: int, color: bool) -> str:
    """A row for each retriever: the benchmark's own aggregates, or what it lacks."""
    from rich.console import Console
    from rich.text import Text

    from harness.interop.mteb.benchmark import aggregates
    from harness.leaderboard.tables import terminal

    found = aggregates(name, records)
    columns = list(dict.fromkeys(key for one in found for key in one.scores))
    rows = [[one.label, *(_said(one.scores.get(key)) for key in columns)] for one in found]
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False)
    console.print(Text(f"{name} as mteb aggregates it, over its tasks that rank texts", style="bold"))
    if rows:
        console.print(terminal.table(["retriever", *columns], rows))
    for one in found:
        if one.missing:
            told = ", ".join(one.missing[:5]) + (", ..." if len(one.missing) > 5 else "")
            console.print(Text(f"{one.label}: no mean, {len(one.missing)} tasks are not measured: {told}", style="dim"))
    if not found:
        console.print(Text("None of its tasks is measured.", style="dim"))
    return terminal.plain(out.getvalue())


def _said(value: float | None) -> str:
    """A mean with four digits, a rank without."""
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
        chosen.show("\n" + render(name, Store(results).latest(), *chosen.terminal()))
    except HarnessError as error:
        say(f"error: {error}")
