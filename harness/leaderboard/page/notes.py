"""The page's notes on methods, written from the records that it shows."""

from collections.abc import Iterable

from harness import stats
from harness.leaderboard import Leaderboard
from harness.leaderboard.page.data import PageLayout
from harness.leaderboard.table import format_score
from harness.leaderboard.tables.leaderboard import judged_notes
from harness.types import Record


def notes(layout: PageLayout) -> list[tuple[str, list[str]]]:
    """Return terms, each with its paragraphs."""
    records = [record for _, parts in sorted(layout.records.items()) for record in parts]
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


def warnings(layout: PageLayout) -> list[str]:
    """Return the warnings to show above the table."""
    environments = sorted({name for leaderboard in layout.leaderboards.values() for name in leaderboard.environments})
    judged = list(judged_notes(layout.first))
    if len(environments) < 2:
        return judged
    names = ", ".join(name[:8] for name in environments)
    return [
        *judged,
        f"Costs come from {len(environments)} environments ({names}) and do not compare across them; "
        "a Pareto front covers one environment.",
    ]


def detectable(layout: PageLayout) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return metrics, and by dataset the minimum detectable effect of each metric against the best row."""
    metrics = [metric for metric, leaderboard in layout.leaderboards.items() if leaderboard.detectable]
    rows = []
    for name in layout.datasets:
        effects = [layout.leaderboards[metric].detectable.get(name) for metric in metrics]
        rows.append((name, ["\N{EN DASH}" if value is None else format_score(value) for value in effects]))
    return metrics, rows if metrics else []


def _metrics(layout: PageLayout, records: Iterable[Record]) -> str:
    versions = _join({record.metric_version for record in records})
    depths, seeds = _join({record.k for record in records}), _join({record.seed for record in records})
    return (
        f"{', '.join(layout.leaderboards)}; version {versions} of their definitions. Each is the mean over a dataset's "
        f"queries that have a relevant document; a query without hits scores 0. Every retriever returned up to "
        f"{depths} documents per query (k); seed {seeds}."
    )


def _means(layout: PageLayout) -> list[str]:
    """Return one paragraph for the metrics whose means cover the same datasets."""
    if not layout.has_means:
        return ["There is one dataset and no mean over datasets."]
    metrics_by_coverage: dict[str, list[str]] = {}
    for metric, leaderboard in layout.leaderboards.items():
        coverage = ", ".join(leaderboard.common) or "none, because no dataset has every row"
        metrics_by_coverage.setdefault(coverage, []).append(metric)
    return [
        f"Means{f' of {_join(metrics)}' if len(metrics_by_coverage) > 1 else ''} cover the datasets that every row "
        f"has, each with the same weight: {coverage}. Costs cover the same: queries/s and docs/s are all queries and "
        "documents over all seconds, p95 counts each dataset alike, index MB is the largest."
        for coverage, metrics in metrics_by_coverage.items()
    ] + ["A dataset in parts is the unweighted mean of its parts. A gap is never counted as 0."]


def _intervals(layout: PageLayout) -> str:
    evaluations = [evaluation for row in layout.first.rows for evaluation in row.evaluations.values()]
    if not any(evaluation.interval for evaluation in evaluations):
        return "None: per-query scores are not stored."
    return (
        f"{100 * stats.LEVEL:.0f} % intervals of each mean alone (Gaffke 2005), from {stats.DRAWS:,} random weightings "
        "of a dataset's queries; they hold for few queries and for scores near 0 and 1. The share beside the best of a "
        "column is that of the weightings in which it has the highest mean."
    )


def _tests(layout: PageLayout) -> list[str]:
    families = {
        metric: [family for family in (each.family, each.means_family) if family and family.size]
        for metric, each in layout.leaderboards.items()
    }
    sizes = [f"{metric}: {family}" for metric, metric_families in families.items() for family in metric_families]
    if not sizes:
        return ["None: per-query scores are not stored, or there is nothing to compare."]
    return [
        f"Two-sided paired randomisation over the queries: signs of the differences are flipped, {stats.DRAWS:,} "
        f"draws. The comparisons of a metric are one family ({'; '.join(sizes)}), whose p-values are adjusted by the "
        "largest statistic of each draw, step by step (max-T; Westfall & Young 1993, Romano & Wolf 2005): with "
        f"{100 * (1 - stats.ALPHA):.0f} % probability no row is falsely worse than the best, and with the same "
        "probability no difference between other rows is falsely significant. Searching, sorting and "
        f"choosing a baseline change no p-value. A difference is significant when its p is below {stats.ALPHA}.",
    ]


def _costs(records: Iterable[Record]) -> list[str]:
    timings = [record.timing for record in records if record.timing is not None]
    if not timings:
        return ["Nothing was timed."]
    return [
        "queries/s: throughput of all queries in one batch, the median of the repeats. docs/s: indexing throughput, "
        "encoding included. p95 ms: 95th percentile of single-query latency. index MB: size of the index as it is "
        f"searched, 1 MB = 1,000,000 bytes. Threads: {_join({timing.threads for timing in timings})}."
    ]


def _environments(leaderboard: Leaderboard) -> list[str]:
    """Return the rows that were measured in each environment."""
    paragraphs = []
    for name in leaderboard.environments:
        rows = [row.label for row in leaderboard.rows if any(record.environment == name for record in row.records)]
        machine = f" ({leaderboard.machines[name]})" if name in leaderboard.machines else ""
        paragraphs.append(f"{name[:8]}{machine}: {', '.join(rows)}.")
    return paragraphs


def _cautions(layout: PageLayout) -> list[str]:
    """Return the rows that could not be tested, and the first leaderboard's cautions."""
    first = layout.first
    untested = [
        f"Not tested on {name}, because per-query scores are missing or of other queries: {', '.join(labels)}."
        for name, labels in first.untested.items()
    ]
    return untested + [f"{caution[:1].upper()}{caution[1:]}." for caution in first.cautions]


def _remarks(layout: PageLayout) -> list[str]:
    labels_by_remark: dict[str, list[str]] = {}
    for leaderboard in layout.leaderboards.values():
        for remark, labels in leaderboard.remarks.items():
            labels_by_remark.setdefault(remark, labels)
    return [f"{remark}: {', '.join(labels)}." for remark, labels in labels_by_remark.items()]


def _join(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in sorted(values, key=str))
