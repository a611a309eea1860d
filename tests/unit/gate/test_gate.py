"""The gate's rule on made scores, its calibration by simulation, the baseline on disk, and the forms of a verdict."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from support.records import START, make_record, make_timing

from harness import __main__, stats
from harness.errors import ConfigError, UndecidedError
from harness.gate import MACRO, Baseline, Finding, Policy, gate, make_verdict, match_records, policy
from harness.gate import baseline as accepted
from harness.gate.ci import github, junit, text
from harness.gate.cost import cpu_per_document, cpu_per_query
from harness.store import Store
from harness.types import PerQuery, Phase

RULES = Policy()
KERNELS = {"dict_loop": 0.004, "blas_product": 0.004, "random_gather": 0.004}


def timing(cpu=1.0, unit=1.0, threads=1, size=1000, memory=10**8, cached=0.0, queries=100):
    phase = Phase(wall_s=cpu, cpu_s=cpu, cached_s=cached)
    return make_timing(
        warmup=phase,
        index=phase,
        searches=[phase] * 3,
        queries=queries,
        index_bytes=size,
        peak_memory_bytes=memory,
        threads=threads,
        references=[{name: seconds * unit for name, seconds in KERNELS.items()}] * 5,
    )


def record(retriever, dataset, minutes=0, mean=0.5, **changes):
    files = {"per_query": f"{retriever} {dataset} {minutes}", "record": "r"}
    defaults = {"fingerprint": "f" * 32, "timing": timing(), "files": files, "id": "c" * 16, "code": "d" * 16}
    return make_record(retriever, dataset, mean, minutes, **{**defaults, **changes})


def side(values, minutes=0):
    """Records and scores for {(retriever, dataset): per-query values}."""
    records = [record(*key, minutes, float(np.mean(own))) for key, own in values.items()]
    ids = {len(own): [f"q{number}" for number in range(len(own))] for own in values.values()}
    scores = {
        one.files.per_query: PerQuery(ids[len(own)], {"ndcg@10": np.asarray(own, float)})
        for one, own in zip(records, values.values(), strict=True)
    }
    return records, scores


def told(held, scores, records, now, rules=RULES, lenient=False, again=()):
    return gate(Baseline(held, scores), match_records(held, records), now, rules, lenient, again)


def judged(before, after, rules=RULES, lenient=False):
    return told(*side(before), *side(after, 1), rules, lenient)


def status(found, check="ndcg@10"):
    return {(one.retriever, one.dataset): one.status for one in found.findings if one.check == check}


BASE = np.random.default_rng(0).uniform(0.2, 0.9, 300)


def moved(by, queries=300, seed=1, share=1.0):
    """BASE with some queries' scores moved so that the mean moves by `by`."""
    chosen = np.random.default_rng(seed).permutation(300)[: int(share * 300)]
    values = BASE[:queries].copy()
    values[chosen] += by / share
    return values


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (BASE, "identical"),
        (moved(-0.004), "pass"),
        (moved(-0.006), "fail"),  # every query lost a little: small and certain
        (moved(-0.006, share=0.01), "warn"),  # three queries lost much: above the tolerance, not significant
        (moved(-0.031, share=0.02), "fail"),  # above the limit, whatever its p
        (moved(0.006), "improved"),
        (moved(0.006, share=0.01), "pass"),
        (moved(0.031, share=0.02), "improved"),
    ],
)
def test_the_rule_for_one_cell(after, expected):
    found = judged({("a", "x"): BASE}, {("a", "x"): after})
    assert status(found) == {("a", "x"): expected}
    assert found.exit_code == (1 if expected == "fail" else 0)


def test_p_is_one_sided_adjusted_by_holm_and_stands_beside_an_interval():
    noise = np.random.default_rng(3).normal(0, 0.05, (2, 300))
    found = judged(
        {("a", "x"): BASE, ("b", "x"): BASE},
        {("a", "x"): BASE - 0.007 + noise[0], ("b", "x"): BASE + 0.004 + noise[1]},
    )
    one, other = (next(own for own in found.findings if own.retriever == name) for name in "ab")
    p = {
        name: float(stats.p_values([(1.0, d[:, None])], side="less")[0])
        for name, d in zip("ab", [noise[0] - 0.007, noise[1] + 0.004], strict=True)
    }
    assert one.difference.p == pytest.approx(min(1, 2 * p["a"]))
    assert one.difference.low < one.difference.delta < one.difference.high
    assert other.difference.delta > 0
    assert one.difference.won + one.difference.tied + one.difference.lost == 300


