"""A Board as a LaTeX table (booktabs): the best of a column bold, what is not significantly below it underlined."""

from collections.abc import Iterable, Sequence

from harness.leaderboard import AXES, Board, Cell
from harness.leaderboard.published import Beside
from harness.leaderboard.tables import figures

_ESCAPES = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def render(board: Board, published: Sequence[Beside] = ()) -> str:
    """`table` environments that need \\usepackage{booktabs}; the same board gives the same bytes.

    A second one has the differences to the baseline where there is one. Published figures are rows of their own, in
    italics.
    """
    columns = figures.shown(board)
    rows = []
    for row in board.rows:
        scores = ["failed" if name in row.failed else _score(figures.at(row, name)) for name in columns]
        rows.append([escaped(row.label), *scores, *(_gap(figures.amount(getattr(row, axis))) for axis in AXES)])
    notes = [
        _legend(board),
        *figures.facts(board),
        *(f"{one.retriever}: {'; '.join(one.sources)}." for one in published),
    ]
    heads = [board.metric, *figures.headings(board)]
    text = _table(heads, rows, notes, _published(board, len(heads), published))
    if board.baseline is None:
        return text
    others = [row for row in board.rows if row.label != board.baseline]
    rows = [[escaped(row.label), *(_versus(figures.at(row, name)) for name in columns)] for row in others]
    said = f"Against {board.baseline}: difference, p (Holm), queries won/tied/lost."
    return text + "\n" + _table([board.metric, *figures.names(board)], rows, [said])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], more: Sequence[str] = ()) -> str:
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        "\\toprule",
        _line(map(escaped, heads)),
        "\\midrule",
        *map(_line, rows),
        *more,
        "\\bottomrule",
        "\\end{tabular}",
        f"\\caption{{{' '.join(map(escaped, notes))}}}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _versus(cell: Cell | None) -> str:
    return "--" if cell is None or cell.versus is None else escaped(figures.difference(cell.versus))


def _published(board: Board, width: int, published: Sequence[Beside]) -> list[str]:
    if not published:
        return []
    lines = [
        "\\midrule",
        f"\\multicolumn{{{width}}}{{l}}{{\\textit{{Published, not measured here; in brackets: ours minus it}}}} \\\\",
    ]
    for one in published:
        told = ["--" if name is None or name not in one.values else _figure(one, name) for name in figures.shown(board)]
        lines.append(_line([escaped(one.retriever), *told, *["--"] * len(AXES)]))
    return lines


def _figure(one: Beside, name: str) -> str:
    difference = f" ({one.differences[name]:+.4f})" if name in one.differences else ""
    return f"\\textit{{{one.values[name]:.4f}}}{difference}"


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is written."""
    return "".join(_ESCAPES.get(char, char) for char in text)


def _score(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    text = figures.score(cell.value)
    return f"\\textbf{{{text}}}" if cell.best else (f"\\underline{{{text}}}" if cell.close else text)


def _gap(text: str) -> str:
    return "--" if text == "-" else text


def _legend(board: Board) -> str:
    said = f"{board.metric}. Bold: best of its column"
    return said + (
        f"; underlined: not significantly below it ({board.tests} paired randomisation tests, Holm, 5 %)."
        if board.tests
        else "."
    )
