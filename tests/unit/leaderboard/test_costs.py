"""Tests of the uncertainty of costs, of missing ones, and of costs that were measured on a busy machine."""

import json
from datetime import UTC, datetime

import pytest
from support.records import make_record, make_timing, row

from harness.api import Results
from harness.errors import UndecidedError
from harness.leaderboard import build, writers
from harness.leaderboard.costs import refresh_command
from harness.leaderboard.frame import leaderboards_data, recommendation_data, to_csv, to_frame, to_json
from harness.leaderboard.page import html
from harness.leaderboard.recommend import recommend
from harness.leaderboard.tables.leaderboard import main_table, recommendation, tables
from harness.types import Phase, Timing


def phase(wall_s, **fields):
    """Return a phase of one thread that was never idle."""
    return Phase(wall_s=wall_s, cpu_s=wall_s, **fields)


def timed(name, value, *walls, dataset="x", **fields):
    """Return a record of 1,000 queries whose repeats took the given seconds."""
    timing = make_timing(searches=[phase(wall) for wall in walls], queries=1000, **fields)
    return make_record(name, dataset, value, timing=timing)


def on_front(records, axis="queries_per_s"):
    """Return the labels on the Pareto front of an axis."""
    return {row.label for row in build(records).rows if axis in row.front}


NARROW, WIDE = [1.0, 1.001, 1.002, 1.003, 1.004, 1.005], [0.9, 0.95, 1.0, 1.05, 1.1, 1.15]
BUSY = phase(2.0).model_copy(update={"cpu_s": 1.0, "run_delay_s": 1.0})


# ---------------------------------------------------------------------------------------------------------- intervals


def test_a_throughput_has_the_interval_of_the_median_of_the_repeats():
    a = row(build([timed("a", 0.5, *WIDE)]), "a")
    assert a.queries_per_s == pytest.approx(1000 / 1.025)
    assert a.intervals["queries_per_s"] == (1000 / 1.15, 1000 / 0.9)
    assert a.samples["queries_per_s"] == 6
    assert "docs_per_s" not in a.intervals, "indexing was measured once"
    assert a.samples["docs_per_s"] == 1


def test_docs_per_s_has_an_interval_from_the_shards():
    index = phase(10.0, shards={"": [(4000, 4.9), (4000, 5.0)]})
    a = row(build([timed("a", 0.5, 1.0, index=index, documents=8000)]), "a")
    low, high = a.intervals["docs_per_s"]
    assert low < a.docs_per_s == 800 < high
    assert a.samples["docs_per_s"] == 2


def test_a_throughput_over_datasets_has_an_interval_only_if_each_has_one():
    narrow, wide = timed("a", 0.5, *NARROW), timed("a", 0.5, *WIDE, dataset="y")
    both = row(build([narrow, wide]), "a")
    low, high = both.intervals["queries_per_s"]
    below = ((1.0025 - 1.0) ** 2 + (1.025 - 0.9) ** 2) ** 0.5
    assert high == pytest.approx(2000 / (1.0025 + 1.025 - below))
    assert low < both.queries_per_s < high
    assert both.samples["queries_per_s"] == 6
    assert "queries_per_s" not in row(build([narrow, timed("a", 0.5, 1.0, dataset="y")]), "a").intervals


def test_the_p95_of_several_datasets_does_not_depend_on_how_many_queries_were_timed_on_each():
    fast, slow = [0.001 + 0.00001 * n for n in range(100)], [0.1 + 0.001 * n for n in range(100)]
    equal = [timed("a", 0.5, 1.0, latencies_s=fast), timed("a", 0.5, 1.0, dataset="y", latencies_s=slow)]
    more = [timed("b", 0.5, 1.0, latencies_s=fast * 30), timed("b", 0.5, 1.0, dataset="y", latencies_s=slow)]
    leaderboard = build([*equal, *more])
    a, b = row(leaderboard, "a"), row(leaderboard, "b")
    assert a.latency_ms == pytest.approx(190, abs=1.5), "a tenth of the slow dataset's queries are slower"
    assert b.latency_ms == pytest.approx(a.latency_ms, abs=1.5)
    assert b.intervals["latency_ms"] == pytest.approx(a.intervals["latency_ms"], abs=4)
    assert (a.samples["latency_ms"], b.samples["latency_ms"]) == (200, 3100)


def test_tables_and_data_have_the_intervals_and_the_numbers_of_samples():
    leaderboard = build([timed("a", 0.5, *WIDE, latencies_s=[0.001 * n for n in range(1, 101)])])
    text = writers.terminal(tables(leaderboard), 200)
    assert "870 to 1,111 (6)" in text
    assert "91.0 to 100 (100)" in text
    (data,) = json.loads(to_json(leaderboards_data({"m": leaderboard})))["m"]["rows"]
    assert (data["queries_per_s_low"], data["queries_per_s_high"]) == (1000 / 1.15, 1000 / 0.9)
    assert (data["docs_per_s_low"], data["samples"]["docs_per_s"]) == (None, 1)
    assert (data["latency_ms_low"], data["latency_ms_high"]) == pytest.approx((91, 100))
    assert data["busy"] == ""
    frame = to_frame({"ndcg@10": leaderboard})
    assert frame["queries_per_s_low"].to_list() == [1000 / 1.15]
    assert frame["busy"].to_list() == [""]


