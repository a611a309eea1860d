"""A Board on the terminal."""

import io
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.leaderboard import Board, Cell, Row
from harness.leaderboard.tables import figures

_LABEL = 40
"""Columns of the terminal that labels may take before they are folded."""


def render(board: Board, width: int = 120, color: bool = False) -> str:
    """The table and its notes, the best score of each dataset in bold; then the differences to the baseline."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False)
    labels = [row.label for row in board.rows]
    _print(console, board.metric, figures.headings(board), labels, [_texts(board, row) for row in board.rows])
    notes = figures.notes(board)
    if notes:
        console.print()
    for note in notes:
        console.print(note, style="dim", markup=False)
    if board.baseline is not None:
        console.print(f"\nagainst {board.baseline}: difference, p (Holm), queries won/tied/lost", markup=False)
        others = [row for row in board.rows if row.label != board.baseline]
        cells = [[figures.difference(cell.versus) if cell else "-" for cell in _cells(board, row)] for row in others]
        _print(console, board.metric, figures.names(board), [row.label for row in others], cells)
    return plain(out.getvalue())


def _print(
    console: Console, first: str, headings: Sequence[str], labels: Sequence[str], rows: Sequence[Sequence[str | Text]]
) -> None:
    """A table, in several where the terminal is too narrow for all columns: a figure is never broken."""
    widths = [
        max(map(cell_len, [heading, *(str(row[place]) for row in rows)])) + 2 for place, heading in enumerate(headings)
    ]
    room = console.width - min(max(map(cell_len, [first, *labels])), _LABEL)
    begin = 0
    while begin < len(headings):
        end = begin + 1
        while end < len(headings) and sum(widths[begin : end + 1]) <= room:
            end += 1
        if begin:
            console.print()
        own = [[label, *row[begin:end]] for label, row in zip(labels, rows, strict=True)]
        console.print(table([first, *headings[begin:end]], own))
        begin = end


def table(headings: Sequence[str], rows: Sequence[Sequence[str | Text]], texts: bool = False) -> Table:
    """A table whose first column is text and whose others are figures, or `texts` too."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        figures_ = place > 0 and not texts
        drawn.add_column(Text(heading), justify="right" if figures_ else "left", overflow="fold", no_wrap=figures_)
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return drawn


def plain(text: str) -> str:
    """Lines without the blanks that fill them up."""
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _cells(board: Board, row: Row) -> list[Cell | None]:
    return [figures.at(row, name) for name in figures.shown(board)]


def _texts(board: Board, row: Row) -> list[str | Text]:
    return [Text(text, style="bold" if text.endswith("*") else "") for text in figures.cells(board, row)]
