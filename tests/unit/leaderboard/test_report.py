"""Tests of the output formats of a leaderboard and of the commands `report`, `compare` and `recommend`."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.command_line import harness
from support.records import START, make_record, make_timing

from harness.gate.baseline import accept
from harness.leaderboard import build, pareto, writers
from harness.leaderboard.frame import leaderboards_data, to_csv, to_frame, to_json
from harness.leaderboard.tables.leaderboard import tables
from harness.store import Store
from harness.types import PerQuery, RetrieverInfo

QUERIES = [f"q{number}" for number in range(40)]


def store_record(store, retriever, dataset, values, *, speed=1.0, megabytes=1, minutes=0, environment="e" * 32, **info):
    """Store a record with per-query scores, rankings and queries, and return it."""
    timing = make_timing(
        1 / speed,
        latencies_s=[0.01 / speed] * 100,
        documents=100,
        queries=len(values),
        index_bytes=megabytes * 10**6,
    )
    record = make_record(
        RetrieverInfo(name=retriever, config={"_target_": "harness.retrievers.bm25.BM25", "k1": speed}),
        dataset,
        minutes=minutes,
        id=f"{hash((retriever, dataset, minutes)) % 16**16:016x}",
        metrics={"ndcg@10": float(np.mean(values)), "hit@10": float(np.mean(np.ceil(values)))},
        timing=timing,
        environment=environment,
        **{"fingerprint": dataset * 8, "queries": len(values), **info},
    )
    ids = QUERIES[: len(values)]
    rankings = pa.table(
        {
            "query_id": ids,
            "docs": [[f"{retriever}-first", "shared"]] * len(ids),
            "grades": pa.array([[None, 1]] * len(ids), pa.list_(pa.int32())),
            "first": [f"text of {retriever}"] * len(ids),
        }
    )
    queries = pa.table(
        {
            "query_id": ids,
            "text": [f"what is {query}" for query in ids],
            "words": pa.array(range(len(ids)), pa.int32()),
            "relevant": pa.array([1] * len(ids), pa.int32()),
            "overlap": np.linspace(0, 1, len(ids)),
        }
    )
    scores = PerQuery(ids, {"ndcg@10": np.asarray(values, float), "hit@10": np.ceil(values)})
    return store.append(record, {}, None, scores, {"rankings": rankings, "queries": queries})


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Return the store of a new working folder: a good slow retriever, one tied with it, and a bad fast one."""
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    noise = np.random.default_rng(0).random((2, len(QUERIES))) * 0.2
    for name, dataset in enumerate("xy"):
        store_record(store, "good", dataset, 0.6 + noise[name], speed=1.0, megabytes=50)
        store_record(store, "equal", dataset, 0.599 + noise[name][::-1], speed=2.0, megabytes=20)
        store_record(store, "bad", dataset, 0.1 + noise[name], speed=50.0)
    return store


def leaderboard_of(store, **options):
    """Return the leaderboard of a store's latest records by ndcg@10."""
    records = store.latest()
    return build(records, "ndcg@10", store.scores(records), **options)


def test_text_formats_mark_the_best_and_rows_tied_with_it(store):
    leaderboard = leaderboard_of(store)
    best, tied = leaderboard.rows[0].overall, leaderboard.rows[1].overall
    assert (best.best, tied.tied_with_best, leaderboard.rows[2].overall.tied_with_best) == (True, True, False)
    values = f"{best.value:.4f}", f"{tied.value:.4f}"
    assert f"{values[0]}*" in writers.terminal(tables(leaderboard))
    assert f"{values[1]}=" in writers.terminal(tables(leaderboard))
    assert f"**{values[0]}**" in writers.markdown(tables(leaderboard))
    assert f"\\textbf{{{values[0]}}}" in writers.latex(tables(leaderboard))
    assert f"\\underline{{{values[1]}}}" in writers.latex(tables(leaderboard))
    for text in (
        writers.terminal(tables(leaderboard), 400),
        writers.markdown(tables(leaderboard)),
        writers.latex(tables(leaderboard)),
    ):
        assert "9 comparisons: all pairs of 3 rows" in text
        assert "80" in text


