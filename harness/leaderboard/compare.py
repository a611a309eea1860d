"""Compare two sets of records query by query: `compare(a, b, "ndcg@10", scores, tables)`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.errors import UndecidedError
from harness.leaderboard.build import build
from harness.leaderboard.model import Difference, EvaluationSummary, Leaderboard, Row, Scores
from harness.leaderboard.slices import Slice, Tables, compute_slices
from harness.types import Excerpt, Record

_MAX_CHANGED = 10


@dataclass(frozen=True)
class ChangedQuery:
    """A query whose score differs, with the documents that both sides rank first."""

    dataset: str
    query_id: str
    text: str | None
    a: float
    b: float
    a_ranked: list[tuple[str, int | None]] | None
    """Document ids with their grade, None where unjudged; None where the ranking is not stored."""
    b_ranked: list[tuple[str, int | None]] | None


@dataclass(frozen=True)
class Comparison:
    """A comparison of two retrievers; differences are B - A. Printed as tables."""

    a: str
    b: str
    leaderboard: Leaderboard
    """Both rows on the datasets that both have, with A as the baseline."""
    changed: list[ChangedQuery]
    """Queries with the largest differences."""
    slices: list[Slice]
    config: dict[str, tuple[str, str]]
    """Both values of each config key, dotted, that differs; of different classes only their names."""
    records: tuple[list[Record], list[Record]]
    """The records of each side, one for each dataset or part of one."""
    unpaired: list[str]
    """Datasets whose queries differ between the two, or that have no per-query scores."""

    def difference(self, dataset: str) -> Difference | None:
        """Return the difference on a dataset, by its label or name; None where the two cannot be paired."""
        evaluations = self._row.evaluations
        by_name = (each for each in evaluations.values() if each.records[0].dataset.name == dataset)
        evaluation = evaluations.get(dataset) or next(by_name, None)
        return evaluation.versus if evaluation else None

    @property
    def overall(self) -> Difference | None:
        """Difference of the means over several datasets; None where there is one dataset."""
        return self._row.overall.versus if self._row.overall and len(self.leaderboard.common) > 1 else None

    def __repr__(self) -> str:
        from harness.leaderboard import writers
        from harness.leaderboard.tables.comparison import tables

        return writers.terminal(tables(self)).rstrip("\n")

    @property
    def _row(self) -> Row:
        return next(row for row in self.leaderboard.rows if row.label == self.b)


def compare(
    a: Sequence[Record],
    b: Sequence[Record],
    metric: str,
    scores: Scores,
    tables: Tables,
    names: tuple[str | None, ...] = (None, None),
    among: Sequence[Record] = (),
) -> Comparison:
    """Compare two retrievers on the datasets that both were evaluated on.

    Args:
        a: Records of the retriever that is compared to; the newest of each dataset counts.
        b: Records of the other retriever.
        metric: The metric's name.
        scores: Per-query scores by the path that a record names.
        tables: Function that reads a record's stored queries or rankings.
        names: Names of the two sides; None: the retriever's label.
        among: All records of the leaderboard that the two are rows of. If they are, its family of comparisons is the
            comparison's; otherwise the comparison is a family of its own.

    Raises:
        UndecidedError: They have no dataset of the same content in common, or not this metric.
    """
    measured = [newest_records([each for each in side if metric in each.metrics]) for side in (a, b)]
    shared = {_content(record) for record in measured[0]} & {_content(record) for record in measured[1]}
    sides = tuple([record for record in side if _content(record) in shared] for side in measured)
    if not shared:
        raise _nothing_to_compare(a, b, _names(a, b, names), metric)
    names = _names(sides[0], sides[1], names)
    leaderboard = _rows_of(among, sides, names, metric, scores) or _rows_alone(sides, names, metric, scores)
    if leaderboard is None or not leaderboard.common:
        raise _nothing_to_compare(a, b, names, metric)
    rows = {row.label: row for row in leaderboard.rows}
    evaluations = {
        name: (rows[names[0]].evaluations[name], rows[names[1]].evaluations[name]) for name in leaderboard.common
    }
    unpaired = [name for name, (_, b_side) in evaluations.items() if b_side.versus is None]
    paired = {name: pair for name, pair in evaluations.items() if name not in unpaired}
    return Comparison(
        *names,
        leaderboard,
        _most_changed(paired, metric, scores, tables),
        compute_slices(leaderboard, scores, tables),
        config_difference(sides[0][0].retriever.config, sides[1][0].retriever.config),
        (sides[0], sides[1]),
        unpaired,
    )


def _most_changed(
    paired: Mapping[str, tuple[EvaluationSummary, EvaluationSummary]], metric: str, scores: Scores, tables: Tables
) -> list[ChangedQuery]:
    """Return the queries with the largest differences, over all datasets."""
    changed = [
        query
        for name, (a_side, b_side) in paired.items()
        for query in _changed_queries(name, a_side, b_side, metric, scores, tables)
    ]
    changed.sort(key=lambda query: (-abs(query.b - query.a), query.dataset, query.query_id))
    return changed[:_MAX_CHANGED]


def newest_records(records: Sequence[Record]) -> list[Record]:
    """Return the newest record of each dataset, and each part of one; the newest first."""
    newest = {_content(record): record for record in sorted(records, key=lambda record: record.started)}
    return sorted(newest.values(), key=lambda record: record.started, reverse=True)


def _rows_of(
    among: Sequence[Record], sides: Sequence[Sequence[Record]], names: tuple[str, str], metric: str, scores: Scores
) -> Leaderboard | None:
    """Return the two rows of the leaderboard of all records; None unless these are the newest of rows of that name."""
    chosen = {_key(record) for side in sides for record in side}
    labels = {record.retriever.label for side in sides for record in side}
    if not chosen <= {_key(record) for record in among} or labels != {*names} or len(labels) < 2:
        return None
    leaderboard = build(among, metric, scores, baseline=names[0], is_shown=lambda record: _key(record) in chosen)
    shown = {_key(record) for row in leaderboard.rows for record in row.records}
    return leaderboard if shown == chosen and leaderboard.common else None


def _rows_alone(
    sides: Sequence[Sequence[Record]], names: tuple[str, str], metric: str, scores: Scores
) -> Leaderboard | None:
    """Return a leaderboard of only the two rows; None without records."""
    records = [_rename(record, name) for name, side in zip(names, sides, strict=True) for record in side]
    return build(records, metric, scores, baseline=names[0]) if records else None


def _key(record: Record) -> tuple[str, datetime]:
    return record.id, record.started


def _nothing_to_compare(
    a: Sequence[Record], b: Sequence[Record], names: tuple[str, str], metric: str
) -> UndecidedError:
    known = sorted({name for record in (*a, *b) for name in record.metrics})
    if metric not in known:
        return UndecidedError(f"neither has {metric}; they have {', '.join(known)}")
    datasets = [", ".join(sorted({record.dataset.label for record in records})) for records in (a, b)]
    return UndecidedError(
        f"nothing to compare: {names[0]} was measured on {datasets[0]}, {names[1]} on {datasets[1]}, and no dataset "
        f"with {metric} is the same in both; measure both: harness -m retriever=A,B dataset=NAME"
    )


def config_difference(a: object, b: object, key: str = "") -> dict[str, tuple[str, str]]:
    """Return both values of each dotted key that differs; `-` where one side does not have it.

    The keys of two classes are not compared, only counted: the same key has another meaning in each.

    Args:
        a: A config, or a value in one.
        b: The other config or value.
        key: Dotted key of the two values.
    """
    if isinstance(a, dict) and isinstance(b, dict) and a.get("_target_", "") != b.get("_target_", ""):
        targets, remaining = (f"{key}.{name}" if key else name for name in ("_target_", "*"))
        sizes = [len(config) - ("_target_" in config) for config in (a, b)]
        return {
            targets: (str(a.get("_target_", "-")), str(b.get("_target_", "-"))),
            remaining: (f"{sizes[0]} keys", f"{sizes[1]} keys"),
        }
    if isinstance(a, dict) or isinstance(b, dict):
        a_items, b_items = (config if isinstance(config, dict) else {} for config in (a, b))
        differences: dict[str, tuple[str, str]] = {}
        for name in sorted({*a_items, *b_items}):
            dotted = f"{key}.{name}" if key else str(name)
            differences |= config_difference(a_items.get(name, "-"), b_items.get(name, "-"), dotted)
        return differences
    return {} if a == b else {key: (str(a), str(b))}


def _content(record: Record) -> tuple[str, str | None]:
    return record.dataset.name, record.dataset.fingerprint


def _names(a: Sequence[Record], b: Sequence[Record], given: tuple[str | None, ...]) -> tuple[str, str]:
    """Return the given names or the labels, with the time of measurement where both are the same retriever."""
    first, second = (name or records[0].retriever.label for name, records in zip(given, (a, b), strict=True))
    if first != second:
        return first, second
    stamps = [f"{first} ({describe_record(records[0])})" for records in (a, b)]
    return (stamps[0], stamps[1]) if stamps[0] != stamps[1] else (f"A {stamps[0]}", f"B {stamps[1]}")


def describe_record(record: Record) -> str:
    """Return a record's time and the beginning of its id."""
    return f"{record.started:%Y-%m-%d %H:%M:%S} {record.id[:8]}"


