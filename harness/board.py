"""Records to a Board: rows of retrievers, columns of datasets. A pure function of records.

A cell shows the newest good record of a retriever on a collection; other content under the same name is another column.
A dataset in parts (CQADupStack's forums) is one
column, the unweighted mean of its parts, and a gap until all are there. Means and speeds cover only the datasets that
every row has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.types import Record, Timing


@dataclass(frozen=True)
class Cell:
    """One retriever on one dataset, which may have several parts."""

    value: float
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Row:
    """One retriever: its cells by dataset, its mean over the common datasets and what it cost there."""

    label: str
    cells: dict[str, Cell]
    failed: frozenset[str]
    """Datasets on which its newest try failed and no older one succeeded."""
    mean: float | None
    queries_per_s: float | None
    docs_per_s: float | None
    index_mb: float | None


@dataclass(frozen=True)
class Board:
    """Rows best first, the datasets in order, and which of them the means cover."""

    metric: str
    datasets: list[str]
    common: list[str]
    rows: list[Row]
    environments: list[str]
    """Fingerprints of the environments that the shown figures come from."""
    remarks: dict[str, list[str]]
    """What a reader must know of some retrievers, and the rows that it is about."""


def build(records: Iterable[Record], metric: str = "ndcg@10") -> Board:
    """The board of one metric over the newest records."""
    newest: dict[tuple[str, str], dict[str, Record]] = {}  # (row, column) -> part -> record
    failed: set[tuple[str, str]] = set()
    ordered = sorted(records, key=lambda record: record.started)
    names = _columns(ordered)
    for record in ordered:
        key = (record.retriever.label, names[_collection(record)])
        if record.status == "ok" and metric in record.metrics:
            newest.setdefault(key, {})[record.dataset.name] = record
        elif record.status == "failed":
            failed.add(key)
    labels = sorted({label for label, _ in [*newest, *failed]})
    datasets = sorted({name for _, name in [*newest, *failed]})
    cells = {label: _cells(label, newest, metric) for label in labels}
    shown = [label for label in labels if cells[label]]
    common = [name for name in datasets if shown and all(name in cells[label] for label in shown)]
    rows = [_row(label, cells[label], failed - set(newest), common) for label in labels]
    rows.sort(key=lambda row: (-(row.mean if row.mean is not None else -1.0), row.label))
    environments = {record.environment for parts in newest.values() for record in parts.values()}
    return Board(metric, datasets, common, rows, sorted(environments), _remarks(rows))


def _remarks(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The remarks among the facts of the records shown, a part's too."""
    found: dict[str, list[str]] = {}
    for row in rows:
        records = [record for cell in row.cells.values() for record in cell.records]
        said = {str(value) for record in records for key, value in record.facts.items() if _is_remark(key)}
        said |= {
            f"Of what exact search finds, {value:.1%} are found on {record.dataset.name} ({key})"
            for record in records
            for key, value in record.facts.items()
            if key.rpartition("/")[2].startswith("recall@")
        }
        for remark in sorted(said):
            found.setdefault(remark, []).append(row.label)
    return found


def _is_remark(key: str) -> bool:
    return key.rpartition("/")[2] == "remark"


def _collection(record: Record) -> tuple[str, str | None]:
    """What a column stands for: a name and the content under it; the parts of a group have theirs together."""
    info = record.dataset
    if info.group is None:
        return info.label, info.fingerprint
    return info.label.replace(info.name, info.group, 1), None


def _columns(records: Sequence[Record]) -> dict[tuple[str, str | None], str]:
    """Columns' names: where one name stands for several contents, all but the newest have a piece of their hash."""
    newest = {name: content for name, content in map(_collection, records) if content is not None}
    return {
        (name, content): name if content in (None, newest.get(name)) else f"{name} ({content[:6]})"
        for name, content in map(_collection, records)
    }


def _cells(label: str, newest: dict[tuple[str, str], dict[str, Record]], metric: str) -> dict[str, Cell]:
    cells = {}
    for (own, name), parts in newest.items():
        records = tuple(record for _, record in sorted(parts.items()))
        if own == label and len(records) == records[0].dataset.parts:
            cells[name] = Cell(sum(record.metrics[metric] for record in records) / len(records), records)
    return cells


def _row(label: str, cells: dict[str, Cell], failed: set[tuple[str, str]], common: Sequence[str]) -> Row:
    timings = [record.timing for name in common if name in cells for record in cells[name].records]
    timed = [timing for timing in timings if timing is not None]
    complete = bool(common) and all(name in cells for name in common)
    return Row(
        label,
        cells,
        frozenset(name for own, name in failed if own == label and name not in cells),
        sum(cells[name].value for name in common) / len(common) if complete else None,
        *(_speeds(timed) if complete and timed else (None, None, None)),
    )


def _speeds(timings: Sequence[Timing]) -> tuple[float, float | None, float]:
    """Queries/s, documents/s (None where a part was encoded elsewhere) and index megabytes (10^6) over some cells."""
    queries, documents = sum(timing.queries for timing in timings), sum(timing.documents for timing in timings)
    searching = sum(timing.queries / timing.queries_per_s for timing in timings)
    indexing = sum(timing.index.wall_s for timing in timings)
    docs_per_s = None if any(timing.index.elsewhere for timing in timings) else documents / indexing
    return queries / searching, docs_per_s, sum(timing.index_bytes for timing in timings) / 1e6
