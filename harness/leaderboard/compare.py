"""Two sets of records, query by query: `compare(a, b, "ndcg@10", scores, tables)` tells what B gains over A."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UndecidedError
from harness.leaderboard.build import build
from harness.leaderboard.model import Board, Cell, Difference, Row, Scores
from harness.leaderboard.slices import Slice, Tables, slices
from harness.types import Excerpt, Record

_CHANGED = 10


@dataclass(frozen=True)
class Changed:
    """A query whose score differs, and what both ranked first."""

    dataset: str
    query_id: str
    text: str | None
    a: float
    b: float
    a_ranked: list[tuple[str, int | None]] | None
    """Document ids with their grade, None where not judged; None where the ranking is not kept."""
    b_ranked: list[tuple[str, int | None]] | None


@dataclass(frozen=True)
class Comparison:
    """What B gains over A; differences are B - A."""

    a: str
    b: str
    board: Board
    """Both rows on the datasets that both have, A the baseline."""
    changed: list[Changed]
    slices: list[Slice]
    config: dict[str, tuple[str, str]]
    """Dotted keys of the retrievers' configs that differ, with both values."""
    unpaired: list[str]
    """Datasets whose queries differ between the two, or whose per-query scores are not kept."""

    def difference(self, dataset: str) -> Difference | None:
        """Return the difference on a dataset, by its label or its name; None where the two cannot be paired there."""
        cells = self._row.cells
        cell = cells.get(dataset) or next((c for c in cells.values() if c.records[0].dataset.name == dataset), None)
        return cell.versus if cell else None

    @property
    def overall(self) -> Difference | None:
        """Over the mean of the datasets, where there are several; None else."""
        return self._row.overall.versus if self._row.overall and len(self.board.common) > 1 else None

    @property
    def _row(self) -> Row:
        return next(row for row in self.board.rows if row.label == self.b)


def compare(
    a: Sequence[Record],
    b: Sequence[Record],
    metric: str,
    scores: Scores,
    tables: Tables,
    names: tuple[str | None, ...] = (None, None),
) -> Comparison:
    """`names` are for sides that are called otherwise than their retriever.

    Raises `UndecidedError` when they have no dataset, content and all, in common.
    """
    names = _names(a[0], b[0], names)
    shared = {_content(record) for record in a} & {_content(record) for record in b}
    both = [
        _renamed(record, name)
        for name, records in zip(names, (a, b), strict=True)
        for record in records
        if _content(record) in shared and metric in record.metrics
    ]
    board = build(both, metric, scores, baseline=names[0]) if both else None
    if board is None or not board.common:
        had = [", ".join(sorted({record.dataset.label for record in records})) for records in (a, b)]
        known = sorted({name for record in (*a, *b) for name in record.metrics})
        if metric not in known:
            raise UndecidedError(f"neither has {metric}; they have {', '.join(known)}")
        raise UndecidedError(
            f"nothing to compare: {names[0]} was measured on {had[0]}, {names[1]} on {had[1]}, and no collection with "
            f"{metric} is the same in both; measure both: harness -m retriever=A,B dataset=NAME"
        )
    row = {row.label: row for row in board.rows}
    unpaired = [name for name in board.common if row[names[1]].cells[name].versus is None]
    changed = [
        one
        for name in board.common
        if name not in unpaired
        for one in _changes(name, row[names[0]].cells[name], row[names[1]].cells[name], metric, scores, tables)
    ]
    changed.sort(key=lambda one: (-abs(one.b - one.a), one.dataset, one.query_id))
    return Comparison(
        *names,
        board,
        changed[:_CHANGED],
        slices(board, scores, tables),
        config_difference(a[0].retriever.config, b[0].retriever.config),
        unpaired,
    )


def config_difference(a: object, b: object, key: str = "") -> dict[str, tuple[str, str]]:
    """Dotted keys whose values differ, `-` where one side has none."""
    if isinstance(a, dict) or isinstance(b, dict):
        ours, theirs = (one if isinstance(one, dict) else {} for one in (a, b))
        found: dict[str, tuple[str, str]] = {}
        for name in sorted({*ours, *theirs}):
            dotted = f"{key}.{name}" if key else str(name)
            found |= config_difference(ours.get(name, "-"), theirs.get(name, "-"), dotted)
        return found
    return {} if a == b else {key: (str(a), str(b))}


def _content(record: Record) -> tuple[str, str | None]:
    return record.dataset.name, record.dataset.fingerprint


def _names(a: Record, b: Record, given: tuple[str | None, ...]) -> tuple[str, str]:
    """Labels, with the time of measurement where both are the same retriever."""
    if any(given):
        first, second = (name or record.retriever.label for name, record in zip(given, (a, b), strict=True))
        return first, second
    if a.retriever.label != b.retriever.label:
        return a.retriever.label, b.retriever.label
    stamps = [f"{a.retriever.label} ({record.started:%Y-%m-%d %H:%M:%S} {record.id[:8]})" for record in (a, b)]
    return (stamps[0], stamps[1]) if stamps[0] != stamps[1] else (f"A {stamps[0]}", f"B {stamps[1]}")


def _renamed(record: Record, label: str) -> Record:
    retriever = record.retriever.model_copy(update={"name": label, "differences": {}})
    return record.model_copy(update={"retriever": retriever})


def _changes(dataset: str, a: Cell, b: Cell, metric: str, scores: Scores, tables: Tables) -> list[Changed]:
    found = []
    for one, other in zip(a.records, b.records, strict=True):
        ours, theirs = scores[one.files.per_query or ""], scores[other.files.per_query or ""]
        moved = theirs.values[metric] - ours.values[metric]
        places = [int(place) for place in abs(moved).argsort(kind="stable")[::-1][:_CHANGED] if moved[place]]
        texts = column_by_query(tables, one, "queries", "text") or column_by_query(tables, other, "queries", "text")
        rankings = [_rankings(tables, record) for record in (one, other)]
        for place in places:
            query = ours.query_ids[place]
            values = float(ours.values[metric][place]), float(theirs.values[metric][place])
            ranked = [own.get(query) for own in rankings]
            found.append(Changed(dataset, query, texts.get(query), *values, ranked[0], ranked[1]))
    return found


def column_by_query(tables: Tables, record: Record, kind: Excerpt, column: str) -> dict[str, str]:
    """Return a column of one of a record's tables by query id; nothing where the table is not kept."""
    table = tables(record, kind)
    if table is None:
        return {}
    return dict(zip(table["query_id"].to_pylist(), table[column].to_pylist(), strict=True))


def _rankings(tables: Tables, record: Record) -> dict[str, list[tuple[str, int | None]]]:
    table = tables(record, "rankings")
    if table is None:
        return {}
    rows = zip(table["query_id"].to_pylist(), table["docs"].to_pylist(), table["grades"].to_pylist(), strict=True)
    return {query: list(zip(docs, grades, strict=True)) for query, docs, grades in rows}
