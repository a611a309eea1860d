"""Time and peak memory from 10,000 to 1,000,000 documents, each size in its own process, kept in results/bench/."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import growth_child
from benchmark_tables import GROWTH, machine, write
from growth_report import TERMS, limits, plot, series, table


def apart(kind, size):
    done = subprocess.run([sys.executable, growth_child.__file__, kind, str(size)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def beside(kind, size):
    return getattr(growth_child, kind)(size)


def test_growth(benchmark, measuring, capsys, tmp_path):
    sizes = (10_000, 100_000, 1_000_000) if measuring else (500, 2_000)
    held = {"machine": machine(datetime.now(UTC).date().isoformat()), "rows": []}
    child = apart if measuring else beside

    def rounds():
        for kind in ("bm25", "dense"):
            held["rows"] += [{"kind": kind, "documents": size, **child(kind, size)} for size in sizes]

    benchmark.pedantic(rounds, rounds=1)
    rows = {(row["kind"], row["documents"]): row for row in held["rows"]}
    assert len(table(held)) == len(TERMS) + 4
    assert "GFLOP/s" in limits(held)
    plot(held, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")
    if not measuring:
        return
    write(GROWTH, held)
    with capsys.disabled():
        print("", *table(held), limits(held), sep="\n")
    assert rows["dense", sizes[-1]]["beyond_vectors"] < 3e9
    assert rows["bm25", sizes[-1]]["peak_rss"] < 4e9
    for term in TERMS:
        assert series(held, term)[2] < 1.15, term