def test_scores_that_are_equal_take_no_part_in_holms_correction():
    noise = np.random.default_rng(3).normal(0, 0.05, 300)
    alone = judged({("a", "x"): BASE}, {("a", "x"): BASE - 0.007 + noise})
    many = {(f"r{number}", "x"): BASE for number in range(50)}
    among = judged({("a", "x"): BASE, **many}, {("a", "x"): BASE - 0.007 + noise, **many})
    assert among.findings[0].difference.p == alone.findings[0].difference.p
    assert len(among.with_status("identical")) == 50


def test_a_retrievers_mean_is_one_more_test_with_a_tolerance_of_its_own():
    before = {("a", name): BASE for name in "wxyz"}
    found = judged(before, {key: moved(-0.0045, seed=number) for number, key in enumerate(before)})
    assert status(found) == {**{("a", name): "pass" for name in "wxyz"}, ("a", MACRO): "fail"}
    one = found.findings[0]
    assert (one.dataset, one.limit) == (MACRO, 0.003)
    assert one.difference.delta == pytest.approx(-0.0045)


def test_a_mean_that_lacks_a_dataset_says_over_which_it_is():
    before = {("a", name): BASE for name in "xyz"}
    found = judged(before, {("a", "x"): moved(-0.004), ("a", "y"): moved(-0.004, seed=2)})
    line = next(text.line(one) for one in found.findings if one.dataset == MACRO)
    assert line.startswith("FAIL a/macro average ndcg@10")
    assert line.endswith(" - over x, y alone")


def test_a_stricter_level_draws_as_often_as_it_needs():
    rules = policy.validate({"alpha": 0.001}, "p")
    before = {(f"r{number}", "x"): BASE for number in range(20)}
    found = judged(before, {key: moved(-0.02, seed=number) for number, key in enumerate(before)}, rules)
    assert len(found.with_status("fail")) == 20


@pytest.mark.parametrize(
    ("values", "said"), [([0.5, float("nan")], "a score is not a number"), ([], "there is no judged query")]
)
def test_scores_that_are_none_cannot_be_decided(values, said):
    records, now = side({("a", "x"): [0.5, 0.5]}, 1)
    now[records[0].files.per_query] = PerQuery(["q0", "q1"][: len(values)], {"ndcg@10": np.array(values)})
    held, scores = side({("a", "x"): [0.5, 0.5]})
    scores[held[0].files.per_query] = PerQuery(["q0", "q1"][: len(values)], {"ndcg@10": np.full(len(values), 0.5)})
    found = told(held, scores, records, now)
    assert (found.exit_code, found.findings[0].message) == (3, said)


def test_a_retriever_on_one_dataset_has_no_mean_to_test():
    assert status(judged({("a", "x"): BASE}, {("a", "x"): moved(-0.004)})) == {("a", "x"): "pass"}


def test_a_rule_for_a_dataset_holds_for_its_splits():
    rules = policy.validate({"datasets": {"x": {"tolerance": 0.01}}}, "p")
    assert rules.limits_for(["x [split=dev]", "x"]).tolerance == 0.01
    assert rules.limits_for(["y"]).tolerance == 0.005


def test_a_dataset_may_have_limits_of_its_own():
    rules = policy.validate({"datasets": {"x": {"tolerance": 0.01}, "y": {"limit": 0.004, "tolerance": 0.004}}}, "p")
    found = judged({("a", "x"): BASE, ("b", "y"): BASE}, {("a", "x"): moved(-0.006), ("b", "y"): moved(-0.0045)}, rules)
    assert status(found) == {("a", "x"): "pass", ("b", "y"): "fail"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"info": {"fingerprint": "0" * 32}}, "the dataset differs: f{32} in the baseline, 0{32} now"),
        ({"k": 10}, "k differs: 100 in the baseline, 10 now"),
        ({"metric_version": 2}, "the metrics' version differs: 1 in the baseline, 2 now"),
        ({"status": "failed", "error": "WeightsError: gone\nmore"}, "its newest try failed: WeightsError: gone$"),
    ],
)
def test_what_is_not_comparable_cannot_be_decided(changed, said):
    found = judged({("a", "x"): BASE}, {("a", "x"): BASE}, **{})
    assert found.exit_code == 0
    held, scores = side({("a", "x"): BASE})
    records, now = side({("a", "x"): BASE}, 1)
    records = [records[0].model_copy(update={})]
    changed = dict(changed)
    info = changed.pop("info", {})
    records[0] = records[0].model_copy(update={**changed, "dataset": records[0].dataset.model_copy(update=info)})
    found = told(held, scores, records, now, RULES)
    assert found.exit_code == 3
    assert re.search(said, found.findings[0].message)
    assert told(held, scores, records, now, RULES, lenient=True).exit_code == 0


