"""Tests of tables, their terminal, Markdown and LaTeX writers, and the leaderboard as a DataFrame."""

import csv
import io
import json

import polars as pl
import pytest
from support.records import built, make_record, noise, scored

from harness.leaderboard import build, writers
from harness.leaderboard.frame import leaderboards_data, to_csv, to_frame, to_json
from harness.leaderboard.published import published_rows
from harness.leaderboard.table import GAP, Marked, Table
from harness.leaderboard.tables.leaderboard import main_table, tables
from harness.leaderboard.tables.training import training, triplets
from harness.types import PublishedFigures

WRITERS = [writers.terminal, writers.markdown, writers.latex]
SMALL = Table(
    "a title",
    ["name", "score", "kind"],
    [["one", Marked("0.5", "best"), "x"], ["two", Marked("0.4", "tied"), GAP], ["three", Marked("7", "front"), "y"]],
    ["a note"],
    {"best": "highest", "tied": "not lower", "front": "on the front"},
    align="lrl",
)


def test_every_writer_shows_title_cells_marks_legend_and_notes():
    assert writers.terminal([SMALL]).splitlines() == [
        "a title",
        "name   score  kind",
        "one     0.5*  x",
        "two     0.4=  -",
        "three     7^  y",
        "",
        "* highest; = not lower; ^ on the front.",
        "a note",
    ]
    assert writers.markdown([SMALL]).splitlines() == [
        "**a title**",
        "",
        "| name | score | kind |",
        "| --- | ---: | --- |",
        "| one | **0.5** | x |",
        "| two | 0.4= | - |",
        "| three | 7^ | y |",
        "",
        "Bold: highest; = not lower; ^ on the front.",
        "",
        "a note",
    ]
    assert writers.latex([SMALL]).splitlines()[3:] == [
        r"\begin{tabular}{lrl}",
        r"\toprule",
        r"name & score & kind \\",
        r"\midrule",
        r"one & \textbf{0.5} & x \\",
        r"two & \underline{0.4} & -- \\",
        r"three & 7\textasciicircum{} & y \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\caption{a title. Bold: highest; underlined: not lower; \textasciicircum{} on the front. a note}",
        r"\end{table}",
    ]


def test_only_the_best_is_bold_in_a_terminal_with_colours():
    text = writers.terminal([SMALL], color=True)
    assert "\x1b[1m 0.5*\x1b[0m" in text
    assert " 0.4=  -\n" in text
    assert "\x1b" not in writers.terminal([SMALL])


@pytest.mark.parametrize("write", WRITERS)
def test_writers_remove_control_characters(write):
    hostile = "a\x1b]0;title\x07\x9b2J\u202eb\r\nc"
    text = write([Table(hostile, [hostile, "n"], [[hostile, Marked(hostile, "best")]], [hostile], {"best": hostile})])
    assert not set(text) & set("\x1b\x07\x9b\u202e\r")
    assert text.count("]0;title2Jb") == 6
    assert len(text.splitlines()) == len(
        write([Table("t", ["h", "n"], [["a", "b"]], ["n"], {"best": "l"})]).splitlines()
    )


def test_a_table_without_headings_is_title_and_notes():
    assert writers.terminal([Table("title", notes=["note"]), Table("next")]) == "title\nnote\n\nnext\n"
    assert writers.markdown([Table("title", notes=["note"])]) == "**title**\n\nnote\n"


def test_only_tables_of_numbers_are_split_in_a_narrow_terminal():
    numbers = Table("", ["row", *(f"column{n}" for n in range(9))], [["label", *(f"{n}.0000" for n in range(9))]])
    assert writers.terminal([numbers], 40).count("label") > 1
    texts = Table("", ["key", "A", "B"], [["label", "a " * 40, "b " * 40]], align="lll")
    assert writers.terminal([texts], 40).count("label") == 1
    assert writers.terminal([Table("", ["only"], [["value"]])]) == "only\nvalue\n"


def test_marks_and_notes_of_a_leaderboard_are_the_same_in_every_format():
    leaderboard = built(
        scored(make_record("best", "x", 0), 0.7 + noise(0)),
        scored(make_record("near", "x", 0), 0.699 + noise(0)[::-1]),
        scored(make_record("far", "x", 0), 0.2 + noise(1)),
        baseline="far",
    )
    main, differences, intervals = tables(leaderboard)
    assert [row[1].mark if isinstance(row[1], Marked) else None for row in main.rows] == ["best", "tied", None]
    assert set(main.legend) == {"best", "tied", "front"}
    assert [row[0] for row in differences.rows] == ["best", "near"], "the baseline has no difference to itself"
    low, high = leaderboard.rows[0].evaluations["x"].interval
    assert intervals.rows[0][1] == f"{low:.4f} to {high:.4f}"
    for write in WRITERS:
        for note in main.notes:
            assert note.split()[0] in write([main_table(leaderboard)])


