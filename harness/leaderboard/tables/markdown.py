"""A Board as markdown tables: the scores, the differences to the baseline, the intervals."""

import re
from collections.abc import Callable, Iterable, Sequence

from harness.leaderboard import Board, Cell
from harness.leaderboard.tables import figures

# an underscore inside a word is no markup
_MARKUP = re.compile(r"[\\`*\[\]~$|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(board: Board) -> str:
    """The tables and their notes; the same board gives the same bytes."""
    parts = [main(board)]
    if board.baseline is not None:
        parts.append(f"Against {escaped(board.baseline)}: difference, p (Holm), queries won/tied/lost.\n")
        parts.append(_second(board, lambda cell: figures.difference(cell.versus)))
    if any(row.overall and row.overall.interval for row in board.rows) or board.tests:
        parts.append("95 % bootstrap intervals of the means.\n")
        parts.append(_second(board, _interval))
    return "\n".join(parts)


def main(board: Board) -> str:
    """The table of scores and costs with its notes."""
    lines = [_row([escaped(row.label), *map(_figure, figures.cells(board, row))]) for row in board.rows]
    notes = [f"{escaped(note)}\n" for note in figures.notes(board)]
    return "\n".join([_table([board.metric, *figures.headings(board)], lines), *notes])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    return _table(headings, [_row(map(escaped, row)) for row in rows])


def escaped(text: str) -> str:
    """A text that markdown shows as it is written, also where it holds markup."""
    marked = _MARKUP.sub(r"\\\g<0>", text)
    return " ".join(marked.replace("&", "&amp;").replace("<", "&lt;").split())


def _second(board: Board, text: Callable[[Cell], str]) -> str:
    rows = [
        [row.label, *("-" if (cell := figures.at(row, name)) is None else text(cell) for name in figures.shown(board))]
        for row in board.rows
    ]
    return table([board.metric, *figures.names(board)], rows)


def _interval(cell: Cell) -> str:
    return "-" if cell.interval is None else "{:.4f} to {:.4f}".format(*cell.interval)


def _figure(cell: str) -> str:
    """A score or a cost as figures.py writes it, the best in bold."""
    return f"**{cell.removesuffix('*')}**" if cell.endswith("*") else cell


def _table(headings: Sequence[str], lines: Sequence[str]) -> str:
    rule = _row(["---", *["---:"] * (len(headings) - 1)])
    return "\n".join([_row(map(escaped, headings)), rule, *lines]) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