def test_other_judged_queries_cannot_be_decided():
    found = judged({("a", "x"): BASE}, {("a", "x"): BASE[:150]})
    assert found.exit_code == 3
    assert "the judged queries differ: 300 in the baseline, 150 now, 150 in both" in found.findings[0].message


def test_queries_in_another_order_are_paired_by_their_ids():
    held, scores = side({("a", "x"): BASE})
    records, now = side({("a", "x"): BASE[::-1]}, 1)
    path = records[0].files.per_query
    now[path] = PerQuery(now[path].query_ids[::-1], now[path].values)
    assert status(told(held, scores, records, now, RULES)) == {("a", "x"): "identical"}


def test_a_missing_cell_cannot_be_decided_and_a_new_one_is_a_note():
    found = judged({("a", "x"): BASE}, {("b", "x"): BASE})
    assert [(one.status, one.retriever) for one in found.findings] == [("undecided", "a"), ("new", "b")]
    assert found.exit_code == 3
    assert judged({("a", "x"): BASE}, {("a", "x"): BASE, ("b", "x"): BASE}).exit_code == 0


def test_a_new_cell_that_failed_is_a_warning():
    (held, scores), (records, now) = side({("a", "x"): BASE}), side({("a", "x"): BASE}, 1)
    failed = record("b", "x", 1).model_copy(update={"status": "failed", "error": "WeightsError: gone\nmore"})
    found = told(held, scores, [*records, failed], now)
    assert (
        text.line(found.findings[0]) == "WARN b/x - not in the baseline, and its newest try failed: WeightsError: gone"
    )
    assert found.exit_code == 0


def test_a_regression_weighs_more_than_what_cannot_be_decided():
    found = judged({("a", "x"): BASE, ("b", "x"): BASE}, {("a", "x"): moved(-0.05)})
    assert found.exit_code == 1
    assert [one.status for one in found.findings if one.is_metric or one.check == "evaluation"] == ["fail", "undecided"]


def test_the_newest_record_counts_also_where_an_older_one_was_better():
    held, scores = side({("a", "x"): BASE})
    old, old_scores = side({("a", "x"): BASE}, 1)
    new, new_scores = side({("a", "x"): moved(-0.05)}, 2)
    found = told(held, scores, [*new, *old], {**old_scores, **new_scores}, RULES)
    assert found.exit_code == 1


def test_a_dataset_in_parts_is_one_cell_and_lacks_none():
    parts = {"group": "cqadupstack", "parts": 2}
    names = ["cqadupstack/android", "cqadupstack/gis"]

    def made(values, minutes):
        return side({("a", name): own for name, own in zip(names, values, strict=True)}, minutes)

    def grouped(found):
        return [one.model_copy(update={"dataset": one.dataset.model_copy(update=parts)}) for one in found]

    held, scores = made([BASE, BASE], 0)
    records, now = made([moved(-0.012), BASE], 1)
    found = told(grouped(held), scores, grouped(records), now, RULES)
    assert status(found) == {("a", "cqadupstack"): "fail"}
    assert found.findings[0].difference.delta == pytest.approx(-0.006)
    one_lacks = told(grouped(held), scores, grouped(records[:1]), now, RULES)
    assert "cqadupstack/gis was not measured" in one_lacks.findings[0].message


# calibration


def light_churn(rng, values, share=0.1, spread=0.15):
    """A change of code that has no effect: a tenth of the queries move a little, up as often as down."""
    after = values.copy()
    chosen = rng.random(len(values)) < share
    after[chosen] += rng.normal(0, spread, int(chosen.sum()))
    return after


@pytest.fixture
def without_intervals(monkeypatch):
    """Intervals are shown and decide nothing; they take half the time of a verdict."""
    monkeypatch.setattr(stats, "confidence_intervals", lambda strata: (stats.mean(strata), stats.mean(strata)))


@pytest.mark.usefixtures("without_intervals")
def test_at_most_seven_in_a_hundred_pull_requests_without_an_effect_fail():
    rng, sizes = np.random.default_rng(0), {"scifact": 300, "nfcorpus": 323, "cranfield": 225, "stdlib": 500}
    failed = 0
    for _ in range(400):
        before = {(name, data): rng.beta(0.6, 0.6, n) for name in ("bm25", "minilm") for data, n in sizes.items()}
        after = {key: light_churn(rng, values) for key, values in before.items()}
        failed += judged(before, after).exit_code == 1
    assert failed <= 28, f"{failed} of 400"


