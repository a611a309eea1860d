"""Tests of harness/api/load.py: names, folders and settings mean the same in Python and on the command line."""

import shlex

import pytest
from support import command_line
from support.functions import UNTIMED, shared_words
from support.mteb_tasks import dataset_rows, evaluate_with_mteb, scores_of, write_repository

import harness
from harness.api import load
from harness.errors import ConfigError, RunError
from harness.evaluation.evaluate import DEFAULT_METRICS
from harness.evaluation.identity import evaluation_identity, retriever_identity
from harness.evaluation.timing import TimingPlan
from harness.interop.mteb import SearchModel, results, task_of
from harness.interop.mteb import load as interop_load
from harness.retrievers.bm25 import BM25
from harness.store import Store

BM25_OVERRIDES = ("retriever=bm25", "k=10", "metrics=[ndcg@10]")


def run_command(*words: str) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        return command_line.harness(patch, *words)


@pytest.mark.parametrize("order", [("python", "command"), ("command", "python")], ids=" then ".join)
def test_python_and_the_command_line_reuse_each_others_records(tmp_path, folder, order):
    for interface in order:
        if interface == "python":
            harness.evaluate("bm25", folder, results_dir=tmp_path / "results", k=10, metrics=["ndcg@10"])
        else:
            words = ("dataset=folder", f"dataset.path={folder}", f"results_dir={tmp_path / 'results'}")
            assert run_command(*BM25_OVERRIDES, *words) == 0
    (record,) = Store(tmp_path / "results").records()
    assert record.retriever.identity == retriever_identity(harness.load_retriever("bm25"))


def test_the_records_command_repeats_the_evaluation(tmp_path, folder):
    harness.evaluate("bm25 k1=0.9", folder, results_dir=tmp_path / "a", k=10, metrics=["ndcg@10"])
    (record,) = Store(tmp_path / "a").records()
    assert record.retriever.label == "bm25 [k1=0.9]"
    words = shlex.split(record.command)[1:]
    assert run_command(*words, f"results_dir={tmp_path / 'a'}") == 0
    assert len(list(Store(tmp_path / "a").records())) == 1


def test_the_records_command_has_the_rows_name_and_the_timing_plan(tmp_path, folder):
    plan = TimingPlan(warmup_documents=2, repeats=1, latency_queries=1)
    settings = {"results_dir": tmp_path / "r", "k": 10, "metrics": ["ndcg@10"], "timing": plan}
    harness.evaluate({"my row": "bm25"}, folder, **settings)
    (record,) = Store(tmp_path / "r").records()
    words = shlex.split(record.command)[1:]
    assert {"name='my row'", "timing.repeats=1", "timing.warmup_documents=2"} <= {*words}
    assert run_command(*words, f"results_dir={tmp_path / 'r'}") == 0
    assert [each.id for each in Store(tmp_path / "r").records()] == [record.id]


def test_a_loaded_retriever_has_the_label_and_the_record_of_its_config(tmp_path, data, folder):
    assert harness.evaluate(harness.load_retriever("bm25 k1=0.9"), data, **UNTIMED).labels == ["bm25 [k1=0.9]"]
    assert harness.evaluate({"named": harness.load_retriever("bm25")}, data, **UNTIMED).labels == ["named"]
    harness.evaluate(harness.load_retriever("bm25"), folder, results_dir=tmp_path, k=10, metrics=["ndcg@10"])
    words = ("dataset=folder", f"dataset.path={folder}", f"results_dir={tmp_path}")
    assert run_command(*BM25_OVERRIDES, *words) == 0
    assert len([*Store(tmp_path).records()]) == 1


def test_scores_without_timing_are_read_from_a_timed_record(tmp_path, folder):
    words = ("dataset=folder", f"dataset.path={folder}", f"results_dir={tmp_path}")
    assert run_command(*BM25_OVERRIDES, *words) == 0
    results = harness.evaluate("bm25", folder, results_dir=tmp_path, **UNTIMED)
    (record,) = Store(tmp_path).records()
    assert results.records == [record]


@pytest.mark.parametrize("k", [5, 200])
def test_the_depth_of_a_hybrid_is_k_in_python_and_on_the_command_line(tmp_path, folder, k):
    part, results = "retriever@retriever.retrievers.dense=bm25_mteb", tmp_path / "r"
    words = [part, "dataset=folder", f"dataset.path={folder}", f"k={k}", "metrics=[ndcg@5]", f"results_dir={results}"]
    assert run_command("retriever=hybrid", *words) == 0
    harness.evaluate(f"hybrid {part}", folder, k=k, metrics=["ndcg@5"], results_dir=results)
    (record,) = Store(results).records()
    assert record.retriever.config["depth"] == k


def test_names_set_the_labels_of_rows(data, tmp_path, folder):
    words = ("dataset=folder", f"dataset.path={folder}", "name=checkpoint-3000", f"results_dir={tmp_path / 'r'}")
    assert run_command(*BM25_OVERRIDES, *words) == 0
    (record,) = Store(tmp_path / "r").records()
    assert record.retriever.label == "checkpoint-3000"
    assert harness.evaluate(["bm25"], data, names={"bm25": "first"}, **UNTIMED).labels == ["first"]
    by_position = harness.evaluate(["bm25", shared_words], data, names={1: "second"}, **UNTIMED)
    assert by_position.labels == ["bm25", "second"]
    assert harness.evaluate(["bm25"], data, names={0: "zeroth"}, **UNTIMED).labels == ["zeroth"]
    with pytest.raises(ConfigError, match="is not a retriever; choices"):
        harness.evaluate(["bm25"], data, names={"bm52": "first"}, **UNTIMED)


