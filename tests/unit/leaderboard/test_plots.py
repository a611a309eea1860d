"""Tests of the plots of results in memory."""

import pytest
from support.records import make_record, make_timing

from harness.api import Results

pytest.importorskip("matplotlib")
OTHER = "f" * 16
RECORDS = [
    make_record("best", "x", 0.9, seconds=8.0),
    make_record("fast", "x", 0.5, seconds=1.0),
    make_record("slow", "x", 0.4, seconds=4.0),
    make_record("foreign", "x", 0.7, seconds=2.0, environment=OTHER),
    make_record("faster_foreign", "x", 0.6, seconds=0.5, environment=OTHER),
    make_record("threaded", "x", 0.3, timing=make_timing(0.25, threads=4)),
]


def lines(figure):
    """Return the points of each line, [(cost, quality), ...]."""
    return [list(zip(*line.get_data(), strict=True)) for line in figure.axes[0].get_lines()]


def test_the_front_of_the_plot_is_that_of_the_leaderboard():
    results = Results(RECORDS, {})
    expected = [[(0.125, 0.9), (1.0, 0.5)], [(0.5, 0.7), (2.0, 0.6)]]
    assert sorted(lines(results.plot_pareto())) == expected, "no line crosses environments or numbers of threads"
    for axis in ("docs_per_s", "index_mb"):
        on_front = {row.mean for row in results.leaderboard.rows if axis in row.front}
        assert {mean for line in lines(results.plot_pareto(axis)) for _, mean in line} == on_front != set()


def test_a_row_within_the_uncertainty_of_another_is_on_both_fronts():
    walls = {"a": [1.0, 1.1, 1.2], "b": [0.9, 1.15, 1.3]}
    timings = {name: make_timing() for name in walls}
    for name, seconds in walls.items():
        phases = [timings[name].searches[0].model_copy(update={"wall_s": wall}) for wall in seconds]
        timings[name] = make_timing(searches=phases)
    results = Results([make_record(n, "x", q, timing=timings[n]) for n, q in (("a", 0.5), ("b", 0.4))], {})
    assert all("queries_per_s" in row.front for row in results.leaderboard.rows)
    assert [len(line) for line in lines(results.plot_pareto())] == [2]
