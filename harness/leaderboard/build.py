"""Records to a Board: collected, costed, marked."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.errors import ConfigError
from harness.leaderboard.collect import Collected, collect
from harness.leaderboard.costs import costed, with_fronts
from harness.leaderboard.model import Board, Cell, Row, Scores
from harness.leaderboard.significance import mark
from harness.types import Record


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
    return mark(replace(board, cautions=found.cautions), scores)


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