@pytest.mark.slow
def test_load_dataset_takes_a_name_a_folder_and_settings(folder, data, monkeypatch):
    assert len(harness.load_dataset("stdlib documents=50").corpus) == 50
    loaded = harness.load_dataset(folder)
    assert loaded.fingerprint == data.fingerprint
    assert harness.load_dataset(str(folder), name="named").name == "named"
    monkeypatch.chdir(folder.parent)
    folder.with_name("scifact").mkdir()
    assert load.dataset_overrides("scifact") == ["dataset=scifact"], (
        "a config is preferred to a folder of the same name"
    )
    assert load.dataset_overrides("./scifact") == ["dataset=folder", "dataset.path='./scifact'"]
    results = harness.evaluate("bm25", [loaded, str(folder)], **UNTIMED)
    assert results.to_pandas()["ndcg@10"].nunique() == 1
    with pytest.raises(ConfigError, match="has no key 'splt'"):
        harness.load_dataset("scifact splt=dev")


# ---- mteb


@pytest.mark.slow
def test_mteb_reads_exported_results_by_the_retrievers_identity(data, tmp_path):
    mteb = pytest.importorskip("mteb")
    folder = write_repository(tmp_path / "repo", dataset_rows(data))
    stored = harness.evaluate("bm25", f"mteb:SciFact folder={folder}", results_dir=tmp_path / "results")
    (record,) = stored.records
    retriever = harness.load_retriever("bm25")
    model = SearchModel(retriever)
    assert model.mteb_model_meta.revision == record.retriever.identity == retriever_identity(retriever)
    results.write(results.from_records(stored.records).models, tmp_path / "cache", tmp_path / "results")
    cache = mteb.ResultCache(cache_path=tmp_path / "cache")
    task = task_of("SciFact", folder=str(folder))
    result = evaluate_with_mteb(model, task, cache=cache, overwrite_strategy="only-missing")
    assert scores_of(result)["main_score"] == pytest.approx(record.metrics["ndcg@10"], abs=1e-5)
    with pytest.raises(RunError, match="index"):
        retriever.search(data.queries, 1)  # mteb read the exported result, so nothing was indexed


def test_mteb_reads_a_record_of_the_same_retriever_without_searching(data, tmp_path):
    from harness.interop.mteb.cache import ResultCache

    folder, searches = write_repository(tmp_path / "repo", dataset_rows(data)), []

    class Counting(BM25):
        def search(self, queries, k):
            searches.append(len(queries))
            return super().search(queries, k)

    stored = harness.evaluate(Counting(k1=0.9), f"mteb:SciFact folder={folder}", results_dir=tmp_path / "results")
    (record,), n_searches = stored.records, len(searches)
    cache = ResultCache(tmp_path / "results", tmp_path / "cache")
    task = task_of("SciFact", folder=str(folder))
    result = evaluate_with_mteb(SearchModel(Counting(k1=0.9)), task, cache=cache, overwrite_strategy="only-missing")
    assert len(searches) == n_searches > 0
    assert scores_of(result)["main_score"] == pytest.approx(record.metrics["ndcg@10"], abs=1e-5)
    settings = {"k": record.k, "metrics": DEFAULT_METRICS, "timing": TimingPlan().model_dump(), "seed": record.seed}
    fingerprint = harness.load_dataset(f"mteb:SciFact folder={folder}").fingerprint
    revision = SearchModel(Counting(k1=0.9)).mteb_model_meta.revision
    assert evaluation_identity(revision, fingerprint, **settings) == record.id
    evaluate_with_mteb(SearchModel(Counting(k1=1.5)), task, cache=cache, overwrite_strategy="only-missing")
    assert len(searches) > n_searches, "a retriever with other settings is evaluated"


@pytest.mark.slow
def test_a_model_of_mteb_gets_the_language_of_its_task_however_the_dataset_was_loaded(data, tmp_path, monkeypatch):
    """mteb's BM25 chooses its stemmer by the task's language."""
    import mteb
    from mteb.models.model_implementations import bm25

    folder, languages = write_repository(tmp_path / "repo", dataset_rows(data), split="validation", subset="de"), []
    constructor = bm25.BM25Tokenizer.__init__

    def log_language(self, language, *args, **kwargs):
        languages.append(language)
        constructor(self, language, *args, **kwargs)

    monkeypatch.setattr(bm25.BM25Tokenizer, "__init__", log_language)
    name = f"mteb:XQuADRetrieval folder={folder} language=deu"
    results_dir, model = tmp_path / "results", "mteb model=mteb/baseline-bm25s"
    loaded = [harness.load_dataset(name), interop_load("XQuADRetrieval:de:validation", folder=str(folder))]
    by_name = harness.evaluate(model, name, results_dir=results_dir).records
    for dataset in loaded:
        for retriever in (model, mteb.get_model("mteb/baseline-bm25s")):
            harness.evaluate(retriever, dataset, **UNTIMED)
        assert harness.evaluate(model, dataset, results_dir=tmp_path / "other").records[0].id == by_name[0].id
    harness.evaluate(mteb.get_model("mteb/baseline-bm25s"), name, **UNTIMED)
    assert len(languages) >= 7
    assert set(languages) == {"deu"}
