"""Print results on stdout, and messages and progress on stderr: bars on a terminal, otherwise a line per long step."""

import json
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.instrument import Advance
    from harness.leaderboard.table import Table

_MIN_REPORTED_S = 1.0


def say(line: str) -> None:
    """Print one line on stderr."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def show_tables(tables: "Iterable[Table]") -> None:
    """Print tables on stdout, as wide as the terminal."""
    from harness.leaderboard import writers

    width = shutil.get_terminal_size((120, 24)).columns
    show(writers.terminal(tables, width, color=sys.stdout.isatty()))


def show_json(value: Any) -> None:
    """Print a command's result as JSON on stdout."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def show(text: str) -> None:
    """Print a command's result on stdout."""
    print(text, end="", flush=True)


def listener() -> "Bars | Lines":
    """Return `Bars` if stderr is a terminal, else `Lines`."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """A progress listener that prints a line at the end of each long step."""

    def begin(self, name: str, total: int | None) -> "Advance":
        """Begin the step `name` of `total` items (None: unknown); return the function that advances it."""
        self._total = total
        return lambda _: None

    def end(self, name: str, wall_s: float) -> None:
        """End the step `name`, which began last and took `wall_s` seconds."""
        if wall_s >= _MIN_REPORTED_S:
            items = f" {self._total:,}" if self._total else ""
            say(f"  {name}{items}: {wall_s:.1f} s")


class Bars:
    """A progress listener that shows a bar for each step in progress."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._open: list[Any] = []

    def begin(self, name: str, total: int | None) -> "Advance":
        """Begin the step `name` of `total` items (None: unknown); return the function that advances it."""
        if not self._open:
            self._progress.start()
        task = self._progress.add_task(name, total=total)
        self._open.append(task)
        return lambda n: self._progress.advance(task, n)

    def end(self, name: str, wall_s: float) -> None:
        """End the step `name`, which began last and took `wall_s` seconds."""
        self._progress.remove_task(self._open.pop())
        if not self._open:
            self._progress.stop()
