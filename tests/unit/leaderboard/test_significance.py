"""The board's marks: best, not significantly below it, differences to a baseline, fronts, what a dataset can tell."""

import numpy as np
import pytest
from support.records import built, forums, make_record, noise, row, scored

from harness import stats
from harness.errors import ConfigError
from harness.leaderboard import build


def test_the_best_is_marked_and_what_cannot_be_told_from_it():
    board = built(
        scored(make_record("best", "x", 0), 0.7 + noise(0)),
        scored(make_record("near", "x", 0), 0.699 + noise(0)[::-1]),
        scored(make_record("far", "x", 0), 0.2 + noise(1)),
    )
    marks = {
        name: (row(board, name).evaluations["x"].best, row(board, name).evaluations["x"].tied_with_best)
        for name in ("best", "near", "far")
    }
    assert marks == {"best": (True, None), "near": (False, True), "far": (False, False)}
    assert board.tests == 2


def test_differences_to_a_baseline_are_one_family_for_holm():
    rng = np.random.default_rng(1)
    base = {name: rng.random(80) for name in "xy"}
    others = {(label, name): base[name] + rng.normal(0.01, 0.1, 80) for label in "abc" for name in "xy"}
    cells = [scored(make_record("base", name, 0), own) for name, own in base.items()]
    board = built(*cells, *(scored(make_record(*key, 0), own) for key, own in others.items()), baseline="base")
    columns = {"x": [(1.0, "x")], "y": [(1.0, "y")], None: [(0.5, "x"), (0.5, "y")]}
    raw = {
        (label, column): float(
            stats.p_values([(weight, (others[label, name] - base[name])[:, None]) for weight, name in parts])[0]
        )
        for column, parts in columns.items()
        for label in "abc"
    }
    expected = dict(zip(raw, stats.holm(list(raw.values())), strict=True))
    for (label, column), p in expected.items():
        own = row(board, label)
        found = own.overall if column is None else own.evaluations[column]
        assert found.versus.p == pytest.approx(p)


def test_rows_of_equal_mean_are_both_best_and_not_tested():
    values = noise(0)
    board = built(
        scored(make_record("a", "x", 0), values),
        scored(make_record("b", "x", 0), values),
        scored(make_record("c", "x", 0), values / 2),
    )
    assert [row(board, name).evaluations["x"].best for name in "abc"] == [True, True, False]
    assert board.tests == 1


def test_one_row_alone_is_not_best():
    board = built(scored(make_record("a", "x", 0), noise(0)))
    assert row(board, "a").evaluations["x"].best is False
    assert row(board, "a").front == frozenset()


def test_holm_covers_all_columns_and_the_mean():
    rng = np.random.default_rng(0)
    cells, base = [], {name: rng.random(100) for name in "xyz"}
    for name in "xyz":
        cells.append(scored(make_record("best", name, 0), base[name] + 0.03))
        for number in range(4):
            cells.append(scored(make_record(f"r{number}", name, 0), base[name] + rng.normal(0, 0.1, 100)))
    board = built(*cells)
    assert board.tests == 16
    p = []
    for label in ("r0", "r1", "r2", "r3"):
        for name in "xyz":
            p.append(_alone(cells, label, name))
        strata = [(1 / 3, (_values(cells, label, name) - _values(cells, "best", name))[:, None]) for name in "xyz"]
        p.append(float(stats.p_values(strata)[0]))
    found = [
        one.tied_with_best
        for label in ("r0", "r1", "r2", "r3")
        for one in [*row(board, label).evaluations.values(), row(board, label).overall]
    ]
    assert found == [adjusted >= 0.05 for adjusted in stats.holm(p)]
    assert len(set(found)) == 2, "the data were made so that some differ and some do not"


def _values(cells, label, name):
    return next(own[f"{label}/{name}"].values["ndcg@10"] for _, own in cells if f"{label}/{name}" in own)


def _alone(cells, label, name):
    return float(stats.p_values([(1.0, (_values(cells, label, name) - _values(cells, "best", name))[:, None])])[0])


def test_a_mean_gives_every_dataset_the_same_weight_whatever_its_number_of_queries():
    few, many = noise(0, 20), noise(1, 500)
    board = built(
        *(scored(make_record("a", name, 0), values) for name, values in (("few", few), ("many", many))),
        *(scored(make_record("b", name, 0), values + 0.1) for name, values in (("few", few), ("many", many))),
        baseline="a",
    )
    overall = row(board, "b").overall
    assert overall.value == pytest.approx((few.mean() + many.mean()) / 2 + 0.1)
    assert overall.versus.delta == pytest.approx(0.1)
    low, high = overall.interval
    assert low < overall.value < high
    own = [row(board, "b").evaluations[name].interval for name in ("few", "many")]
    spread = (((own[0][1] - own[0][0]) ** 2 + (own[1][1] - own[1][0]) ** 2) ** 0.5) / 2
    assert high - low == pytest.approx(spread, rel=0.1)


