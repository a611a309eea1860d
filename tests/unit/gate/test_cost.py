"""Tests of the checks of costs: CPU time, memory and index size."""

import pytest
from support.gate import BASE, RULES, gate_record, gate_timing, make_evaluations, run_gate

from harness.gate import policy
from harness.gate.ci import text
from harness.gate.cost import cpu_per_document, cpu_per_query

WALL = {"wall/query", "wall/document"}


def gate_costs(before, after, rules=RULES, repeats=(), **changed):
    """Return the statuses of the cost checks by name, and the verdict, on a timing against an accepted one."""
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): BASE}, 1)
    accepted = [accepted[0].model_copy(update={"timing": before})]
    records = [records[0].model_copy(update={"timing": after, **changed})]
    repeated = [gate_record("a", "x", 2 + number, timing=timing) for number, timing in enumerate(repeats)]
    verdict = run_gate(accepted, accepted_scores, records, scores, rules, repeats=repeated)
    return {finding.check: finding.status for finding in verdict.findings if finding.is_cost}, verdict


def test_cpu_time_is_in_units_of_the_reference_kernels():
    timing = gate_timing(cpu=2.0, unit=1.0)
    assert cpu_per_query(timing).value == pytest.approx(2.0 / 0.004 / 100)
    assert cpu_per_document(timing).value == pytest.approx(2.0 / 0.004 / 10)
    assert cpu_per_query(gate_timing(cpu=4.0, unit=2.0)).value == pytest.approx(cpu_per_query(timing).value)


def test_a_cost_above_the_policy_fails():
    checks, verdict = gate_costs(gate_timing(), gate_timing(cpu=1.21))
    within = dict.fromkeys(WALL | {"memory", "index bytes"}, "pass")
    assert checks == {"cpu/query": "fail", "cpu/document": "fail", **within}
    assert verdict.exit_code == 1
    assert text.line(verdict.findings[0]).endswith("(x1.21, limit x1.20)")
    assert gate_costs(gate_timing(), gate_timing(cpu=1.19))[1].exit_code == 0
    assert gate_costs(gate_timing(), gate_timing(cpu=2.0, unit=2.0))[1].exit_code == 0, "a slower machine"
    assert gate_costs(gate_timing(), gate_timing(memory=int(1.21e8)))[0]["memory"] == "fail"
    assert gate_costs(gate_timing(), gate_timing(size=1060))[0]["index bytes"] == "fail"
    rules = policy.validate({"cpu": None, "wall": None, "memory": None, "index_bytes": None}, "p")
    assert gate_costs(gate_timing(), gate_timing(cpu=9, size=9999, memory=10**10), rules)[0] == {}


def test_the_lowest_of_several_measurements_counts():
    checks, verdict = gate_costs(
        gate_timing(), gate_timing(cpu=1.5), repeats=[gate_timing(cpu=1.4), gate_timing(cpu=1.1)]
    )
    assert checks["cpu/query"] == "pass"
    line = next(text.line(finding) for finding in verdict.findings if finding.check == "cpu/query")
    assert line.endswith("(x1.10, limit x1.20, least of 3 measurements)")


def test_a_repeat_without_a_figure_does_not_replace_one_that_has_it():
    cached = gate_timing(cpu=1.0, cached=0.9, memory=None)
    checks, verdict = gate_costs(gate_timing(), gate_timing(cpu=1.5, memory=5 * 10**8), repeats=[cached])
    assert checks["cpu/query"] == checks["index bytes"] == "pass"
    assert checks["cpu/document"] == checks["memory"] == "fail"
    assert "least of" not in next(finding.message for finding in verdict.findings if finding.check == "memory")


def test_the_accepted_record_is_not_a_measurement_of_the_candidate():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): BASE}, 1)
    slow = records[0].model_copy(update={"timing": gate_timing(cpu=2.0)})
    verdict = run_gate(accepted, accepted_scores, [*accepted, slow], scores)
    assert {finding.check for finding in verdict.with_status("fail")} == {"cpu/query", "cpu/document"}


