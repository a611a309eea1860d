"""Tests of building a leaderboard: its rows, columns, means, gaps and notes."""

import json

import pytest
from support.records import forums, make_record, row

from harness.leaderboard import build, writers
from harness.leaderboard.compare import compare
from harness.leaderboard.frame import leaderboards_data, to_json
from harness.leaderboard.tables.leaderboard import tables
from harness.types import EncoderInfo


def test_rows_are_best_first_by_their_mean_over_the_common_datasets():
    leaderboard = build(
        [make_record("a", "x", 0.1), make_record("a", "y", 0.5), make_record("b", "x", 0.4), make_record("b", "y", 0.6)]
    )
    assert [row.label for row in leaderboard.rows] == ["b", "a"]
    assert leaderboard.datasets == leaderboard.common == ["x", "y"]
    assert row(leaderboard, "b").mean == 0.5


def test_a_dataset_that_a_row_lacks_is_a_gap_and_not_in_the_mean():
    leaderboard = build([make_record("a", "x", 0.1), make_record("a", "y", 0.9), make_record("b", "x", 0.4)])
    assert leaderboard.common == ["x"]
    assert (row(leaderboard, "a").mean, row(leaderboard, "b").mean) == (0.1, 0.4)
    text = writers.markdown(tables(leaderboard))
    assert "| b | **0.4000** | - | **0.4000** |" in text
    assert "Mean and costs over: x; index MB is the largest of them." in text


def test_the_newest_record_of_an_evaluation_is_shown():
    leaderboard = build([make_record("a", "x", 0.2, minutes=5), make_record("a", "x", 0.1)])
    assert row(leaderboard, "a").evaluations["x"].value == 0.2


def test_datasets_of_the_same_name_with_different_content_have_two_columns():
    leaderboard = build(
        [
            make_record("a", "x", 0.2),
            make_record("b", "x", 0.9, minutes=1, fingerprint="0123456789"),
            make_record("c", "x", 0.3),
        ]
    )
    assert leaderboard.datasets == ["x", "x (ffffff)"]
    assert set(row(leaderboard, "b").evaluations) == {"x"}
    assert set(row(leaderboard, "a").evaluations) == set(row(leaderboard, "c").evaluations) == {"x (ffffff)"}
    assert leaderboard.common == []


def test_overrides_of_a_dataset_are_in_its_column_name():
    leaderboard = build(
        [make_record("a", "x", 0.2), make_record("a", "x", 0.9, fingerprint="g", differences={"split": "dev"})]
    )
    assert leaderboard.datasets == ["x", "x [split=dev]"]


def test_a_group_is_one_column_with_the_unweighted_mean_of_its_parts():
    leaderboard = build([*forums("a", 12), make_record("a", "x", 0.5)])
    assert leaderboard.datasets == ["cqadupstack", "x"]
    assert abs(row(leaderboard, "a").evaluations["cqadupstack"].value - sum(range(12)) / 1200) < 1e-12
    assert abs(row(leaderboard, "a").mean - (sum(range(12)) / 1200 + 0.5) / 2) < 1e-12


def test_a_group_is_a_gap_until_all_its_parts_are_measured():
    leaderboard = build([*forums("a", 12), *forums("b", 11)])
    assert "cqadupstack" not in row(leaderboard, "b").evaluations
    other_split = build([*forums("a", 12), *forums("a", 1, differences={"split": "dev"})])
    assert "cqadupstack" in row(other_split, "a").evaluations, "another split is another column"


def test_a_group_with_a_failed_part_has_failed():
    failed = make_record("b", "cqadupstack/f3", 0, status="failed", fingerprint=None, group="cqadupstack", parts=12)
    leaderboard = build([*forums("a", 12), failed])
    assert leaderboard.datasets == ["cqadupstack"]
    assert row(leaderboard, "b").failed == {"cqadupstack"}
    assert "| b | failed | - | - | - |" in writers.markdown(tables(leaderboard))


def test_a_failure_after_a_success_shows_the_success():
    leaderboard = build([make_record("a", "x", 0.2), make_record("a", "x", 0, 1, status="failed")])
    assert row(leaderboard, "a").evaluations["x"].value == 0.2
    assert row(leaderboard, "a").failed == frozenset()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_left_out_and_named(value):
    records = [make_record("a", "x", 0.2), make_record("b", "x", 0.3), make_record("a", "x", value, 1)]
    leaderboard = build(records)
    assert row(leaderboard, "a").evaluations["x"].value == 0.2
    caution = "left out: a on x, 2026-01-01: ndcg@10 is not finite"
    assert leaderboard.cautions == [caution]
    alone = build(records[1:])
    assert [row.label for row in alone.rows] == ["b"]
    assert alone.cautions == [caution]
    json.loads(to_json(leaderboards_data({"ndcg@10": alone})))


