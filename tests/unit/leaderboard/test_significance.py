"""Tests of best and tied rows, differences to a baseline, Pareto fronts and minimum detectable effects."""

import itertools
from datetime import timedelta

import numpy as np
import pytest
from support.records import built, forums, make_record, noise, row, scored

from harness import stats
from harness.errors import ConfigError, UndecidedError
from harness.leaderboard import build, writers
from harness.leaderboard.compare import compare
from harness.leaderboard.frame import to_frame
from harness.leaderboard.recommend import recommend
from harness.leaderboard.tables.leaderboard import tables
from harness.simultaneous import compare_all
from harness.types import PerQuery, RecordFiles


def test_the_best_row_and_rows_tied_with_it_are_marked():
    leaderboard = built(
        scored(make_record("best", "x", 0), 0.7 + noise(0)),
        scored(make_record("near", "x", 0), 0.699 + noise(0)[::-1]),
        scored(make_record("far", "x", 0), 0.2 + noise(1)),
    )
    marks = {
        name: (row(leaderboard, name).evaluations["x"].best, row(leaderboard, name).evaluations["x"].tied_with_best)
        for name in ("best", "near", "far")
    }
    assert marks == {"best": (True, None), "near": (False, True), "far": (False, False)}
    assert leaderboard.tests == 3, "each pair of the three rows"


@pytest.fixture(scope="module")
def evaluations():
    """Scores of five rows on three datasets, of which r0 and r1 differ little from the best."""
    rng = np.random.default_rng(0)
    base = {name: rng.random(100) for name in "xyz"}
    scores = [scored(make_record("best", name, 0), values + 0.015) for name, values in base.items()]
    for number in range(4):
        scores += [
            scored(make_record(f"r{number}", name, 0), values - 0.02 * number + rng.normal(0, 0.1, 100))
            for name, values in base.items()
        ]
    return scores


def test_all_pairs_on_all_datasets_and_their_mean_are_one_family(evaluations):
    leaderboard = built(*evaluations)
    assert leaderboard.tests == 4 * 10
    assert str(leaderboard.family) == "40 comparisons: all pairs of 5 rows on 3 datasets and their mean"
    labels = ["best", "r0", "r1", "r2", "r3"]
    matrices = [np.column_stack([_scores_of(evaluations, label, name) for label in labels]) for name in "xyz"]
    columns = [[(1.0, matrix)] for matrix in matrices] + [[(1 / 3, matrix) for matrix in matrices]]
    expected = compare_all(columns, [[0], [1], [2], [0, 1, 2]])
    for tests, name in zip(expected, [*"xyz", ""], strict=True):
        for a, b in itertools.combinations(range(5), 2):
            difference = leaderboard.difference(labels[a], labels[b], name)
            assert difference.p == tests.p[a, b]
            assert (difference.low, difference.high) == tests.interval(a, b)


def test_marks_are_those_of_the_differences_to_the_best(evaluations):
    leaderboard = built(*evaluations)
    tied = []
    for name in [*"xyz", ""]:
        column = {r.label: r.evaluations[name] if name else r.overall for r in leaderboard.rows}
        (best,) = (label for label, each in column.items() if each.best)
        for label in column.keys() - {best}:
            assert column[label].tied_with_best == (leaderboard.difference(best, label, name).p >= stats.ALPHA)
            tied.append(column[label].tied_with_best)
        assert sum(each.best_share for each in column.values()) == pytest.approx(1.0)
    assert len(set(tied)) == 2, "some rows are tied and filtered are not"


