"""Tables of the leaderboard: scores, costs, differences from a baseline, intervals, published scores, recommendations.

A score is marked if it is the best of its column or tied with the best; a cost, if its row is on the Pareto front of
quality and that cost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.leaderboard.model import AXES, EvaluationSummary, Leaderboard, Row
from harness.leaderboard.published import PublishedRow
from harness.leaderboard.recommend import Recommendation
from harness.leaderboard.table import (
    GAP,
    HEADINGS,
    Mark,
    Marked,
    Table,
    format_amount,
    format_cost,
    format_difference,
    format_score,
    format_share,
)
from harness.stats import ALPHA

_JUDGED_GAP = 0.05
"""Difference between the rows' shares of judged documents above which they are shown."""


def tables(leaderboard: Leaderboard, published: Sequence[PublishedRow] | None = None) -> list[Table]:
    """Return all tables of a `leaderboard`, including one of the `published` scores unless they are None."""
    result = [main_table(leaderboard)]
    if leaderboard.baseline is not None:
        rows = [row for row in leaderboard.rows if row.label != leaderboard.baseline]
        title = f"Against {leaderboard.baseline}: difference, adjusted p, queries won/tied/lost"
        result.append(_table_by_dataset(leaderboard, title, rows, _difference))
    if any(evaluation.interval for row in leaderboard.rows for evaluation in row.evaluations.values()):
        title = "95 % intervals of each mean alone; a difference is judged by its test"
        result.append(_table_by_dataset(leaderboard, title, leaderboard.rows, _interval))
    if any(row.intervals for row in leaderboard.rows):
        result.append(_cost_intervals(leaderboard))
    return result if published is None else [*result, _published_table(leaderboard, published)]


def main_table(leaderboard: Leaderboard) -> Table:
    """Return the main table: scores by dataset, their mean where there are several, and costs if any is known."""
    columns = columns_of(leaderboard)
    has_costs = any(getattr(row, axis) is not None for row in leaderboard.rows for axis in AXES)
    costs = [_costs(row) if has_costs else () for row in leaderboard.rows]
    return Table(
        "",
        [leaderboard.metric, *columns.values(), *(HEADINGS.values() if has_costs else ())],
        [
            [row.label, *(_score(row, name) for name in columns), *cells]
            for row, cells in zip(leaderboard.rows, costs, strict=True)
        ],
        [*_notes(leaderboard)],
        _legend(leaderboard),
    )


def recommendation(recommended: Recommendation) -> Table:
    """Return a table of the best row and the runner-up, with notes on their difference and the excluded rows."""
    leaderboard, best, runner_up = recommended.leaderboard, recommended.best, recommended.runner_up
    rows = [best, *([runner_up] if runner_up else [])]
    second = f"runner-up {runner_up.label}" if runner_up else "no other retriever is within the limits"
    notes = [_verdict(recommended)] if runner_up else []
    notes += [f"left out {label}: {reason}" for label, reason in recommended.excluded.items()]
    notes += [f"{label}: {note}" for label, note in recommended.uncertain.items()]
    if len(leaderboard.environments) > 1:
        notes.append(f"costs come from {len(leaderboard.environments)} environments and do not compare across them")
    costs = {row.label: [format_cost(row, axis) for axis in AXES] for row in rows}
    return Table(
        f"take {best.label}; {second}",
        [leaderboard.metric, "mean", *HEADINGS.values()],
        [[row.label, format_score(row.mean or 0.0), *costs[row.label]] for row in rows],
        [*notes, f"mean over {', '.join(leaderboard.common)}", *family_notes(leaderboard), *judged_notes(leaderboard)],
    )


def evaluation_of(row: Row, dataset: str | None) -> EvaluationSummary | None:
    """Return the evaluation of a `row` on a `dataset`, or its mean over datasets if that is None."""
    return row.overall if dataset is None else row.evaluations.get(dataset)


def columns_of(leaderboard: Leaderboard) -> dict[str | None, str]:
    """Return the headings of the score columns by dataset; None stands for the mean over several."""
    datasets = leaderboard.datasets
    return {**{name: name for name in datasets}, **({None: "mean"} if len(datasets) > 1 else {})}


def _table_by_dataset(
    leaderboard: Leaderboard, title: str, rows: Iterable[Row], text: Callable[[EvaluationSummary], str]
) -> Table:
    columns = columns_of(leaderboard)
    texts = [
        [row.label, *(text(each) if (each := evaluation_of(row, name)) else GAP for name in columns)] for row in rows
    ]
    return Table(title, [leaderboard.metric, *columns.values()], texts)


def _difference(evaluation: EvaluationSummary) -> str:
    delta, _, p, counts = format_difference(evaluation.versus)
    return f"{delta} {p} {counts}" if evaluation.versus else GAP


def _interval(evaluation: EvaluationSummary) -> str:
    return "{:.4f} to {:.4f}".format(*evaluation.interval) if evaluation.interval else GAP


def _cost_intervals(leaderboard: Leaderboard) -> Table:
    """Return a table of the intervals of the timed costs, each with the number of samples that it rests on."""
    axes = [axis for axis in HEADINGS if any(axis in row.samples for row in leaderboard.rows)]
    rows = [[row.label, *(_cost_interval(row, axis) for axis in axes)] for row in leaderboard.rows if row.samples]
    title = "95 % intervals of the costs, in brackets the number of samples; one sample has no interval"
    return Table(title, [leaderboard.metric, *(HEADINGS[axis] for axis in axes)], rows)


