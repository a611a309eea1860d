"""Published figures beside ours, on the terminal and in markdown: marked as not measured here."""

import io

from rich.console import Console
from rich.text import Text

from harness.leaderboard import Board
from harness.leaderboard.published import Beside
from harness.leaderboard.tables import markdown, terminal

_TITLE = "Published, not measured here; in brackets: ours minus the published figure."


def render_terminal(board: Board, found: list[Beside], width: int = 120, color: bool = False) -> str:
    """A row for each published retriever that has one of the board's datasets."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False)
    console.print(Text(_TITLE, style="bold"))
    console.print(terminal.table(_headings(board, found), _rows(board, found)))
    for note in _notes(found):
        console.print(Text(note, style="dim"))
    return terminal.plain(out.getvalue())


def render_markdown(board: Board, found: list[Beside]) -> str:
    """The same as markdown; the same board gives the same bytes."""
    notes = [f"{markdown.escaped(note)}\n" for note in _notes(found)]
    return "\n".join([f"{_TITLE}\n", markdown.table(_headings(board, found), _rows(board, found)), *notes])


def _headings(board: Board, found: list[Beside]) -> list[str]:
    return [f"{board.metric}, published", *_datasets(board, found), "ours"]


def _rows(board: Board, found: list[Beside]) -> list[list[str]]:
    return [[one.retriever, *(_cell(one, name) for name in _datasets(board, found)), one.ours or "-"] for one in found]


def _datasets(board: Board, found: list[Beside]) -> list[str]:
    """Those of the board's that anybody has a figure for."""
    return [name for name in board.datasets if any(name in one.values for one in found)]


def _cell(one: Beside, dataset: str) -> str:
    if dataset not in one.values:
        return "-"
    said = f"{one.values[dataset]:.4f}"
    return f"{said} ({one.differences[dataset]:+.4f})" if dataset in one.differences else said


def _notes(found: list[Beside]) -> list[str]:
    if not found:
        return ["No figure for these datasets is in the table."]
    return [f"{one.retriever}: {'; '.join(one.sources)}." for one in found]
