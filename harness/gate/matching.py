"""Match the baseline's evaluations with their newest records, and decide which can be compared.

An evaluation is identified by the labels of its retriever and dataset; a dataset in parts (CQADupStack's forums) is one
evaluation with all its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.leaderboard import Scores
from harness.types import Record

Key = tuple[str, str]
"""Labels of an evaluation's retriever and dataset."""


@dataclass(frozen=True)
class Pair:
    """One evaluation, part by part: its accepted and its newest records."""

    retriever: str
    dataset: str
    before: tuple[Record, ...]
    after: tuple[Record, ...]
    cost_records: tuple[Record, ...]
    """As `after`, but measured with the baseline's number of threads where the same code has such a record."""

    @property
    def key(self) -> Key:
        """Retriever and dataset."""
        return self.retriever, self.dataset

    @property
    def names(self) -> list[str]:
        """Names under which a policy may have rules for the dataset: its label, name and group."""
        info = self.before[0].dataset
        return [self.dataset, info.label, info.name, *([info.group] if info.group else [])]

    @property
    def command(self) -> str:
        """Commands that repeat the evaluation."""
        return " && ".join(record.command for record in self.after)


@dataclass(frozen=True)
class Undecided:
    """An evaluation that cannot be compared."""

    retriever: str
    dataset: str
    reason: str
    command: str


@dataclass(frozen=True)
class Matched:
    """The evaluations of the baseline and of the newest records."""

    pairs: list[Pair] = field(default_factory=list)
    """In both, and comparable."""
    undecided: list[Undecided] = field(default_factory=list)
    """In the baseline, and not comparable."""
    new: list[Key] = field(default_factory=list)
    """Not in the baseline."""
    failed: list[Undecided] = field(default_factory=list)
    """Not in the baseline, and every record failed."""

    @property
    def candidates(self) -> list[Record]:
        """Newest records, whose scores are compared with the baseline's."""
        return [record for pair in self.pairs for record in pair.after]


def key_of(record: Record) -> Key:
    """Return the evaluation that a record belongs to."""
    info = record.dataset
    dataset = info.label if info.group is None else info.label.replace(info.name, info.group, 1)
    return record.retriever.label, dataset


def group_by_evaluation(records: Sequence[Record]) -> dict[Key, dict[str, list[Record]]]:
    """Return the records by evaluation and part of the dataset, the newest first."""
    groups: dict[Key, dict[str, list[Record]]] = {}
    for record in sorted(records, key=lambda record: record.started, reverse=True):
        groups.setdefault(key_of(record), {}).setdefault(record.dataset.name, []).append(record)
    return groups


def select_newest(attempts: Sequence[Record], **preferred: int) -> Record:
    """Return the newest record with the preferred values, or the newest one.

    Records of other code, config, dataset or environment than the newest are not considered.

    Args:
        attempts: Records of one evaluation, the newest first.
        **preferred: Preferred values of `k` and `threads`.
    """
    newest = attempts[0]
    if newest.status != "ok":
        return newest
    same = [record for record in attempts if record.status == "ok" and _identity(record) == _identity(newest)]
    return next((record for record in same if preferred.items() <= _settings(record).items()), newest)


def _identity(record: Record) -> tuple[object, ...]:
    return record.code, record.retriever.config, record.dataset.fingerprint, record.environment


def _settings(record: Record) -> dict[str, int]:
    return {"k": record.k, **({"threads": record.timing.threads} if record.timing else {})}


def match_records(baseline: Sequence[Record], candidates: Sequence[Record]) -> Matched:
    """Match every evaluation of the baseline with the newest records of the same retriever and dataset.

    Args:
        baseline: Records of the baseline.
        candidates: Measured records; `select_newest` chooses one of each evaluation.
    """
    accepted, measured, matched = group_by_evaluation(baseline), group_by_evaluation(candidates), Matched()
    for key, parts in sorted(accepted.items()):
        before = tuple(records[0] for _, records in sorted(parts.items()))
        attempts = [measured.get(key, {}).get(record.dataset.name, []) for record in before]
        pairs = [(old, records) for old, records in zip(before, attempts, strict=True) if records]
        after = tuple(select_newest(records, k=old.k) for old, records in pairs)
        costs = tuple(
            select_newest(records, k=old.k, threads=old.timing.threads if old.timing else 0) for old, records in pairs
        )
        if (reason := _not_comparable(before, after)) is None:
            matched.pairs.append(Pair(*key, before, after, costs))
        else:
            command = " && ".join(record.command for record in before)
            matched.undecided.append(Undecided(*key, reason, command))
    for key in sorted(measured.keys() - accepted.keys()):
        newest = [records[0] for records in measured[key].values()]
        if any(record.status == "ok" for record in newest):
            matched.new.append(key)
        else:
            matched.failed.append(Undecided(*key, _failure(newest[0]), newest[0].command))
    return matched


def _failure(record: Record) -> str:
    return f"its newest try failed: {(record.error or '').partition(chr(10))[0]}"


def _not_comparable(before: Sequence[Record], after: Sequence[Record]) -> str | None:
    """Return the reason why two evaluations cannot be compared; None where they can."""
    if not after:
        return "it was not measured"
    if len(after) < len(before):
        missing = sorted({record.dataset.name for record in before} - {record.dataset.name for record in after})
        return f"{', '.join(missing)} was not measured"
    for old, new in zip(before, after, strict=True):
        if new.status != "ok":
            return _failure(new)
        for name, was, now in (
            ("the dataset", old.dataset.fingerprint, new.dataset.fingerprint),
            ("k", old.k, new.k),
            ("the metrics' version", old.metric_version, new.metric_version),
        ):
            if was != now:
                return f"{name} differs: {was} in the baseline, {now} now"
    return None


@dataclass(frozen=True)
class PairScores:
    """A pair's per-query scores of one metric."""

    strata: list[tuple[float, NDArray[np.float64]]]
    """For each part its weight and the candidate's minus the baseline's scores [queries, 1]."""
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
    strata, means, weight = [], [0.0, 0.0], 1.0 / len(pair.before)
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
        strata.append((weight, (new_values - old_values)[:, None]))
        sides = zip(means, (old_values, new_values), strict=True)
        means = [mean + weight * float(values.mean()) for mean, values in sides]
    return PairScores(strata, *means)