def test_other_queries_or_lost_scores_are_shown_and_not_tested():
    board = built(
        scored(make_record("a", "x", 0), 0.7 + noise(0)),
        scored(make_record("b", "x", 0), 0.5 + noise(1)),
        scored(make_record("other", "x", 0), 0.1 + noise(2), [f"other{place}" for place in range(60)]),
        (make_record("lost", "x", 0.05), {}),
    )
    assert board.tests == 1
    assert row(board, "b").evaluations["x"].tied_with_best is False
    for name in ("other", "lost"):
        assert row(board, name).evaluations["x"].tied_with_best is None
        assert row(board, name).evaluations["x"].interval is None
    without = build([make_record("a", "x", 0.5), make_record("b", "x", 0.4)])
    assert (without.tests, without.detectable) == (0, {})
    assert row(without, "a").evaluations["x"].best


def test_the_parts_of_a_group_weigh_the_same():
    cells = []
    for name, shift in (("a", 0.0), ("b", 0.05)):
        for number, record in enumerate(forums(name, 12)):
            cells.append(scored(record, noise(number, 10 + 20 * number) + shift))
    board = built(*cells, baseline="a")
    group = row(board, "b").evaluations["cqadupstack"]
    assert group.versus.delta == pytest.approx(0.05)
    assert group.versus.won == sum(10 + 20 * number for number in range(12))
    assert group.value == pytest.approx(np.mean([noise(n, 10 + 20 * n).mean() for n in range(12)]) + 0.05)


def test_a_baseline_is_a_label_or_the_only_row_of_a_config():
    records = [make_record("bm25", "x", 0.1), make_record("minilm", "x", 0.2), make_record("minilm", "x", 0.3)]
    info = records[2].retriever.model_copy(update={"differences": {"k": 1}})
    records[2] = records[2].model_copy(update={"retriever": info})
    assert build(records, baseline="minilm").baseline == "minilm"
    assert build(records, baseline="minilm [k=1]").baseline == "minilm [k=1]"
    assert build(records[2:], baseline="minilm").baseline == "minilm [k=1]"
    again = records[2].model_copy(update={"retriever": info.model_copy(update={"differences": {"k": 2}})})
    with pytest.raises(ConfigError, match=r"several rows are called 'minilm'; choices: ('minilm \[k=\d\]'(, )?){2}"):
        build([records[2], again], baseline="minilm")
    with pytest.raises(ConfigError, match=r"no row is called 'splade'; choices: 'minilm \[k=1\]', 'minilm', 'bm25'"):
        build(records, baseline="splade")


def test_a_difference_has_its_counts_interval_and_effect():
    ours, base = np.array([0.5, 0.2, 0.0, 1.0]), np.array([0.4, 0.4, 0.0, 0.5])
    board = built(scored(make_record("a", "x", 0), base), scored(make_record("b", "x", 0), ours), baseline="a")
    found = row(board, "b").evaluations["x"].versus
    assert (found.won, found.tied, found.lost) == (2, 1, 1)
    assert found.delta == pytest.approx(0.1)
    assert found.p == pytest.approx(0.75)  # 6 of the 8 assignments of three signs are at least as extreme
    assert found.effect == pytest.approx(0.1 / np.std(ours - base, ddof=1))
    assert found.low <= found.delta <= found.high
    assert row(board, "a").evaluations["x"].versus is None


def test_the_front_holds_what_nothing_beats_in_both_within_one_environment():
    board = build(
        [
            make_record("good", "x", 0.9, seconds=8),
            make_record("worse", "x", 0.8, seconds=8),
            make_record("same", "x", 0.9, seconds=8),
            make_record("fast", "x", 0.5, seconds=1),
            make_record("slow", "x", 0.4, seconds=2),
            make_record("elsewhere", "x", 0.1, seconds=9, environment="other"),
            make_record("there too", "x", 0.2, seconds=9, environment="other"),
        ]
    )
    on = {found.label for found in board.rows if "queries_per_s" in found.front}
    assert on == {"good", "same", "fast", "there too"}
    assert all("latency_ms" not in found.front for found in board.rows), "no query was timed alone"


def test_what_a_dataset_can_tell_is_from_the_median_error_of_the_differences():
    best = noise(0, 200)
    others = [
        best - np.random.default_rng(seed).normal(0.05, spread, 200) for seed, spread in ((1, 0.1), (2, 0.2), (3, 0.4))
    ]
    cells = [
        scored(make_record("best", "x", 0), best),
        *(scored(make_record(f"r{n}", "x", 0), own) for n, own in enumerate(others)),
    ]
    middle = np.std(others[1] - best, ddof=1) / 200**0.5
    assert built(*cells).detectable == {"x": pytest.approx(stats.minimum_detectable_effect(middle))}
