"""The queries that a page keeps: for each row those on which it is the furthest below and above the other rows.

They are stored once for all rows, with every row's score and the document that it ranked first.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.leaderboard.model import Scores
from harness.leaderboard.page.data import FEW, Layout, Paired, paired, rounded
from harness.leaderboard.slices import Bin, Tables, slices
from harness.types import Excerpt, Record

_LEVELS = ((True, 3, 1.0), (True, 1, 1.0), (False, 3, 1.0), (False, 2, 1.0), (False, 1, 1.0), (False, 1, 0.5))
"""All metrics or the first one, how many of a row's worst and best queries, and how much of the texts."""
_QUERY, _DOCUMENT = 160, 80
_SLICES = 45_000
"""Bytes that the slices of all metrics take; metrics whose slices go beyond have none."""

First = tuple[str, int | None, str]
"""A document's id, its grade (None: not judged), the beginning of its text."""


def kept(layout: Layout, scores: Scores, tables: Tables, spare: int) -> dict[str, Any]:
    """As many queries as fit in so many bytes: of which `metrics`, `each` how many of a row, and the `columns`."""
    sources = [_Source(layout, name, scores, tables) for name in layout.datasets]
    found: dict[str, Any] = {}
    for every, each, share in _LEVELS:
        metrics = list(layout.boards)[: None if every else 1]
        columns = [source.column(metrics, each, share) for source in sources]
        found = {"metrics": metrics, "each": each, "columns": columns}
        if len(json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()) <= spare:
            break
    return found


def sliced(layout: Layout, scores: Scores, tables: Tables) -> dict[str, list[Any]]:
    """By metric: dataset, property, and for each bin its name, its queries, the rows' means and which are the best."""
    labels, found = layout.labels[:FEW], {}
    for metric, board in layout.boards.items():
        found[metric] = [
            [
                layout.datasets.index(one.dataset),
                one.by,
                [
                    [own.name, own.queries, [rounded(own.means.get(label)) for label in labels], _best(own, labels)]
                    for own in one.bins
                ],
            ]
            for one in slices(board, scores, tables, labels)
        ]
        if len(json.dumps(found, separators=(",", ":"))) > _SLICES:
            del found[metric]
            break
    return found


def _best(own: Bin, labels: Sequence[str]) -> list[int]:
    most = max(own.means.values(), default=None)
    return [place for place, label in enumerate(labels) if label in own.means and own.means[label] == most]


def remembered(tables: Tables) -> Tables:
    """Tables that are read once."""
    held: dict[tuple[str, str], pa.Table | None] = {}

    def read(record: Record, kind: Excerpt) -> pa.Table | None:
        key = (kind, getattr(record.files, kind) or "")
        if key not in held:
            held[key] = tables(record, kind)
        return held[key]

    return read


class _Source:
    """One dataset: its paired scores by metric, its queries' texts and what each row ranked first."""

    def __init__(self, layout: Layout, name: str, scores: Scores, tables: Tables) -> None:
        found = {metric: paired(layout, board, [name], scores) for metric, board in layout.boards.items()}
        self._paired = {metric: _first_rows(own) for metric, own in found.items() if own is not None}
        self._ids = next((own.ids for own in self._paired.values()), [])
        self._paired = {metric: own for metric, own in self._paired.items() if own.ids == self._ids and own.rows}
        self._rows = sorted({row for own in self._paired.values() for row in own.rows})
        records = [layout.cells[layout.labels[row], name] for row in self._rows]
        queries = _pooled(self._ids, records[0], "queries", tables) if records else []
        self._texts = [row["text"] if row is not None else "" for row in queries]
        self._firsts = [[_first(row) for row in _pooled(self._ids, own, "rankings", tables)] for own in records]

    def column(self, metrics: Sequence[str], each: int, share: float) -> dict[str, Any] | None:
        """The chosen queries, texts cut to a share of their length; None where no scores are kept."""
        of = {metric: self._paired[metric] for metric in metrics if metric in self._paired}
        if not of:
            return None
        chosen = sorted({one for own in of.values() for one in _extremes(_whole(own), each)})
        ids = [query for own in self._ids for query in own]
        places: dict[str, int] = {}
        texts: list[list[str]] = []
        firsts = [self._ranked(query, places, texts) for query in chosen]
        short = [[doc, _cut(text, int(share * _DOCUMENT))] for doc, text in texts]
        return {
            "rows": self._rows,
            "queries": [[ids[query], _cut(self._texts[query], int(share * _QUERY))] for query in chosen],
            "scores": {metric: self._scores(own, chosen) for metric, own in of.items()},
            "documents": short,
            "firsts": firsts if texts else None,
        }

    def _scores(self, own: Paired, chosen: Sequence[int]) -> list[list[Any]]:
        values = dict(zip(own.rows, _whole(own)[list(chosen)].T, strict=True))
        return [
            [rounded(values[row][place]) if row in values else None for row in self._rows]
            for place in range(len(chosen))
        ]

    def _ranked(self, query: int, places: dict[str, int], texts: list[list[str]]) -> list[list[Any]]:
        """The different documents that rows ranked first, their grades, and which is each row's (-1: none)."""
        documents: list[int] = []
        grades: list[int | None] = []
        of_rows = []
        for found in (own[query] for own in self._firsts):
            if found is None:
                of_rows.append(-1)
                continue
            doc, grade, text = found
            if doc not in places:
                places[doc] = len(texts)
                texts.append([doc, text])
            if places[doc] not in documents:
                documents.append(places[doc])
                grades.append(grade)
            of_rows.append(documents.index(places[doc]))
        return [documents, grades, of_rows]


def _first_rows(own: Paired) -> Paired:
    rows = [row for row in own.rows if row < FEW]
    places = [own.rows.index(row) for row in rows]
    return Paired(rows, own.ids, [(weight, values[:, places]) for weight, values in own.strata])


def _whole(own: Paired) -> NDArray[np.float64]:
    """[queries, rows] of all parts."""
    return np.concatenate([values for _, values in own.strata])


def _extremes(values: NDArray[np.float64], each: int) -> set[int]:
    """Each row's queries that are the furthest from the mean of the other rows, on both sides."""
    others = (values.sum(axis=1, keepdims=True) - values) / max(values.shape[1] - 1, 1)
    order = np.argsort(values - others, axis=0, kind="stable")
    return {int(query) for query in np.concatenate([order[:each], order[-each:]]).ravel()}


def _pooled(
    ids: Sequence[Sequence[str]], records: Sequence[Record], kind: Excerpt, tables: Tables
) -> list[Mapping[str, Any] | None]:
    """For each query of each part its row of a table; None where that is not kept."""
    found: list[Mapping[str, Any] | None] = []
    for own, record in zip(ids, records, strict=True):
        table = tables(record, kind)
        rows = {row["query_id"]: row for row in table.to_pylist()} if table is not None else {}
        found += [rows.get(query) for query in own]
    return found


def _first(row: Mapping[str, Any] | None) -> First | None:
    if row is None or not row["docs"]:
        return None
    return row["docs"][0], row["grades"][0], row["first"] or ""


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
