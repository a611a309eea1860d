"""Per-query scores of an evaluation on both sides of the gate, paired by query."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.gate.matching import Pair
from harness.leaderboard import Difference, Scores
from harness.leaderboard.significance import describe
from harness.simultaneous import compare_all


class PartScores(NamedTuple):
    """Scores of one part's queries on both sides."""

    query_ids: list[str]
    before: NDArray[np.float64]
    """The baseline's score of each query."""
    after: NDArray[np.float64]
    """The newest record's score of each query."""


@dataclass(frozen=True)
class PairScores:
    """A pair's per-query scores of one metric."""

    strata: list[tuple[float, NDArray[np.float64]]]
    """For each part its weight and the candidate's minus the baseline's scores [queries, 1]."""
    parts: list[str]
    """Names of the datasets, or parts of one, of the strata."""
    before: float
    after: float

    @property
    def identical(self) -> bool:
        """True if no query's score changed."""
        return not any(values.any() for _, values in self.strata)


def pair_scores(pair: Pair, metric: str, before: Scores, after: Scores) -> PairScores | str:
    """Return the paired scores of both sides, or the reason why they cannot be compared.

    Args:
        pair: The evaluation.
        metric: The metric's name.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
    """
    parts = part_scores(pair, metric, before, after)
    if isinstance(parts, str):
        return parts
    weight = 1.0 / len(parts)
    return PairScores(
        [(weight, (part.after - part.before)[:, None]) for part in parts],
        [record.dataset.name for record in pair.before],
        sum(weight * float(part.before.mean()) for part in parts),
        sum(weight * float(part.after.mean()) for part in parts),
    )


def compare_scores(pairs: Sequence[PairScores], alpha: float) -> list[Difference]:
    """Return the candidate minus the baseline of each pair; all of them are one family of comparisons.

    Args:
        pairs: Paired scores, of any evaluations and metrics.
        alpha: Probability of at least one false difference in the family.
    """
    numbers: dict[str, int] = {}
    seeds = [[numbers.setdefault(part, len(numbers)) for part in scores.parts] for scores in pairs]
    columns = [
        [(weight, np.hstack([np.zeros_like(values), values])) for weight, values in scores.strata] for scores in pairs
    ]
    return [
        describe(tests, 0, 1, [values[:, 0] for _, values in scores.strata])
        for scores, tests in zip(pairs, compare_all(columns, seeds, alpha=alpha), strict=True)
    ]


def part_scores(pair: Pair, metric: str, before: Scores, after: Scores) -> list[PartScores] | str:
    """Return the scores of each part of an evaluation, or the reason why they cannot be compared.

    Args:
        pair: The evaluation.
        metric: The metric's name.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
    """
    parts = []
    for old, new in zip(pair.before, pair.after, strict=True):
        old_scores, new_scores = before.get(old.files.per_query or ""), after.get(new.files.per_query or "")
        if old_scores is None or new_scores is None:
            return f"{'the baseline' if old_scores is None else 'the newest record'} has no per-query scores"
        for scores, side in ((old_scores, "the baseline"), (new_scores, "the newest record")):
            if metric not in scores.values:
                return f"{side} has no {metric}; it has {', '.join(scores.values)}"
        if sorted(old_scores.query_ids) != sorted(new_scores.query_ids):
            return (
                f"the judged queries differ: {len(old_scores.query_ids)} in the baseline, "
                f"{len(new_scores.query_ids)} now, {len({*old_scores.query_ids} & {*new_scores.query_ids})} in both"
            )
        new_rows = {query: row for row, query in enumerate(new_scores.query_ids)}
        old_values = old_scores.values[metric]
        new_values = new_scores.values[metric][[new_rows[query] for query in old_scores.query_ids]]
        if not len(old_values) or not np.isfinite(old_values).all() or not np.isfinite(new_values).all():
            return "a score is not a number" if len(old_values) else "there is no judged query"
        parts.append(PartScores(list(old_scores.query_ids), old_values, new_values))
    return parts


def common_metrics(pair: Pair, before: Scores, after: Scores) -> list[str]:
    """Return the metrics that every record of an evaluation has, on both sides.

    Args:
        pair: The evaluation.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
    """
    sides = ((before, pair.before), (after, pair.after))
    per_query = [scores.get(record.files.per_query or "") for scores, records in sides for record in records]
    names = [{} if each is None else each.values for each in per_query]
    return [name for name in names[0] if all(name in each for each in names)]


def is_measured(pair: Pair, metric: str, before: Scores, after: Scores) -> bool:
    """Return True if a record of an evaluation has a metric, on either side.

    Args:
        pair: The evaluation.
        metric: The metric's name.
        before: Per-query scores of the baseline.
        after: Per-query scores of the newest records.
    """
    sides = ((before, pair.before), (after, pair.after))
    per_query = [scores.get(record.files.per_query or "") for scores, records in sides for record in records]
    return any(each is not None and metric in each.values for each in per_query)
