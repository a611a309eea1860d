"""Benchmark of a leaderboard of up to ten thousand records: seconds and peak memory of a separate process.

The records are of retrievers on fifteen datasets of 300 queries each with seven metrics. The leaderboard is of one
metric and includes all significance tests.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.records import make_record, make_timing

from harness.store import Store
from harness.types import PerQuery, Phase, RetrieverInfo

METRICS = ("ndcg@10", "map@100", "recall@100", "mrr@10", "precision@10", "hit@10", "judged@10")
CHILD = """
import contextlib, json, resource, sys, time
from pathlib import Path
begin = time.perf_counter()
from harness.leaderboard import build, writers
from harness.leaderboard.tables.leaderboard import tables
from harness.store import Store
store = Store(Path(sys.argv[1]))
records = store.latest()
read = time.perf_counter()
scores = store.scores(records, ["ndcg@10"])
scored = time.perf_counter()
leaderboard = build(records, "ndcg@10", scores)
size = len(writers.markdown(tables(leaderboard)))
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with contextlib.suppress(OSError):  # ru_maxrss includes the memory of the parent process
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    peak = int(line.split()[1]) * 1024
parts = {"records_s": read - begin, "scores_s": scored - read, "leaderboard_s": end - scored}
result = {"rows": len(leaderboard.rows), "tests": leaderboard.tests, "wall_s": end - begin, "peak_mb": peak / 1e6}
print(json.dumps(result | parts))
"""


def store_records(root, count, queries):
    """Store `count` records as a sweep does."""
    rng, store = np.random.default_rng(0), Store(root)
    ids = [f"q{number}" for number in range(queries)]
    phase = Phase(wall_s=2.0, cpu_s=2.0, stages={"encode": 1.5, "build": 0.1}, counts={"texts": 10, "tokens": 100})
    for number in range(count):
        row, column = divmod(number, 15)
        values = {name: np.clip(rng.normal(0.4 + 0.01 * (row % 9), 0.3, queries), 0, 1) for name in METRICS}
        timing = make_timing(
            warmup=phase,
            index=phase,
            searches=[phase] * 3,
            latencies_s=rng.random(100).tolist(),
            documents=1000,
            queries=queries,
        )
        record = make_record(
            RetrieverInfo(name=f"r{row}", config={"_target_": "harness.retrievers.dense.Dense"}),
            f"d{column}",
            minutes=number / 60,
            id=f"{number:016x}",
            fingerprint=f"{column:032x}",
            queries=queries,
            metrics={name: float(scores.mean()) for name, scores in values.items()},
            timing=timing,
        )
        store.append(record, {}, per_query=PerQuery(ids, values))


@pytest.mark.parametrize("count", [2_500, 5_000, 10_000])
def test_leaderboard_of_many_records(count, tmp_path, monkeypatch, benchmark, measuring, capsys):
    count, queries = (count, 300) if measuring else (count // 100, 20)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    store_records(tmp_path, count, queries)

    def build_in_child():
        done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    result = benchmark.pedantic(build_in_child, rounds=3 if measuring else 1)
    assert result["rows"] == -(-count // 15)
    benchmark.extra_info.update(result)
    if measuring:
        with capsys.disabled():
            print(f"\n{count} records: " + ", ".join(f"{key} {value:.4g}" for key, value in result.items()))
