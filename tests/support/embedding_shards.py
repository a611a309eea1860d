"""Shards of the embedding cache and temporary files of any age, for tests of the cache."""

import os
import time
from pathlib import Path

import numpy as np

from harness.embedding_cache import shards
from harness.types import Phase

DAY = 86_400
"""A day in seconds."""
COST = Phase(wall_s=1.5, cpu_s=2.0, stages={"encode": 1.5}, counters={"": {"tokens": 7}})
VECTORS = {"vectors": np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)}
ARRAYS = {
    "dense": VECTORS,
    "sparse": {
        "counts": np.full(5, 2, np.int32),
        "terms": np.arange(10, dtype=np.int64),
        "weights": np.linspace(0, 1, 10, dtype=np.float16),
        "seen": np.array([True, False, True]),
    },
    "fortran": {"vectors": np.arange(12, dtype=np.float16).reshape(3, 4).T},
    "strided": {"vectors": np.arange(24, dtype=np.int16).reshape(4, 6)[:, ::2]},
    "empty": {"counts": np.zeros(4, np.int64), "vectors": np.empty((0, 4), np.float16)},
    "nothing at all": {},
    "a number": {"width": np.array(30522)},
    "odd values": {"vectors": np.array([[np.nan, np.inf, -0.0, 1e-45]], np.float32)},
}


def write_shard(path: Path, arrays=VECTORS, conditions="c", identity=None, **settings) -> Path:
    """Write a shard, and return its path."""
    shards.write(path, identity or {"encoder": "e"}, arrays, COST, conditions, **settings)
    return path


def file_names(folder: Path) -> list[str]:
    """Return the names of all files below a folder, sorted."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def write_aged_file(path: Path, days: float = 2) -> Path:
    """Write a file that was last modified some days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path
