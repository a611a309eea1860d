"""A Board as a markdown table."""

from harness.board import Board
from harness.report import figures


def render(board: Board) -> str:
    """The table and its notes; the same board gives the same bytes."""
    headings = [f"{board.metric}", *figures.headings(board)]
    lines = [_line(headings), _line(["---", *["---:"] * (len(headings) - 1)])]
    lines += [_line([row.label, *figures.cells(board, row)]) for row in board.rows]
    notes = [f"\n{note}" for note in figures.notes(board)]
    return "\n".join([*lines, *notes]) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