def test_hiding_rows_and_datasets_changes_no_difference(evaluations):
    everything = built(*evaluations)
    filtered = built(*evaluations, is_shown=lambda r: r.retriever.label in ("best", "r3") and r.dataset.name in "xy")
    assert [row.label for row in filtered.rows] == ["best", "r3"]
    assert filtered.datasets == ["x", "y"]
    for name in "xy":
        assert filtered.difference("best", "r3", name) == everything.difference("best", "r3", name)
        marks = [row(each, "r3").evaluations[name].tied_with_best for each in (filtered, everything)]
        assert marks[0] == marks[1]
    assert str(filtered.means_family) == "1 comparison: all pairs of 2 rows on the mean over datasets"
    assert filtered.difference("best", "r3").p == filtered.means_family.columns[""].difference("best", "r3").p
    frame = to_frame({"ndcg@10": filtered})
    assert set(zip(frame["dataset"], frame["comparisons"], strict=True)) == {("x", 40), ("y", 40), (None, 1)}
    assert str(filtered.means_family) in writers.terminal(tables(filtered))


def test_hiding_rows_keeps_the_family_of_means_over_the_same_datasets(evaluations):
    everything = built(*evaluations)
    filtered = built(*evaluations, is_shown=lambda record: record.retriever.label in ("best", "r3"))
    assert filtered.means_family is None
    assert filtered.difference("best", "r3") == everything.difference("best", "r3")


def test_a_mean_over_one_dataset_is_no_comparison_of_its_own(evaluations):
    leaderboard = built(*evaluations, scored(make_record("new", "x", 0), noise(3, 100)))
    assert leaderboard.common == ["x"]
    assert leaderboard.tests == 15 + 10 + 10
    assert leaderboard.difference("best", "new") == leaderboard.difference("best", "new", "x")
    new = row(leaderboard, "new")
    assert new.overall.tied_with_best == new.evaluations["x"].tied_with_best


def test_every_view_has_the_same_p_value(evaluations):
    leaderboard = built(*evaluations, baseline="r0")
    records = [record for record, _ in evaluations]
    scores = {path: values for _, by_path in evaluations for path, values in by_path.items()}
    compared = compare(
        [r for r in records if r.retriever.name == "r0"],
        [r for r in records if r.retriever.name == "best"],
        "ndcg@10",
        scores,
        lambda record, kind: None,
        among=records,
    )
    runner_up = recommend(leaderboard, {}).runner_up.label
    for name in "xyz":
        expected = leaderboard.difference("r0", "best", name)
        assert compared.difference(name) == expected == row(leaderboard, "best").evaluations[name].versus
    assert compared.overall == leaderboard.difference("r0", "best") == row(leaderboard, "best").overall.versus
    assert recommend(leaderboard, {}).difference == leaderboard.difference(runner_up, "best")


def test_a_comparison_of_other_records_is_a_family_of_its_own(evaluations):
    records = [record for record, _ in evaluations]
    scores = {path: values for _, by_path in evaluations for path, values in by_path.items()}
    older = [r.model_copy(update={"started": r.started - timedelta(days=1)}) for r in records]
    sides = [[r for r in older if r.retriever.name == name] for name in ("r0", "best")]
    compared = compare(*sides, "ndcg@10", scores, lambda record, kind: None, among=records)
    assert str(compared.leaderboard.family) == "4 comparisons: all pairs of 2 rows on 3 datasets and their mean"


def test_a_side_of_a_comparison_is_the_newest_record_of_each_dataset():
    old = scored(make_record("tuned", "x", 0), 0.1 + noise(0))
    new, other = scored(make_record("tuned", "x", 0, 1), 0.5 + noise(1)), scored(make_record("base", "x", 0), noise(2))
    new = (
        new[0].model_copy(update={"files": RecordFiles(per_query="new"), "id": "f" * 16}),
        {"new": new[1]["tuned/x"]},
    )
    scores = old[1] | new[1] | other[1]
    compared = compare([other[0]], [old[0], new[0]], "ndcg@10", scores, lambda record, kind: None)
    assert compared.leaderboard.rows[0].evaluations["x"].value == new[0].metrics["ndcg@10"]
    assert compared.records[1] == [new[0]]
    assert f"B: x {new[0].started:%Y-%m-%d %H:%M:%S} ffffffff" in repr(compared)


