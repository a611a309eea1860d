"""Tests of harness/interop/mteb/results.py and published.py: export to mteb, published results and benchmarks."""

import json
import math
import shutil
import statistics
from datetime import timedelta

import pytest
from support import ROOT
from support.mteb_tasks import dataset_rows, evaluate_with_mteb, scores_of, write_repository
from support.records import make_record

from harness.cli import mteb as mteb_command
from harness.cli import read
from harness.cli.run import main as run
from harness.interop.mteb import SearchModel, names, registry, results, task_of
from harness.interop.mteb.registry import benchmark_splits
from harness.interop.mteb.results import aggregates
from harness.leaderboard import build as build_leaderboard
from harness.leaderboard import writers
from harness.leaderboard.published import published_rows
from harness.retrievers.bm25 import BM25
from harness.store import Store
from harness.types import DatasetInfo, DatasetMetadata, EncoderInfo, RetrieverInfo

QUICK = ["timing.latency_queries=0", "timing.repeats=1", "timing.warmup_documents=0"]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def read_strict_json(path):
    """Read a JSON file that must not contain NaN or Infinity."""

    def fail(name):
        raise AssertionError(f"{path} holds {name}, which is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=fail)


def evaluate_task(results_dir, retriever, task, folder, *overrides):
    """Evaluate a retriever on an mteb task in a local folder, on the command line."""
    words = [f"retriever={retriever}", "dataset=mteb", f"dataset.task={task}", f"dataset.folder={folder}"]
    assert run([*words, f"results_dir={results_dir}", *QUICK, *overrides]) == 0


@pytest.fixture(scope="module")
def results_dir(data, tmp_path_factory):
    """Evaluate BM25 with two settings on NFCorpus as an mteb task, on SciFact as a BEIR dataset, and on stdlib."""
    root = tmp_path_factory.mktemp("evaluated") / "results"
    evaluate_task(root, "bm25", "NFCorpus", data / "nfcorpus", "k=1000", "metrics=[ndcg@10,map@1000,hit@10,recall@1]")
    evaluate_task(root, "bm25", "NFCorpus", data / "nfcorpus", "retriever.b=0.4")
    assert run(["retriever=bm25", "dataset=scifact", f"data_dir={data}", f"results_dir={root}", *QUICK]) == 0
    assert run(["retriever=bm25", "dataset=stdlib", f"results_dir={root}", *QUICK]) == 0
    return root


@pytest.fixture(scope="module")
def exported(results_dir, tmp_path_factory):
    """Export the results to mteb's layout and return the folder."""
    target = tmp_path_factory.mktemp("exported") / "mteb"
    assert read.main(["export", "mteb", "--to", str(target), "--results", str(results_dir)]) == 0
    return target


@pytest.mark.slow
def test_mteb_loads_the_exported_results(results_dir, exported):
    import mteb

    with registry.quiet():
        loaded = mteb.ResultCache(cache_path=exported).load_results()
        frame = loaded.to_dataframe()
    assert {model.model_name for model in loaded.model_results} == {"harness/bm25", "harness/bm25_b=0.4"}
    records = {(record.retriever.label, record.dataset.name): record for record in Store(results_dir).records()}
    for model in loaded.model_results:
        label = "bm25" if model.model_name.endswith("bm25") else "bm25 [b=0.4]"
        for result in model.task_results:
            record = records[label, "scifact" if result.task_name == "SciFact" else "NFCorpus"]
            assert result.get_score() == pytest.approx(record.metrics["ndcg@10"], abs=1e-6)
            assert result.dataset_revision
    assert set(frame["task_name"]) == {"SciFact", "NFCorpus"}


@pytest.mark.slow
def test_exported_files_are_strict_json_with_mtebs_metric_names(exported):
    files = sorted(exported.rglob("*.json"))
    assert len(files) >= 6
    for path in files:
        read_strict_json(path)
    (path,) = exported.glob("results/harness__bm25/*/NFCorpus.json")
    ((scores,),) = read_strict_json(path)["scores"].values()
    assert {"ndcg_at_10", "map_at_1000", "hit_rate_at_10", "recall_at_1", "accuracy"} <= scores.keys()
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert scores["accuracy"] == scores["recall_at_1"]
    assert (scores["hf_subset"], scores["languages"]) == ("default", ["eng-Latn"])


@pytest.mark.slow
def test_runs_are_exported_as_predictions_that_mteb_reranks(exported, data):
    (path,) = exported.glob("predictions/harness__bm25/*/NFCorpus_predictions.json")
    predictions = read_strict_json(path)
    assert predictions["mteb_model_meta"]["model_name"] == "harness/bm25"
    scores = predictions["default"]["test"]
    assert len(scores) > 300
    task = task_of("NFCorpus", str(data / "nfcorpus"))
    with registry.quiet():
        task.convert_to_reranking(path, top_k=20)
    ranked = task.dataset["default"]["test"]["top_ranked"]
    query = next(iter(ranked))
    assert len(ranked[query]) == 20
    assert ranked[query][0] == max(scores[query], key=scores[query].get)


@pytest.mark.slow
def test_a_dataset_that_is_not_an_mteb_task_is_left_out_with_a_message(results_dir, tmp_path, capsys):
    words = ["--to", str(tmp_path), "--results", str(results_dir), "--dataset", "stdlib"]
    assert read.main(["export", "mteb", *words]) == 3
    errors = capsys.readouterr().err
    assert "left out: bm25 on stdlib: it is not a task of mteb" in errors
    assert "no record in" in errors


@pytest.mark.slow
def test_the_older_of_two_records_of_one_task_is_left_out_with_a_message(results_dir, tmp_path, capsys):
    """SciFact under mteb's name and under BEIR's."""
    root = tmp_path / "results"
    shutil.copytree(results_dir, root)
    newer = next(record for record in Store(root).records() if record.dataset.name == "scifact")
    metadata = DatasetMetadata(source="mteb", task="SciFact", subset="default", split="test")
    dataset = newer.dataset.model_copy(
        update={"name": "SciFact", "metadata": metadata, "config": {}, "differences": {}}
    )
    older = newer.model_copy(update={"dataset": dataset, "started": newer.started - timedelta(days=1)})
    Store(root).append(older, {})
    assert read.main(["export", "mteb", "--to", str(tmp_path / "out"), "--results", str(root)]) == 0
    assert "left out: bm25 on SciFact: scifact is newer, and the same task" in capsys.readouterr().err


@pytest.mark.slow
def test_a_missing_main_score_is_named_with_the_settings_to_measure_it(tmp_path, real_dataset, capsys):
    dataset = real_dataset("xquad/en")
    rows = dataset_rows(dataset) | {
        "top_ranked": [{"query-id": key, "corpus-ids": list(dataset.corpus.ids)[:5]} for key in dataset.queries.ids]
    }
    folder = write_repository(tmp_path / "repo", rows)
    evaluate_task(tmp_path / "results", "bm25", "AskUbuntuDupQuestions", folder)
    capsys.readouterr()
    assert read.main(["export", "mteb", "--to", str(tmp_path / "out"), "--results", str(tmp_path / "results")]) == 3
    assert "its main score map@1000 was not measured; measure again with: k=1000 metrics=[map@1000]" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_imported_results_are_in_the_report_with_their_differences(results_dir, reference, tmp_path, capsys, caplog):
    root = tmp_path / "results"
    shutil.copytree(results_dir, root)
    assert read.main(["import", "mteb", str(reference / MINILM.replace("/", "__")), "--results", str(root)]) == 0
    assert "15 published results of 1 models" in capsys.readouterr().out
    assert not [record for record in caplog.records if record.name.startswith("mteb")], "mteb's warnings are not shown"
    assert read.main(["report", "--results", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "Published, not measured here; in brackets: ours minus the published score" in shown
    assert f"{MINILM}  " in shown
    assert "0.3159" in shown
    assert "0.6451" in shown
    assert "NFCorpus at revision ec0fa4fe" in " ".join(shown.split())
    (header,) = [line for line in shown.splitlines() if line.split()[:2] == ["ndcg@10,", "published"]]
    assert "stdlib" not in header, "no published result has it"
    for suffix in ("md", "csv", "tex", "html"):
        assert "all-MiniLM-L6-v2" in (root / f"leaderboard.{suffix}").read_text(encoding="utf-8")
    assert read.main(["report", "--results", str(root), "--check"]) == 0


def test_importing_without_records_says_that_they_are_shown_beside_records(reference, tmp_path, capsys):
    folder = str(reference / MINILM.replace("/", "__"))
    assert read.main(["import", "mteb", folder, "--results", str(tmp_path)]) == 0
    assert "yet; published figures are shown beside measured ones" in capsys.readouterr().err


def test_a_published_row_is_compared_with_the_row_of_the_same_weights(reference):
    """MiniLM on the committed leaderboard, against MTEB's results of the same revision."""
    from harness.interop.mteb import published

    leaderboard = build_leaderboard(Store(ROOT / "results" / "demo").latest())
    imported = published.read(reference / MINILM.replace("/", "__"))
    (row,) = published_rows(leaderboard, imported.figures, table=False)
    assert (row.retriever, row.measured_label) == (MINILM, "minilm")
    assert row.values["scifact"] == 0.64508
    assert abs(row.differences["scifact"]) <= 0.001
    assert abs(row.differences["nfcorpus"]) <= 0.001


@pytest.mark.slow
def test_scores_of_another_revision_of_the_dataset_name_both_revisions(results_dir, reference, tmp_path):
    from harness.interop.mteb import published

    imported = published.read(reference / MINILM.replace("/", "__"))
    records = [record for record in Store(results_dir).latest() if record.dataset.name == "NFCorpus"]
    config = {"_target_": "harness.retrievers.dense.Dense", "encoder": {"model": MINILM}}
    as_minilm = records[0].model_copy(update={"retriever": records[0].retriever.model_copy(update={"config": config})})
    (row,) = published_rows(build_leaderboard([as_minilm]), imported.figures, table=False)
    assert row.measured_label == records[0].retriever.label
    assert f"(ours: revision {records[0].dataset.metadata.revision[:18]})" in row.sources[0]


@pytest.mark.slow
def test_published_scores_of_any_metric_are_shown(results_dir, reference):
    from harness.interop.mteb import published

    imported = published.read(reference / MINILM.replace("/", "__"))
    (row,) = published_rows(build_leaderboard(Store(results_dir).latest(), "map@1000"), imported.figures, table=False)
    assert 0.05 < row.values["NFCorpus"] < 0.3
    figure = next(figure for figure in imported.figures if "scifact" in figure.datasets)
    assert figure.datasets == ["SciFact", "scifact"]
    assert math.isclose(figure.metrics["ndcg@10"], 0.64508)
    assert not [name for name in figure.metrics if "nauc" in name.lower()]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no results of tasks that rank texts in"),
        (lambda folder: (folder / "SciFact.json").write_text("{}"), "no results are in"),
        (lambda folder: folder.rmdir(), "no folder"),
    ],
)
def test_a_folder_without_results_is_an_error(prepare, message, tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir()
    prepare(folder)
    assert read.main(["import", "mteb", str(folder), "--results", str(tmp_path / "records")]) == 2
    assert message in capsys.readouterr().err


def test_an_unreadable_file_is_named_and_experiments_are_not_imported(reference, tmp_path, capsys):
    folder = tmp_path / "published"
    shutil.copytree(reference / MINILM.replace("/", "__"), folder / MINILM.replace("/", "__"))
    (revision,) = (folder / MINILM.replace("/", "__")).iterdir()
    (revision / "Broken.json").write_text("{")
    (revision / "experiments" / "ablation").mkdir(parents=True)
    shutil.copy(revision / "SciFact.json", revision / "experiments" / "ablation")
    assert read.main(["import", "mteb", str(folder), "--results", str(tmp_path / "records")]) == 0
    output = capsys.readouterr()
    assert "15 published results of 1 models" in output.out
    assert "Broken.json" in output.err


def nfcorpus_record(results_dir):
    """Return a record of NFCorpus."""
    return next(record for record in Store(results_dir).records() if record.dataset.name == "NFCorpus")


@pytest.mark.slow
def test_model_type_length_and_queries_without_relevant_documents_are_exported_as_in_mteb(results_dir):
    record = nfcorpus_record(results_dir)
    config = {"_target_": "harness.retrievers.colbert.ColBERT", "encoder": {"model": "org/colbert@r"}}
    metadata = record.dataset.metadata.model_copy(update={"queries_without_relevant": record.dataset.queries})
    colbert = record.model_copy(
        update={
            "retriever": record.retriever.model_copy(update={"config": config}),
            "encoders": {"": EncoderInfo(max_length={"query": 32, "document": 300})},
            "dataset": record.dataset.model_copy(update={"metadata": metadata}),
            "metrics": {**record.metrics, "p-MRR": 0.5},
        }
    )
    (model,) = results.from_records([colbert]).models
    meta = results._model_meta(model)
    assert (meta.max_tokens, meta.model_type, meta.adapted_from) == (300, ["late-interaction"], "org/colbert")
    ((scores,),) = model.results[0].scores.values()
    assert scores["ndcg_at_10"] == pytest.approx(record.metrics["ndcg@10"] / 2)
    assert scores["p-MRR"] == 0.5


def test_a_folder_named_like_an_mteb_task_is_not_exported(data, tmp_path, capsys):
    folder = tmp_path / "scifact"
    folder.symlink_to(data / "scifact", target_is_directory=True)
    words = ["retriever=bm25", "dataset=folder", f"dataset.path={folder}", "dataset.name=scifact"]
    assert run([*words, f"results_dir={tmp_path / 'results'}", *QUICK]) == 0
    assert read.main(["export", "mteb", "--to", str(tmp_path / "out"), "--results", str(tmp_path / "results")]) == 3
    assert "it is not a task of mteb" in capsys.readouterr().err


@pytest.mark.slow
def test_mteb_evaluate_and_the_exported_record_have_equal_scores(results_dir, exported, data):
    result = evaluate_with_mteb(SearchModel(BM25()), task_of("NFCorpus", str(data / "nfcorpus")))
    (path,) = exported.glob("results/harness__bm25/*/NFCorpus.json")
    ((scores,),) = read_strict_json(path)["scores"].values()
    expected = scores_of(result)
    for name in ("ndcg_at_10", "map_at_1000", "hit_rate_at_10", "recall_at_1", "accuracy", "main_score"):
        assert scores[name] == pytest.approx(expected[name], abs=1e-4), name


def test_benchmark_splits_are_the_benchmarks_tasks_with_split_and_subset():
    beir = benchmark_splits("BEIR")
    assert len(beir) == 14 + 12
    assert {split.task for split in beir} >= {"SciFact", "MSMARCO", "CQADupstackTexRetrieval"}
    assert next(split.split for split in beir if split.task == "MSMARCO") == "dev"
    assert len(benchmark_splits("NanoBEIR")) == 13
    types = {registry.task(split.task).metadata.type for split in benchmark_splits("MTEB(eng, v2)")}
    assert types == {"Retrieval", "Reranking"}


def test_every_benchmark_with_ranking_tasks_has_splits():
    for benchmark in registry.benchmarks():
        assert benchmark_splits(benchmark.name), benchmark.name


def test_sweep_returns_the_overrides_for_all_tasks_of_a_benchmark():
    words = mteb_command.sweep("MTEB(eng, v2)", ["k=10"])
    assert words[:3] == ["experiment=mteb", "k=10", "dataset.benchmark='MTEB(eng, v2)'"]
    assert words[3].startswith("dataset.task='")
    assert "'FiQA2018:default:test'" in words[3]
    one_task = mteb_command.sweep("BEIR", ["dataset.task=SciFact"])
    assert [word for word in one_task if word.startswith("dataset.task=")] == ["dataset.task=SciFact"]


def test_a_missing_or_unknown_benchmark_is_an_error_with_a_suggestion(capsys, tmp_path):
    assert run(["experiment=mteb", f"results_dir={tmp_path}"]) == 2
    assert "harness mteb BEIR" in capsys.readouterr().err
    assert mteb_command.main(["BIER", f"results_dir={tmp_path}"]) == 2
    assert "mteb has no benchmark 'BIER'; did you mean 'BEIR'?" in capsys.readouterr().err


def task_record(split, value, k1=1.2):
    """Return a record of BM25 on a task of mteb with this main score."""
    config = {"_target_": "harness.retrievers.bm25.BM25", "k1": k1}
    metadata = {"source": "mteb", "task": split.task, "subset": split.subset, "split": split.split}
    main_metric = names.to_metric(registry.task(split.task).metadata.main_score)
    return make_record(
        RetrieverInfo(name="bm25", config=config, differences={} if k1 == 1.2 else {"k1": k1}),
        DatasetInfo(name=split.task, metadata=metadata),
        id=f"{hash((split, k1)) % 10**16:016}",
        metrics={main_metric: value},
        timing=None,
    )


def test_a_benchmarks_means_and_ranks_equal_mtebs():
    """A benchmark of two task types and two main scores, and two retrievers, the second without one of the tasks."""
    splits = benchmark_splits("MTEB(eng, v2)")
    values = [number / 20 for number in range(len(splits))]
    records = [task_record(split, value) for split, value in zip(splits, values, strict=True)]
    records += [task_record(split, value / 2, k1=9.0) for split, value in zip(splits, values, strict=True)]
    first, second = aggregates("MTEB(eng, v2)", records)
    types = [registry.task(split.task).metadata.type for split in splits]
    means = {
        task_type: statistics.mean(value for value, each in zip(values, types, strict=True) if each == task_type)
        for task_type in ("Retrieval", "Reranking")
    }
    for aggregate, divisor in ((first, 1), (second, 2)):
        assert aggregate.scores["Mean(Task)"] == pytest.approx(statistics.mean(values) / divisor, abs=1e-5)
        assert aggregate.scores["Mean(TaskType)"] == pytest.approx(statistics.mean(means.values()) / divisor, abs=1e-5)
        assert aggregate.scores["Reranking"] == pytest.approx(means["Reranking"] / divisor, abs=1e-5)
    assert (first.label, first.scores["Rank"]) == ("bm25", 1)
    assert (second.label, second.scores["Rank"]) == ("bm25 [k1=9.0]", 2)
    complete, incomplete = aggregates("MTEB(eng, v2)", records[:-1])
    assert (complete.label, complete.missing) == ("bm25", [])
    assert (incomplete.scores, incomplete.missing) == ({}, [splits[-1].task])
    shown = writers.terminal([mteb_command.table("MTEB(eng, v2)", records[:-1])], 160)
    assert f"{complete.scores['Mean(TaskType)']:.4f}" in shown
    assert f"bm25 [k1=9.0]: no mean, 1 tasks are not measured: {splits[-1].task}" in shown


@pytest.mark.slow
def test_the_mteb_command_runs_a_benchmark_and_prints_its_means_below_the_table(data, tmp_path, capsys):
    folder, root = tmp_path / "tasks", tmp_path / "results"
    folder.mkdir()
    for name, source in (("NanoSciFactRetrieval", "scifact"), ("NanoNFCorpusRetrieval", "nfcorpus")):
        (folder / name).mkdir()
        for part in ("corpus.jsonl", "queries.jsonl"):
            (folder / name / part).symlink_to(data / source / part)
        (folder / name / "qrels").mkdir()
        (folder / name / "qrels" / "train.tsv").symlink_to(data / source / "qrels" / "test.tsv")
    tasks = "dataset.task=NanoSciFactRetrieval,NanoNFCorpusRetrieval"
    words = ["NanoBEIR", tasks, f"dataset.folder={folder}", "retriever=bm25"]
    assert mteb_command.main([*words, f"results_dir={root}", *QUICK, "k=10", "metrics=[ndcg@10]"]) == 0
    out = capsys.readouterr().out
    assert "NanoBEIR as mteb aggregates it, over its tasks that rank texts" in out
    assert "bm25: no mean, 11 tasks are not measured: NanoArguAnaRetrieval, " in out
    assert {record.dataset.name for record in Store(root).records()} == set(tasks.partition("=")[2].split(","))
    assert read.main(["report", "--results", str(root), "--benchmark", "NanoBEIR"]) == 0
    assert "11 tasks are not measured" in capsys.readouterr().out
    assert read.main(["report", "--results", str(root), "--benchmark", "NanoBEIR", "--json"]) == 2
    assert "--benchmark and --json exclude each other" in capsys.readouterr().err


def test_all_forums_of_cqadupstack_are_exported_as_one_more_result():
    """mteb averages the twelve forums."""
    forums = [split for split in benchmark_splits("BEIR") if split.task.startswith("CQADupstack")]
    records = [task_record(forum, number / 100) for number, forum in enumerate(forums)]
    (model,) = results.from_records(records).models
    (aggregate,) = [result for result in model.results if result.task_name == "CQADupstackRetrieval"]
    assert aggregate.get_score() == pytest.approx(sum(range(12)) / 1200)
    (incomplete,) = results.from_records(records[:-1]).models
    assert not [result for result in incomplete.results if result.task_name == "CQADupstackRetrieval"]


@pytest.mark.slow
def test_records_with_prompts_of_mteb_are_one_model_and_with_other_settings_two(results_dir):
    """`prompts=mteb` sets another instruction for every task."""
    record = nfcorpus_record(results_dir)

    def with_prompt(prompt, **settings):
        config = {"encoder": {"model": "org/name", "query_prompt": prompt}, **settings}
        changes = {"config": config, "name": "e5", "differences": {"prompts": "mteb", **settings}}
        return record.model_copy(update={"retriever": record.retriever.model_copy(update=changes)})

    models = results.from_records([with_prompt("a"), with_prompt("b")]).models
    assert len({(model.name, model.revision) for model in models}) == 1
    assert len(results.from_records([with_prompt("a"), with_prompt("a", k1=2.0)]).models) == 2


@pytest.mark.slow
def test_run_files_of_one_name_are_one_model_and_without_a_name_several(results_dir):
    record = nfcorpus_record(results_dir)

    def run_file_record(path, **settings):
        changes = {
            "name": "run_file",
            "config": {"path": path, "name": None, **settings},
            "differences": {"path": path, **settings},
        }
        return record.model_copy(update={"retriever": record.retriever.model_copy(update=changes)})

    named = [run_file_record(path, name="lucene") for path in ("a.trec", "b.trec")]
    (model,) = results.from_records(named).models
    assert model.name == "harness/run_file_name=lucene"
    assert len(results.from_records([run_file_record("a.trec"), run_file_record("b.trec")]).models) == 2


def test_list_filters_mtebs_tasks_and_benchmarks(capsys):
    assert read.main(["list", "datasets", "--mteb", "--language", "deu", "--type", "Reranking"]) == 0
    shown = capsys.readouterr().out
    assert "MIRACLReranking" in shown
    assert "SciFact" not in shown
    assert read.main(["list", "datasets", "--mteb", "--language", "deu", "--json"]) == 0
    german = json.loads(capsys.readouterr().out)
    assert next(task for task in german if task["task"] == "XQuADRetrieval")["subsets"] == ["de"]
    assert read.main(["list", "datasets", "--mteb", "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)
    assert len(tasks) > 450
    assert next(task for task in tasks if task["task"] == "SciFact")["main_score"] == "ndcg@10"
    assert read.main(["list", "benchmarks"]) == 0
    assert "BEIR" in capsys.readouterr().out
    assert read.main(["list", "datasets", "--mteb", "--type", "Rerank"]) == 2
    assert "did you mean 'Reranking'?" in capsys.readouterr().err
    assert read.main(["list", "datasets", "--mteb", "--language", "xx"]) == 2
    assert "Invalid language code: xx; --language takes codes" in capsys.readouterr().err
    assert read.main(["list", "datasets", "--language", "deu"]) == 2
    assert "filter mteb's tasks; type: harness list datasets --mteb" in capsys.readouterr().err
    assert read.main(["list", "records", "--mteb"]) == 2
    assert "--mteb lists datasets" in capsys.readouterr().err
