"""The page's note on methods, written from the records that it shows."""

from collections.abc import Iterable

from harness import stats
from harness.leaderboard import Board
from harness.leaderboard.page.data import Layout
from harness.leaderboard.table import score
from harness.types import Record


def notes(layout: Layout) -> list[tuple[str, list[str]]]:
    """Terms and what is said of them."""
    records = [record for _, own in sorted(layout.cells.items()) for record in own]
    return [
        ("Metrics", [_metrics(layout, records)]),
        ("Means", _means(layout)),
        ("Intervals", [_intervals(layout)]),
        ("Tests", _tests(layout)),
        ("Costs", _costs(records)),
        ("Environments", _environments(layout.first)),
        *([("Cautions", cautions)] if (cautions := _cautions(layout)) else []),
        *([("Remarks", remarks)] if (remarks := _remarks(layout)) else []),
    ]


def warnings(layout: Layout) -> list[str]:
    """What must be read before the figures."""
    found = sorted({name for board in layout.boards.values() for name in board.environments})
    if len(found) < 2:
        return []
    short = ", ".join(name[:8] for name in found)
    return [
        f"Costs come from {len(found)} environments ({short}) and do not compare across them; "
        "a Pareto front covers one environment."
    ]


def detectable(layout: Layout) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Metrics, and by dataset the smallest true difference to the best row that its queries find."""
    metrics = [metric for metric, board in layout.boards.items() if board.detectable]
    rows = []
    for name in layout.datasets:
        found = [layout.boards[metric].detectable.get(name) for metric in metrics]
        rows.append((name, ["\N{EN DASH}" if value is None else score(value) for value in found]))
    return metrics, rows if metrics else []


def _metrics(layout: Layout, records: Iterable[Record]) -> str:
    versions = _listed({record.metric_version for record in records})
    depths, seeds = _listed({record.k for record in records}), _listed({record.seed for record in records})
    return (
        f"{', '.join(layout.boards)}; version {versions} of their definitions. Each is the mean over a dataset's "
        f"queries that have a relevant document; a query without an answer scores 0. Every retriever was asked for "
        f"{depths} documents per query (k); seed {seeds}."
    )


def _means(layout: Layout) -> list[str]:
    """One line where all metrics' means cover the same datasets."""
    if not layout.means:
        return ["There is one dataset and no mean over datasets."]
    covered: dict[str, list[str]] = {}
    for metric, board in layout.boards.items():
        over = ", ".join(board.common) or "no dataset, for there is none that every row has"
        covered.setdefault(over, []).append(metric)
    return [
        f"Means{f' of {_listed(own)}' if len(covered) > 1 else ''} cover the datasets that every row has, each with "
        f"the same weight: {over}. Costs cover the same: queries/s and docs/s are all queries and documents over all "
        "seconds, p95 is over all queries that were timed alone, index MB is the largest."
        for over, own in covered.items()
    ] + ["A dataset in parts is the unweighted mean of its parts. A gap is never counted as 0."]


def _intervals(layout: Layout) -> str:
    cells = [cell for row in layout.first.rows for cell in row.cells.values()]
    if not any(cell.interval for cell in cells):
        return "None: no scores by query are kept."
    return (
        f"{100 * stats.LEVEL:.0f} % bootstrap percentile intervals of the mean, queries drawn with replacement within "
        f"their dataset, {stats.DRAWS:,} draws."
    )


def _tests(layout: Layout) -> list[str]:
    if not layout.first.tests:
        return ["None: no scores by query are kept, or there is nothing to compare."]
    counts = ", ".join(f"{board.tests} for {metric}" for metric, board in layout.boards.items() if board.tests)
    return [
        f"Two-sided paired randomisation over the queries: signs of the differences are flipped, {stats.DRAWS:,} "
        f"draws; exact where {stats.EXACT} or fewer queries differ.",
        f"Holm's correction over all comparisons shown: those with the best of each column ({counts}) are one family, "
        f"those with the chosen baseline another. A difference is significant when its adjusted p is below "
        f"{stats.ALPHA}. Searching and filtering change neither family.",
        f"In a family of more than {stats.ALPHA * stats.DRAWS:.0f} comparisons so many draws show no significance.",
    ]


def _costs(records: Iterable[Record]) -> list[str]:
    timings = [record.timing for record in records if record.timing is not None]
    if not timings:
        return ["Nothing was timed."]
    return [
        "queries/s: all queries in one batch, the median of the repeats. docs/s: indexing, encoding included. p95 ms: "
        "95th percentile of a query searched alone. index MB: the index as it is searched, 1 MB = 1,000,000 bytes. "
        f"Threads: {_listed({timing.threads for timing in timings})}."
    ]


def _environments(board: Board) -> list[str]:
    """Which rows were measured where."""
    said = []
    for name in board.environments:
        rows = [row.label for row in board.rows if any(record.environment == name for record in row.records)]
        machine = f" ({board.machines[name]})" if name in board.machines else ""
        said.append(f"{name[:8]}{machine}: {', '.join(rows)}.")
    return said


def _cautions(layout: Layout) -> list[str]:
    """What could not be tested, was left out, or differs between the rows."""
    first = layout.first
    said = [
        f"Not tested on {name}, scores by query are missing or of other queries: {', '.join(labels)}."
        for name, labels in first.untested.items()
    ]
    return said + [f"{caution[:1].upper()}{caution[1:]}." for caution in first.cautions]


def _remarks(layout: Layout) -> list[str]:
    found: dict[str, list[str]] = {}
    for board in layout.boards.values():
        for remark, labels in board.remarks.items():
            found.setdefault(remark, labels)
    return [f"{remark}: {', '.join(labels)}." for remark, labels in found.items()]


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted(values, key=str))