def test_a_group_with_changed_content_has_another_column():
    moved = make_record("b", "cqadupstack/f3", 0.5, 1, fingerprint="9" * 8, group="cqadupstack", parts=12)
    leaderboard = build([*forums("a", 12), *forums("b", 12), moved])
    assert leaderboard.datasets == ["cqadupstack"], "a's forum of the older content is no dataset of its own"
    assert row(leaderboard, "a").evaluations == {}, "a has not all parts of the newest content"


def test_a_dataset_called_mean_is_not_the_mean():
    leaderboard = build([make_record("a", "mean", 0.9), make_record("a", "x", 0.1)])
    assert "| a | 0.9000 | 0.1000 | 0.5000 |" in writers.markdown(tables(leaderboard))


def test_a_failure_alone_adds_no_column_and_is_named_below_the_table():
    failed = make_record("b", "y", 0, status="failed", error="RunError: no memory\nTraceback")
    leaderboard = build([make_record("a", "x", 0.2), make_record("c", "x", 0.1), failed])
    assert leaderboard.datasets == leaderboard.common == ["x"]
    assert [row.label for row in leaderboard.rows] == ["a", "c"]
    assert "Failed: b on y: RunError: no memory." in writers.terminal(tables(leaderboard))


def test_an_older_version_of_a_dataset_is_part_of_no_mean():
    records = [make_record(name, "x", 0.9, fingerprint="1" * 8) for name in "ab"]
    records += [make_record(name, "x", 0.5, 1, fingerprint="2" * 8) for name in "ab"]
    records += [make_record(name, "y", 0.3) for name in "ab"]
    leaderboard = build(records)
    assert leaderboard.datasets == ["x", "x (111111)", "y"]
    assert leaderboard.common == ["x", "y"]
    assert row(leaderboard, "a").mean == pytest.approx(0.4)
    text = writers.markdown(tables(leaderboard))
    assert "Column x (111111) holds an older version of x" in text
    assert "harness forget --dataset 'x (111111)'" in text


def test_rows_with_only_an_older_version_of_a_dataset_are_compared_on_it():
    records = [make_record(name, "x", value, fingerprint="1" * 8) for name, value in (("a", 0.9), ("b", 0.8))]
    records.append(make_record("c", "x", 0.5, 1, fingerprint="2" * 8))
    assert build(records).common == []
    shown = build(records, is_shown=lambda record: record.retriever.label in "ab")
    assert (shown.datasets, shown.common) == (["x (111111)"], ["x (111111)"])
    assert [row.mean for row in shown.rows] == [0.9, 0.8]
    compared = compare([records[0]], [records[1]], "ndcg@10", {}, lambda record, kind: None, among=records)
    assert [row.mean for row in compared.leaderboard.rows] == [0.9, 0.8]


@pytest.mark.parametrize("changes", [{"status": "failed"}, {"metrics": {"map@100": 0.5}}])
def test_a_record_without_the_metric_makes_no_dataset_an_older_version(changes):
    records = [make_record(name, "x", 0.5, fingerprint="1" * 8) for name in "ab"]
    records.append(make_record("c", "x", 0.5, 1, fingerprint="2" * 8, **changes))
    assert build(records).datasets == ["x"]


def test_rows_without_evaluations_hide_no_share_of_judged_documents():
    shares = {"a": 0.9, "b": 0.5}
    records = [
        make_record(name, "x", 0.5, metrics={"ndcg@10": 0.5, "judged@10": share}) for name, share in shares.items()
    ]
    failed = make_record("c", "x", 0, status="failed")
    unknown = make_record("d", "x", 0.5)
    assert build([*records, failed, unknown]).judged == shares


def test_hidden_rows_and_datasets_are_left_out_of_the_means():
    records = [make_record("a", "x", 0.2), make_record("a", "y", 0.4), make_record("b", "x", 0.1)]
    assert build(records).common == ["x"]
    shown = build(records, is_shown=lambda record: record.retriever.label == "a")
    assert (shown.datasets, shown.common, [row.label for row in shown.rows]) == (["x", "y"], ["x", "y"], ["a"])


def test_records_of_older_metric_versions_are_left_out_and_counted():
    old = make_record("a", "x", 0.9).model_copy(update={"metric_version": 0})
    leaderboard = build([old, make_record("b", "x", 0.5)])
    assert [row.label for row in leaderboard.rows] == ["b"]
    assert "1 records of older definitions of the metrics are left out." in writers.terminal(tables(leaderboard))


