"""Match the baseline's evaluations with their newest records, and decide which can be compared.

An evaluation is identified by the labels of its retriever and dataset; a dataset in parts (CQADupStack's forums) is one
evaluation with all its parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.gate.findings import MACRO, Status
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
class Uncompared:
    """An evaluation that is not compared with the baseline, or only if undecided checks are allowed."""

    status: Status
    retriever: str
    dataset: str
    reason: str
    command: str
    records: tuple[Record, ...] = ()
    """Its newest records, if there are any."""
    dataset_differs: bool = False


@dataclass(frozen=True)
class Matched:
    """The evaluations of the baseline and of the newest records."""

    pairs: list[Pair] = field(default_factory=list)
    """In both, and comparable."""
    uncompared: list[Uncompared] = field(default_factory=list)
    """Not comparable, not measured or failed."""
    new: list[Key] = field(default_factory=list)
    """Not in the baseline."""
    selected: frozenset[Key] | None = None
    """Evaluations whose findings are reported; None: all of them. The tests of all evaluations are one family."""

    def is_selected(self, key: Key) -> bool:
        """Return True if the findings of an evaluation are reported.

        The findings of a retriever's mean over its datasets are, if those of all its evaluations are.

        Args:
            key: Labels of the retriever and of the dataset, or `MACRO`.
        """
        if self.selected is None:
            return True
        if key[1] != MACRO:
            return key in self.selected
        compared = [each.key for each in self.pairs] + [(each.retriever, each.dataset) for each in self.uncompared]
        return self.selected.issuperset(each for each in compared if each[0] == key[0])

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


def match_records(
    baseline: Sequence[Record],
    candidates: Sequence[Record],
    stale_reason: Callable[[Record], str | None] | None = None,
    lenient: bool = False,
) -> Matched:
    """Match every evaluation of the baseline with the newest records of the same retriever and dataset.

    Args:
        baseline: Records of the baseline.
        candidates: Measured records; `select_newest` chooses one of each evaluation.
        stale_reason: Returns the reason why a record says nothing about the present code, or None; None:
            all records are compared.
        lenient: Compare stale records too, beside their undecided entry.
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
        if failed := _failed(key, before, after):
            matched.uncompared.append(failed)
            continue
        if after and stale_reason and (stale := _stale(key, after, stale_reason)):
            matched.uncompared.append(stale)
            if not lenient:
                continue
        if (problem := _not_comparable(key, before, after)) is None:
            matched.pairs.append(Pair(*key, before, after, costs))
        else:
            matched.uncompared.append(problem)
    for key in sorted(measured.keys() - accepted.keys()):
        newest = [records[0] for records in measured[key].values()]
        if any(record.status == "ok" for record in newest):
            matched.new.append(key)
        else:
            reason = f"not in the baseline, and {_failure(newest[0])}"
            matched.uncompared.append(Uncompared("warn", *key, reason, newest[0].command, tuple(newest)))
    return matched


def _stale(key: Key, after: Sequence[Record], stale_reason: Callable[[Record], str | None]) -> Uncompared | None:
    """Return the undecided entry of an evaluation that other code measured; None if the present code did."""
    stale = [(record, reason) for record in after if (reason := stale_reason(record)) is not None]
    if not stale:
        return None
    record, reason = stale[0]
    command = " && ".join(_with_resume(record.command) for record, _ in stale if record.command)
    origin = f"revision {record.revision or 'unknown'}, {record.started:%Y-%m-%d %H:%M} UTC"
    advice = f"; measure again: {command}" if command else ""
    return Uncompared("undecided", *key, f"{reason} ({origin}){advice}", command, tuple(after))


def _with_resume(command: str) -> str:
    """Return a command that does not reuse a record of other code."""
    words = [word for word in command.split(" ") if not word.startswith("resume=")]
    return " ".join([*words, "resume=same_code"])


def _failure(record: Record) -> str:
    return f"its newest try failed: {(record.error or '').partition(chr(10))[0]}"


def _failed(key: Key, before: Sequence[Record], after: Sequence[Record]) -> Uncompared | None:
    """Return the entry of an evaluation whose newest try failed, of any part and with any code; None otherwise."""
    failed = [record for record in after if record.status != "ok"]
    if not failed:
        return None
    reasons = [
        f"{record.dataset.name}: {_failure(record)}" if len(before) > 1 else _failure(record) for record in failed
    ]
    return Uncompared("fail", *key, "; ".join(reasons), " && ".join(record.command for record in failed), tuple(after))


def _not_comparable(key: Key, before: Sequence[Record], after: Sequence[Record]) -> Uncompared | None:
    """Return the entry of an evaluation that cannot be compared, with its reason; None where it can be."""
    command = " && ".join(record.command for record in before)
    if len(after) < len(before):
        missing = sorted({record.dataset.name for record in before} - {record.dataset.name for record in after})
        reason = f"{', '.join(missing)} was not measured" if after else "it was not measured"
        return Uncompared("undecided", *key, reason, command, tuple(after))
    for old, new in zip(before, after, strict=True):
        for name, was, now in (
            ("the dataset", old.dataset.fingerprint, new.dataset.fingerprint),
            ("k", old.k, new.k),
            ("the metrics' version", old.metric_version, new.metric_version),
        ):
            if was != now:
                reason = f"{name} differs: {was} in the baseline, {now} now"
                return Uncompared("undecided", *key, reason, command, tuple(after), name == "the dataset")
    return None
