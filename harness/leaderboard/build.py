"""Build a Board from records: which of them it shows, under what names, what rows cost, and what is best.

A cell shows the newest good record of a retriever on a collection; other content under the same name is another column.
A dataset in parts (CQADupStack's forums) is one column, the unweighted mean of its parts, and a gap until it has all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.errors import ConfigError
from harness.leaderboard.model import AXES, Board, Cell, Row, Scores
from harness.leaderboard.significance import mark
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


def build(
    records: Iterable[Record], metric: str = "ndcg@10", scores: Scores | None = None, baseline: str | None = None
) -> Board:
    """The board of one metric over the newest records.

    Without per-query `scores` nothing is tested. `baseline` is a row's label, or its config's name where one row has
    it. Raises `ConfigError` naming the rows when there is no such row.
    """
    found = collect(records, metric)
    rows = [_row(label, found) for label in found.cells]
    rows.sort(key=lambda row: (-(row.mean if row.mean is not None else -1.0), row.label))
    environments = sorted({record.environment for row in rows for record in row.records})
    base = None if baseline is None else named(rows, baseline).label
    board = Board(metric, found.datasets, found.common, with_fronts(rows), environments, _remarks(rows), baseline=base)
    board = replace(board, cautions=found.cautions)
    # a single row without scores has nothing to be compared with
    return mark(board, scores) if scores or len(rows) > 1 else board


def named(rows: Sequence[Row], name: str) -> Row:
    """The row with this label, or the only one of this config. Raises `ConfigError`."""
    hits = [row for row in rows if row.label == name] or [row for row in rows if row.name == name]
    if len(hits) != 1:
        said = "several rows are" if hits else "no row is"
        choices = ", ".join(repr(row.label) for row in hits or rows)
        raise ConfigError(f"{said} called {name!r}; choices: {choices}")
    return hits[0]


def _row(label: str, found: Collected) -> Row:
    cells = found.cells[label]
    row = Row(label, cells, found.failed[label])
    if not found.common or any(name not in cells for name in found.common):
        return row
    own = [cells[name] for name in found.common]
    records = tuple(record for cell in own for record in cell.records)
    row = replace(row, overall=Cell(sum(cell.value for cell in own) / len(own), records))
    return costed(row, records)


def _remarks(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the encoders' remarks and the recall of approximate search, each with the rows that it is about."""
    rows_by_remark: dict[str, list[str]] = {}
    for row in rows:
        encoders = [encoder for record in row.records for encoder in record.encoders.values()]
        remarks = {encoder.remark for encoder in encoders if encoder.remark}
        shares: dict[str, list[str]] = {}
        for record in row.records:
            for component, recall in record.recall_of_exact.items():
                name = f"{component}: recall@{recall.k}" if component else f"recall@{recall.k}"
                shares.setdefault(name, []).append(f"{recall.recall:.1%} on {record.dataset.name}")
        remarks |= {f"Approximate search, {name} of exact search: {', '.join(told)}" for name, told in shares.items()}
        for remark in sorted(remarks):
            rows_by_remark.setdefault(remark, []).append(row.label)
    return rows_by_remark


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


def costed(row: Row, records: Sequence[Record]) -> Row:
    """The row with its costs over some records; a gap where a cell was not timed."""
    timings = [record.timing for record in records if record.timing is not None]
    if len(timings) < len(records) or not timings:
        return row
    queries, documents = sum(timing.queries for timing in timings), sum(timing.documents for timing in timings)
    searching = sum(timing.queries / timing.queries_per_s for timing in timings)
    indexing = sum(timing.index.wall_s for timing in timings)
    latencies = [seconds for timing in timings for seconds in timing.latencies_s]
    environments = {record.environment for record in records}
    threads = {timing.threads for timing in timings}
    return replace(
        row,
        queries_per_s=queries / searching,
        docs_per_s=None if any(timing.index.foreign_machine for timing in timings) else documents / indexing,
        latency_ms=float(np.percentile(latencies, 95)) * 1e3 if latencies else None,
        index_mb=max(timing.index_bytes for timing in timings) / 1e6,
        environment=environments.pop() if len(environments) == 1 else None,
        threads=threads.pop() if len(threads) == 1 else None,
    )


def with_fronts(rows: Sequence[Row]) -> list[Row]:
    """Each row with the costs on which it is on the Pareto front of its environment and number of threads."""
    fronts: dict[str, set[str]] = {row.label: set() for row in rows}
    for axis in AXES:
        for place in {(row.environment, row.threads) for row in rows}:
            for label in _front([row for row in rows if (row.environment, row.threads) == place], axis):
                fronts[label].add(axis)
    return [replace(row, front=frozenset(fronts[row.label])) for row in rows]


def _front(rows: Sequence[Row], axis: str) -> list[str]:
    """Labels of the rows that no other equals or beats in both quality and cost, and beats in one; none of one row."""
    points = [(*point, row.label) for row in rows if (point := _point(row, axis)) is not None]
    found: list[tuple[float, float, str]] = []
    for one in sorted(points, key=lambda own: (-own[0], -own[1])):
        if not found or one[1] > found[-1][1] or one[:2] == found[-1][:2]:
            found.append(one)
    return [label for _, _, label in found] if len(points) > 1 else []


def _point(row: Row, axis: str) -> tuple[float, float] | None:
    """Quality and cost, both more is better; None where one is missing."""
    cost = getattr(row, axis)
    if row.mean is None or cost is None or row.environment is None or row.threads is None:
        return None
    return row.mean, cost if AXES[axis] else -cost
