"""How figures are written; rounding happens only here.

A score has `*` when it is the best of its column and `=` when it is not significantly below it; a cost has `^` when its
row is on the Pareto front of quality and that cost.
"""

from harness.leaderboard import AXES, Board, Cell, Difference, Row

HEADINGS = {"queries_per_s": "queries/s", "docs_per_s": "docs/s", "latency_ms": "p95 ms", "index_mb": "index MB"}


def score(value: float) -> str:
    """A metric's mean with four digits."""
    return f"{value:.4f}"


def amount(value: float | None) -> str:
    """A speed or a size with three significant digits; a gap for None."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def mark(cell: Cell) -> str:
    """`*` for the best of its column, `=` for what is not significantly below it."""
    return "*" if cell.best else ("=" if cell.close else "")


def marked(cell: Cell | None) -> str:
    """A score and its mark; a gap for None."""
    return "-" if cell is None else score(cell.value) + mark(cell)


def difference(versus: Difference | None) -> str:
    """A difference to the baseline, its adjusted p and queries won/tied/lost: `+0.0325 p=0.0004 120/150/53`."""
    if versus is None:
        return "-"
    return f"{versus.delta:+.4f} {p_value(versus.p)} {versus.won}/{versus.tied}/{versus.lost}"


def p_value(p: float) -> str:
    """`p=0.0312`, or `p<0.0001` for what rounds to nothing."""
    return "p<0.0001" if p < 0.00005 else f"p={p:.4f}"


def shown(board: Board) -> list[str | None]:
    """The columns of scores: each dataset, and None for their mean where there are several."""
    return [*board.datasets, *([None] if len(board.datasets) > 1 else [])]


def at(row: Row, column: str | None) -> Cell | None:
    """The row's cell in one of the columns that are shown."""
    return row.overall if column is None else row.cells.get(column)


def names(board: Board) -> list[str]:
    """What stands above the columns of scores."""
    return ["mean" if column is None else column for column in shown(board)]


def cells(board: Board, row: Row) -> list[str]:
    """The row's texts: a score for each dataset, the mean where there are several datasets, and what it cost."""
    scores = ["failed" if name in row.failed else marked(at(row, name)) for name in shown(board)]
    return [*scores, *(amount(getattr(row, axis)) + ("^" if axis in row.front else "") for axis in AXES)]


def headings(board: Board) -> list[str]:
    """The columns' names, in the order of `cells`."""
    return [*names(board), *(HEADINGS[axis] for axis in AXES)]


def notes(board: Board) -> list[str]:
    """What a reader must know: what the marks mean, which datasets the mean covers, where the figures come from."""
    return [*_marks(board), *facts(board)]


def facts(board: Board) -> list[str]:
    """The notes without those that explain the marks."""
    said = []
    if len(board.datasets) > 1:
        over = ", ".join(board.common) if board.common else "no dataset that every row has"
        said.append(f"Mean and costs over: {over}; index MB is the largest of them.")
    if board.detectable:
        told = ", ".join(f"{name} {value:.3f}" for name, value in board.detectable.items())
        said.append(f"Smallest difference to the best that one test alone finds in 80 % of repeats: {told}.")
    if len(board.environments) > 1:
        short = ", ".join(name[:8] for name in board.environments)
        said.append(f"Costs come from {len(board.environments)} environments ({short}) and do not compare across them.")
    if board.untested:
        told = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in board.untested.items())
        said.append(f"Not tested, scores by query are missing or of other queries: {told}.")
    said += [f"{caution[:1].upper()}{caution[1:]}." for caution in board.cautions]
    said += [f"{remark}: {', '.join(labels)}." for remark, labels in board.remarks.items()]
    return said + [f"Measured on {machine} ({name[:8]})." for name, machine in board.machines.items()]


def _marks(board: Board) -> list[str]:
    """What the marks that a board has mean."""
    said = []
    if any(cell.best for row in board.rows for cell in row.cells.values()):
        said.append("* best of its column")
    if board.tests:
        said.append(f"= not significantly below it ({board.tests} paired randomisation tests, Holm, 5 %)")
    if any(row.front for row in board.rows):
        said.append("^ no row here is both better and cheaper in this")
    if board.tests > 500:
        said.append("with that many tests 10,000 draws cannot show significance: report fewer retrievers or datasets")
    return [f"{'; '.join(said)}."] if said else []