def test_the_data_frame_has_typed_columns_and_nulls_for_gaps():
    leaderboard = build(
        [make_record("a", "x", 0.1), make_record("a", "y", 0.5), make_record("b", "x", 0, status="failed")]
    )
    table = to_frame({"ndcg@10": leaderboard})
    assert table["status"].to_list() == ["ok", "ok", "mean", "failed"]
    assert table.schema["best"] == pl.Boolean
    assert table.schema["won"] == pl.Int64
    failed = table.row(by_predicate=pl.col("status") == "failed", named=True)
    assert (failed["retriever"], failed["dataset"], failed["value"], failed["queries"]) == ("b", "x", None, None)
    good = table.row(by_predicate=(pl.col("retriever") == "a") & (pl.col("dataset") == "x"), named=True)
    assert (good["value"], good["docs_per_s"], good["index_mb"], good["baseline"]) == (0.1, 10.0, 2.0, None)
    (first, *_) = csv.DictReader(io.StringIO(to_csv(table)))
    assert (first["best"], first["tied_with_best"], first["baseline"], first["value"]) == ("0", "", "", "0.1")


def test_the_csv_has_no_control_characters():
    text = to_csv(to_frame({"ndcg@10": build([make_record("\x1b[2Ja\nb", "x", 0.5)])}))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_published_scores_belong_to_their_metric():
    records = [make_record("minilm", "x", 0.5).model_copy(update={"metrics": {"map@100": 0.3, "ndcg@10": 0.5}})]
    figures = {"model": "a/b", "revision": "r", "family": "", "dataset_revision": "r", "source": "somewhere"}
    leaderboards = {name: build(records, name) for name in ("map@100", "ndcg@10")}
    published = published_rows(
        leaderboards["map@100"], [PublishedFigures(datasets=["x"], metrics={"map@100": 0.4}, **figures)]
    )
    data = json.loads(to_json(leaderboards_data(leaderboards, published)))
    assert data["map@100"]["published"][0]["values"] == {"x": 0.4}
    assert "published" not in data["ndcg@10"]
    (row,) = to_frame(leaderboards, published).filter(pl.col("status") == "published").to_dicts()
    assert (row["metric"], row["value"], row["source"]) == ("map@100", 0.4, "somewhere")


def test_the_training_table_marks_the_saved_checkpoint(tmp_path):
    curve = [
        {"step": 5, "loss": 2.0},
        {"step": 10, "ndcg@10": 0.3},
        {"step": 15, "loss": 1.0},
        {"step": 20, "ndcg@10": 0.2},
    ]
    manifest = {
        "config": {"dev": {"metric": "ndcg@10"}},
        "dev": {"queries": 1200, "documents": 5000},
        "before": 0.4,
        "curve": curve,
        "best_step": 10,
        "seconds": 3.2,
    }
    table = training(manifest, tmp_path)
    assert table.rows == [["0", "", "0.4000"], ["10", "2.000", Marked("0.3000", "best")], ["20", "1.000", "0.2000"]]
    assert table.legend == {"best": f"saved: {tmp_path}, after 3 s"}
    assert table.notes[1] == "No checkpoint is better on dev than the model before it was trained."


def test_the_synthesis_table_groups_counts_below_their_total():
    manifest = {
        "documents": {
            "sampled": 2000,
            "requested": 3,
            "from_journal": 1,
            "failed": {"HTTP 500": 2},
            "unusable": {"empty": 4},
        },
        "queries": {"generated": 20, "selected": 12, "dropped": {"copied": 8}},
        "negatives": {"from_search": 24, "random": 0},
        "cost": {"tokens_in": 1500, "tokens_out": 20, "usd": None},
    }
    assert [tuple(row) for row in triplets(manifest).rows] == [
        ("documents", "2,000"),
        ("  requested now", "3"),
        ("  from the journal", "1"),
        ("  failed: HTTP 500", "2"),
        ("  no query: empty", "4"),
        ("queries", "20"),
        ("  dropped: copied", "8"),
        ("triplets", "12"),
        ("  from search negatives", "24"),
        ("tokens, in", "1,500"),
        ("tokens, out", "20"),
        ("USD", GAP),
    ]
