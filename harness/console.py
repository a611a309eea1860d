"""Print results on stdout, and messages and progress on stderr: bars on a terminal, otherwise a line per long step.

A reader that closes a stream early, as `head -1` does, changes neither what a command does nor its exit code.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from harness.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.instrument import Advance
    from harness.leaderboard.table import Table

_MIN_REPORTED_S = 1.0
_FAILED = 2


class TolerantStream:
    """An output stream that discards everything once its reader has closed it.

    Any other error is raised as an `OutputError` that names the stream, and later output is discarded too.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._is_discarding = False

    def write(self, text: str) -> int:
        """Write text; return its length."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, which end with their own newlines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass what is buffered on to the reader."""
        self._try(self._stream.flush)

    def _try(self, output: "Callable[[], object]") -> None:
        if self._is_discarding:
            return
        try:
            output()
        except OSError as error:
            self._discard()
            if not isinstance(error, BrokenPipeError):
                raise OutputError(f"{self._name} cannot be written: {error.strerror}") from None

    def _discard(self) -> None:
        """Discard what is buffered too: Python would try to write it again when it exits."""
        self._is_discarding = True
        with suppress(OSError, ValueError):  # a stream without a file descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Make stdout and stderr tolerant of readers that close them; exit with code 2 if stdout cannot be written."""
    streams = sys.stdout, sys.stderr
    out, err = TolerantStream(streams[0], "stdout"), TolerantStream(streams[1], "stderr")
    sys.stdout, sys.stderr = out, err
    try:
        try:
            yield
        finally:
            out.flush()
    except OutputError as error:
        with suppress(OutputError):
            say(f"error: {error}")
        sys.exit(_FAILED)
    finally:
        with suppress(OutputError):
            err.flush()
        sys.stdout, sys.stderr = streams


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
