"""Marks of a leaderboard's figures: intervals, the best of each column and what is tied with it, and differences."""

from dataclasses import replace

from harness import stats
from harness.leaderboard.model import MEANS, EvaluationSummary, Leaderboard, Row, Scores
from harness.leaderboard.significance import ColumnTests, score_column
from harness.metrics import is_coverage

_EQUAL = 1e-12
"""Difference below which two means are equal: they may be sums of the same scores in another order."""
_Summaries = dict[str, EvaluationSummary]
"""Evaluations of a column, by row label."""


def mark(leaderboard: Leaderboard, scores: Scores | None) -> Leaderboard:
    """Return the leaderboard with intervals, marks and differences, which are read from its family of comparisons.

    Args:
        leaderboard: A leaderboard without marks.
        scores: Per-query scores; without them only the best is marked, and nothing counts as untested.
    """
    names = [*leaderboard.datasets, *([MEANS] if leaderboard.common and len(leaderboard.datasets) > 1 else [])]
    columns = {name: _marked(leaderboard, name, scores) for name in names}
    rows = [
        replace(
            row,
            evaluations={name: columns[name][row.label] for name in row.evaluations},
            overall=columns.get(MEANS, {}).get(row.label, row.overall),
        )
        for row in leaderboard.rows
    ]
    untested: dict[str, list[str]] = {}
    detectable: dict[str, float] = {}
    for name in leaderboard.datasets:
        tests = leaderboard.column_tests(name)
        best = _best(columns[name], tests)
        if scores is not None and (labels := _untested(columns[name])) and not is_coverage(leaderboard.metric):
            untested[name] = labels
        if tests and best and (effect := tests.minimum_detectable_effect(best)) is not None:
            detectable[name] = effect
    return replace(leaderboard, rows=rows, detectable=detectable, untested=untested)


def _marked(leaderboard: Leaderboard, name: str, scores: Scores | None) -> _Summaries:
    """Return the marked evaluations of a column."""
    summaries = {row.label: each for row in leaderboard.rows if (each := _evaluation(row, name)) is not None}
    if not is_coverage(leaderboard.metric) and len(summaries) > 1:
        highest = max(each.value for each in summaries.values())
        summaries = {label: replace(each, best=each.value >= highest - _EQUAL) for label, each in summaries.items()}
    summaries = _with_intervals(leaderboard, name, summaries, scores or {})
    tests = leaderboard.column_tests(name)
    best = _best(summaries, tests)
    if tests and best:
        for label, each in summaries.items():
            if not each.best and (is_worse := tests.is_worse(label, best)) is not None:
                summaries[label] = replace(each, tied_with_best=not is_worse)
    if leaderboard.baseline is not None:
        for label, each in summaries.items():
            summaries[label] = replace(each, versus=leaderboard.difference(leaderboard.baseline, label, name))
    return summaries


def _with_intervals(leaderboard: Leaderboard, name: str, summaries: _Summaries, scores: Scores) -> _Summaries:
    """Return the evaluations with their intervals and the shares of resamples in which each is the best."""
    if not scores:
        return summaries
    datasets = leaderboard.common if name == MEANS else [name]
    evaluations = {row.label: row.evaluations for row in leaderboard.rows}
    column = score_column(evaluations, datasets, leaderboard.metric, scores)
    if column is None:
        return summaries
    resampled = stats.resample(column.strata)
    result = dict(summaries)
    has_best = any(each.best for each in summaries.values())
    for label, low, high, share in zip(column.labels, *resampled, strict=True):
        best_share = float(share) if has_best else None
        result[label] = replace(summaries[label], interval=(float(low), float(high)), best_share=best_share)
    return result


def _evaluation(row: Row, name: str) -> EvaluationSummary | None:
    return row.overall if name == MEANS else row.evaluations.get(name)


def _best(summaries: _Summaries, tests: ColumnTests | None) -> str | None:
    """Return a row that is the best of a column: of several, the one that is tested as the best; None without any."""
    best = [label for label, each in summaries.items() if each.best]
    if tests and tests.best in best:
        return tests.best
    return next((label for label in best if summaries[label].interval), next(iter(best), None))


def _untested(summaries: _Summaries) -> list[str]:
    """Return the rows of a column with several that are not the best and were not tested."""
    if len(summaries) < 2:
        return []
    return [label for label, each in summaries.items() if not each.best and each.tied_with_best is None]
