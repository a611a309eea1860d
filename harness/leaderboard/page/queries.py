"""Select the queries that the page embeds: for each row those furthest below and above the other rows.

They are stored once for all rows, with every row's score and the document that it ranked first.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.leaderboard.model import Scores
from harness.leaderboard.page.data import MAX_ROWS, PageLayout, PairedRows, pair_rows, round_value
from harness.leaderboard.slices import Bin, Tables, compute_slices
from harness.types import Excerpt, Record

_QUERY_LENGTH, _DOCUMENT_LENGTH = 160, 80
_MAX_SLICES_BYTES = 45_000
"""Size of the slices of all metrics; metrics that exceed it have none."""


class _Level(NamedTuple):
    """An amount of detail that the page may have."""

    all_metrics: bool
    per_row: int
    """Number of a row's worst queries, and of its best."""
    text_share: float
    """Share of the full length of texts."""


_LEVELS = (
    _Level(True, 3, 1.0),
    _Level(True, 1, 1.0),
    _Level(False, 3, 1.0),
    _Level(False, 2, 1.0),
    _Level(False, 1, 1.0),
    _Level(False, 1, 0.5),
)


class FirstDocument(NamedTuple):
    """The document that a row ranked first."""

    doc_id: str
    grade: int | None
    """None where unjudged."""
    text: str
    """Beginning of the text."""


def select_queries(layout: PageLayout, scores: Scores, tables: Tables, max_bytes: int) -> dict[str, Any]:
    """Return as many queries as fit in `max_bytes`, or the smallest selection.

    Args:
        layout: The page's layout.
        scores: Per-query scores by the path that a record names.
        tables: Function that reads a record's table.
        max_bytes: Size of the selection as JSON.

    Returns:
        The selection's `metrics`, the number of queries of `each` row, and its `columns`.
    """
    sources = [_DatasetQueries(layout, name, scores, tables) for name in layout.datasets]
    selection: dict[str, Any] = {}
    for level in _LEVELS:
        metrics = list(layout.leaderboards)[: None if level.all_metrics else 1]
        columns = [source.column(metrics, level.per_row, level.text_share) for source in sources]
        selection = {"metrics": metrics, "each": level.per_row, "columns": columns}
        if len(json.dumps(selection, ensure_ascii=False, separators=(",", ":")).encode()) <= max_bytes:
            break
    return selection


def slices_data(layout: PageLayout, scores: Scores, tables: Tables) -> dict[str, list[Any]]:
    """Return the slices of each metric as lists of dataset, property and bins.

    A bin is its name, its number of queries, the rows' means, and the rows with the highest mean.

    Args:
        layout: The page's layout.
        scores: Per-query scores by the path that a record names.
        tables: Function that reads a record's table.
    """
    labels = layout.labels[:MAX_ROWS]
    data: dict[str, list[Any]] = {}
    for metric, leaderboard in layout.leaderboards.items():
        data[metric] = [
            [layout.datasets.index(each.dataset), each.by, [_bin(queries, labels) for queries in each.bins]]
            for each in compute_slices(leaderboard, scores, tables, labels)
        ]
        if len(json.dumps(data, separators=(",", ":"))) > _MAX_SLICES_BYTES:
            del data[metric]
            break
    return data


def _bin(queries: Bin, labels: Sequence[str]) -> list[Any]:
    highest = max(queries.means.values(), default=None)
    best = [row for row, label in enumerate(labels) if label in queries.means and queries.means[label] == highest]
    return [queries.name, queries.queries, [round_value(queries.means.get(label)) for label in labels], best]


def cache_tables(tables: Tables) -> Tables:
    """Return a function that reads each table once."""
    cache: dict[tuple[str, str], pa.Table | None] = {}

    def read(record: Record, kind: Excerpt) -> pa.Table | None:
        key = (kind, getattr(record.files, kind) or "")
        if key not in cache:
            cache[key] = tables(record, kind)
        return cache[key]

    return read