# ------------------------------------------------------------------------------------------------------- Pareto front


def test_throughputs_whose_intervals_overlap_do_not_dominate():
    slower, faster = [1000 / 568 * wall for wall in WIDE], [1000 / 574 * wall for wall in WIDE]
    assert on_front([timed("a", 0.6, *slower), timed("b", 0.7, *faster)]) == {"a", "b"}
    slower, faster = [1000 / 568 * wall for wall in NARROW], [1000 / 574 * wall for wall in NARROW]
    assert on_front([timed("a", 0.6, *slower), timed("b", 0.7, *faster)]) == {"b"}
    assert on_front([timed("a", 0.7, *slower), timed("b", 0.6, *faster)]) == {"a", "b"}


def test_equal_costs_without_an_interval_are_decided_by_quality():
    assert on_front([timed("a", 0.6, 1.0), timed("b", 0.7, 1.0)], "index_mb") == {"b"}
    assert on_front([timed("a", 0.7, 1.0), timed("b", 0.7, 1.0)], "index_mb") == {"a", "b"}


# ---------------------------------------------------------------------------------------------------------- recommend


def test_a_limit_inside_the_interval_excludes_no_row():
    leaderboard = build([timed("a", 0.5, *WIDE), timed("b", 0.4, 0.5)])
    within = recommend(leaderboard, {"queries_per_s": 1000})
    assert within.best.label == "a"
    note = "queries_per_s is 975.61 (869.565 to 1,111.11), 1,000 is within its uncertainty"
    assert within.uncertain == {"a": note}
    assert note in writers.terminal([recommendation(within)], 200)
    assert recommendation_data(within)["uncertain"] == {"a": note}
    beyond = recommend(leaderboard, {"queries_per_s": 1200})
    assert beyond.excluded == {"a": "queries_per_s is 975.61, below 1,200"}
    assert beyond.uncertain == {}


def test_an_exclusion_by_a_figure_of_a_busy_machine_says_so():
    busy = make_record("a", "x", 0.5, timing=make_timing(searches=[BUSY], queries=1000))
    leaderboard = build([busy, timed("b", 0.4, 0.5)])
    reason = "measured on a busy machine: other processes took 50% of the time; to measure again: "
    command = "harness retriever=a dataset=x --refresh"
    excluded = recommend(leaderboard, {"queries_per_s": 1000}).excluded
    assert excluded == {"a": f"queries_per_s is 500, below 1,000 ({reason}{command})"}
    allowed = recommend(leaderboard, {"queries_per_s": 100})
    assert (allowed.best.label, allowed.uncertain) == ("a", {"a": f"queries_per_s: {reason}{command}"})


# --------------------------------------------------------------------------------------------------------------- gaps


def test_a_percentile_that_the_sample_does_not_carry_is_a_gap():
    leaderboard = build([timed("a", 0.5, 1.0, latencies_s=[0.001] * 58)])
    assert row(leaderboard, "a").latency_ms is None
    assert "No p95 ms, because 58 searches of single queries are too few" in writers.terminal(tables(leaderboard), 200)
    with pytest.raises(UndecidedError, match=r"a: latency_ms was not measured: 58 searches of single queries"):
        recommend(leaderboard, {"latency_ms": 5})
    (data,) = json.loads(to_json(leaderboards_data({"m": leaderboard})))["m"]["rows"]
    assert data["latency_ms"] is None


def test_costs_of_an_index_that_existed_before_are_gaps():
    leaderboard = build([timed("service", 0.5, 1.0, externally_indexed=True, index_bytes=0), timed("bm25", 0.4, 2.0)])
    service = row(leaderboard, "service")
    assert (service.docs_per_s, service.index_mb) == (None, None)
    assert service.front == {"queries_per_s"}
    text = writers.terminal(tables(leaderboard), 200)
    assert "No docs/s and index MB, because it searches an index of its own: service." in text


def test_docs_per_s_of_embeddings_of_a_foreign_machine_is_a_gap_with_a_reason():
    foreign = [timed(name, 0.5, 1.0, index=phase(0.1, foreign_machine=True)) for name in ("dense", "splade")]
    text = writers.terminal(tables(build(foreign)), 300)
    assert "No docs/s, because embeddings were computed on another machine or with other packages" in text
    assert "to encode here, add --refresh to the command: dense, splade." in text


