"""Baseline cells beside the newest ones, and whether the two can be compared at all.

A cell is a retriever's label on a dataset's; a dataset in parts (CQADupStack's forums) is one cell with all its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.leaderboard import Scores
from harness.types import Record

Key = tuple[str, str]


@dataclass(frozen=True)
class Pair:
    """One cell, part by part: what was accepted and what was measured last."""

    retriever: str
    dataset: str
    before: tuple[Record, ...]
    after: tuple[Record, ...]
    costs: tuple[Record, ...]
    """As `after`, measured with the baseline's number of threads where there is such a record by the same code."""

    @property
    def key(self) -> Key:
        """Retriever and dataset."""
        return self.retriever, self.dataset

    @property
    def names(self) -> list[str]:
        """The dataset's label, then its name and group: what a rule may call it."""
        own = self.before[0].dataset
        return [self.dataset, own.label, own.name, *([own.group] if own.group else [])]

    @property
    def command(self) -> str:
        """The commands that measure the cell again."""
        return " && ".join(record.command for record in self.after)


@dataclass(frozen=True)
class Undecided:
    """A cell of the baseline that cannot be compared, and why."""

    retriever: str
    dataset: str
    why: str
    command: str


@dataclass(frozen=True)
class Matched:
    """The baseline's cells: those that can be compared and those that cannot; and cells that it lacks.

    Of the latter `failed` are those that were tried and gave nothing.
    """

    pairs: list[Pair] = field(default_factory=list)
    undecided: list[Undecided] = field(default_factory=list)
    new: list[Key] = field(default_factory=list)
    failed: list[Undecided] = field(default_factory=list)

    @property
    def candidates(self) -> list[Record]:
        """The records whose scores are compared."""
        return [record for pair in self.pairs for record in pair.after]


def key_of(record: Record) -> Key:
    """The cell that a record belongs to."""
    info = record.dataset
    dataset = info.label if info.group is None else info.label.replace(info.name, info.group, 1)
    return record.retriever.label, dataset


def by_cell(records: Sequence[Record]) -> dict[Key, dict[str, list[Record]]]:
    """By cell and part, the records of every try, the newest first."""
    found: dict[Key, dict[str, list[Record]]] = {}
    for record in sorted(records, key=lambda own: own.started, reverse=True):
        found.setdefault(key_of(record), {}).setdefault(record.dataset.name, []).append(record)
    return found


def alike(tries: Sequence[Record], **wanted: int) -> Record:
    """The newest of some tries, or the newest by the same code and config on the same collection that has `wanted`.

    `wanted` may name `k` and `threads`.
    """
    newest = tries[0]
    if newest.status != "ok":
        return newest
    same = [own for own in tries if own.status == "ok" and _identity(own) == _identity(newest)]
    return next((own for own in same if wanted.items() <= _shape(own).items()), newest)


def _identity(record: Record) -> tuple[object, ...]:
    return record.code, record.retriever.config, record.dataset.fingerprint, record.environment


def _shape(record: Record) -> dict[str, int]:
    return {"k": record.k, **({"threads": record.timing.threads} if record.timing else {})}


def matched(baseline: Sequence[Record], candidates: Sequence[Record]) -> Matched:
    """Every cell of the baseline beside the newest records of the same retriever and dataset."""
    held, found, told = by_cell(baseline), by_cell(candidates), Matched()
    for key, parts in sorted(held.items()):
        before = tuple(own[0] for _, own in sorted(parts.items()))
        tries = [found.get(key, {}).get(record.dataset.name, []) for record in before]
        pairs = [(old, own) for old, own in zip(before, tries, strict=True) if own]
        after = tuple(alike(own, k=old.k) for old, own in pairs)
        costs = tuple(alike(own, k=old.k, threads=old.timing.threads if old.timing else 0) for old, own in pairs)
        if (why := _why_not(before, after)) is None:
            told.pairs.append(Pair(*key, before, after, costs))
        else:
            command = " && ".join(record.command for record in before)
            told.undecided.append(Undecided(*key, why, command))
    for key in sorted(found.keys() - held.keys()):
        newest = [own[0] for own in found[key].values()]
        if any(own.status == "ok" for own in newest):
            told.new.append(key)
        else:
            told.failed.append(Undecided(*key, _failure(newest[0]), newest[0].command))
    return told


def _failure(record: Record) -> str:
    return f"its newest try failed: {(record.error or '').partition(chr(10))[0]}"


def _why_not(before: Sequence[Record], after: Sequence[Record]) -> str | None:
    """Why two cells cannot be compared; None when they can."""
    if not after:
        return "it was not measured"
    if len(after) < len(before):
        lacking = sorted({one.dataset.name for one in before} - {one.dataset.name for one in after})
        return f"{', '.join(lacking)} was not measured"
    for old, new in zip(before, after, strict=True):
        if new.status != "ok":
            return _failure(new)
        for what, was, now in (
            ("the collection", old.dataset.fingerprint, new.dataset.fingerprint),
            ("k", old.k, new.k),
            ("the metrics' version", old.metric_version, new.metric_version),
        ):
            if was != now:
                return f"{what} differs: {was} in the baseline, {now} now"
    return None


@dataclass(frozen=True)
class Scored:
    """A pair's per-query scores of one metric."""

    strata: list[tuple[float, NDArray[np.float64]]]
    """For each part its weight and the candidate's minus the baseline's scores [queries, 1]."""
    before: float
    after: float

    @property
    def identical(self) -> bool:
        """Every query has the score that it had."""
        return not any(values.any() for _, values in self.strata)


def scored(pair: Pair, metric: str, before: Scores, after: Scores) -> Scored | str:
    """The scores of both sides, or why they cannot be compared."""
    strata, totals, weight = [], [0.0, 0.0], 1.0 / len(pair.before)
    for old, new in zip(pair.before, pair.after, strict=True):
        ours, theirs = (own.get(one.files.per_query or "") for own, one in ((before, old), (after, new)))
        if ours is None or theirs is None:
            return f"{'the baseline' if ours is None else 'the newest record'} has no per-query scores"
        for held, side in ((ours, "the baseline"), (theirs, "the newest record")):
            if metric not in held.values:
                return f"{side} has no {metric}; it has {', '.join(held.values)}"
        if sorted(ours.query_ids) != sorted(theirs.query_ids):
            return (
                f"the judged queries differ: {len(ours.query_ids)} in the baseline, {len(theirs.query_ids)} now, "
                f"{len({*ours.query_ids} & {*theirs.query_ids})} in both"
            )
        place = {query: row for row, query in enumerate(theirs.query_ids)}
        own, his = ours.values[metric], theirs.values[metric][[place[query] for query in ours.query_ids]]
        if not len(own) or not np.isfinite(own).all() or not np.isfinite(his).all():
            return "a score is not a number" if len(own) else "there is no judged query"
        strata.append((weight, (his - own)[:, None]))
        totals = [total + weight * float(values.mean()) for total, values in zip(totals, (own, his), strict=True)]
    return Scored(strata, *totals)
