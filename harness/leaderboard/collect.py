"""Which records a board shows, and under what names.

A cell shows the newest good record of a retriever on a collection; other content under the same name is another column.
A dataset in parts (CQADupStack's forums) is one column, the unweighted mean of its parts, and a gap until it has all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.leaderboard.model import Cell
from harness.types import Record


@dataclass(frozen=True)
class Collected:
    """Cells by row and column, before anything is tested."""

    cells: dict[str, dict[str, Cell]]
    """By label and dataset."""
    failed: dict[str, frozenset[str]]
    datasets: list[str]
    common: list[str]
    """Datasets that every row with a cell has."""
    cautions: list[str]
    """What was left out, and what differs between the records that are shown."""


def collect(records: Iterable[Record], metric: str) -> Collected:
    """The newest good records as cells; those of older definitions of the metrics are left out."""
    newest: dict[tuple[str, str], dict[str, Record]] = {}  # (row, column) -> part -> record
    failed: set[tuple[str, str]] = set()
    ordered = sorted(records, key=lambda record: record.started)
    version = max((record.metric_version for record in ordered), default=0)
    old = [record for record in ordered if record.metric_version != version]
    ordered = [record for record in ordered if record.metric_version == version]
    named = _columns(ordered)
    for record in ordered:
        key = (record.retriever.label, named(record))
        if record.status == "ok" and metric in record.metrics:
            newest.setdefault(key, {})[record.dataset.name] = record
        elif record.status == "failed":
            failed.add(key)
    labels = sorted({label for label, _ in [*newest, *failed]})
    datasets = sorted({name for _, name in [*newest, *failed]})
    cells: dict[str, dict[str, Cell]] = {label: {} for label in labels}
    for (label, name), parts in sorted(newest.items()):
        if (cell := _cell(parts, metric)) is not None:
            cells[label][name] = cell
    shown = [label for label in labels if cells[label]]
    missed = {
        label: frozenset(name for own, name in failed - set(newest) if own == label and name not in cells[label])
        for label in labels
    }
    common = [name for name in datasets if shown and all(name in cells[label] for label in shown)]
    left = [f"{len(old)} records of older definitions of the metrics are left out"] if old else []
    return Collected(cells, missed, datasets, common, [*left, *_differing(cells)])


def _differing(cells: dict[str, dict[str, Cell]]) -> list[str]:
    """What the records shown do not have in common, and who has what."""
    said = []
    kinds: dict[str, Callable[[Record], int | None]] = {
        "k": lambda own: own.k,
        "threads": lambda own: own.timing.threads if own.timing else None,
    }
    for what, of in kinds.items():
        found: dict[int, set[str]] = {}
        for label, own in cells.items():
            for record in (record for cell in own.values() for record in cell.records):
                if (value := of(record)) is not None:
                    found.setdefault(value, set()).add(label)
        if len(found) > 1:
            told = "; ".join(f"{value}: {', '.join(sorted(labels))}" for value, labels in sorted(found.items()))
            said.append(f"{what} differs ({told})")
    return said


def _cell(parts: dict[str, Record], metric: str) -> Cell | None:
    whole = max(parts.values(), key=lambda record: record.started).dataset.parts
    records = tuple(record for _, record in sorted(parts.items()) if record.dataset.parts == whole)
    if len(records) != whole:
        return None
    return Cell(sum(record.metrics[metric] for record in records) / len(records), records)


def _columns(records: Sequence[Record]) -> Callable[[Record], str]:
    """Names the column of a record: where one name stands for several contents, all but the newest show their hash.

    The parts of a group have one column together, those of other content another.
    """
    newest = {
        (record.dataset.label, record.dataset.name): record.dataset.fingerprint
        for record in records
        if record.dataset.fingerprint is not None
    }

    def named(record: Record) -> str:
        own = record.dataset
        label = own.label if own.group is None else own.label.replace(own.name, own.group, 1)
        content = own.fingerprint
        if content is None or content == newest.get((own.label, own.name)):
            return label
        return f"{label} ({content[:6]})"

    return named