def test_a_side_of_a_comparison_is_named_and_described_by_the_records_that_are_compared():
    def tuned(dataset, version, minutes):
        record = make_record("tuned", dataset, 0.5, minutes, id=f"{version}" * 16)
        return record.model_copy(
            update={"retriever": record.retriever.model_copy(update={"config": {"version": version}})}
        )

    a = [tuned("x", 1, 0), tuned("y", 2, 9)]
    compared = compare(a, [tuned("x", 3, 5)], "ndcg@10", {}, lambda record, kind: None)
    assert compared.a == f"tuned ({a[0].started:%Y-%m-%d %H:%M:%S} 11111111)"
    assert compared.config == {"version": ("1", "3")}


def test_a_newer_record_without_the_metric_is_not_compared():
    records = [make_record("a", "x", 0.5), make_record("a", "x", 0, 1, metrics={"map@100": 0.1}, id="f" * 16)]
    compared = compare(records, [make_record("b", "x", 0.4)], "ndcg@10", {}, lambda record, kind: None)
    assert compared.records[0] == [records[0]]
    with pytest.raises(UndecidedError, match="nothing to compare"):
        compare([records[1]], [make_record("b", "x", 0.4)], "ndcg@10", {}, lambda record, kind: None)


def test_one_row_with_other_queries_does_not_keep_the_others_from_being_tested():
    odd = scored(make_record("a", "x", 0), noise(0), [f"other{place}" for place in range(60)])
    leaderboard = built(
        odd, *(scored(make_record(name, "x", 0), noise(seed)) for seed, name in enumerate(("b", "c", "d")))
    )
    assert leaderboard.tests == 3
    assert leaderboard.difference("b", "c", "x") is not None


def test_of_equal_best_rows_the_tested_one_decides_what_is_tied():
    values = noise(0) + 0.5
    rows = {"a": values, "b": values[::-1], "c": values - 0.01}
    evaluations = [scored(make_record(name, "x", 0), scores) for name, scores in rows.items()]
    shifts = {"a": 0, "b": 1, "c": 0}
    evaluations += [scored(make_record(name, "y", 0), noise(5) + shift) for name, shift in shifts.items()]
    leaderboard = built(*evaluations)
    best = leaderboard.column_tests("x").best
    is_tied = row(leaderboard, "c").evaluations["x"].tied_with_best
    assert is_tied == (leaderboard.difference(best, "c", "x").p >= stats.ALPHA)


def test_coverage_is_recommended_by_no_one():
    records = [make_record(name, "x", 0.5, metrics={"judged@10": 0.5}) for name in "ab"]
    with pytest.raises(ConfigError, match=r"judged@10 .* --metric ndcg@10"):
        recommend(build(records, "judged@10"), {})
    compared = compare([records[0]], [records[1]], "judged@10", {}, lambda record, kind: None)
    assert "says nothing about quality" in repr(compared)


def test_coverage_has_no_best_and_no_tests(evaluations):
    renamed = [
        (
            record.model_copy(update={"metrics": {"judged@10": record.metrics["ndcg@10"]}}),
            {path: PerQuery(each.query_ids, {"judged@10": each.values["ndcg@10"]}) for path, each in scores.items()},
        )
        for record, scores in evaluations
    ]
    scores = {path: values for _, by_path in renamed for path, values in by_path.items()}
    leaderboard = build([record for record, _ in renamed], "judged@10", scores)
    each = [evaluation for r in leaderboard.rows for evaluation in [*r.evaluations.values(), r.overall]]
    assert not any(evaluation.best or evaluation.tied_with_best for evaluation in each)
    assert all(evaluation.interval for evaluation in each)
    assert (leaderboard.tests, leaderboard.untested) == (0, {})
    assert all(not r.front for r in leaderboard.rows)


@pytest.mark.parametrize(("second", "is_named"), [(0.84, False), (0.7, True)])
def test_shares_of_judged_documents_are_named_where_they_differ(second, is_named):
    leaderboard = build(
        [
            make_record("a", "x", 0.5, metrics={"ndcg@10": 0.5, "judged@10": 0.88}),
            make_record("b", "x", 0.4, metrics={"ndcg@10": 0.4, "judged@10": second}),
        ]
    )
    note = f"Judged among the first ten: a 88 %, b {100 * second:.0f} %"
    for text in (writers.terminal(tables(leaderboard)), repr(recommend(leaderboard, {}))):
        assert (note in " ".join(text.split())) == is_named


