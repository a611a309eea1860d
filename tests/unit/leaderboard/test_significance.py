"""Tests of best and tied rows, differences to a baseline, Pareto fronts and minimum detectable effects."""

import numpy as np
import pytest
from support.records import built, forums, make_record, noise, row, scored

from harness import stats
from harness.errors import ConfigError
from harness.leaderboard import build


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
    assert leaderboard.tests == 2


def test_differences_to_a_baseline_are_one_family_for_holm():
    rng = np.random.default_rng(1)
    base = {name: rng.random(80) for name in "xy"}
    values = {(label, name): base[name] + rng.normal(0.01, 0.1, 80) for label in "abc" for name in "xy"}
    baseline = [scored(make_record("base", name, 0), by_query) for name, by_query in base.items()]
    leaderboard = built(
        *baseline, *(scored(make_record(*key, 0), by_query) for key, by_query in values.items()), baseline="base"
    )
    columns = {"x": [(1.0, "x")], "y": [(1.0, "y")], None: [(0.5, "x"), (0.5, "y")]}
    raw = {
        (label, column): float(
            stats.p_values([(weight, (values[label, name] - base[name])[:, None]) for weight, name in parts])[0]
        )
        for column, parts in columns.items()
        for label in "abc"
    }
    expected = dict(zip(raw, stats.holm(list(raw.values())), strict=True))
    for (label, column), p in expected.items():
        of_label = row(leaderboard, label)
        result = of_label.overall if column is None else of_label.evaluations[column]
        assert result.versus.p == pytest.approx(p)


def test_rows_of_equal_mean_are_both_best_and_not_tested():
    values = noise(0)
    leaderboard = built(
        scored(make_record("a", "x", 0), values),
        scored(make_record("b", "x", 0), values),
        scored(make_record("c", "x", 0), values / 2),
    )
    assert [row(leaderboard, name).evaluations["x"].best for name in "abc"] == [True, True, False]
    assert leaderboard.tests == 1


def test_a_single_row_is_not_best():
    leaderboard = built(scored(make_record("a", "x", 0), noise(0)))
    assert row(leaderboard, "a").evaluations["x"].best is False
    assert row(leaderboard, "a").front == frozenset()


def test_holm_covers_all_columns_and_the_mean():
    rng = np.random.default_rng(0)
    evaluations, base = [], {name: rng.random(100) for name in "xyz"}
    for name in "xyz":
        evaluations.append(scored(make_record("best", name, 0), base[name] + 0.03))
        for number in range(4):
            evaluations.append(scored(make_record(f"r{number}", name, 0), base[name] + rng.normal(0, 0.1, 100)))
    leaderboard = built(*evaluations)
    assert leaderboard.tests == 16
    p = []
    for label in ("r0", "r1", "r2", "r3"):
        for name in "xyz":
            p.append(_p_value(evaluations, label, name))
        differences = [_scores_of(evaluations, label, name) - _scores_of(evaluations, "best", name) for name in "xyz"]
        p.append(float(stats.p_values([(1 / 3, values[:, None]) for values in differences])[0]))
    is_tied = [
        each.tied_with_best
        for label in ("r0", "r1", "r2", "r3")
        for each in [*row(leaderboard, label).evaluations.values(), row(leaderboard, label).overall]
    ]
    assert is_tied == [adjusted >= 0.05 for adjusted in stats.holm(p)]
    assert len(set(is_tied)) == 2, "some rows are tied and some are not"


def _scores_of(evaluations, label, name):
    """Return the scores by query of a row on a dataset."""
    return next(scores[f"{label}/{name}"].values["ndcg@10"] for _, scores in evaluations if f"{label}/{name}" in scores)


def _p_value(evaluations, label, name):
    """Return the p-value of a row against the best one on a dataset."""
    difference = _scores_of(evaluations, label, name) - _scores_of(evaluations, "best", name)
    return float(stats.p_values([(1.0, difference[:, None])])[0])


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
    assert versus.p == pytest.approx(0.75)  # 6 of the 8 assignments of three signs are at least as extreme
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