@pytest.mark.usefixtures("without_intervals")
def test_a_true_drop_of_two_hundredths_is_found_nine_times_in_ten():
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        before = {(name, data): rng.beta(0.6, 0.6, 300) for name in ("bm25", "minilm") for data in "wxyz"}
        after = {key: light_churn(rng, values) for key, values in before.items()}
        hurt = ("minilm", "x")
        lost = rng.random(300) < 0.2
        after[hurt][lost] -= 0.02 / lost.mean()
        found += any(one.status == "fail" and one.retriever == "minilm" for one in judged(before, after).findings)
    assert found >= 180, f"{found} of 200"


# costs


def costs(before, after, rules=RULES, again=(), **changed):
    held, scores = side({("a", "x"): BASE})
    records, now = side({("a", "x"): BASE}, 1)
    held = [held[0].model_copy(update={"timing": before})]
    records = [records[0].model_copy(update={"timing": after, **changed})]
    more = [record("a", "x", 2 + number, timing=own) for number, own in enumerate(again)]
    found = told(held, scores, records, now, rules, again=more)
    return {one.check: one.status for one in found.findings if not one.is_metric}, found


def test_cpu_seconds_are_in_units_of_the_kernels_beside_them():
    one = timing(cpu=2.0, unit=1.0)
    assert cpu_per_query(one) == pytest.approx(2.0 / 0.004 / 100)
    assert cpu_per_document(one) == pytest.approx(2.0 / 0.004 / 10)
    assert cpu_per_query(timing(cpu=4.0, unit=2.0)) == pytest.approx(cpu_per_query(one))


def test_what_costs_more_than_the_policy_allows_fails():
    found, whole = costs(timing(), timing(cpu=1.21))
    assert found == {"cpu/query": "fail", "cpu/document": "fail", "memory": "pass", "index bytes": "pass"}
    assert whole.exit_code == 1
    assert text.line(whole.findings[0]).endswith("(x1.21, limit x1.20)")
    assert costs(timing(), timing(cpu=1.19))[1].exit_code == 0
    assert costs(timing(), timing(cpu=2.0, unit=2.0))[1].exit_code == 0, "a slower machine"
    assert costs(timing(), timing(memory=int(1.21e8)))[0]["memory"] == "fail"
    assert costs(timing(), timing(size=1060))[0]["index bytes"] == "fail"
    off = policy.validate({"cpu": None, "memory": None, "index_bytes": None}, "p")
    assert costs(timing(), timing(cpu=9, size=9999, memory=10**10), off)[0] == {}


def test_the_least_of_several_measurements_counts():
    found, whole = costs(timing(), timing(cpu=1.5), again=[timing(cpu=1.4), timing(cpu=1.1)])
    assert found["cpu/query"] == "pass"
    line = next(text.line(one) for one in whole.findings if one.check == "cpu/query")
    assert line.endswith("(x1.10, limit x1.20, least of 3 measurements)")


def test_a_measurement_without_a_figure_does_not_stand_for_one_that_has_it():
    cached = timing(cpu=1.0, cached=0.9, memory=None)
    found, whole = costs(timing(), timing(cpu=1.5, memory=5 * 10**8), again=[cached])
    assert found == {"cpu/query": "pass", "cpu/document": "fail", "memory": "fail", "index bytes": "pass"}
    assert "least of" not in next(one.message for one in whole.findings if one.check == "memory")


def test_the_accepted_record_is_no_measurement_of_the_candidate():
    held, scores = side({("a", "x"): BASE})
    records, now = side({("a", "x"): BASE}, 1)
    slow = records[0].model_copy(update={"timing": timing(cpu=2.0)})
    found = told(held, scores, [*held, slow], now)
    assert {one.check for one in found.with_status("fail")} == {"cpu/query", "cpu/document"}


def test_a_record_of_the_same_code_with_one_thread_is_gated_though_a_newer_one_took_two():
    held, scores = side({("a", "x"): BASE})
    records, now = side({("a", "x"): BASE}, 1)
    slow = records[0].model_copy(update={"timing": timing(cpu=2.0)})
    glance = record("a", "x", 2, timing=timing(threads=2), files={"per_query": "a x 1", "record": "r"})
    assert {one.check for one in told(held, scores, [slow, glance], now).with_status("fail")} == {
        "cpu/query",
        "cpu/document",
    }
    other = glance.model_copy(update={"code": "another"})
    assert "measured with 2 threads" in " ".join(told(held, scores, [slow, other], now).notes)


def test_a_newer_record_of_another_depth_does_not_hide_one_that_compares():
    held, scores = side({("a", "x"): BASE})
    records, now = side({("a", "x"): moved(-0.05)}, 1)
    shallow = record("a", "x", 2, k=10)
    assert told(held, scores, [*records, shallow], now).exit_code == 1
    assert told(held, scores, [shallow], now).exit_code == 3


