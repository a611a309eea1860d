"""The leaderboard's tables: scores and costs, differences to a baseline, intervals, published scores; recommendations.

A score is marked when it is the best of its column or not significantly below it, a cost when its row is on the Pareto
front of quality and that cost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.leaderboard.model import AXES, Board, Cell, Row
from harness.leaderboard.published import Beside
from harness.leaderboard.recommend import Recommendation
from harness.leaderboard.table import GAP, HEADINGS, Mark, Marked, Table, amount, score, tested
from harness.stats import ALPHA, DRAWS


def tables(board: Board, published: Sequence[Beside] | None = None) -> list[Table]:
    """Return all tables of a leaderboard; published scores where they are given."""
    found = [main_table(board)]
    if board.baseline is not None:
        rows = [row for row in board.rows if row.label != board.baseline]
        title = f"Against {board.baseline}: difference, p (Holm), queries won/tied/lost"
        found.append(_by_dataset(board, title, rows, _difference))
    if any(cell.interval for row in board.rows for cell in row.cells.values()):
        found.append(_by_dataset(board, "95 % bootstrap intervals of the means", board.rows, _interval))
    return found if published is None else [*found, _published(board, published)]


def main_table(board: Board) -> Table:
    """Return the main table: a score for each dataset, their mean where there are several, and costs."""
    columns = columns_of(board)
    return Table(
        "",
        [board.metric, *columns.values(), *HEADINGS.values()],
        [[row.label, *(_score(row, name) for name in columns), *_costs(row)] for row in board.rows],
        [*_notes(board)],
        _legend(board),
    )


def recommendation(board: Board, found: Recommendation) -> Table:
    """Return the best row and the runner-up, whether they differ, and the rows that were left out."""
    rows = [found.best, *([found.runner_up] if found.runner_up else [])]
    runner_up = f"runner-up {found.runner_up.label}" if found.runner_up else "no other retriever is within the limits"
    notes = [_verdict(found)] if found.runner_up else []
    notes += [f"left out {label}: {why}" for label, why in found.excluded.items()]
    if len(board.environments) > 1:
        notes.append(f"costs come from {len(board.environments)} environments and do not compare across them")
    return Table(
        f"take {found.best.label}; {runner_up}",
        [board.metric, "mean", *HEADINGS.values()],
        [[row.label, score(row.mean or 0.0), *map(amount, (getattr(row, axis) for axis in AXES))] for row in rows],
        [*notes, f"mean over {', '.join(board.common)}"],
    )


def at(row: Row, dataset: str | None) -> Cell | None:
    """Return a row's cell of one dataset, or of the mean over datasets for None."""
    return row.overall if dataset is None else row.cells.get(dataset)


def columns_of(board: Board) -> dict[str | None, str]:
    """Return the headings of the columns of scores by dataset; None stands for the mean over several."""
    return {**{name: name for name in board.datasets}, **({None: "mean"} if len(board.datasets) > 1 else {})}


def _by_dataset(board: Board, title: str, rows: Iterable[Row], text: Callable[[Cell], str]) -> Table:
    columns = columns_of(board)
    cells = [[row.label, *(text(cell) if (cell := at(row, name)) else GAP for name in columns)] for row in rows]
    return Table(title, [board.metric, *columns.values()], cells)


def _difference(cell: Cell) -> str:
    delta, _, p, counts = tested(cell.versus)
    return f"{delta} {p} {counts}" if cell.versus else GAP


def _interval(cell: Cell) -> str:
    return "{:.4f} to {:.4f}".format(*cell.interval) if cell.interval else GAP


def _score(row: Row, dataset: str | None) -> str | Marked:
    cell = at(row, dataset)
    if dataset in row.failed or cell is None:
        return "failed" if dataset in row.failed else GAP
    mark: Mark | None = "best" if cell.best else "tied" if cell.close else None
    return Marked(score(cell.value), mark) if mark else score(cell.value)


def _costs(row: Row) -> Iterator[str | Marked]:
    for axis in AXES:
        text = amount(getattr(row, axis))
        yield Marked(text, "front") if axis in row.front else text


def _legend(board: Board) -> dict[Mark, str]:
    legend: dict[Mark, str] = {}
    if any(cell.best for row in board.rows for cell in row.cells.values()):
        legend["best"] = "best of its column"
    if board.tests:
        legend["tied"] = f"not significantly below it ({board.tests} paired randomisation tests, Holm, 5 %)"
    if any(row.front for row in board.rows):
        legend["front"] = "no row here is both better and cheaper in this"
    return legend


def _notes(board: Board) -> Iterator[str]:
    """Yield the datasets that the mean covers, the sources of the costs, and what limits a comparison."""
    if board.tests > ALPHA * DRAWS:
        yield f"{board.tests} tests are too many for {DRAWS:,} draws: report fewer retrievers or datasets."
    if len(board.datasets) > 1:
        over = ", ".join(board.common) if board.common else "no dataset that every row has"
        yield f"Mean and costs over: {over}; index MB is the largest of them."
    if board.detectable:
        sizes = ", ".join(f"{name} {value:.3f}" for name, value in board.detectable.items())
        yield f"Smallest difference to the best that one test alone finds in 80 % of repeats: {sizes}."
    if len(board.environments) > 1:
        short = ", ".join(name[:8] for name in board.environments)
        yield f"Costs come from {len(board.environments)} environments ({short}) and do not compare across them."
    if board.untested:
        untested = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in board.untested.items())
        yield f"Not tested, scores by query are missing or of other queries: {untested}."
    yield from (f"{caution[:1].upper()}{caution[1:]}." for caution in board.cautions)
    yield from (f"{remark}: {', '.join(labels)}." for remark, labels in board.remarks.items())
    yield from (f"Measured on {machine} ({name[:8]})." for name, machine in board.machines.items())


def _published(board: Board, published: Sequence[Beside]) -> Table:
    """Return a row for each published retriever that has a score on one of the board's datasets."""
    datasets = [name for name in board.datasets if any(name in figures.values for figures in published)]
    return Table(
        "Published, not measured here; in brackets: ours minus the published figure",
        [f"{board.metric}, published", *datasets, "ours"],
        [[row.retriever, *(_published_score(row, name) for name in datasets), row.ours or GAP] for row in published],
        [f"{row.retriever}: {'; '.join(row.sources)}." for row in published]
        or ["No figure for these datasets is in the table."],
    )


def _published_score(row: Beside, dataset: str) -> str:
    difference = f" ({row.differences[dataset]:+.4f})" if dataset in row.differences else ""
    return f"{score(row.values[dataset])}{difference}" if dataset in row.values else GAP


def _verdict(found: Recommendation) -> str:
    if found.difference is None:
        return "whether they differ cannot be tested: per-query scores are missing"
    delta, interval, p, _ = tested(found.difference)
    significant = found.difference.p < ALPHA
    verdict = "the difference is significant" if significant else "these queries do not tell them apart"
    return f"{verdict}: {delta} ({interval}), {p}"