def test_a_record_with_one_thread_is_gated_even_if_a_newer_one_of_the_same_code_used_two():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): BASE}, 1)
    slow = records[0].model_copy(update={"timing": gate_timing(cpu=2.0)})
    two_threads = gate_record("a", "x", 2, timing=gate_timing(threads=2), files={"per_query": "a x 1", "record": "r"})
    verdict = run_gate(accepted, accepted_scores, [slow, two_threads], scores)
    assert {finding.check for finding in verdict.with_status("fail")} == {"cpu/query", "cpu/document"}
    other_code = two_threads.model_copy(update={"code": "another"})
    assert "measured with 2 threads" in " ".join(run_gate(accepted, accepted_scores, [slow, other_code], scores).notes)


@pytest.mark.parametrize("broken", [{"queries": 0}, {"unit": 0.0}, {"cpu": 0.0}])
def test_a_cost_of_zero_is_not_gated(broken):
    checks, verdict = gate_costs(gate_timing(**broken), gate_timing(**broken))
    assert "cpu/query" not in checks
    assert verdict.exit_code == 0


@pytest.mark.parametrize(
    ("changed", "remaining", "reason"),
    [
        ({"threads": 2}, {"memory", "index bytes"}, "measured with 2 threads; one is needed: timing=cpu1"),
        ({"threads": 2}, {"memory", "index bytes"}, "wall/query: measured with 1 and 2 threads"),
        ({"cached": 0.5}, {"cpu/query", "wall/query", "memory", "index bytes"}, "the embeddings were cached"),
        (
            {"memory": None},
            {"cpu/query", "cpu/document", "index bytes", *WALL},
            "separate process that encodes anew: timing=cpu1",
        ),
    ],
)
def test_costs_measured_under_other_conditions_are_noted_and_not_gated(changed, remaining, reason):
    checks, verdict = gate_costs(gate_timing(), gate_timing(**changed))
    assert set(checks) == remaining
    assert any(reason in note and note.endswith("(1 of 1 evaluations)") for note in verdict.notes)


def test_in_another_environment_only_the_index_size_fails_and_wall_time_warns():
    checks, verdict = gate_costs(gate_timing(), gate_timing(cpu=99.0), environment="f" * 16)
    assert checks == {"index bytes": "pass", "wall/query": "warn", "wall/document": "warn"}
    assert verdict.exit_code == 0
    assert "measured in another environment" in " ".join(verdict.notes)
    assert text.line(verdict.findings[0]).endswith("(x99.00, limit x3.00, in another environment)")


def test_a_retriever_that_waits_fails_by_its_wall_time():
    checks, verdict = gate_costs(gate_timing(wall=1.0), gate_timing(wall=94.0))
    assert checks["cpu/query"] == "pass"
    assert checks["wall/query"] == checks["wall/document"] == "fail"
    assert verdict.exit_code == 1
    assert gate_costs(gate_timing(wall=1.0), gate_timing(wall=2.9))[1].exit_code == 0
    quick = gate_timing(cpu=0.001, wall=0.001)
    assert gate_costs(quick, gate_timing(cpu=0.001, wall=0.94))[0]["wall/query"] == "fail"


def test_the_95th_percentile_of_latency_is_gated_where_queries_were_searched_alone():
    usual, slow = [0.005] * 100, [0.005] * 90 + [0.5] * 10
    assert "latency p95" not in gate_costs(gate_timing(), gate_timing(alone=slow))[0]
    checks = gate_costs(gate_timing(alone=usual), gate_timing(alone=slow))[0]
    assert checks["latency p95"] == "fail"
    assert checks["wall/query"] == "pass"
    assert gate_costs(gate_timing(alone=usual), gate_timing(alone=usual))[0]["latency p95"] == "pass"


