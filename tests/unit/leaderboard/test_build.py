"""The board: what a row and a column stand for, what a mean covers, and that a gap stays a gap."""

from support.records import forums, make_record, row

from harness.leaderboard import build, writers
from harness.leaderboard.tables.leaderboard import tables
from harness.types import EncoderInfo


def test_rows_are_best_first_by_their_mean_over_the_common_datasets():
    board = build(
        [make_record("a", "x", 0.1), make_record("a", "y", 0.5), make_record("b", "x", 0.4), make_record("b", "y", 0.6)]
    )
    assert [found.label for found in board.rows] == ["b", "a"]
    assert board.datasets == board.common == ["x", "y"]
    assert row(board, "b").mean == 0.5


def test_a_dataset_that_one_row_lacks_is_a_gap_and_not_in_the_mean():
    board = build([make_record("a", "x", 0.1), make_record("a", "y", 0.9), make_record("b", "x", 0.4)])
    assert board.common == ["x"]
    assert (row(board, "a").mean, row(board, "b").mean) == (0.1, 0.4)
    text = writers.markdown(tables(board))
    assert "| b | **0.4000** | - | **0.4000** |" in text
    assert "Mean and costs over: x; index MB is the largest of them." in text


def test_the_newest_record_of_a_cell_is_shown():
    board = build([make_record("a", "x", 0.2, minutes=5), make_record("a", "x", 0.1)])
    assert row(board, "a").evaluations["x"].value == 0.2


def test_other_content_under_the_same_name_is_another_column():
    board = build(
        [
            make_record("a", "x", 0.2),
            make_record("b", "x", 0.9, minutes=1, fingerprint="0123456789"),
            make_record("c", "x", 0.3),
        ]
    )
    assert board.datasets == ["x", "x (ffffff)"]
    assert set(row(board, "b").evaluations) == {"x"}
    assert set(row(board, "a").evaluations) == set(row(board, "c").evaluations) == {"x (ffffff)"}
    assert board.common == []


def test_what_differs_from_a_datasets_own_config_is_in_its_name():
    board = build(
        [make_record("a", "x", 0.2), make_record("a", "x", 0.9, fingerprint="g", differences={"split": "dev"})]
    )
    assert board.datasets == ["x", "x [split=dev]"]


def test_a_group_is_the_unweighted_mean_of_its_parts_and_one_dataset():
    board = build([*forums("a", 12), make_record("a", "x", 0.5)])
    assert board.datasets == ["cqadupstack", "x"]
    assert abs(row(board, "a").evaluations["cqadupstack"].value - sum(range(12)) / 1200) < 1e-12
    assert abs(row(board, "a").mean - (sum(range(12)) / 1200 + 0.5) / 2) < 1e-12


def test_a_group_is_a_gap_until_all_its_parts_are_there():
    board = build([*forums("a", 12), *forums("b", 11)])
    assert "cqadupstack" not in row(board, "b").evaluations
    again = build([*forums("a", 12), *forums("a", 1, differences={"split": "dev"})])
    assert "cqadupstack" in row(again, "a").evaluations, "another split is another column"


def test_a_failed_part_is_a_failure_of_its_group():
    failed = make_record("b", "cqadupstack/f3", 0, status="failed", fingerprint=None, group="cqadupstack", parts=12)
    board = build([*forums("a", 12), failed])
    assert board.datasets == ["cqadupstack"]
    assert row(board, "b").failed == {"cqadupstack"}
    assert "| b | failed | - | - | - |" in writers.markdown(tables(board))


def test_a_failure_after_a_success_shows_the_success():
    board = build([make_record("a", "x", 0.2), make_record("a", "x", 0, 1, status="failed")])
    assert row(board, "a").evaluations["x"].value == 0.2
    assert row(board, "a").failed == frozenset()


def test_parts_of_other_content_are_another_column():
    moved = make_record("b", "cqadupstack/f3", 0.5, 1, fingerprint="9" * 8, group="cqadupstack", parts=12)
    board = build([*forums("a", 12), *forums("b", 12), moved])
    assert board.datasets == ["cqadupstack", "cqadupstack (f3)"]
    assert row(board, "a").evaluations == {}, "a has not all parts of the newest content"


def test_a_dataset_called_mean_is_not_the_mean():
    board = build([make_record("a", "mean", 0.9), make_record("a", "x", 0.1)])
    assert "| a | 0.9000 | 0.1000 | 0.5000 |" in writers.markdown(tables(board))