def test_rows_of_equal_scores_are_both_best():
    values = noise(0)
    leaderboard = built(
        scored(make_record("a", "x", 0), values),
        scored(make_record("b", "x", 0), values),
        scored(make_record("c", "x", 0), values / 2),
    )
    assert [row(leaderboard, name).evaluations["x"].best for name in "abc"] == [True, True, False]
    assert leaderboard.difference("a", "b", "x").p == 1
    assert [row(leaderboard, name).evaluations["x"].best_share for name in "abc"] == [0.5, 0.5, 0.0]


def test_a_single_row_is_not_best():
    leaderboard = built(scored(make_record("a", "x", 0), noise(0)))
    assert row(leaderboard, "a").evaluations["x"].best is False
    assert row(leaderboard, "a").front == frozenset()


def _scores_of(evaluations, label, name):
    """Return the scores by query of a row on a dataset."""
    return next(scores[f"{label}/{name}"].values["ndcg@10"] for _, scores in evaluations if f"{label}/{name}" in scores)


def test_every_dataset_has_the_same_weight_in_a_mean():
    few, many = noise(0, 20), noise(1, 500)
    leaderboard = built(
        *(scored(make_record("a", name, 0), values) for name, values in (("few", few), ("many", many))),
        *(scored(make_record("b", name, 0), values + 0.1) for name, values in (("few", few), ("many", many))),
        baseline="a",
    )
    overall = row(leaderboard, "b").overall
    assert overall.value == pytest.approx((few.mean() + many.mean()) / 2 + 0.1)
    assert overall.versus.delta == pytest.approx(0.1)
    low, high = overall.interval
    assert low < overall.value < high
    intervals = [row(leaderboard, "b").evaluations[name].interval for name in ("few", "many")]
    spread = (((intervals[0][1] - intervals[0][0]) ** 2 + (intervals[1][1] - intervals[1][0]) ** 2) ** 0.5) / 2
    assert high - low == pytest.approx(spread, rel=0.1)


def test_rows_with_other_queries_or_without_scores_are_not_tested():
    leaderboard = built(
        scored(make_record("a", "x", 0), 0.7 + noise(0)),
        scored(make_record("b", "x", 0), 0.5 + noise(1)),
        scored(make_record("other", "x", 0), 0.1 + noise(2), [f"other{place}" for place in range(60)]),
        (make_record("lost", "x", 0.05), {}),
    )
    assert leaderboard.tests == 1
    assert row(leaderboard, "b").evaluations["x"].tied_with_best is False
    for name in ("other", "lost"):
        assert row(leaderboard, name).evaluations["x"].tied_with_best is None
        assert row(leaderboard, name).evaluations["x"].interval is None
    without = build([make_record("a", "x", 0.5), make_record("b", "x", 0.4)])
    assert (without.tests, without.detectable) == (0, {})
    assert row(without, "a").evaluations["x"].best


def test_parts_of_a_group_have_the_same_weight():
    evaluations = []
    for name, shift in (("a", 0.0), ("b", 0.05)):
        for number, record in enumerate(forums(name, 12)):
            evaluations.append(scored(record, noise(number, 10 + 20 * number) + shift))
    leaderboard = built(*evaluations, baseline="a")
    group = row(leaderboard, "b").evaluations["cqadupstack"]
    assert group.versus.delta == pytest.approx(0.05)
    assert group.versus.won == sum(10 + 20 * number for number in range(12))
    assert group.value == pytest.approx(np.mean([noise(n, 10 + 20 * n).mean() for n in range(12)]) + 0.05)


