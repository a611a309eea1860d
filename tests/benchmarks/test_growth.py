"""Benchmark of time and peak memory from 10,000 to 1,000,000 documents, one process each, stored in results/bench/."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import growth_child
import pytest
from benchmark_tables import GROWTH, machine, write
from growth_report import TERMS, limits, plot, series, table


def measure_in_child(kind, size):
    done = subprocess.run([sys.executable, growth_child.__file__, kind, str(size)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def measure_in_process(kind, size):
    return getattr(growth_child, kind)(size)


@pytest.mark.slow
def test_growth(benchmark, measuring, capsys, tmp_path):
    sizes = (10_000, 100_000, 1_000_000) if measuring else (500, 2_000)
    results = {"machine": machine(datetime.now(UTC).date().isoformat()), "rows": []}
    child = measure_in_child if measuring else measure_in_process

    def rounds():
        for kind in ("bm25", "dense"):
            results["rows"] += [{"kind": kind, "documents": size, **child(kind, size)} for size in sizes]

    benchmark.pedantic(rounds, rounds=1)
    rows = {(row["kind"], row["documents"]): row for row in results["rows"]}
    assert len(table(results)) == len(TERMS) + 4
    assert "GFLOP/s" in limits(results)
    plot(results, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")
    if not measuring:
        return
    write(GROWTH, results)
    with capsys.disabled():
        print("", *table(results), limits(results), sep="\n")
    assert rows["dense", sizes[-1]]["beyond_vectors"] < 3e9
    assert rows["bm25", sizes[-1]]["peak_rss"] < 4e9
    for term in TERMS:
        assert series(results, term)[2] < 1.15, term