def test_records_of_older_metrics_are_left_out_and_it_is_said():
    old = make_record("a", "x", 0.9).model_copy(update={"metric_version": 0})
    board = build([old, make_record("b", "x", 0.5)])
    assert [own.label for own in board.rows] == ["b"]
    assert "1 records of older definitions of the metrics are left out." in writers.terminal(tables(board))


def test_what_the_rows_were_not_asked_alike_is_said():
    deep = make_record("b", "x", 0.5).model_copy(update={"k": 1000})
    assert "K differs (100: a; 1000: b)." in writers.terminal(tables(build([make_record("a", "x", 0.4), deep])))
    assert "differs" not in writers.terminal(tables(build([make_record("a", "x", 0.4)])))


def test_rows_with_other_threads_are_on_fronts_of_their_own():
    two = make_record("b", "x", 0.4, seconds=5.0)
    two = two.model_copy(update={"timing": two.timing.model_copy(update={"threads": 2})})
    board = build([make_record("a", "x", 0.5), make_record("c", "x", 0.6, seconds=9.0), two])
    assert row(board, "b").front == frozenset()
    assert "Threads differs (1: a, c; 2: b)." in writers.terminal(tables(board))


def test_the_latency_is_the_95th_percentile_of_all_queries_timed_alone():
    made = make_record("a", "x", 0.5)
    timing = made.timing.model_copy(update={"latencies_s": [n / 1000 for n in range(101)]})
    board = build([made.model_copy(update={"timing": timing})])
    assert row(board, "a").latency_ms == 95.0


def test_a_row_with_a_cell_that_was_not_timed_has_no_costs():
    untimed = make_record("a", "y", 0.5).model_copy(update={"timing": None})
    found = row(build([make_record("a", "x", 0.5), untimed]), "a")
    assert (found.queries_per_s, found.docs_per_s, found.index_mb, found.environment) == (None, None, None, None)


def test_costs_are_totals_over_the_common_datasets():
    board = build([make_record("a", "x", 0.1, seconds=1.0), make_record("a", "y", 0.2, seconds=3.0)])
    found = row(board, "a")
    assert found.docs_per_s == 20 / 4
    assert found.queries_per_s == 2 / 4
    assert found.index_mb == 2.0, "the largest"


def test_figures_of_several_environments_are_said_not_to_compare():
    board = build([make_record("a", "x", 0.1, environment="one"), make_record("b", "x", 0.2, environment="two")])
    assert "Costs come from 2 environments (one, two) and do not compare across them." in writers.terminal(
        tables(board)
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


def test_a_wide_board_is_several_tables_and_no_figure_is_broken():
    text = writers.terminal(tables(build([make_record("a", f"dataset{n:02}", n / 100) for n in range(15)])), 60)
    for n in range(15):
        assert f"{n / 100:.4f}" in text
    assert text.count("ndcg@10") > 2
    assert max(map(len, text.splitlines())) <= 60


def test_markup_in_a_name_is_shown_as_it_is_written():
    text = writers.markdown(
        tables(build([make_record("**x|y <b>**", "x", 0.5), make_record("[a](http://e) _u_ ~b~ $c$ a_b", "x", 0.4)]))
    )
    assert r"| \*\*x\|y &lt;b>\*\* |" in text
    assert r"| \[a\](http://e) \_u\_ \~b\~ \$c\$ a_b |" in text


def test_a_name_cannot_break_a_table():
    text = writers.markdown(tables(build([make_record("a|b", "x", 0.5)])))
    assert r"| a\|b | 0.5000 |" in text
    assert "[bold]x[/bold]" in writers.terminal(tables(build([make_record("[bold]x[/bold]", "x", 0.5)])))


def test_what_a_retriever_or_its_part_remarks_stands_under_the_table_with_the_rows_it_is_about():
    plain = make_record("a", "x", 0.1)
    alone = make_record("b", "x", 0.2).model_copy(update={"encoders": {"": EncoderInfo(remark="Not trained for it")}})
    part = make_record("c", "x", 0.3).model_copy(
        update={"encoders": {"scorer": EncoderInfo(remark="Not trained for it", device="cpu")}}
    )
    board = build([plain, alone, part])
    assert board.remarks == {"Not trained for it": ["c", "b"]}
    for shown in (writers.markdown(tables(board)), writers.terminal(tables(board))):
        assert "Not trained for it: c, b." in shown
    assert "Not trained" not in writers.markdown(tables(build([plain])))