def test_a_baseline_is_named_by_label_or_config():
    records = [make_record("bm25", "x", 0.1), make_record("minilm", "x", 0.2), make_record("minilm", "x", 0.3)]
    info = records[2].retriever.model_copy(update={"differences": {"k": 1}})
    records[2] = records[2].model_copy(update={"retriever": info})
    assert build(records, baseline="minilm").baseline == "minilm"
    assert build(records, baseline="minilm [k=1]").baseline == "minilm [k=1]"
    assert build(records[2:], baseline="minilm").baseline == "minilm [k=1]"
    second = records[2].model_copy(update={"retriever": info.model_copy(update={"differences": {"k": 2}})})
    with pytest.raises(ConfigError, match=r"several rows are called 'minilm'; choices: ('minilm \[k=\d\]'(, )?){2}"):
        build([records[2], second], baseline="minilm")
    with pytest.raises(ConfigError, match=r"no row is called 'splade'; choices: 'minilm \[k=1\]', 'minilm', 'bm25'"):
        build(records, baseline="splade")


def test_a_difference_has_counts_an_interval_a_p_value_and_an_effect_size():
    values, base = np.array([0.5, 0.2, 0.0, 1.0]), np.array([0.4, 0.4, 0.0, 0.5])
    leaderboard = built(scored(make_record("a", "x", 0), base), scored(make_record("b", "x", 0), values), baseline="a")
    versus = row(leaderboard, "b").evaluations["x"].versus
    assert (versus.won, versus.tied, versus.lost) == (2, 1, 1)
    assert versus.delta == pytest.approx(0.1)
    assert versus.p == pytest.approx(0.75, abs=0.02)  # 6 of the 8 assignments of three signs are at least as extreme
    assert versus.effect == pytest.approx(0.1 / np.std(values - base, ddof=1))
    assert versus.low <= versus.delta <= versus.high
    assert row(leaderboard, "a").evaluations["x"].versus is None


def test_the_pareto_front_holds_rows_that_no_row_of_their_environment_dominates():
    leaderboard = build(
        [
            make_record("good", "x", 0.9, seconds=8),
            make_record("worse", "x", 0.8, seconds=8),
            make_record("same", "x", 0.9, seconds=8),
            make_record("fast", "x", 0.5, seconds=1),
            make_record("slow", "x", 0.4, seconds=2),
            make_record("other machine", "x", 0.1, seconds=9, environment="other"),
            make_record("other machine, best", "x", 0.2, seconds=9, environment="other"),
        ]
    )
    labels = {row.label for row in leaderboard.rows if "queries_per_s" in row.front}
    assert labels == {"good", "same", "fast", "other machine, best"}
    assert all("latency_ms" not in row.front for row in leaderboard.rows), "no query was timed alone"


def test_the_minimum_detectable_effect_uses_the_median_standard_error():
    best = noise(0, 200)
    rows = [
        best - np.random.default_rng(seed).normal(0.05, spread, 200) for seed, spread in ((1, 0.1), (2, 0.2), (3, 0.4))
    ]
    evaluations = [
        scored(make_record("best", "x", 0), best),
        *(scored(make_record(f"r{n}", "x", 0), values) for n, values in enumerate(rows)),
    ]
    middle = np.std(rows[1] - best, ddof=1) / 200**0.5
    assert built(*evaluations).detectable == {"x": pytest.approx(stats.minimum_detectable_effect(middle))}


@pytest.mark.parametrize("values", [[], [float("nan")] * 60])
def test_rows_without_queries_or_with_scores_that_are_not_finite_are_untested(values):
    odd, odd_scores = scored(make_record("odd", "x", 0), values or [0.5])
    odd_scores[odd.files.per_query] = PerQuery([f"q{n}" for n in range(len(values))], {"ndcg@10": np.array(values)})
    odd = odd.model_copy(update={"metrics": {"ndcg@10": 0.1}})
    rows = [scored(make_record(name, "x", 0), mean + noise(0)) for name, mean in (("best", 0.7), ("worse", 0.2))]
    leaderboard = built((odd, odd_scores), *rows)
    assert leaderboard.untested == {"x": ["odd"]}
    assert leaderboard.tests == 1
    assert row(leaderboard, "worse").evaluations["x"].tied_with_best is False
    assert built((odd, odd_scores)).rows[0].evaluations["x"].interval is None
