"""Factories of records, for tests of everything that reads records."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from harness.leaderboard import Leaderboard, build
from harness.types import DatasetInfo, PerQuery, Phase, Record, RecordFiles, RetrieverInfo, Timing

START = datetime(2026, 1, 1, tzinfo=UTC)
DATASET_FIELDS = frozenset(("split", "fingerprint", "group", "parts", "documents", "queries", "differences"))

Scored = tuple[Record, dict[str, PerQuery]]
"""A record and its scores by query, under the path that the record names."""


def make_timing(seconds: float = 1.0, **fields: Any) -> Timing:
    """Return a timing whose phases all took `seconds`, of one query over ten documents; `fields` replace its fields."""
    phase = Phase(wall_s=seconds, cpu_s=seconds)
    defaults: dict[str, Any] = {
        "warmup": phase,
        "index": phase,
        "searches": [phase],
        "latencies_s": [],
        "documents": 10,
        "queries": 1,
        "index_bytes": 2_000_000,
        "threads": 1,
    }
    return Timing(**{**defaults, **fields})


def make_record(
    retriever: str | RetrieverInfo = "bm25",
    dataset: str | DatasetInfo = "scifact",
    value: float = 0.5,
    minutes: float = 0,
    *,
    status: str = "ok",
    seconds: float = 1.0,
    **fields: Any,
) -> Record:
    """Return a record.

    Args:
        retriever: The retriever, or its name.
        dataset: The dataset, or its name.
        value: The mean of ndcg@10.
        minutes: Minutes after `START` at which the evaluation started.
        status: "ok" or "failed". A failed record has no metrics and no timing.
        seconds: The wall and CPU time of each phase.
        fields: Fields of the record and, by the names in `DATASET_FIELDS`, of its dataset; they replace the defaults.
    """
    dataset_fields = {name: fields.pop(name) for name in DATASET_FIELDS & fields.keys()}
    if isinstance(retriever, str):
        retriever = RetrieverInfo(name=retriever, config={})
    if isinstance(dataset, str):
        dataset = DatasetInfo(name=dataset, **{"split": "test", "fingerprint": "f" * 8, **dataset_fields})
    defaults: dict[str, Any] = {
        "id": f"{abs(hash((retriever.name, dataset.name))) % 16**16:016x}",
        "started": START + timedelta(minutes=minutes),
        "status": status,
        "retriever": retriever,
        "dataset": dataset,
        "k": 100,
        "seed": 0,
        "metric_version": 1,
        "metrics": {"ndcg@10": value} if status == "ok" else {},
        "timing": make_timing(seconds) if status == "ok" else None,
        "environment": "e" * 16,
        "harness": "0",
        "code": "c" * 16,
        "command": f"harness retriever={retriever.name} dataset={dataset.name}",
    }
    return Record(**{**defaults, **fields})


def forums(retriever: str, n: int, minutes: float = 0, **fields: Any) -> list[Record]:
    """Return the records of the first `n` of CQADupStack's twelve forums; forum i has the value i / 100."""
    group = {"group": "cqadupstack", "parts": 12, **fields}
    return [
        make_record(retriever, f"cqadupstack/f{i}", i / 100, minutes, **{"fingerprint": f"f{i}", **group})
        for i in range(n)
    ]


def scored(record: Record, values: Any, ids: list[str] | None = None) -> Scored:
    """Return the record with the mean of `values` as ndcg@10, and `values` as its scores by query."""
    path = f"{record.retriever.label}/{record.dataset.name}"
    ids = [f"q{number}" for number in range(len(values))] if ids is None else ids
    changes = {"metrics": {"ndcg@10": float(np.mean(values))}, "files": RecordFiles(per_query=path)}
    return record.model_copy(update=changes), {path: PerQuery(ids, {"ndcg@10": np.asarray(values, float)})}


def built(*evaluations: Scored, **options: Any) -> Leaderboard:
    """Return the leaderboard of scored records by ndcg@10."""
    scores: dict[str, PerQuery] = {}
    for _, record_scores in evaluations:
        scores |= record_scores
    return build([record for record, _ in evaluations], "ndcg@10", scores, **options)


def row(leaderboard: Leaderboard, label: str) -> Any:
    """Return the row of a retriever by its label."""
    return next(row for row in leaderboard.rows if row.label == label)


def noise(seed: int, n: int = 60) -> np.ndarray:
    """Return `n` values between 0 and 0.2."""
    return np.random.default_rng(seed).random(n) * 0.2