def test_a_baseline_adds_differences_tests_and_counts(store):
    leaderboard = leaderboard_of(store, baseline="bad")
    good = next(row for row in leaderboard.rows if row.label == "good")
    assert good.evaluations["x"].versus.delta == pytest.approx(0.5)
    difference = f"+0.5000 p={good.evaluations['x'].versus.p:.4f} 40/0/0"
    assert difference in writers.terminal(tables(leaderboard), 200)
    assert difference in writers.markdown(tables(leaderboard))


def test_the_csv_has_a_row_per_evaluation_and_unrounded_values(store):
    rows = list(csv.DictReader(io.StringIO(to_csv(to_frame({"ndcg@10": leaderboard_of(store, baseline="bad")})))))
    assert len([row for row in rows if row["dataset"]]) == 6
    mean = next(row for row in rows if row["retriever"] == "good" and not row["dataset"])
    assert (mean["status"], float(mean["delta"]) > 0.4, mean["baseline"]) == ("mean", True, "bad")
    evaluation = next(row for row in rows if row["retriever"] == "good" and row["dataset"] == "x")
    record = next(r for r in store.latest() if r.retriever.name == "good" and r.dataset.name == "x")
    assert float(evaluation["value"]) == record.metrics["ndcg@10"]
    assert float(evaluation["low"]) < float(evaluation["value"]) < float(evaluation["high"])
    assert (evaluation["won"], evaluation["lost"], evaluation["record"]) == ("40", "0", record.files.record)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_name_that_looks_like_a_formula_is_quoted_in_the_csv(tmp_path, name):
    store_record(Store(tmp_path), name, "x", np.full(3, 0.5))
    (row,) = csv.DictReader(io.StringIO(to_csv(to_frame({"m": leaderboard_of(Store(tmp_path))}))))
    assert row["retriever"] == f"'{name}"


def test_the_json_is_strict_and_lists_records_and_commands(store):
    text = to_json(leaderboards_data({"ndcg@10": leaderboard_of(store)}))
    content = json.loads(text, parse_constant=pytest.fail)["ndcg@10"]
    evaluation = content["rows"][0]["evaluations"]["x"]
    assert evaluation["commands"] == [f"harness retriever={content['rows'][0]['label']} dataset=x"]
    assert Path("results", evaluation["records"][0]).is_file()
    assert content["tests"] == 9


def test_markup_in_names_is_escaped_in_every_format(tmp_path):
    hostile = r"<img src=x> & 50% $a_b$ \cite{x} `c` **d** |e| #f ~ ^"
    store_record(Store(tmp_path), hostile, "x", np.full(3, 0.5))
    leaderboard = leaderboard_of(Store(tmp_path))
    lines = writers.markdown(tables(leaderboard)).splitlines()
    pipes = {number: len(re.findall(r"(?<!\\)\|", line)) for number, line in enumerate(lines)}
    for number in [number for number, line in enumerate(lines) if "img" in line]:
        assert "<" not in lines[number]
        assert pipes[number] == pipes[number - 1]
    for line in [line for line in writers.latex(tables(leaderboard)).splitlines() if "img" in line]:
        unescaped = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}", "", line.partition(" & ")[0])
        assert not set(r"&%$#_{}~^\<>") & set(unescaped.replace("textbackslash", ""))
    assert hostile in writers.terminal(tables(leaderboard), 200)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes_in_every_format(store):
    first, second = (leaderboard_of(Store(Path("results")), baseline="bad") for _ in range(2))
    for write in (writers.terminal, writers.markdown, writers.latex):
        assert write(tables(first)) == write(tables(second))
    assert to_csv(to_frame({"m": first})) == to_csv(to_frame({"m": second}))
    for image_format in ("svg", "png"):
        assert pareto.render(first, image_format) == pareto.render(second, image_format)