def _rename(record: Record, label: str) -> Record:
    retriever = record.retriever.model_copy(update={"name": label, "differences": {}})
    return record.model_copy(update={"retriever": retriever})


def _changed_queries(
    dataset: str, a: EvaluationSummary, b: EvaluationSummary, metric: str, scores: Scores, tables: Tables
) -> Iterator[ChangedQuery]:
    """Yield the queries of each part of a dataset with the largest differences."""
    for records in zip(a.records, b.records, strict=True):
        a_scores, b_scores = (scores[record.files.per_query or ""] for record in records)
        deltas = b_scores.values[metric] - a_scores.values[metric]
        rows = [int(row) for row in abs(deltas).argsort(kind="stable")[::-1][:_MAX_CHANGED] if deltas[row]]
        columns = (column_by_query(tables, record, "queries", "text") for record in records)
        texts = next(filter(None, columns), {})
        a_rankings, b_rankings = (_rankings(tables, record) for record in records)
        for row in rows:
            query = a_scores.query_ids[row]
            values = float(a_scores.values[metric][row]), float(b_scores.values[metric][row])
            rankings = a_rankings.get(query), b_rankings.get(query)
            yield ChangedQuery(dataset, query, texts.get(query), *values, *rankings)


def column_by_query(tables: Tables, record: Record, kind: Excerpt, column: str) -> dict[str, str]:
    """Return a column of one of a record's tables by query id; empty where the table is not stored.

    Args:
        tables: Function that reads a record's table.
        record: The record.
        kind: `queries` or `rankings`.
        column: The column's name.
    """
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
