"""A Board as JSON: everything that the other forms show, not rounded, and where its records lie."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.leaderboard import AXES, Board, Cell, Row
from harness.leaderboard.published import METRIC, Beside


def render(boards: Mapping[str, Board], published: Sequence[Beside] | None = None) -> str:
    """All boards by metric; strict JSON, keys sorted, a gap is null. Published figures stand in nDCG@10's board."""
    told = {name: plain(board) for name, board in boards.items()}
    if published is not None:
        told[METRIC]["published"] = [asdict(one) for one in published]
    return json.dumps(told, indent=2, sort_keys=True, allow_nan=False) + "\n"


def plain(board: Board) -> dict[str, Any]:
    """The board as lists, dicts, strings and numbers."""
    return {
        "metric": board.metric,
        "datasets": board.datasets,
        "common": board.common,
        "baseline": board.baseline,
        "environments": board.environments,
        "remarks": board.remarks,
        "detectable": board.detectable,
        "tests": board.tests,
        "rows": [_row(row) for row in board.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "name": row.name,
        "family": row.family,
        "mean": None if row.overall is None else _cell(row.overall),
        "cells": {name: _cell(cell) | _where(cell) for name, cell in row.cells.items()},
        "failed": sorted(row.failed),
        "front": sorted(row.front),
        "environment": row.environment,
        **{axis: getattr(row, axis) for axis in AXES},
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "value": cell.value,
        "interval": None if cell.interval is None else list(cell.interval),
        "best": cell.best,
        "close": cell.close,
        "versus": None if cell.versus is None else asdict(cell.versus),
    }


def _where(cell: Cell) -> dict[str, Any]:
    return {
        "records": [record.files.get("record") for record in cell.records],
        "commands": [record.command for record in cell.records],
        "split": cell.records[0].dataset.split,
        "fingerprints": [record.dataset.fingerprint for record in cell.records],
    }