def test_the_pareto_plot_names_every_row_and_has_a_digest_of_its_data(store):
    svg = pareto.render(leaderboard_of(store), "svg").decode()
    for name in ("good", "equal", "bad"):
        assert f"<!-- {name} -->" in svg
    assert pareto.digest(leaderboard_of(store)) in svg
    assert pareto.render(leaderboard_of(store), "png").startswith(b"\x89PNG")


def test_names_in_the_pareto_plot_do_not_overlap_or_leave_the_frame(tmp_path):
    store = Store(tmp_path)
    for number in range(16):
        store_record(
            store, f"retriever_number_{number}", "x", np.full(8, 0.5 + 0.001 * (number % 4)), speed=1 + 0.01 * number
        )
    figure = pareto.draw_figure(leaderboard_of(store))
    (axes,) = figure.axes
    frame, boxes = axes.get_window_extent(), [pareto._extent(text) for text in axes.texts]
    assert len(boxes) > 8
    for position, box in enumerate(boxes):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[:position])
    labels = {text.get_text() for text in axes.texts}
    for number in range(16):
        assert f"retriever_number_{number}" in labels or f"retriever_number_{number}" in axes.get_title(loc="left")


def test_latex_has_differences_to_the_baseline(store):
    text = writers.latex(tables(leaderboard_of(store, baseline="bad")))
    assert text.count(r"\begin{table}") == 4
    assert "Against bad: difference, adjusted p, queries won/tied/lost." in text
    assert re.search(r"^good & \+0\.\d{4} p=0\.\d{4} 40/0/0 & ", text, re.MULTILINE)


def test_options_that_exclude_each_other_are_refused(store, monkeypatch, capsys):
    for first, second in (("--check", "--json"), ("--check", "--only=md"), ("--only=md", "--json")):
        assert harness(monkeypatch, "report", first, second) == 2
        assert "exclude each other; give one of them" in capsys.readouterr().err
    assert harness(monkeypatch, "report", "--only", "md", "--readme", "README.md") == 2
    assert "--only and --readme exclude each other" in capsys.readouterr().err


def test_the_error_about_a_stale_file_has_the_command_that_writes_it(store, monkeypatch, capsys):
    chosen = ["--baseline", "bad", "--dataset", "x", "--published"]
    assert harness(monkeypatch, "report", *chosen) == 0
    assert "this leaderboard has only some of the records" in capsys.readouterr().err
    assert harness(monkeypatch, "report", *chosen, "--check") == 0
    Path("results/leaderboard.md").write_text("old")
    Path("results/pareto.svg").write_text("old")
    assert harness(monkeypatch, "report", *chosen, "--check") == 1
    words = "harness report --baseline bad --dataset x --published"
    assert f"write again: {words} && {words} --only svg" in capsys.readouterr().err


def test_a_readme_with_markers_in_the_wrong_order_is_not_changed(store, monkeypatch, capsys):
    text = "a <!-- end: board -->\n<!-- begin: board -->\nprecious tail"
    Path("R.md").write_text(text)
    assert harness(monkeypatch, "report", "--readme", "R.md") == 2
    assert "in this order" in capsys.readouterr().err
    assert Path("R.md").read_text() == text


def test_a_results_folder_named_like_a_glob_pattern_is_read(store, monkeypatch, capsys):
    Path("results").rename("re[s]ults*")
    assert harness(monkeypatch, "report", "--results", "re[s]ults*", "--only", "md") == 0
    assert "paired randomisation" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["per_query", "rankings", "queries"])