def with_wall_kernels(timing, factor):
    """Return a timing whose kernels took `factor` times their CPU seconds on the wall clock."""
    walls = [{name: seconds * factor for name, seconds in sample.items()} for sample in timing.references]
    return timing.model_copy(update={"reference_walls": walls})


@pytest.mark.parametrize(("of_before", "of_after"), [(False, True), (True, False)])
def test_wall_time_has_the_same_unit_on_both_sides(of_before, of_after):
    # without the wall seconds of one side's kernels, 4 times the seconds are 4 times the figure
    sides = [
        with_wall_kernels(timing, 4) if has_walls else timing
        for timing, has_walls in ((gate_timing(), of_before), (gate_timing(wall=4.0), of_after))
    ]
    _, verdict = gate_costs(*sides)
    finding = next(each for each in verdict.findings if each.check == "wall/query")
    assert (finding.status, finding.ratio) == ("fail", pytest.approx(4.0))
    _, verdict = gate_costs(*(with_wall_kernels(timing, 4) for timing in sides))
    assert next(each.ratio for each in verdict.findings if each.check == "wall/query") == pytest.approx(4.0)
    repeated = gate_costs(with_wall_kernels(gate_timing(), 4), with_wall_kernels(gate_timing(wall=9.0), 4))[1]
    assert next(each.ratio for each in repeated.findings if each.check == "wall/query") == pytest.approx(9.0)


def test_a_repeat_without_wall_seconds_of_its_kernels_is_compared_in_cpu_seconds():
    before, after = with_wall_kernels(gate_timing(), 4), with_wall_kernels(gate_timing(wall=9.0), 4)
    _, verdict = gate_costs(before, after, repeats=[gate_timing(wall=5.0)])
    assert next(each.ratio for each in verdict.findings if each.check == "wall/query") == pytest.approx(5.0)


@pytest.mark.parametrize(("searches", "is_gated"), [(58, False), (59, True)])
def test_the_95th_percentile_is_not_gated_from_too_few_searches(searches, is_gated):
    for usual, slow in ((100, searches), (searches, 100)):
        checks, verdict = gate_costs(gate_timing(alone=[0.005] * usual), gate_timing(alone=[0.5] * slow))
        assert checks.get("latency p95") == ("fail" if is_gated else None)
        note = "latency p95: 58 searches are too few for it: timing.latency_queries=100 (1 of 1 evaluations)"
        assert (note in verdict.notes) != is_gated


def test_a_phase_that_is_too_short_has_no_verdict():
    checks, verdict = gate_costs(gate_timing(cpu=0.005), gate_timing(cpu=0.0061))
    assert set(checks) == {"memory", "index bytes"}
    assert "cpu/document: too short to tell, less than 0.25 s (1 of 1 evaluations)" in verdict.notes
    # a short phase counts as one of 0.25 s: 0.3 s is at the limit
    assert gate_costs(gate_timing(cpu=0.01), gate_timing(cpu=0.29))[0]["cpu/document"] == "pass"
    assert gate_costs(gate_timing(cpu=0.01), gate_timing(cpu=0.31))[0]["cpu/document"] == "fail"


def test_the_limit_is_wider_by_the_spread_of_the_repeats_and_at_most_twice_the_tolerance():
    noisy = {"search": (0.95, 1, 1.05, 0.97, 1.02)}
    deviation = 1.4826 * 0.03
    checks, verdict = gate_costs(gate_timing(), gate_timing(cpu=1.25, **noisy))
    finding = next(each for each in verdict.findings if each.check == "cpu/query")
    assert finding.limit == pytest.approx(1.2 + 2 * deviation)
    assert (finding.status, checks["cpu/document"]) == ("pass", "fail")
    wild = {"search": (0.5, 1, 1.5, 0.6, 1.4)}
    _, verdict = gate_costs(gate_timing(**wild), gate_timing(cpu=1.5, **wild))
    finding = next(each for each in verdict.findings if each.check == "cpu/query")
    assert finding.limit == pytest.approx(1.4)
    assert finding.status == "fail"
