"""A Board on the terminal."""

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.board import Board
from harness.report import figures


def render(board: Board, width: int = 120, color: bool = False) -> str:
    """The table and its notes, the best score of each dataset in bold."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(board.metric, overflow="fold")
    for heading in figures.headings(board):
        table.add_column(Text(heading), justify="right", overflow="fold")
    best = {
        name: max((r.cells[name].value for r in board.rows if name in r.cells), default=None) for name in board.datasets
    }
    for row in board.rows:
        texts = [Text(cell) for cell in figures.cells(board, row)]
        for name, text in zip(board.datasets, texts, strict=False):
            if name in row.cells and row.cells[name].value == best[name]:
                text.stylize("bold")
        table.add_row(Text(row.label), *texts)
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False)
    console.print(table)
    for note in figures.notes(board):
        console.print(note, style="dim", markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