@pytest.mark.parametrize("broken", [{"queries": 0}, {"unit": 0.0}, {"cpu": 0.0}])
def test_a_figure_of_nothing_is_not_gated(broken):
    found, whole = costs(timing(**broken), timing(**broken))
    assert "cpu/query" not in found
    assert whole.exit_code == 0


@pytest.mark.parametrize(
    ("changed", "left", "why"),
    [
        ({"threads": 2}, {"memory", "index bytes"}, "measured with 2 threads; one is needed: timing=cpu1"),
        ({"cached": 0.5}, {"cpu/query", "memory", "index bytes"}, "the embeddings were cached"),
        (
            {"memory": None},
            {"cpu/query", "cpu/document", "index bytes"},
            "separate process that encodes anew: timing=cpu1",
        ),
    ],
)
def test_what_was_measured_otherwise_is_not_gated_and_said(changed, left, why):
    found, whole = costs(timing(), timing(**changed))
    assert set(found) == left
    assert any(why in note and note.endswith("(1 of 1 evaluations)") for note in whole.notes)


def test_another_environment_has_its_own_speed_and_the_same_index():
    found, whole = costs(timing(), timing(cpu=99.0), environment="f" * 16)
    assert set(found) == {"index bytes"}
    assert "measured in another environment" in " ".join(whole.notes)


# the baseline on disk


def put(root, values, minutes=0, **changed):
    store = Store(root)
    for (retriever, dataset), own in values.items():
        one = record(retriever, dataset, minutes, float(np.mean(own)), **changed)
        store.append(one, {}, per_query=PerQuery([f"q{n}" for n in range(len(own))], {"ndcg@10": np.asarray(own)}))
    return store


def harness(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    return stop.value.code


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A working folder with two measured cells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    put(Path("results"), {("a", "x"): BASE, ("b", "x"): BASE})
    return Path("results")


@pytest.fixture
def here(measured, monkeypatch, capsys):
    """The same, both accepted."""
    assert harness(monkeypatch, "accept", "--reason", "first") == 0
    capsys.readouterr()
    return measured


def test_accept_writes_means_hashes_reason_and_scores_and_says_what_changes(measured, monkeypatch, capsys):
    here = measured
    assert harness(monkeypatch, "accept", "--reason", "first") == 0
    out = capsys.readouterr()
    assert out.out.splitlines() == [f"new     {name}/x ndcg@10 {BASE.mean():.4f}" for name in "ab"]
    assert "wrote results/baseline/; commit it" in out.err
    manifest = json.loads((here / "baseline" / "baseline.json").read_text())
    assert manifest["reason"] == "first"
    assert manifest["evaluations"][0]["metrics"] == {"ndcg@10": pytest.approx(BASE.mean())}
    assert set(manifest["evaluations"][0]["hashes"]) == {"record", "per_query"}
    held = accepted.read(here / "baseline")
    assert len(held.records) == len(held.scores) == 2
    put(here, {("a", "x"): moved(-0.01)}, 5)
    assert harness(monkeypatch, "accept", "--reason", "worse and wanted", "--retriever", "a") == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"changed a/x ndcg@10 {BASE.mean():.4f} -> {BASE.mean() - 0.01:.4f} (-0.0100)",
        "not measured and kept: 1 figure",
    ]
    files = {path.name for path in (here / "baseline").rglob("*.parquet")}
    assert len(files) == 2, "what was replaced is gone"


def test_prune_forgets_what_was_not_measured(here, monkeypatch, capsys):
    assert harness(monkeypatch, "accept", "--reason", "b is gone", "--retriever", "a", "--prune") == 0
    assert f"removed b/x ndcg@10 {BASE.mean():.4f}" in capsys.readouterr().out
    assert accepted.read(here / "baseline").names == ["a/x"]


def test_nothing_but_good_records_is_accepted(here, monkeypatch, capsys):
    assert harness(monkeypatch, "accept", "--reason", " ") == 2
    assert "the reason is empty" in capsys.readouterr().err
    Store(here).append(record("a", "x", 9, status="failed", error="WeightsError: gone", timing=None), {})
    assert harness(monkeypatch, "accept", "--reason", "r") == 3
    assert "the newest try of a on x failed: WeightsError: gone; measure it again: harness" in capsys.readouterr().err
    assert harness(monkeypatch, "accept", "--reason", "r", "--results", "nowhere") == 3
    assert "nothing to accept in nowhere/; measure first" in capsys.readouterr().err