def test_the_error_about_a_damaged_table_names_it(store, monkeypatch, capsys, kind):
    path = next(Path("results", kind).rglob("*.parquet"))
    path.write_bytes(b"trash")
    assert harness(monkeypatch, "compare", "good", "bad") in (0, 2)
    assert harness(monkeypatch, "report", "--only", "html") == 2
    assert f"error: {path}: " in capsys.readouterr().err


def test_rows_that_could_not_be_tested_are_named(store, monkeypatch, capsys):
    record = next(record for record in store.latest() if record.retriever.name == "bad" and record.dataset.name == "x")
    Path("results", record.files.per_query).unlink()
    assert harness(monkeypatch, "report", "--only", "md") == 0
    assert "Not tested, because per-query scores are missing or of other queries: x: bad." in capsys.readouterr().out


def test_the_machine_is_named_if_its_environment_is_stored(store, monkeypatch, capsys):
    manifest = {
        **{"cpu": "A CPU", "cores": 2, "memory_gib": 24, "gpus": ["H100", "H100"], "python": "3.11.7"},
        "packages": {"torch": "2.13.0"},
    }
    (path,) = Path("results/environments").glob("*.json")
    path.write_text(json.dumps(manifest))
    assert harness(monkeypatch, "report", "--only", "md") == 0
    message = "Measured on A CPU, 2 cores, 2 x H100, 24 GiB, Python 3.11.7, torch 2.13.0 (eeeeeeee)."
    assert message in capsys.readouterr().out


def test_report_writes_its_files_and_check_finds_stale_ones(store, monkeypatch, capsys):
    Path("README.md").write_text("before\n<!-- begin: board -->\nold\n<!-- end: board -->\nafter\n", encoding="utf-8")
    words = ["report", "--baseline", "bad", "--readme", "README.md"]
    assert harness(monkeypatch, *words, "--check") == 1
    assert "stale: results/leaderboard.md" in capsys.readouterr().err
    assert harness(monkeypatch, *words) == 0
    text = Path("README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- begin: board -->\n| ndcg@10 | x | y | mean |")
    assert text.endswith("<!-- end: board -->\nafter\n")
    assert harness(monkeypatch, "report", "--only", "svg") == 0
    assert harness(monkeypatch, *words, "--check") == 0
    for path in ("results/leaderboard.md", "results/leaderboard.html", "README.md", "results/pareto.svg"):
        content = Path(path).read_bytes()
        Path(path).write_bytes(content.replace(b"good", b"goot").replace(b"description", b"").replace(b"0", b"1"))
        capsys.readouterr()
        assert harness(monkeypatch, *words, "--check") == 1
        assert (
            f"stale: {path}; write again: harness report --baseline bad --readme README.md" in capsys.readouterr().err
        )
        Path(path).write_bytes(content)
    store_record(store, "better", "x", np.full(40, 0.95), minutes=1)
    assert harness(monkeypatch, *words, "--check") == 1


def test_a_readme_without_markers_is_refused(store, monkeypatch, capsys):
    Path("README.md").write_text("nothing\n", encoding="utf-8")
    assert harness(monkeypatch, "report", "--readme", "README.md") == 2
    error = capsys.readouterr().err
    assert "README.md has no block to fill" in error
    assert "<!-- begin" in error


def test_report_shows_the_chosen_retrievers_datasets_and_metric(store, monkeypatch, capsys):
    assert harness(monkeypatch, "report", "--only", "md", "--retriever", "good", "bad", "--dataset", "x") == 0
    out = capsys.readouterr().out
    assert out.startswith("| ndcg@10 | x | queries/s |")
    assert "equal" not in out
    assert harness(monkeypatch, "report", "--only", "csv") == 0
    assert {row["metric"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))} == {"ndcg@10", "hit@10"}
    assert harness(monkeypatch, "report", "--retriever", "good", "nobody") == 2
    assert "no record of retriever 'nobody'; there are bad, equal, good" in capsys.readouterr().err
    assert harness(monkeypatch, "report", "--dataset", "z") == 2
    assert "no record of dataset 'z'; there are x, y" in capsys.readouterr().err
    only = ("--retriever", "good", "--dataset", "y")
    assert harness(monkeypatch, "report", "--metric", "map@100", *only) == 3
    error = capsys.readouterr().err
    assert "no evaluation has map@100 (they have hit@10, ndcg@10), and it cannot be computed: good on y" in error
    assert "harness retriever=good dataset=y metrics=[map@100]" in error
    assert harness(monkeypatch, "report", "--baseline", "nobody") == 2
    assert "no row is called 'nobody'; choices: " in capsys.readouterr().err
    assert not Path("results/leaderboard.md").exists()