def test_differing_k_is_named_below_the_table():
    deep = make_record("b", "x", 0.5).model_copy(update={"k": 1000})
    assert "K differs (100: a; 1000: b)." in writers.terminal(tables(build([make_record("a", "x", 0.4), deep])))
    assert "differs" not in writers.terminal(tables(build([make_record("a", "x", 0.4)])))


def test_rows_with_different_threads_have_separate_pareto_fronts():
    two_threads = make_record("b", "x", 0.4, seconds=5.0)
    two_threads = two_threads.model_copy(update={"timing": two_threads.timing.model_copy(update={"threads": 2})})
    leaderboard = build([make_record("a", "x", 0.5), make_record("c", "x", 0.6, seconds=9.0), two_threads])
    assert row(leaderboard, "b").front == frozenset()
    assert "Threads differs (1: a, c; 2: b)." in writers.terminal(tables(leaderboard))


def test_the_latency_is_the_95th_percentile_over_single_queries():
    record = make_record("a", "x", 0.5)
    timing = record.timing.model_copy(update={"latencies_s": [n / 1000 for n in range(101)]})
    leaderboard = build([record.model_copy(update={"timing": timing})])
    assert row(leaderboard, "a").latency_ms == 95.0


def test_a_row_with_an_untimed_evaluation_has_no_costs():
    untimed = make_record("a", "y", 0.5).model_copy(update={"timing": None})
    a = row(build([make_record("a", "x", 0.5), untimed]), "a")
    assert (a.queries_per_s, a.docs_per_s, a.index_mb, a.environment) == (None, None, None, None)


def test_costs_are_totals_over_the_common_datasets():
    leaderboard = build([make_record("a", "x", 0.1, seconds=1.0), make_record("a", "y", 0.2, seconds=3.0)])
    a = row(leaderboard, "a")
    assert a.docs_per_s == 20 / 4
    assert a.queries_per_s == 2 / 4
    assert a.index_mb == 2.0, "the largest"


def test_costs_of_several_environments_are_noted_as_not_comparable():
    leaderboard = build([make_record("a", "x", 0.1, environment="one"), make_record("b", "x", 0.2, environment="two")])
    assert "Costs come from 2 environments (one, two) and do not compare across them." in writers.terminal(
        tables(leaderboard)
    )
    assert "environments" not in writers.terminal(tables(build([make_record("a", "x", 0.1)])))


def test_the_same_records_in_any_order_give_the_same_bytes():
    records = [
        *forums("a", 12),
        make_record("b", "x", 0.25, 1),
        make_record("b", "x", 0.2),
        make_record("c", "y", 0, status="failed"),
    ]
    assert writers.markdown(tables(build(records))) == writers.markdown(tables(build(records[::-1])))
    assert writers.terminal(tables(build(records))) == writers.terminal(tables(build(records[::-1])))


def test_a_wide_leaderboard_is_split_between_columns():
    text = writers.terminal(tables(build([make_record("a", f"dataset{n:02}", n / 100) for n in range(15)])), 60)
    for n in range(15):
        assert f"{n / 100:.4f}" in text
    assert text.count("ndcg@10") > 2
    assert max(map(len, text.splitlines())) <= 60


def test_markup_in_a_name_is_escaped():
    text = writers.markdown(
        tables(build([make_record("**x|y <b>**", "x", 0.5), make_record("[a](http://e) _u_ ~b~ $c$ a_b", "x", 0.4)]))
    )
    assert r"| \*\*x\|y &lt;b>\*\* |" in text
    assert r"| \[a\](http://e) \_u\_ \~b\~ \$c\$ a_b |" in text


def test_a_name_cannot_break_a_table():
    text = writers.markdown(tables(build([make_record("a|b", "x", 0.5)])))
    assert r"| a\|b | 0.5000 |" in text
    assert "[bold]x[/bold]" in writers.terminal(tables(build([make_record("[bold]x[/bold]", "x", 0.5)])))


def test_remarks_of_encoders_are_below_the_table_with_their_rows():
    plain = make_record("a", "x", 0.1)
    with_remark = make_record("b", "x", 0.2).model_copy(
        update={"encoders": {"": EncoderInfo(remark="Not trained for it")}}
    )
    scorer_with_remark = make_record("c", "x", 0.3).model_copy(
        update={"encoders": {"scorer": EncoderInfo(remark="Not trained for it", device="cpu")}}
    )
    leaderboard = build([plain, with_remark, scorer_with_remark])
    assert leaderboard.remarks == {"Not trained for it": ["c", "b"]}
    for shown in (writers.markdown(tables(leaderboard)), writers.terminal(tables(leaderboard))):
        assert "Not trained for it: c, b." in shown
    assert "Not trained" not in writers.markdown(tables(build([plain])))
