"""Leaderboards as data: one tidy DataFrame, which is the CSV, and nested JSON. No number is rounded, a gap is null."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.leaderboard.compare import Comparison
from harness.leaderboard.model import AXES, Board, Cell, Row
from harness.leaderboard.published import Beside
from harness.leaderboard.recommend import Recommendation
from harness.stats import ALPHA

if TYPE_CHECKING:
    import polars as pl

_SCHEMA: dict[str, type] = {
    **dict.fromkeys(("retriever", "family", "dataset", "split", "metric"), str),
    **dict.fromkeys(("value", "low", "high"), float),
    **{"best": bool, "close": bool, "baseline": str},
    **dict.fromkeys(("delta", "delta_low", "delta_high", "p"), float),
    **{"won": int, "tied": int, "lost": int, "effect": float, "queries": int},
    **dict.fromkeys(AXES, float),
    **dict.fromkeys(("environment", "status", "record", "source"), str),
    "ours_minus_published": float,
}


def frame(boards: Mapping[str, Board], published: Sequence[Beside] = ()) -> "pl.DataFrame":
    """Return one row for each metric, retriever and dataset, then published scores, which are of the first metric.

    `status` is `ok`, `failed`, `published`, or `mean` for the mean over datasets, which has no dataset and the
    retriever's costs.
    """
    import polars as pl

    rows = [row for board in boards.values() for row in _rows(board)]
    for model in published:
        for dataset, value in model.values.items():
            names = {"retriever": model.retriever, "dataset": dataset, "metric": next(iter(boards)), "value": value}
            rows.append({**names, "status": "published", "source": "; ".join(model.sources)})
            rows[-1]["ours_minus_published"] = model.differences.get(dataset)
    return pl.DataFrame(rows, _SCHEMA, orient="row")


def csv(table: "pl.DataFrame") -> str:
    """Write a frame as CSV with 0 and 1 for booleans; no spreadsheet takes its texts for formulas."""
    import polars.selectors as cs

    texts = cs.string().str.replace(r"^([=+\-@\t\r])", "'${1}").str.replace_all(r"\p{Cc}", " ")
    return table.with_columns(texts, cs.boolean().cast(int)).write_csv()


def to_json(value: Any) -> str:
    """Write strict JSON with sorted keys; a dataclass becomes an object of its fields."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=vars) + "\n"


def boards_data(boards: Mapping[str, Board], published: Sequence[Beside] | None = None) -> dict[str, Any]:
    """Return every board by its metric for `to_json`; published scores are in the first."""
    data = {metric: _board(board) for metric, board in boards.items()}
    if published is not None:
        data[next(iter(boards))]["published"] = published
    return data


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison for `to_json`."""
    differences = {name: comparison.difference(name) for name in comparison.board.common}
    more = {"board": _board(comparison.board), "differences": differences, "overall": comparison.overall}
    return {**vars(comparison), **more}


def recommendation_data(board: Board, recommendation: Recommendation) -> dict[str, Any]:
    """Return a recommendation for `to_json`."""
    difference, runner_up = recommendation.difference, recommendation.runner_up
    return {
        "metric": board.metric,
        "datasets": board.common,
        "best": _costs(recommendation.best) | {"mean": recommendation.best.mean},
        "runner_up": None if runner_up is None else _costs(runner_up) | {"mean": runner_up.mean},
        "difference": difference,
        "significant": None if difference is None else difference.p < ALPHA,
        "excluded": recommendation.excluded,
        "environments": board.environments,
    }


def _rows(board: Board) -> Iterator[dict[str, Any]]:
    for row in board.rows:
        names = {"retriever": row.label, "family": row.family, "metric": board.metric}
        for dataset in board.datasets:
            if dataset in row.cells:
                yield {**names, "dataset": dataset, **_scores(board, row.cells[dataset]), **_source(row.cells[dataset])}
            elif dataset in row.failed:
                yield {**names, "dataset": dataset, "status": "failed"}
        if row.overall is not None and len(board.datasets) > 1:
            costs = {axis: getattr(row, axis) for axis in AXES}
            yield {**names, **_scores(board, row.overall), **costs, "environment": row.environment, "status": "mean"}


def _scores(board: Board, cell: Cell) -> dict[str, Any]:
    low, high = cell.interval or (None, None)
    queries = sum(record.dataset.queries or 0 for record in cell.records)
    scores = {"value": cell.value, "low": low, "high": high, "best": cell.best, "close": cell.close, "queries": queries}
    if cell.versus is None:
        return scores
    versus = asdict(cell.versus)
    ends = {"delta_low": versus.pop("low"), "delta_high": versus.pop("high")}
    return {**scores, "baseline": board.baseline, **versus, **ends}


def _source(cell: Cell) -> dict[str, Any]:
    """Return the split and, where the dataset has no parts, the record and its costs."""
    record, *parts = cell.records
    found = {"split": record.dataset.split, "status": "ok"}
    if parts:
        return found
    found["record"] = record.files.record
    if (timing := record.timing) is None:
        return found
    costs = {"queries_per_s": timing.queries_per_s, "docs_per_s": timing.docs_per_s}
    costs |= {"latency_ms": timing.latency_ms.get("p95"), "index_mb": timing.index_bytes / 1e6}
    return {**found, **costs, "environment": record.environment}


def _board(board: Board) -> dict[str, Any]:
    names = ("metric", "datasets", "common", "baseline", "environments", "remarks", "detectable", "tests")
    return {**{name: getattr(board, name) for name in names}, "rows": list(map(_row, board.rows))}


def _row(row: Row) -> dict[str, Any]:
    return {
        **_costs(row),
        "name": row.name,
        "family": row.family,
        "mean": None if row.overall is None else _cell(row.overall),
        "cells": {name: _cell(cell) | _records(cell) for name, cell in row.cells.items()},
        "failed": sorted(row.failed),
        "front": sorted(row.front),
        "environment": row.environment,
    }


def _costs(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("label", *AXES)}


def _cell(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in ("value", "interval", "best", "close", "versus")}


def _records(cell: Cell) -> dict[str, Any]:
    return {
        "records": [record.files.record for record in cell.records],
        "commands": [record.command for record in cell.records],
        "split": cell.records[0].dataset.split,
        "fingerprints": [record.dataset.fingerprint for record in cell.records],
    }