def _cost_interval(row: Row, axis: str) -> str:
    if axis not in row.samples:
        return GAP
    ends = row.intervals.get(axis)
    return f"{f'{format_amount(ends.low)} to {format_amount(ends.high)} ' if ends else ''}({row.samples[axis]})"


def _score(row: Row, dataset: str | None) -> str | Marked:
    evaluation = evaluation_of(row, dataset)
    if dataset in row.failed or evaluation is None:
        return "failed" if dataset in row.failed else GAP
    mark: Mark | None = "best" if evaluation.best else "tied" if evaluation.tied_with_best else None
    note = format_share(evaluation.best_share) if evaluation.best else ""
    return Marked(format_score(evaluation.value), mark, note) if mark else format_score(evaluation.value)


def _costs(row: Row) -> Iterator[str | Marked]:
    for axis in AXES:
        text = format_cost(row, axis)
        yield Marked(text, "front") if axis in row.front else text


def _legend(leaderboard: Leaderboard) -> dict[Mark, str]:
    legend: dict[Mark, str] = {}
    if any(evaluation.best for row in leaderboard.rows for evaluation in row.evaluations.values()):
        legend["best"] = "best of its column (in brackets: share of the resamples of its queries in which it is)"
    if leaderboard.family and leaderboard.family.size:
        legend["tied"] = "tied with the best: not significantly worse"
    if any(row.front for row in leaderboard.rows):
        legend["front"] = "on the Pareto front: no row here is both better and, beyond the intervals, cheaper in this"
    return legend


def judged_notes(leaderboard: Leaderboard) -> Iterator[str]:
    """Yield the share of judged documents among each row's first ten, where it differs between rows."""
    shares = leaderboard.judged
    if shares and max(shares.values()) - min(shares.values()) > _JUDGED_GAP + 1e-9:
        listed = ", ".join(f"{label} {format_share(share)}" for label, share in shares.items())
        yield f"Judged among the first ten: {listed}; documents that are not judged count as not relevant."


def family_notes(leaderboard: Leaderboard) -> Iterator[str]:
    """Yield the families of comparisons in which p-values and intervals of differences are adjusted."""
    for family in (leaderboard.family, leaderboard.means_family):
        if family and family.size:
            yield (
                f"Tests: {family.method}, one family of {family}; 5 % for a false difference to the best of a column, "
                "5 % for one between other rows."
            )


def _notes(leaderboard: Leaderboard) -> Iterator[str]:
    """Yield the datasets of the means, the sources of the costs, and the limits of the comparisons."""
    yield from family_notes(leaderboard)
    yield from judged_notes(leaderboard)
    if len(leaderboard.datasets) > 1:
        datasets = ", ".join(leaderboard.common) if leaderboard.common else "no dataset that every row has"
        yield f"Mean and costs over: {datasets}; index MB is the largest of them."
    if leaderboard.detectable:
        effects = ", ".join(f"{name} {value:.3f}" for name, value in leaderboard.detectable.items())
        yield f"Minimum detectable effect against the best (one unadjusted test, 80 % power): {effects}."
    if len(leaderboard.environments) > 1:
        names = ", ".join(name[:8] for name in leaderboard.environments)
        yield f"Costs come from {len(leaderboard.environments)} environments ({names}) and do not compare across them."
    if leaderboard.untested:
        untested = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in leaderboard.untested.items())
        yield f"Not tested, because per-query scores are missing or of other queries: {untested}."
    yield from (f"{caution[:1].upper()}{caution[1:]}." for caution in leaderboard.cautions)
    yield from (f"{remark}: {', '.join(labels)}." for remark, labels in leaderboard.remarks.items())
    yield from (f"Measured on {machine} ({name[:8]})." for name, machine in leaderboard.machines.items())


def _published_table(leaderboard: Leaderboard, published: Sequence[PublishedRow]) -> Table:
    """Return a row for each published retriever that has a score on one of the leaderboard's datasets."""
    datasets = [name for name in leaderboard.datasets if any(name in row.values for row in published)]
    return Table(
        "Published, not measured here; in brackets: ours minus the published score",
        [f"{leaderboard.metric}, published", *datasets, "ours"],
        [
            [row.retriever, *(_published_score(row, name) for name in datasets), row.measured_label or GAP]
            for row in published
        ],
        [f"{row.retriever}: {'; '.join(row.sources)}." for row in published]
        or ["The table has no published score for these datasets."],
    )


def _published_score(row: PublishedRow, dataset: str) -> str:
    difference = f" ({row.differences[dataset]:+.4f})" if dataset in row.differences else ""
    return f"{format_score(row.values[dataset])}{difference}" if dataset in row.values else GAP


def _verdict(recommended: Recommendation) -> str:
    if recommended.difference is None:
        return "the difference cannot be tested: per-query scores are missing"
    delta, interval, p, _ = format_difference(recommended.difference)
    significant = recommended.difference.p < ALPHA
    verdict = "the difference is significant" if significant else "the difference is not significant"
    return f"{verdict}: {delta} ({interval}), {p}"
