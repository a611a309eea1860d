"""Tests of matching records with the baseline: which are compared, undecided or new."""

import re

import pytest
from support.gate import BASE, RULES, gate_record, gate_values, make_evaluations, run_gate, shifted, statuses

from harness.gate import Baseline, gate, match_records
from harness.gate.ci import text
from harness.types import PerQuery


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"info": {"fingerprint": "0" * 32}}, "the dataset differs: f{32} in the baseline, 0{32} now"),
        ({"k": 10}, "k differs: 100 in the baseline, 10 now"),
        ({"metric_version": 2}, "the metrics' version differs: 1 in the baseline, 2 now"),
    ],
)
def test_evaluations_that_are_not_comparable_are_undecided(changed, message):
    verdict = gate_values({("a", "x"): BASE}, {("a", "x"): BASE})
    assert verdict.exit_code == 0
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): BASE}, 1)
    changed = dict(changed)
    dataset_fields = changed.pop("info", {})
    dataset = records[0].dataset.model_copy(update=dataset_fields)
    records[0] = records[0].model_copy(update={**changed, "dataset": dataset})
    verdict = run_gate(accepted, accepted_scores, records, scores)
    assert verdict.exit_code == 3
    assert re.search(message, verdict.findings[0].message)
    assert run_gate(accepted, accepted_scores, records, scores, lenient=True).exit_code == 0


def test_a_failed_newest_try_fails_and_is_named():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): BASE}, 1)
    failed = gate_record("a", "x", 2, status="failed", error="WeightsError: gone\nmore", timing=None)
    verdict = run_gate(accepted, accepted_scores, [*records, failed], scores)
    assert verdict.exit_code == 1
    assert text.line(verdict.findings[0]) == "FAIL a/x - its newest try failed: WeightsError: gone"


def test_differing_judged_queries_are_undecided():
    verdict = gate_values({("a", "x"): BASE}, {("a", "x"): BASE[:150]})
    assert verdict.exit_code == 3
    assert "the judged queries differ: 300 in the baseline, 150 now, 150 in both" in verdict.findings[0].message


def test_queries_in_another_order_are_paired_by_their_ids():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): BASE[::-1]}, 1)
    path = records[0].files.per_query
    scores[path] = PerQuery(scores[path].query_ids[::-1], scores[path].values)
    assert statuses(run_gate(accepted, accepted_scores, records, scores)) == {("a", "x"): "identical"}


def test_a_missing_evaluation_is_undecided_and_a_new_one_is_noted():
    verdict = gate_values({("a", "x"): BASE}, {("b", "x"): BASE})
    assert [(finding.status, finding.retriever) for finding in verdict.findings] == [("undecided", "a"), ("new", "b")]
    assert verdict.exit_code == 3
    assert gate_values({("a", "x"): BASE}, {("a", "x"): BASE, ("b", "x"): BASE}).exit_code == 0


def test_a_new_evaluation_that_failed_is_a_warning():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): BASE}, 1)
    failed = gate_record("b", "x", 1).model_copy(update={"status": "failed", "error": "WeightsError: gone\nmore"})
    verdict = run_gate(accepted, accepted_scores, [*records, failed], scores)
    assert (
        text.line(verdict.findings[0])
        == "WARN b/x - not in the baseline, and its newest try failed: WeightsError: gone"
    )
    assert verdict.exit_code == 0


def test_a_regression_outweighs_an_undecided_evaluation():
    verdict = gate_values({("a", "x"): BASE, ("b", "x"): BASE}, {("a", "x"): shifted(-0.05)})
    assert verdict.exit_code == 1
    compared = [finding for finding in verdict.findings if not finding.is_cost]
    assert [finding.status for finding in compared] == ["fail", "undecided"]


def test_the_newest_record_counts_even_if_an_older_one_was_better():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    old, old_scores = make_evaluations({("a", "x"): BASE}, 1)
    new, new_scores = make_evaluations({("a", "x"): shifted(-0.05)}, 2)
    verdict = run_gate(accepted, accepted_scores, [*new, *old], {**old_scores, **new_scores}, RULES)
    assert verdict.exit_code == 1


def test_a_group_of_datasets_is_one_evaluation_and_must_be_complete():
    parts = {"group": "cqadupstack", "parts": 2}
    names = ["cqadupstack/android", "cqadupstack/gis"]

    def evaluations_of_parts(values, minutes):
        return make_evaluations({("a", name): by_query for name, by_query in zip(names, values, strict=True)}, minutes)

    def grouped(records):
        return [record.model_copy(update={"dataset": record.dataset.model_copy(update=parts)}) for record in records]

    accepted, accepted_scores = evaluations_of_parts([BASE, BASE], 0)
    records, scores = evaluations_of_parts([shifted(-0.012), BASE], 1)
    verdict = run_gate(grouped(accepted), accepted_scores, grouped(records), scores)
    assert statuses(verdict) == {("a", "cqadupstack"): "fail"}
    assert verdict.findings[0].difference.delta == pytest.approx(-0.006)
    incomplete = run_gate(grouped(accepted), accepted_scores, grouped(records[:1]), scores)
    assert "cqadupstack/gis was not measured" in incomplete.findings[0].message


def test_a_failed_part_is_named_though_another_part_is_missing_or_other_code_measured_it():
    names = ["f0", "f1", "f2"]
    group = {"group": "forums", "parts": 3}

    def parts_of(minutes):
        records, scores = make_evaluations({("a", name): BASE for name in names}, minutes)
        infos = [record.dataset.model_copy(update=group) for record in records]
        return [
            record.model_copy(update={"dataset": info}) for record, info in zip(records, infos, strict=True)
        ], scores

    (accepted, accepted_scores), (records, scores) = parts_of(0), parts_of(1)
    failed = records[1].model_copy(update={"status": "failed", "error": "Error: boom", "timing": None})
    for measured in ([records[0], failed], [failed], [records[0], failed, records[2]]):
        for stale_reason in (None, lambda _: "measured with other code"):
            matched = match_records(accepted, measured, stale_reason)
            verdict = gate(Baseline(accepted, accepted_scores), matched, scores, RULES)
            assert verdict.exit_code == 1
            assert [text.line(each) for each in verdict.findings] == [
                "FAIL a/forums - f1: its newest try failed: Error: boom"
            ]


def test_a_newer_record_with_another_k_does_not_hide_a_comparable_one():
    accepted, accepted_scores = make_evaluations({("a", "x"): BASE})
    records, scores = make_evaluations({("a", "x"): shifted(-0.05)}, 1)
    shallow = gate_record("a", "x", 2, k=10)
    assert run_gate(accepted, accepted_scores, [*records, shallow], scores).exit_code == 1
    assert run_gate(accepted, accepted_scores, [shallow], scores).exit_code == 3