def test_compare_shows_differences_slices_and_changed_queries(store, monkeypatch, capsys):
    assert harness(monkeypatch, "compare", "bad", "good") == 0
    out = capsys.readouterr().out
    assert "A: bad, B: good, ndcg@10" in out
    assert re.search(r"x +0\.\d{4} +0\.\d{4} +\+0\.5000 +\+0\.5000 to \+0\.5000 +p=\d\.\d{4} +40/0/0", out)
    assert "x by words in the query" in out
    assert re.search(
        r"^ +A +0\.\d{4} +bad-first \(\?\) shared \(1\)\n +B +0\.\d{4} +good-first \(\?\) shared", out, re.MULTILINE
    )
    assert re.search(r"k1 +50\.0 +1\.0", out)
    assert harness(monkeypatch, "compare", "bad", "good", "--json") == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["differences"]["x"]["delta"] == pytest.approx(0.5)
    assert comparison["overall"]["won"] == 80
    assert len(comparison["changed"]) == 10
    assert comparison["changed"][0]["a_ranked"] == [["bad-first", None], ["shared", 1]]
    assert comparison["changed"][0]["text"].startswith("what is q")
    assert {by_property["by"] for by_property in comparison["slices"]} >= {"words in the query"}
    assert harness(monkeypatch, "compare", "bad", "good", "--md") == 0
    assert "| x | 0." in capsys.readouterr().out