class _DatasetQueries:
    """The queries of one dataset: their texts, paired scores by metric, and the documents that rows ranked first."""

    def __init__(self, layout: PageLayout, name: str, scores: Scores, tables: Tables) -> None:
        columns = {
            metric: pair_rows(layout, leaderboard, name, scores) for metric, leaderboard in layout.leaderboards.items()
        }
        paired = {metric: _limit_rows(column) for metric, column in columns.items() if column is not None}
        self._ids = next((column.query_ids for column in paired.values()), [])
        self._paired = {
            metric: column for metric, column in paired.items() if column.query_ids == self._ids and column.rows
        }
        self._rows = sorted({row for column in self._paired.values() for row in column.rows})
        records = [layout.records[layout.labels[row], name] for row in self._rows]
        queries = _table_rows(self._ids, records[0], "queries", tables) if records else []
        self._texts = [row["text"] if row is not None else "" for row in queries]
        self._firsts = [
            [_first_document(row) for row in _table_rows(self._ids, parts, "rankings", tables)] for parts in records
        ]

    def column(self, metrics: Sequence[str], per_row: int, text_share: float) -> dict[str, Any] | None:
        """Return the selected queries; None where no scores are stored.

        Args:
            metrics: Metrics whose scores are included.
            per_row: Number of a row's worst queries, and of its best.
            text_share: Share of the full length of texts.
        """
        by_metric = {metric: self._paired[metric] for metric in metrics if metric in self._paired}
        if not by_metric:
            return None
        selected = sorted({row for column in by_metric.values() for row in _extreme_queries(_scores(column), per_row)})
        ids = [query for part in self._ids for query in part]
        document_index: dict[str, int] = {}
        documents: list[tuple[str, str]] = []
        firsts = [self._first_ranked(query, document_index, documents) for query in selected]
        query_length, document_length = int(text_share * _QUERY_LENGTH), int(text_share * _DOCUMENT_LENGTH)
        return {
            "rows": self._rows,
            "queries": [[ids[query], _shorten(self._texts[query], query_length)] for query in selected],
            "scores": {metric: self._selected_scores(column, selected) for metric, column in by_metric.items()},
            "documents": [[doc, _shorten(text, document_length)] for doc, text in documents],
            "firsts": firsts if documents else None,
        }

    def _selected_scores(self, column: PairedRows, selected: Sequence[int]) -> list[list[Any]]:
        values = dict(zip(column.rows, _scores(column)[list(selected)].T, strict=True))
        return [
            [round_value(values[row][index]) if row in values else None for row in self._rows]
            for index in range(len(selected))
        ]

    def _first_ranked(
        self, query: int, document_index: dict[str, int], documents: list[tuple[str, str]]
    ) -> list[list[Any]]:
        """Return the different documents that rows ranked first, their grades, and the one of each row (-1: none).

        Args:
            query: Index of the query.
            document_index: Index of each document id in `documents`; new ones are added.
            documents: Ids and texts; new ones are added.
        """
        indices: list[int] = []
        grades: list[int | None] = []
        of_rows = []
        for first in (row[query] for row in self._firsts):
            if first is None:
                of_rows.append(-1)
                continue
            if first.doc_id not in document_index:
                document_index[first.doc_id] = len(documents)
                documents.append((first.doc_id, first.text))
            index = document_index[first.doc_id]
            if index not in indices:
                indices.append(index)
                grades.append(first.grade)
            of_rows.append(indices.index(index))
        return [indices, grades, of_rows]


def _limit_rows(column: PairedRows) -> PairedRows:
    rows = [row for row in column.rows if row < MAX_ROWS]
    indices = [column.rows.index(row) for row in rows]
    return PairedRows(rows, column.query_ids, [(weight, values[:, indices]) for weight, values in column.strata])


def _scores(column: PairedRows) -> NDArray[np.float64]:
    """Return the scores of all parts [queries, rows]."""
    return np.concatenate([values for _, values in column.strata])


def _extreme_queries(values: NDArray[np.float64], per_row: int) -> set[int]:
    """Return each row's queries that are furthest below and above the mean of the other rows."""
    mean_of_others = (values.sum(axis=1, keepdims=True) - values) / max(values.shape[1] - 1, 1)
    order = np.argsort(values - mean_of_others, axis=0, kind="stable")
    return {int(query) for query in np.concatenate([order[:per_row], order[-per_row:]]).ravel()}


def _table_rows(
    ids: Sequence[Sequence[str]], records: Sequence[Record], kind: Excerpt, tables: Tables
) -> list[Mapping[str, Any] | None]:
    """Return the row of each query of each part in a table; None where it is not stored."""
    table_rows: list[Mapping[str, Any] | None] = []
    for part_ids, record in zip(ids, records, strict=True):
        table = tables(record, kind)
        by_id = {row["query_id"]: row for row in table.to_pylist()} if table is not None else {}
        table_rows += [by_id.get(query) for query in part_ids]
    return table_rows


def _first_document(row: Mapping[str, Any] | None) -> FirstDocument | None:
    if row is None or not row["docs"]:
        return None
    return FirstDocument(row["docs"][0], row["grades"][0], row["first"] or "")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