# -------------------------------------------------------------------------------------------------------- cached time


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "docs/s includes cached time, measured at an unknown time on a machine of unknown load"),
        ({"cached_since": datetime(2026, 5, 4, 3, 2, tzinfo=UTC)}, "at 2026-05-04 03:02 UTC on a machine of"),
        ({"run_delay_s": 0.01}, "on an idle machine; --refresh measures it again"),
        ({"run_delay_s": 4.0, "cpu_s": 5.0}, "on a busy machine;"),
    ],
)
def test_cached_time_is_shown_with_its_date_and_the_load_of_the_machine(fields, expected):
    index = phase(10.0, cached_s=9.0).model_copy(update=fields)
    leaderboard = build([timed("dense", 0.5, 1.0, index=index)])
    assert expected in writers.terminal(tables(leaderboard), 300)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"queries": 0}, {"queries_per_s"}),
        ({"searches": []}, {"queries_per_s"}),
        ({"searches": [phase(0.0)] * 7}, {"queries_per_s"}),
        ({"documents": 0}, {"docs_per_s"}),
        ({"index": phase(0.0), "documents": 10}, {"docs_per_s"}),
        ({"documents": 0, "index": phase(10.0, shards={"": [(4000, 4.9), (4000, 5.0)]})}, {"docs_per_s"}),
    ],
)
def test_a_throughput_that_cannot_be_computed_is_a_gap_of_its_row_alone(fields, missing):
    odd = make_record("odd", "x", 0.6, timing=make_timing(**fields))
    leaderboard = build([odd, timed("a", 0.5, *NARROW)])
    assert row(leaderboard, "odd").gaps.keys() == missing
    assert all(getattr(row(leaderboard, "odd"), axis) is None for axis in missing)
    assert row(leaderboard, "a").queries_per_s == pytest.approx(1000 / 1.0025)
    data = json.loads(to_json(leaderboards_data({"ndcg@10": leaderboard})))["ndcg@10"]["rows"][0]
    assert [data[axis] for axis in missing] == [None]
    assert "or no time was measured for" in writers.terminal(tables(leaderboard), 200)
    restored = Timing.model_validate_json(odd.timing.model_dump_json())
    assert restored == odd.timing


# -------------------------------------------------------------------------------------------------------- busy machine


def test_figures_of_a_busy_machine_are_marked_in_every_format():
    timing = make_timing(searches=[BUSY], queries=1000)
    leaderboard = build([make_record("a", "x", 0.5, timing=timing), timed("b", 0.4, 0.5)])
    busy_table = [main_table(leaderboard)]
    assert "~500" in writers.terminal(busy_table, 200)
    assert r"\~500" in writers.markdown(busy_table)
    assert r"\textasciitilde{}500" in writers.latex(busy_table)
    assert "~2,000" not in writers.terminal(busy_table, 200)
    reason = "queries/s: other processes took 50% of the time"
    note = f"~ measured on a busy machine ({reason}); to measure again: harness"
    assert f"{note} retriever=a dataset=x --refresh: a." in writers.terminal(busy_table, 300)
    page = html.render({"ndcg@10": leaderboard}, {}, lambda *_: None)
    assert '<span class="figure">~500</span>' in page
    assert '"busy":[[1,0,0,0],[0,0,0,0]]' in page
    assert "~500" in html.render_table(leaderboard)
    rows = json.loads(to_json(leaderboards_data({"m": leaderboard})))["m"]["rows"]
    assert [row["busy"] for row in rows] == ["queries_per_s", ""]
    csv = to_csv(to_frame({"ndcg@10": leaderboard})).splitlines()
    column = csv[0].split(",").index("busy")
    assert [line.split(",")[column] for line in csv[1:]] == ["queries_per_s", '""']


def test_data_name_every_figure_of_a_busy_machine():
    timing = make_timing(index=BUSY, searches=[BUSY], latencies_s=[0.1] * 60, latency_run_delay_s=0.1)
    records = [make_record("a", "x", 0.5, timing=timing), make_record("untimed", "x", 0.4, timing=None)]
    rows = json.loads(to_json(leaderboards_data({"m": build(records)})))["m"]["rows"]
    assert [row["busy"] for row in rows] == ["queries_per_s, docs_per_s", ""]
    assert rows[0]["busy_reasons"].keys() == {"queries_per_s", "docs_per_s"}
    assert to_frame({"ndcg@10": build(records)})["busy"].to_list() == ["queries_per_s, docs_per_s", None]
    frame = Results(records, {}).to_pandas()
    assert frame["busy"].fillna("untimed").tolist() == ["queries_per_s, docs_per_s", "untimed"]


def test_the_command_that_measures_again_has_no_resume_setting():
    assert refresh_command(make_record(command="harness a=b resume=false c=d")) == "harness a=b c=d --refresh"
    assert refresh_command(make_record(command="")) == ""