def test_compare_sorts_queries_by_the_size_of_their_change(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store, before = Store(Path("results")), np.full(40, 0.5)
    after = before.copy()
    after[[3, 7, 11]] = 0.9, 0.0, 0.6
    store_record(store, "a", "x", before)
    store_record(store, "b", "x", after)
    assert harness(monkeypatch, "compare", "a", "b", "--json") == 0
    assert [query["query_id"] for query in json.loads(capsys.readouterr().out)["changed"]] == ["q7", "q3", "q11"]


def test_compare_accepts_files_and_ids_of_records(store, monkeypatch, capsys):
    old = next(r for r in store.latest() if r.retriever.name == "good" and r.dataset.name == "x")
    new = store_record(store, "good", "x", np.full(40, 0.9), minutes=5)
    files = [f"results/{record.files.record}" for record in (old, new)]
    assert harness(monkeypatch, "compare", *files) == 0
    out = capsys.readouterr().out
    assert f"A: good (2026-01-01 00:00:00 {old.id[:8]}), B: good (2026-01-01 00:05:00 {new.id[:8]})" in out
    assert harness(monkeypatch, "compare", old.id[:8], new.id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["differences"]["x"]["delta"] == pytest.approx(
        0.9 - old.metrics["ndcg@10"]
    )


def test_compare_accepts_the_baseline(store, monkeypatch, capsys):
    other = Store(Path("other"))
    store_record(other, "good", "x", np.full(40, 0.3))
    accept(Path("results/baseline"), other, list(other.records()), {"accepted": START, "reason": "r", "harness": "0"})
    assert harness(monkeypatch, "compare", "baseline", "good") == 0
    out = capsys.readouterr().out
    assert "A: baseline, B: good" in out
    assert re.search(r"^x +0\.3000 +0\.[67]\d{3} +\+0\.[34]", out, re.MULTILINE)
    assert harness(monkeypatch, "compare", "good", "baseline", "--json") == 0
    assert json.loads(capsys.readouterr().out)["differences"]["x"]["lost"] == 40
    assert harness(monkeypatch, "compare", "baseline", "bad") == 3
    assert "the baseline has no 'bad'; it has good/x" in capsys.readouterr().err
    assert harness(monkeypatch, "compare", "baseline", "baseline") == 2
    assert "both sides are the baseline; name a retriever" in capsys.readouterr().err


def test_compare_refuses_records_without_a_common_dataset(store, monkeypatch, capsys):
    assert harness(monkeypatch, "compare", "good", "nobody") == 2
    error = capsys.readouterr().err
    assert "'nobody' is not a retriever in results/" in error
    assert "choices: bad, equal, good" in error
    store_record(store, "other", "z", np.full(4, 0.5))
    assert harness(monkeypatch, "compare", "good", "other") == 3
    assert "nothing to compare: good was measured on x, y, other on z" in capsys.readouterr().err
    store_record(store, "moved", "x", np.full(40, 0.5), fingerprint="another")
    assert harness(monkeypatch, "compare", "good", "moved") == 3


def test_compare_does_not_test_evaluations_that_cannot_be_paired(store, monkeypatch, capsys):
    store_record(store, "fewer", "x", np.full(20, 0.5))
    record = store_record(store, "lost", "x", np.full(40, 0.5))
    Path("results", record.files.per_query).unlink()
    for name in ("fewer", "lost"):
        assert harness(monkeypatch, "compare", "good", name, "--json") == 0
        comparison = json.loads(capsys.readouterr().out)
        assert (comparison["unpaired"], comparison["differences"], comparison["changed"]) == (["x"], {"x": None}, [])


def test_recommend_chooses_the_best_retriever_within_the_limits(store, monkeypatch, capsys):
    assert harness(monkeypatch, "recommend", "--max-index-mb", "45") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "take equal; runner-up bad"
    assert re.match(r"equal +0\.7\d{3} +80\.0 +200 +5\.00 +20\.0", lines[2])
    assert re.match(r"bad +0\.[12]\d{3} ", lines[3])
    assert lines[5].startswith("the difference is significant: +0.49")
    assert lines[6:8] == ["left out good: index_mb is 50, above 45", "mean over x, y"]
    assert "9 comparisons: all pairs of 3 rows on 2 datasets and their mean" in " ".join(lines[8:])
    assert harness(monkeypatch, "recommend", "--min-queries-per-s", "30", "--json") == 0
    choice = json.loads(capsys.readouterr().out)
    assert {choice["best"]["label"], choice["runner_up"]["label"]} == {"good", "equal"}
    assert choice["significant"] is False
    assert harness(monkeypatch, "recommend", "--max-index-mb", "50") == 0
    out = capsys.readouterr().out
    assert out.startswith("take good; "), "a limit that is just kept"
    assert "the difference is not significant: " in out
    for value in ("nan", "-1"):
        assert harness(monkeypatch, "recommend", f"--max-latency-ms={value}") == 2
        assert f"{value} must be a number of 0 or more" in capsys.readouterr().err
    assert harness(monkeypatch, "recommend", "--max-latency-ms", "0.00001") == 3
    assert "no retriever is within the limits (" in capsys.readouterr().err


def test_recommend_leaves_out_retrievers_without_the_limited_figure(store, monkeypatch, capsys):
    record = store_record(store, "untimed", "x", np.full(40, 0.99))
    path = Path("results", record.files.record)
    path.write_text(record.model_copy(update={"timing": None}).model_dump_json(), encoding="utf-8")
    assert harness(monkeypatch, "recommend", "--dataset", "x", "--min-docs-per-s", "1") == 0
    assert "left out untimed: docs_per_s was not measured" in capsys.readouterr().out
