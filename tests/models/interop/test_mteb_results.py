"""Records as mteb's results and back: its own loaders read them, its published ones stand beside ours."""

import json
import math
import shutil
import statistics
from datetime import timedelta

import pytest
from support import ROOT
from support.mteb_tasks import evaluated, rows_of, write
from support.records import make_record

from harness.cli import mteb as mteb_command
from harness.cli import read
from harness.cli.run import main as run
from harness.interop.mteb import SearchModel, names, registry, results, task_of
from harness.interop.mteb.registry import benchmark_splits
from harness.interop.mteb.results import aggregates
from harness.leaderboard import build as board_of
from harness.leaderboard import writers
from harness.leaderboard.published import published_rows
from harness.store import Store
from harness.types import DatasetInfo, DatasetMetadata, EncoderInfo, RetrieverInfo

WORDS = ["timing.latency_queries=0", "timing.repeats=1", "timing.warmup_documents=0"]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def strict(path):
    def refuse(name):
        raise AssertionError(f"{path} holds {name}, which is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def measured(results_dir, retriever, task, folder, *more):
    words = [f"retriever={retriever}", "dataset=mteb", f"dataset.task={task}", f"dataset.folder={folder}"]
    assert run([*words, f"results_dir={results_dir}", *WORDS, *more]) == 0


@pytest.fixture(scope="module")
def held(data, tmp_path_factory):
    """A results folder: BM25 with two settings on both collections, one of them under BEIR's name."""
    root = tmp_path_factory.mktemp("held") / "results"
    measured(root, "bm25", "NFCorpus", data / "nfcorpus", "k=1000", "metrics=[ndcg@10,map@1000,hit@10,recall@1]")
    measured(root, "bm25", "NFCorpus", data / "nfcorpus", "retriever.b=0.4")
    assert run(["retriever=bm25", "dataset=scifact", f"data_dir={data}", f"results_dir={root}", *WORDS]) == 0
    assert run(["retriever=bm25", "dataset=stdlib", f"results_dir={root}", *WORDS]) == 0
    return root


@pytest.fixture(scope="module")
def exported(held, tmp_path_factory):
    target = tmp_path_factory.mktemp("exported") / "mteb"
    assert read.main(["export", "mteb", "--to", str(target), "--results", str(held)]) == 0
    return target


def test_mtebs_own_loaders_read_what_is_exported(held, exported):
    import mteb

    with registry.quiet():
        found = mteb.ResultCache(cache_path=exported).load_results()
        frame = found.to_dataframe()
    assert {own.model_name for own in found.model_results} == {"harness/bm25", "harness/bm25_b=0.4"}
    own = {(rec.retriever.label, rec.dataset.name): rec for rec in Store(held).records()}
    for model in found.model_results:
        label = "bm25" if model.model_name.endswith("bm25") else "bm25 [b=0.4]"
        for result in model.task_results:
            record = own[label, "scifact" if result.task_name == "SciFact" else "NFCorpus"]
            assert result.get_score() == pytest.approx(record.metrics["ndcg@10"], abs=1e-6)
            assert result.dataset_revision
    assert set(frame["task_name"]) == {"SciFact", "NFCorpus"}


def test_what_is_exported_is_strict_json_with_mtebs_names(exported):
    files = sorted(exported.rglob("*.json"))
    assert len(files) >= 6
    for path in files:
        strict(path)
    (path,) = exported.glob("results/harness__bm25/*/NFCorpus.json")
    ((scores,),) = strict(path)["scores"].values()
    assert {"ndcg_at_10", "map_at_1000", "hit_rate_at_10", "recall_at_1", "accuracy"} <= scores.keys()
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert scores["accuracy"] == scores["recall_at_1"]
    assert (scores["hf_subset"], scores["languages"]) == ("default", ["eng-Latn"])


def test_a_run_is_exported_as_predictions_that_mteb_reranks_from(exported, data):
    (path,) = exported.glob("predictions/harness__bm25/*/NFCorpus_predictions.json")
    told = strict(path)
    assert told["mteb_model_meta"]["model_name"] == "harness/bm25"
    assert len(told["default"]["test"]) > 300
    task = task_of("NFCorpus", str(data / "nfcorpus"))
    with registry.quiet():
        task.convert_to_reranking(path, top_k=20)
    ranked = task.dataset["default"]["test"]["top_ranked"]
    query = next(iter(ranked))
    assert len(ranked[query]) == 20
    assert ranked[query][0] == max(told["default"]["test"][query].items(), key=lambda one: one[1])[0]


def test_what_is_no_task_or_lacks_its_main_score_is_left_out_and_said(held, tmp_path, capsys):
    assert read.main(["export", "mteb", "--to", str(tmp_path), "--results", str(held), "--dataset", "stdlib"]) == 3
    said = capsys.readouterr().err
    assert "left out: bm25 on stdlib: it is not a task of mteb" in said
    assert "no record in" in said


def test_of_two_records_of_one_task_the_older_is_left_out_and_said(held, tmp_path, capsys):
    """NFCorpus under mteb's name and under BEIR's."""
    root = tmp_path / "results"
    shutil.copytree(held, root)
    own = next(rec for rec in Store(root).records() if rec.dataset.name == "scifact")
    about = DatasetMetadata(source="mteb", task="SciFact", subset="default", split="test")
    told = {"name": "SciFact", "metadata": about, "config": {}, "differences": {}}
    older = own.model_copy(
        update={"dataset": own.dataset.model_copy(update=told), "started": own.started - timedelta(days=1)}
    )
    Store(root).append(older, {})
    assert read.main(["export", "mteb", "--to", str(tmp_path / "out"), "--results", str(root)]) == 0
    assert "left out: bm25 on SciFact: scifact is newer, and the same task" in capsys.readouterr().err


def test_a_reranking_result_without_its_main_score_says_how_to_measure_it(tmp_path, real_dataset, capsys):
    own = real_dataset("xquad/en")
    rows = rows_of(own) | {
        "top_ranked": [{"query-id": key, "corpus-ids": list(own.corpus.ids)[:5]} for key in own.queries.ids]
    }
    folder = write(tmp_path / "repo", rows)
    measured(tmp_path / "results", "bm25", "AskUbuntuDupQuestions", folder)
    capsys.readouterr()
    assert read.main(["export", "mteb", "--to", str(tmp_path / "out"), "--results", str(tmp_path / "results")]) == 3
    assert "its main score map@1000 was not measured; measure again with: k=1000 metrics=[map@1000]" in (
        capsys.readouterr().err
    )


def test_published_results_stand_beside_ours_with_their_differences(held, reference, tmp_path, capsys, caplog):
    root = tmp_path / "results"
    shutil.copytree(held, root)
    assert read.main(["import", "mteb", str(reference / MINILM.replace("/", "__")), "--results", str(root)]) == 0
    assert "15 published results of 1 models" in capsys.readouterr().out
    assert not [own for own in caplog.records if own.name.startswith("mteb")], "what is in beta is no news here"
    assert read.main(["report", "--results", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "Published, not measured here; in brackets: ours minus the published score" in shown
    assert f"{MINILM}  " in shown
    assert "0.3159" in shown
    assert "0.6451" in shown
    assert "NFCorpus at revision ec0fa4fe" in " ".join(shown.split())
    (heads,) = [line for line in shown.splitlines() if line.split()[:2] == ["ndcg@10,", "published"]]
    assert "stdlib" not in heads, "nobody has a figure for it"
    for form in ("md", "csv", "tex", "html"):
        assert "all-MiniLM-L6-v2" in (root / f"leaderboard.{form}").read_text(encoding="utf-8")
    assert read.main(["report", "--results", str(root), "--check"]) == 0


def test_figures_that_stand_alone_say_what_they_need(reference, tmp_path, capsys):
    folder = str(reference / MINILM.replace("/", "__"))
    assert read.main(["import", "mteb", folder, "--results", str(tmp_path)]) == 0
    assert "yet; published figures are shown beside measured ones" in capsys.readouterr().err


def test_the_row_of_the_same_weights_is_set_against_the_published_figure(reference):
    """The committed board's MiniLM on SciFact, against what MTEB published of the same revision of the model."""

    from harness.interop.mteb import published

    board = board_of(Store(ROOT / "results" / "board").latest())
    found = published.read(reference / MINILM.replace("/", "__"))
    (row,) = published_rows(board, found.figures, table=False)
    assert (row.retriever, row.measured_label) == (MINILM, "minilm")
    assert row.values["scifact"] == 0.64508
    assert abs(row.differences["scifact"]) <= 0.001
    assert abs(row.differences["nfcorpus"]) <= 0.001


def test_figures_of_another_revision_of_the_collection_say_so(held, reference, tmp_path):
    from harness.interop.mteb import published

    found = published.read(reference / MINILM.replace("/", "__"))
    records = [rec for rec in Store(held).latest() if rec.dataset.name == "NFCorpus"]
    config = {"_target_": "harness.retrievers.dense.Dense", "encoder": {"model": MINILM}}
    as_minilm = records[0].model_copy(update={"retriever": records[0].retriever.model_copy(update={"config": config})})
    (row,) = published_rows(board_of([as_minilm]), found.figures, table=False)
    assert row.measured_label == records[0].retriever.label
    assert f"(ours: revision {records[0].dataset.metadata.revision[:18]})" in row.sources[0]


def test_published_figures_of_any_metric_are_shown(held, reference):
    from harness.interop.mteb import published

    found = published.read(reference / MINILM.replace("/", "__"))
    (row,) = published_rows(board_of(Store(held).latest(), "map@1000"), found.figures, table=False)
    assert 0.05 < row.values["NFCorpus"] < 0.3
    one = next(figure for figure in found.figures if "scifact" in figure.datasets)
    assert one.datasets == ["SciFact", "scifact"]
    assert math.isclose(one.metrics["ndcg@10"], 0.64508)
    assert not [name for name in one.metrics if "nauc" in name.lower()]


@pytest.mark.parametrize(
    ("write_bad", "said"),
    [
        (lambda folder: None, "no results of tasks that rank texts in"),
        (lambda folder: (folder / "SciFact.json").write_text("{}"), "no results are in"),
        (lambda folder: folder.rmdir(), "no folder"),
    ],
)
def test_a_folder_that_holds_no_results_is_said(write_bad, said, tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir()
    write_bad(folder)
    assert read.main(["import", "mteb", str(folder), "--results", str(tmp_path / "mine")]) == 2
    assert said in capsys.readouterr().err


def test_one_unreadable_file_does_not_stop_the_others_and_experiments_stay_apart(reference, tmp_path, capsys):
    folder = tmp_path / "theirs"
    shutil.copytree(reference / MINILM.replace("/", "__"), folder / MINILM.replace("/", "__"))
    (own,) = (folder / MINILM.replace("/", "__")).iterdir()
    (own / "Broken.json").write_text("{")
    (own / "experiments" / "ablation").mkdir(parents=True)
    shutil.copy(own / "SciFact.json", own / "experiments" / "ablation")
    assert read.main(["import", "mteb", str(folder), "--results", str(tmp_path / "mine")]) == 0
    said = capsys.readouterr()
    assert "15 published results of 1 models" in said.out
    assert "Broken.json" in said.err


def test_a_late_interaction_model_and_a_collection_with_silent_queries_are_exported_as_mteb_has_them(held):
    one = next(rec for rec in Store(held).records() if rec.dataset.name == "NFCorpus")
    config = {"_target_": "harness.retrievers.colbert.ColBERT", "encoder": {"model": "org/colbert@r"}}
    about = one.dataset.metadata.model_copy(update={"queries_without_relevant": one.dataset.queries})
    told = one.model_copy(
        update={
            "retriever": one.retriever.model_copy(update={"config": config}),
            "encoders": {"": EncoderInfo(max_length={"query": 32, "document": 300})},
            "dataset": one.dataset.model_copy(update={"metadata": about}),
            "metrics": {**one.metrics, "p-MRR": 0.5},
        }
    )
    (model,) = results.from_records([told]).models
    meta = results._model_meta(model)
    assert (meta.max_tokens, meta.model_type, meta.adapted_from) == (300, ["late-interaction"], "org/colbert")
    ((scores,),) = model.results[0].scores.values()
    assert scores["ndcg_at_10"] == pytest.approx(one.metrics["ndcg@10"] / 2)
    assert scores["p-MRR"] == 0.5


def test_a_collection_that_only_has_a_public_name_is_no_task_of_mtebs(data, tmp_path, capsys):
    folder = tmp_path / "scifact"
    folder.symlink_to(data / "scifact", target_is_directory=True)
    words = ["retriever=bm25", "dataset=folder", f"dataset.path={folder}", "dataset.name=scifact"]
    assert run([*words, f"results_dir={tmp_path / 'results'}", *WORDS]) == 0
    assert read.main(["export", "mteb", "--to", str(tmp_path / "out"), "--results", str(tmp_path / "results")]) == 3
    assert "it is not a task of mteb" in capsys.readouterr().err


def test_a_result_of_the_adapter_and_of_the_export_agree(held, exported, data):
    """One retriever, by mteb.evaluate and by our own record."""
    from harness.config import build

    retriever = build.construct(build.composed(["retriever=bm25"])["retriever"], "retriever")
    theirs = evaluated(SearchModel(retriever), task_of("NFCorpus", str(data / "nfcorpus")))
    (path,) = exported.glob("results/harness__bm25/*/NFCorpus.json")
    ((scores,),) = strict(path)["scores"].values()
    ((other,),) = theirs.scores.values()
    for name in ("ndcg_at_10", "map_at_1000", "hit_rate_at_10", "recall_at_1", "accuracy", "main_score"):
        assert scores[name] == pytest.approx(other[name], abs=1e-4), name


def test_a_benchmarks_cells_are_its_tasks_splits_and_subsets():
    beir = benchmark_splits("BEIR")
    assert len(beir) == 14 + 12
    assert {place.task for place in beir} >= {"SciFact", "MSMARCO", "CQADupstackTexRetrieval"}
    assert next(place.split for place in beir if place.task == "MSMARCO") == "dev"
    assert len(benchmark_splits("NanoBEIR")) == 13
    types = {registry.task(place.task).metadata.type for place in benchmark_splits("MTEB(eng, v2)")}
    assert types == {"Retrieval", "Reranking"}


def test_every_benchmark_with_ranking_tasks_has_cells():
    for own in registry.benchmarks():
        assert benchmark_splits(own.name), own.name


def test_a_benchmark_is_swept_over_its_tasks():
    words = mteb_command.sweep("MTEB(eng, v2)", ["k=10"])
    assert words[:3] == ["experiment=mteb", "k=10", "dataset.benchmark='MTEB(eng, v2)'"]
    assert words[3].startswith("dataset.task='")
    assert "'FiQA2018:default:test'" in words[3]
    chosen = mteb_command.sweep("BEIR", ["dataset.task=SciFact"])
    assert [word for word in chosen if word.startswith("dataset.task=")] == ["dataset.task=SciFact"]


def test_a_benchmark_that_there_is_none_is_said(capsys, tmp_path):
    assert run(["experiment=mteb", f"results_dir={tmp_path}"]) == 2
    assert "harness mteb BEIR" in capsys.readouterr().err
    assert mteb_command.main(["BIER", f"results_dir={tmp_path}"]) == 2
    assert "mteb has no benchmark 'BIER'; did you mean 'BEIR'?" in capsys.readouterr().err


def record_of(place, value, k1=1.2):
    """A record of one of mteb's tasks with a main score."""
    config = {"_target_": "harness.retrievers.bm25.BM25", "k1": k1}
    about = {"source": "mteb", "task": place.task, "subset": place.subset, "split": place.split}
    main = names.to_metric(registry.task(place.task).metadata.main_score)
    return make_record(
        RetrieverInfo(name="bm25", config=config, differences={} if k1 == 1.2 else {"k1": k1}),
        DatasetInfo(name=place.task, metadata=about),
        id=f"{hash((place, k1)) % 10**16:016}",
        metrics={main: value},
        timing=None,
    )


def test_a_benchmark_is_aggregated_as_mteb_does():
    """A benchmark whose tasks have two types and two main scores, and two retrievers, one of which lacks a task."""
    places = benchmark_splits("MTEB(eng, v2)")
    values = [number / 20 for number in range(len(places))]
    records = [record_of(place, value) for place, value in zip(places, values, strict=True)]
    records += [record_of(place, value / 2, k1=9.0) for place, value in zip(places, values, strict=True)]
    first, second = aggregates("MTEB(eng, v2)", records)
    types = [registry.task(place.task).metadata.type for place in places]
    means = {
        kind: statistics.mean(value for value, own in zip(values, types, strict=True) if own == kind)
        for kind in ("Retrieval", "Reranking")
    }
    for one, share in ((first, 1), (second, 2)):
        assert one.scores["Mean(Task)"] == pytest.approx(statistics.mean(values) / share, abs=1e-5)
        assert one.scores["Mean(TaskType)"] == pytest.approx(statistics.mean(means.values()) / share, abs=1e-5)
        assert one.scores["Reranking"] == pytest.approx(means["Reranking"] / share, abs=1e-5)
    assert [(one.label, one.scores["Rank"]) for one in (first, second)] == [("bm25", 1), ("bm25 [k1=9.0]", 2)]
    whole, short = aggregates("MTEB(eng, v2)", records[:-1])
    assert (whole.label, whole.missing) == ("bm25", [])
    assert (short.scores, short.missing) == ({}, [places[-1].task])
    shown = writers.terminal([mteb_command.table("MTEB(eng, v2)", records[:-1])], 160)
    assert f"{whole.scores['Mean(TaskType)']:.4f}" in shown
    assert f"bm25 [k1=9.0]: no mean, 1 tasks are not measured: {places[-1].task}" in shown


def test_a_benchmark_is_swept_and_its_aggregates_stand_below_the_table(data, tmp_path, capsys):
    folder, root = tmp_path / "tasks", tmp_path / "results"
    folder.mkdir()
    for name, own in (("NanoSciFactRetrieval", "scifact"), ("NanoNFCorpusRetrieval", "nfcorpus")):
        (folder / name).mkdir()
        for part in ("corpus.jsonl", "queries.jsonl"):
            (folder / name / part).symlink_to(data / own / part)
        (folder / name / "qrels").mkdir()
        (folder / name / "qrels" / "train.tsv").symlink_to(data / own / "qrels" / "test.tsv")
    some = "dataset.task=NanoSciFactRetrieval,NanoNFCorpusRetrieval"
    words = ["NanoBEIR", some, f"dataset.folder={folder}", "retriever=bm25"]
    assert mteb_command.main([*words, f"results_dir={root}", *WORDS, "k=10", "metrics=[ndcg@10]"]) == 0
    out = capsys.readouterr().out
    assert "NanoBEIR as mteb aggregates it, over its tasks that rank texts" in out
    assert "bm25: no mean, 11 tasks are not measured: NanoArguAnaRetrieval, " in out
    assert {record.dataset.name for record in Store(root).records()} == set(some.partition("=")[2].split(","))
    assert read.main(["report", "--results", str(root), "--benchmark", "NanoBEIR"]) == 0
    assert "11 tasks are not measured" in capsys.readouterr().out
    assert read.main(["report", "--results", str(root), "--benchmark", "NanoBEIR", "--json"]) == 2
    assert "--benchmark and --json exclude each other" in capsys.readouterr().err


def test_cqadupstacks_forums_are_one_result_together():
    """Twelve records of forums, and the aggregate that mteb makes of them."""
    forums = [place for place in benchmark_splits("BEIR") if place.task.startswith("CQADupstack")]
    records = [record_of(place, number / 100) for number, place in enumerate(forums)]
    (model,) = results.from_records(records).models
    (whole,) = [one for one in model.results if one.task_name == "CQADupstackRetrieval"]
    assert whole.get_score() == pytest.approx(sum(range(12)) / 1200)
    (short,) = results.from_records(records[:-1]).models
    assert not [one for one in short.results if one.task_name == "CQADupstackRetrieval"]


def test_prompts_that_differ_by_task_are_one_model_and_settings_two(held):
    """`prompts=mteb` fills in another instruction for every task."""
    one = next(rec for rec in Store(held).records() if rec.dataset.name == "NFCorpus")

    def with_prompt(prompt, **more):
        config = {"encoder": {"model": "org/name", "query_prompt": prompt}, **more}
        told = {"config": config, "name": "e5", "differences": {"prompts": "mteb", **more}}
        return one.model_copy(update={"retriever": one.retriever.model_copy(update=told)})

    names = {(own.name, own.revision) for own in results.from_records([with_prompt("a"), with_prompt("b")]).models}
    assert len(names) == 1
    assert len(results.from_records([with_prompt("a"), with_prompt("a", k1=2.0)]).models) == 2


def test_a_named_run_is_one_model_over_its_files_and_one_without_a_name_is_not(held):
    one = next(rec for rec in Store(held).records() if rec.dataset.name == "NFCorpus")

    def lucene(path, **named):
        told = {
            "name": "run_file",
            "config": {"path": path, "name": None, **named},
            "differences": {"path": path, **named},
        }
        return one.model_copy(update={"retriever": one.retriever.model_copy(update=told)})

    (model,) = results.from_records([lucene("a.trec", name="lucene"), lucene("b.trec", name="lucene")]).models
    assert model.name == "harness/run_file_name=lucene"
    assert len(results.from_records([lucene("a.trec"), lucene("b.trec")]).models) == 2


def test_the_lists_say_what_mteb_has(capsys):
    assert read.main(["list", "datasets", "--mteb", "--language", "deu", "--type", "Reranking"]) == 0
    shown = capsys.readouterr().out
    assert "MIRACLReranking" in shown
    assert "SciFact" not in shown
    assert read.main(["list", "datasets", "--mteb", "--language", "deu", "--json"]) == 0
    german = json.loads(capsys.readouterr().out)
    assert next(one for one in german if one["task"] == "XQuADRetrieval")["subsets"] == ["de"]
    assert read.main(["list", "datasets", "--mteb", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told) > 450
    assert next(one for one in told if one["task"] == "SciFact")["main_score"] == "ndcg@10"
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