def test_the_gate_gives_lines_worst_first_and_one_sentence(here, monkeypatch, capsys):
    assert harness(monkeypatch, "gate") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "Nothing got worse: 2 identical, 8 within the limits."
    put(here, {("b", "x"): moved(-0.02)}, 5)
    assert harness(monkeypatch, "gate") == 1
    out = capsys.readouterr().out.splitlines()
    mean = BASE.mean()
    assert re.fullmatch(
        rf"FAIL b/x ndcg@10 {mean:.4f} -> {mean - 0.02:.4f} \(-0\.0200 \[-0\.0200, -0\.0200\], p=0\.0001 Holm, "
        r"limit 0\.005\) W0 T0 L300",
        out[0],
    )
    assert out[-1] == "Worse than the baseline: b/x ndcg@10."
    assert harness(monkeypatch, "gate", "--retriever", "a") == 0


def test_json_has_every_finding(here, monkeypatch, capsys):
    assert harness(monkeypatch, "gate", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["exit_code"] == 0
    assert {one["status"] for one in whole["findings"]} == {"identical", "pass"}
    put(here, {("b", "x"): moved(-0.02)}, 5)
    assert harness(monkeypatch, "gate", "--json", "--annotations") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["summary"] == "Worse than the baseline: b/x ndcg@10."
    assert "\n::error title=" in f"\n{err}"


def test_a_policy_file_changes_only_its_own_rules(here, monkeypatch, capsys):
    put(here, {("b", "x"): moved(-0.006)}, 5)
    Path("mine.yaml").write_text("tolerance: 0.01\n")
    assert harness(monkeypatch, "gate") == 1
    assert harness(monkeypatch, "gate", "--policy", "mine.yaml") == 0
    rules = policy.read([Path("mine.yaml")])
    assert (rules.tolerance, rules.limit) == (0.01, 0.03)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("tolerence: 1", "mine.yaml has no rule 'tolerence'; choices: tolerance, limit, .*; did you mean tolerance?"),
        ("datasets: {x: {alpha: 1}}", "mine.yaml has no rule 'datasets.x.alpha'; choices: tolerance, limit"),
        ("alpha: 2", "mine.yaml: alpha=2: Input should be less than 1"),
        ("cpu: .inf", "mine.yaml: cpu=inf: Input should be a finite number"),
        ("tolerance: 0.05", "mine.yaml: a tolerance is above its limit, 0.03; raise the limit too"),
        ("datasets: {x: {limit: 0.001}}", "mine.yaml: a tolerance of x is above its limit, 0.001"),
        ("datasets: [x]", "mine.yaml: datasets="),
        ("datasets: {scifcat: {limit: 0.1}}", "rules for 'scifcat', which the baseline lacks; it has x"),
        ("metrics: [ndgc@10]", "ndgc@10"),
        ("- a", "mine.yaml must hold KEY: VALUE lines; keys: tolerance"),
        ("a: [", "mine.yaml is not valid YAML"),
    ],
)
def test_a_bad_policy_is_refused(here, monkeypatch, capsys, content, said):
    Path("mine.yaml").write_text(content)
    assert harness(monkeypatch, "gate", "--policy", "mine.yaml") == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_policy_in_conf_is_the_codes_own():
    from harness.config.conf import CONF

    assert policy.read([CONF / "gate.yaml"]) == Policy()


