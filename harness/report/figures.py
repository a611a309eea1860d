"""How figures are written; rounding happens only here."""

from harness.board import Board, Row

HEADINGS = ("queries/s", "docs/s", "index MB")


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


def cells(board: Board, row: Row) -> list[str]:
    """The row's texts: a score for each dataset, the mean where there are several datasets, and what it cost."""
    scores = [
        score(row.cells[name].value) if name in row.cells else ("failed" if name in row.failed else "-")
        for name in board.datasets
    ]
    mean = [score(row.mean) if row.mean is not None else "-"] if len(board.datasets) > 1 else []
    return [*scores, *mean, amount(row.queries_per_s), amount(row.docs_per_s), amount(row.index_mb)]


def headings(board: Board) -> list[str]:
    """The columns' names, in the order of `cells`."""
    return [*board.datasets, *(["mean"] if len(board.datasets) > 1 else []), *HEADINGS]


def notes(board: Board) -> list[str]:
    """What a reader must know: which datasets the mean covers, and where the figures come from."""
    said = []
    if len(board.datasets) > 1:
        over = ", ".join(board.common) if board.common else "no dataset that every row has"
        said.append(f"Mean and costs over: {over}.")
    if len(board.environments) > 1:
        short = ", ".join(name[:8] for name in board.environments)
        said.append(f"Costs come from {len(board.environments)} environments ({short}) and do not compare across them.")
    return said + [f"{remark}: {', '.join(labels)}." for remark, labels in board.remarks.items()]