@pytest.mark.parametrize("what", ["manifest", "record", "per_query", "gone", "version"])
def test_a_damaged_baseline_cannot_be_decided(here, monkeypatch, capsys, what):
    root = here / "baseline"
    manifest = root / "baseline.json"
    if what == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif what == "version":
        manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 3'))
    elif what == "gone":
        next(root.rglob("*.parquet")).unlink()
    else:
        path = next((root / ("records" if what == "record" else "per_query")).rglob("*.*"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    assert harness(monkeypatch, "gate") == 3
    said = r"the baseline is damaged: results/baseline/.*restore it: git checkout -- results/baseline, or measure"
    assert re.search(said, capsys.readouterr().err)
    assert harness(monkeypatch, "gate", "--junit", "gate.xml", "--lenient") == 0
    assert JUnitXml.fromfile("gate.xml").skipped == 1
    assert harness(monkeypatch, "accept", "--prune", "--reason", "anew") == 0
    assert harness(monkeypatch, "gate") == 0


def test_without_a_baseline_nothing_is_decided(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(Path("results"), {("a", "x"): BASE})
    assert harness(monkeypatch, "gate") == 3
    said = 'there is no baseline in results/baseline/; make one: harness accept --reason "..."'
    assert said in capsys.readouterr().err


def test_a_baseline_of_version_1_is_read(here):
    manifest = here / "baseline" / "baseline.json"
    text = manifest.read_text().replace('"evaluations":', '"cells":').replace('"record_id":', '"cell":')
    new = accepted.read(here / "baseline")
    manifest.write_text(text.replace('"version": 2', '"version": 1'))
    assert '"cells":' in manifest.read_text()
    old = accepted.read(here / "baseline")
    assert (old.records, list(old.scores)) == (new.records, list(new.scores))


def test_a_killed_accept_leaves_the_old_baseline(here, monkeypatch):
    before = accepted.read(here / "baseline")
    put(here, {("a", "x"): moved(-0.01)}, 5)
    real, written = accepted.write_atomic, []

    def dies(path, content):
        if path.name == "baseline.json":
            raise KeyboardInterrupt
        written.append(path)
        real(path, content)

    monkeypatch.setattr(accepted, "write_atomic", dies)
    with pytest.raises(KeyboardInterrupt):
        accepted.accept(
            here / "baseline",
            Store(here),
            list(Store(here).records()),
            {"accepted": START, "reason": "r", "harness": "0"},
        )
    assert written
    after = accepted.read(here / "baseline")
    assert after.records == before.records
    assert list(after.scores) == list(before.scores)


def test_a_results_folder_is_not_taken_for_a_baseline(here, monkeypatch, capsys):
    before = sorted(here.rglob("*.json"))
    assert harness(monkeypatch, "accept", "--reason", "r", "--baseline", "results") == 2
    assert "results/ holds results and is not a baseline; name another folder" in capsys.readouterr().err
    assert sorted(here.rglob("*.json")) == before


def test_what_cannot_be_read_cannot_be_decided(here, monkeypatch, capsys):
    newest = put(here, {("a", "x"): BASE}, 5)
    path = here / next(own for own in newest.records() if own.started.minute == 5).files.per_query
    path.write_bytes(b"trash")
    assert harness(monkeypatch, "gate", "--retriever", "b") == 0
    assert harness(monkeypatch, "gate") == 3
    assert f"{path}: " in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.parquet"])
def test_a_path_that_leads_out_of_the_folder_is_refused(here, monkeypatch, capsys, path):
    manifest = here / "baseline" / "baseline.json"
    told = json.loads(manifest.read_text())
    told["evaluations"][0]["files"]["per_query"] = path
    manifest.write_text(json.dumps(told))
    assert harness(monkeypatch, "gate") == 3
    assert "leads out of results/baseline/" in capsys.readouterr().err
    file = next((here / "records").rglob("*.json"))
    file.write_text(re.sub(r'"per_query": "[^"]+"', f'"per_query": "{path}"', file.read_text()))
    assert harness(monkeypatch, "report") == 2
    assert "a file's path leads out of the results folder" in capsys.readouterr().err


def test_accept_writes_nothing_when_a_file_is_missing(measured, monkeypatch, capsys):
    next((measured / "per_query").rglob("*.parquet")).unlink()
    assert harness(monkeypatch, "accept", "--reason", "r") == 3
    assert "has no per-query scores; measure it again: harness" in capsys.readouterr().err
    assert not (measured / "baseline").exists()


def test_another_collection_under_the_same_name_is_said(here, monkeypatch, capsys):
    put(here, {("a", "x"): BASE}, 5, fingerprint="0" * 32)
    assert harness(monkeypatch, "accept", "--reason", "r", "--retriever", "a") == 0
    assert "changed a/x: the dataset has changed, its figures cannot be compared" in capsys.readouterr().out


def test_what_is_too_slow_is_measured_again_only_where_it_was_measured(here, monkeypatch, capsys):
    put(here, {("a", "x"): BASE}, 5, timing=timing(cpu=2.0))
    assert harness(monkeypatch, "gate") == 1
    out, err = capsys.readouterr()
    assert out.startswith("FAIL a/x cpu/")
    assert "not measured again: it was measured on another machine or with other packages: harness retriever=a" in err


# forms


def many(n):
    """A verdict with n failing cells, and one of every other kind."""
    names = [f"r{number}, <b>%::" for number in range(n)]
    failing = judged({(name, "x|y"): BASE for name in names}, {(name, "x|y"): moved(-0.02) for name in names})
    others = [
        Finding(
            "undecided",
            "lost",
            "x",
            "evaluation",
            message="it was not measured\nreally",
            command="harness retriever=lost",
        ),
        Finding("new", "fresh", "x", "evaluation", message="not in the baseline"),
        Finding("fail", "slow", "x", "cpu/query", 1.0, 1.5, limit=1.2, command="harness retriever=slow"),
    ]
    return make_verdict(
        [*failing.findings, *others], ["cpu/query: measured in another environment (1 of 2 evaluations)"]
    )


def test_junit_is_read_by_a_parser_and_counts_what_failed(tmp_path):
    found = many(3)
    path = tmp_path / "gate.xml"
    path.write_text(junit.render(found), encoding="utf-8")
    read = JUnitXml.fromfile(str(path))
    suites = {suite.name: suite for suite in read}
    assert set(suites) == {"r0, <b>%::", "r1, <b>%::", "r2, <b>%::", "lost", "fresh", "slow"}
    kinds = {suite: [type(result) for case in own for result in case.result] for suite, own in suites.items()}
    assert kinds["r0, <b>%::"] == [Failure]
    assert kinds["lost"] == [Error]
    assert kinds["fresh"] == [Skipped]
    assert (read.failures, read.errors, read.skipped) == (4, 1, 1)
    case = next(iter(suites["slow"]))
    assert (case.classname, case.name) == ("slow", "x cpu/query")
    assert "x1.50" in case.result[0].message
    lenient = junit.render(make_verdict(found.findings, [], lenient=True))
    assert JUnitXml.fromstring(lenient.encode()).errors == 0


def test_junit_holds_no_character_that_xml_cannot():
    one = Finding("undecided", "a\x00b\x1b", "x", "evaluation", message="\x0b\ud800 odd")
    assert JUnitXml.fromstring(junit.render(make_verdict([one])).encode()).errors == 1


def test_annotations_are_nine_and_one_that_counts_the_rest():
    said = github.annotations(many(20))
    assert len(said) == 10
    assert said[-1] == "::notice title=Retrieval gate::and 13 more, see the summary"
    for line in said:
        assert re.fullmatch(r"::(error|warning|notice) title=[^:,\n]*::[^\n\r]*", line)
    assert "r0%2C <b>%25%3A%3A" in " ".join(github.annotations(many(1)))
    assert len(github.annotations(many(2))) == 4


def test_the_summary_has_the_verdict_what_changed_and_the_rest_folded():
    found = make_verdict([*many(2).findings, *judged({("a", "x"): BASE}, {("a", "x"): BASE}).findings], ["a note"])
    said = github.summary(found)
    assert said.startswith("### \N{CROSS MARK} Retrieval gate\n")
    before, _, folded = said.partition("<details>")
    assert "r0, &lt;b>" in before
    assert r"x\|y" in before
    assert "| identical | a on x |" in folded
    assert "Not gated: a note." in said
    assert "harness retriever=slow" in said
    good = github.summary(judged({("a", "x"): BASE}, {("a", "x"): BASE}))
    assert good.startswith("### \N{WHITE HEAVY CHECK MARK} Retrieval gate")


def test_the_summary_stays_below_githubs_limit():
    one = Finding("fail", "r" * 400, "d" * 400, "ndcg@10", 0.5, 0.4, limit=0.005, message="s" * 400)
    said = github.summary(make_verdict([one] * 5000))
    assert len(said.encode()) < 1024 * 1024
    assert re.search(r"\nand \d+ more\n", said)
    assert len(github.summary(make_verdict([one] * 5000), limit=3000).encode()) < 3000


def test_the_command_writes_every_form_that_is_asked_for(here, monkeypatch, capsys):
    put(here, {("b", "x"): moved(-0.02)}, 5)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "new/env.md")
    assert harness(monkeypatch, "gate", "--junit", "out/gate.xml", "--summary", "own.md", "--annotations") == 1
    assert JUnitXml.fromfile("out/gate.xml").failures == 1
    assert "b on x" in Path("own.md").read_text()
    assert not Path("new/env.md").exists()
    assert "::error title=b/x ndcg@10::FAIL b/x" in capsys.readouterr().out
    assert harness(monkeypatch, "gate", "--retriever", "a") == 0
    assert "Nothing got worse" in Path("new/env.md").read_text()


def test_errors_name_what_there_is(here, monkeypatch, capsys):
    for command in (["gate"], ["accept", "--reason", "r"]):
        assert harness(monkeypatch, *command, "--retriever", "a", "nobody") == 2
        assert "no record of retriever 'nobody'; there are a, b" in capsys.readouterr().err
        assert harness(monkeypatch, *command, "--dataset", "xx") == 2
        assert "no record of dataset 'xx'; there are x; did you mean 'x'?" in capsys.readouterr().err
    put(here, {("c", "y"): BASE}, 5)
    assert harness(monkeypatch, "gate", "--retriever", "c") == 3
    assert "the baseline has none of these evaluations; it has a/x, b/x" in capsys.readouterr().err
    assert harness(monkeypatch, "gate", "--summary", "results") == 2
    assert "results cannot be written: Is a directory" in capsys.readouterr().err
    with pytest.raises(UndecidedError, match="there is no baseline"):
        accepted.read(Path("nowhere"))
    with pytest.raises(ConfigError, match="has no rule"):
        policy.validate({"a": 1}, "p")
