"""The public API: every form of a retriever, every view of the results, and one identity with the command line."""

import gc
import json
import shlex
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import write_dense, write_masked
from support.mteb_tasks import evaluated, rows_of, scores, write

import harness
from harness.__main__ import main
from harness.api import load
from harness.config import build
from harness.errors import ConfigError, DataError, RunError
from harness.evaluation.evaluate import DEFAULT_METRICS, Settings
from harness.evaluation.identity import evaluation_identity, retriever_identity
from harness.evaluation.timing import TimingPlan
from harness.interop.mteb import SearchModel, results, task_of
from harness.interop.mteb import load as interop_load
from harness.retrievers.bm25 import BM25
from harness.retrievers.function import Function
from harness.store import Store
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Dataset, Qrels, Queries, Run, trec

QUICK = {"timing": None, "metrics": ["ndcg@10"], "k": 10}
TEXTS = {
    "d0": "the cat sat on the mat",
    "d1": "dogs chase cats in the garden",
    "d2": "bread is baked in an oven",
    "d3": "the moon circles the earth",
    "d4": "a garden with roses",
}


@pytest.fixture(scope="module")
def data() -> Dataset:
    queries = Queries(["q0", "q1", "q2"], ["cats", "baking bread in an oven", "roses in the garden"])
    qrels = Qrels({"q0": {"d1": 2, "d0": 1}, "q1": {"d2": 1}, "q2": {"d4": 1, "d1": 0}})
    return Dataset("pets", "test", Corpus(list(TEXTS), list(TEXTS.values())), queries, qrels)


@pytest.fixture(scope="module")
def results_of_two(data: Dataset) -> harness.Results:
    return harness.evaluate({"terms": "bm25", "worse": "bm25 k1=0.0 b=0.0"}, data, baseline="terms")


# ------------------------------------------------------------------------------------------------- import


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, harness; print([m for m in sys.modules if m.split('.')[0] in {'torch', 'numpy', 'hydra', 'rich'}])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_every_public_name_is_there_and_no_other():
    for name in harness.__all__:
        assert getattr(harness, name) is not None, name
    assert set(dir(harness)) == set(harness.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = harness.evalute


def test_reading_results_imports_no_torch(tmp_path, data):
    harness.evaluate("bm25", data, results_dir=tmp_path, **QUICK)
    code = f"import sys, harness; harness.open_results({str(tmp_path)!r}).to_pandas(); print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"


# ------------------------------------------------------------------------------------------------- retrievers


def lookup(queries: Queries, k: int) -> dict[str, dict[str, float]]:
    """Return the documents that share a word with the query, by the number of shared words."""
    return {
        query: {doc: float(n) for doc, text in TEXTS.items() if (n := len({*text.split()} & {*words.split()}))}
        for query, words in queries.items()
    }


def ndcg(retriever: object, data: Dataset, **settings: object) -> float:
    frame = harness.evaluate(retriever, data, **{**QUICK, **settings}).to_pandas()
    return float(frame["ndcg@10"][0])


@pytest.mark.parametrize(
    "form",
    [
        lookup,
        lambda queries, k: [list(lookup(queries, k)[query].items()) for query in queries.ids],
        lambda queries, k: Run.from_dict(lookup(queries, k)),
    ],
    ids=["dict", "pairs", "run"],
)
def test_a_function_is_a_retriever_whatever_it_returns(form, data):
    assert ndcg({"mine": form}, data) == pytest.approx(ndcg(Run.from_dict(lookup(data.queries, 10)), data))


def test_a_function_is_timed_with_its_own_index_from_the_first_query_on(data):
    """The warm-up indexes a few documents, and the function finds others."""
    plan = TimingPlan(warmup_documents=1, repeats=1, latency_queries=1)
    frame = harness.evaluate(lookup, data, timing=plan, metrics=["ndcg@10"], k=10).to_pandas()
    assert frame["queries_per_s"][0] > 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_part_of_a_hybrid_may_number_documents_and_order_queries_in_its_own_way(data, order):
    def runs(queries, k):
        hits = lookup(queries, k)
        return Run.from_dict({query: hits[query] for query in list(hits)[::order]})

    def mapped(queries, k):
        return lookup(queries, k)

    alone, fused = [], []
    for search in (runs, mapped):
        part = Function(search)
        alone.append(ndcg({"alone": part}, data))
        fused.append(ndcg({"fused": harness.Hybrid({"terms": harness.BM25(), "mine": Function(search)})}, data))
    assert alone[0] == alone[1]
    assert fused[0] == fused[1]


def test_a_function_may_return_ids_alone_best_first(data):
    assert ndcg({"ids": lambda queries, k: [["d0"], ["d2"], ["d4"]]}, data) < 1.0
    assert ndcg({"ids": lambda queries, k: [["d1", "d0"], ["d2"], ["d4"]]}, data) == 1.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda queries, k: [["d0"]], "list of 1 for 3 queries"),
        (lambda queries, k: [["nowhere"]] * 3, "document 'nowhere' is not in the corpus of 5 documents"),
        (lambda queries, k: [[(7, 1.0)]] * 3, "document id 7 is int, not text"),
        (lambda queries, k: [[("d0", "high")]] * 3, r"hit \('d0', 'high'\) is neither"),
        (lambda queries, k: None, "NoneType for 3 queries"),
    ],
)
def test_a_function_that_returns_something_else_is_an_error(answer, message, data):
    with pytest.raises(RunError, match=message):
        harness.evaluate({"wrong": answer}, data, **QUICK)


def test_a_name_with_settings_is_the_config_with_overrides(data):
    assert ndcg("bm25 k1=0.9 b=0.4", data) == ndcg(BM25(Tokenizer(), 0.9, 0.4), data)
    frame = harness.evaluate(["bm25", "bm25 k1=0.9"], data, **QUICK).to_pandas()
    assert list(frame["retriever"]) == ["bm25", "bm25 [k1=0.9]"]


def test_an_object_of_the_protocol_and_one_of_the_harness(data):
    class Mine:
        def index(self, corpus):
            self.corpus = corpus

        def search(self, queries, k):
            return Run.from_dict({query: {"d0": 1.0} for query in queries.ids})

        def nbytes(self):
            return 0

    results = harness.evaluate([Mine(), harness.BM25(Tokenizer(), k1=0.5)], data, **QUICK)
    assert results.labels == ["Mine", "BM25 [k1=0.5]"]


def test_a_run_and_a_run_file(data, tmp_path):
    run = Run.from_dict(lookup(data.queries, 10))
    trec.write(run, tmp_path / "lucene.trec", "lucene")
    results = harness.evaluate([run, str(tmp_path / "lucene.trec")], data, metrics=["ndcg@10"])
    frame = results.to_pandas()
    assert list(frame["retriever"]) == ["run", "lucene"]
    assert frame["ndcg@10"].nunique() == 1
    assert frame["queries_per_s"].isna().all(), "its rankings were made elsewhere"
    assert harness.score(tmp_path / "lucene.trec", data, ["ndcg@10"]) == {"ndcg@10": frame["ndcg@10"][0]}


def sentence_model(kind: str, folder: Path):
    import sentence_transformers as library

    if kind == "SentenceTransformer":
        return library.SentenceTransformer(str(write_dense(folder)), device="cpu")
    if kind == "CrossEncoder":
        from test_rerank import write_cross

        return library.CrossEncoder(str(write_cross(folder)), device="cpu")
    if kind == "SparseEncoder":
        return library.SparseEncoder(str(write_masked(folder)), device="cpu")
    return library.MultiVectorEncoder(str(write_dense(folder)), device="cpu")


@pytest.mark.parametrize("kind", ["SentenceTransformer", "SparseEncoder", "MultiVectorEncoder"])
def test_models_of_sentence_transformers_are_retrievers_by_their_own_encoding(kind, data, tmp_path):
    model = sentence_model(kind, tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    results = harness.evaluate({"model": model}, data, **QUICK)
    dense = {"convert_to_sparse_tensor": False} if kind == "SparseEncoder" else {}
    queries = model.encode_query(list(data.queries.texts), **dense)
    documents = model.encode_document(list(data.corpus.texts), **dense)
    similarities = np.asarray(model.similarity(queries, documents).cpu())
    run = results.run("model")
    for row in range(len(data.queries)):
        best = int(np.argmax(similarities[row]))
        assert run.hits(row)[0][0] == data.corpus.ids[best]
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())


def test_a_model_of_mteb_is_a_retriever(data, tmp_path):
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    from harness.interop.mteb.registry import quiet

    model = sentence_model("SentenceTransformer", tmp_path)
    with quiet():
        wrapped = SentenceTransformerEncoderWrapper(model)
    assert ndcg({"mteb": wrapped}, data) == pytest.approx(ndcg({"model": model}, data), abs=1e-5)


def test_what_is_no_retriever_is_refused_with_the_choices(data):
    for wrong in (7, object(), []):
        with pytest.raises(ConfigError, match="give a config's name"):
            harness.evaluate(wrong, data, **QUICK)
    with pytest.raises(ConfigError, match=r"no retriever 'bm52'; .*did you mean bm25"):
        harness.evaluate("bm52", data, **QUICK)
    with pytest.raises(ConfigError, match=r"2 retrievers are called 'bm25'"):
        harness.evaluate(["bm25", "bm25"], data, **QUICK)


# ------------------------------------------------------------------------------------------------- settings


def test_wrong_settings_are_refused_before_anything_is_measured(data):
    calls: list[int] = []

    def counted(queries, k):
        calls.append(k)
        return lookup(queries, k)

    for settings, message in (
        ({"metrics": ["ndgc@10"]}, "ndgc"),
        ({"metrics": ["ndcg@100"], "k": 10}, "looks deeper than k=10"),
        ({"baseline": "bm52"}, "baseline='bm52' is not one of the retrievers; choices: counted"),
        ({"timing": "nowhere"}, "no timing 'nowhere'"),
    ):
        with pytest.raises(ConfigError, match=message):
            harness.evaluate(counted, data, **settings)
    for name, message in (
        ("bm52", "no retriever 'bm52'"),
        ("bm25 k2=1", "has no key 'k2'"),
        ("bm25 +retriever.k2=1", "has no key 'k2'"),
        ("bm25 k1=high", "k1='high' must be a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            harness.evaluate([counted, name], data)
    with pytest.raises(ConfigError, match="no dataset 'scifatc'"):
        harness.evaluate([counted], [data, "scifatc"])
    assert calls == []


def test_the_defaults_are_those_of_the_command_line():
    config = build.composed(["retriever=bm25"])
    assert tuple(config["metrics"]) == DEFAULT_METRICS
    assert (config["k"], config["seed"]) == (Settings().k, Settings().seed)
    assert TimingPlan(**config["timing"]) == TimingPlan() == Settings().timing


def test_a_failing_retriever_does_not_lose_the_others(data):
    def fails(queries, k):
        raise ValueError("out of order")

    with pytest.warns(RuntimeWarning, match="fails on pets failed: ValueError: out of order"):
        results = harness.evaluate([fails, "bm25"], data, **QUICK)
    assert results.labels == ["bm25"]
    with pytest.raises(ValueError, match="out of order"):
        harness.evaluate(fails, data, **QUICK)


BROKEN = """
class Broken:
    def __init__(self, **settings):
        raise OSError("bad checkpoint")
"""


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("bm25 _target_=broken_of_user.Broken", "bad checkpoint"),
        ("bm25 _target_=broken_of_user.Nothing", "TargetError"),
        ("bm25 _target_=no_such_module_of_user.Own", "TargetError"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_a_retriever_that_cannot_be_constructed_fails_when_its_turn_comes(
    data, tmp_path, monkeypatch, name, error, first
):
    (tmp_path / "broken_of_user.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    retrievers = {"broken": name, "good": "bm25"} if first else {"good": "bm25", "broken": name}
    with pytest.warns(RuntimeWarning, match=rf"(?s)broken on pets failed: .*{error}"):
        results = harness.evaluate(retrievers, data, results_dir=tmp_path / "r", **QUICK)
    assert results.labels == ["good"]
    status = {record.retriever.label: record.status for record in Store(tmp_path / "r").records()}
    assert status == {"good": "ok", "broken": "failed"}


def test_a_value_that_a_constructor_refuses_loses_no_other_retriever(data):
    with pytest.warns(RuntimeWarning, match="k1=-1"):
        assert harness.evaluate(["bm25", "bm25 k1=-1"], data, **QUICK).labels == ["bm25"]
    with pytest.raises(ConfigError, match="k1=-1 must be 0 or more"):
        harness.evaluate("bm25 k1=-1", data, **QUICK)


def test_an_index_is_let_go_before_the_next_retriever_is_constructed(data, monkeypatch):
    seen: list[weakref.ref[BM25]] = []
    index = BM25.index

    def counted(self, corpus):
        gc.collect()
        assert [ref for ref in seen if ref() is not None] == []
        seen.append(weakref.ref(self))
        index(self, corpus)
        if self._k1 == 3:
            raise ValueError("out of order")

    monkeypatch.setattr(BM25, "index", counted)
    with pytest.warns(RuntimeWarning, match="out of order"):
        harness.evaluate(["bm25", "bm25 k1=3", "bm25 k1=2"], [data, _small()], **QUICK)
    assert len(seen) == 6


def test_a_users_object_keeps_its_index(data):
    retriever = BM25()
    harness.evaluate([retriever, "bm25"], data, **QUICK)
    assert len(retriever.search(data.queries, 1)) == len(data.queries)


def test_nothing_is_written_without_a_results_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harness.evaluate("bm25", data)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- identity


def run_command(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["harness", *words])
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0)


COMMAND = ("retriever=bm25", "k=10", "metrics=[ndcg@10]")


@pytest.fixture
def folder(data: Dataset, tmp_path: Path) -> Path:
    """The dataset as a folder in BEIR's layout."""
    path = tmp_path / "pets"
    (path / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", data.corpus), ("queries", data.queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in zip(texts.ids, texts.texts, strict=True)]
        (path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    lines = [f"{query}\t{doc}\t{grade}" for query, docs in data.qrels.items() for doc, grade in docs.items()]
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("order", [("python", "command"), ("command", "python")], ids=" then ".join)
def test_what_python_evaluated_is_reused_by_the_command_and_the_other_way_round(tmp_path, folder, order):
    for way in order:
        if way == "python":
            harness.evaluate("bm25", folder, results_dir=tmp_path / "results", k=10, metrics=["ndcg@10"])
        else:
            words = ("dataset=folder", f"dataset.path={folder}", f"results_dir={tmp_path / 'results'}")
            assert run_command(*COMMAND, *words) == 0
    (record,) = Store(tmp_path / "results").records()
    assert record.retriever.identity == retriever_identity(harness.load_retriever("bm25"))


def test_the_record_names_the_command_that_repeats_it(tmp_path, folder):
    harness.evaluate("bm25 k1=0.9", folder, results_dir=tmp_path / "a", k=10, metrics=["ndcg@10"])
    (record,) = Store(tmp_path / "a").records()
    assert record.retriever.label == "bm25 [k1=0.9]"
    words = shlex.split(record.command)[1:]
    assert run_command(*words, f"results_dir={tmp_path / 'a'}") == 0
    assert len(list(Store(tmp_path / "a").records())) == 1


def test_the_command_has_the_rows_name_and_the_timing_plan(tmp_path, folder):
    plan = TimingPlan(warmup_documents=2, repeats=1, latency_queries=1)
    settings = {"results_dir": tmp_path / "r", "k": 10, "metrics": ["ndcg@10"], "timing": plan}
    harness.evaluate({"my row": "bm25"}, folder, **settings)
    (record,) = Store(tmp_path / "r").records()
    words = shlex.split(record.command)[1:]
    assert {"name='my row'", "timing.repeats=1", "timing.warmup_documents=2"} <= {*words}
    assert run_command(*words, f"results_dir={tmp_path / 'r'}") == 0
    assert [each.id for each in Store(tmp_path / "r").records()] == [record.id]


def test_a_loaded_retriever_is_the_row_of_its_config(tmp_path, data, folder):
    assert harness.evaluate(harness.load_retriever("bm25 k1=0.9"), data, **QUICK).labels == ["bm25 [k1=0.9]"]
    assert harness.evaluate({"mine": harness.load_retriever("bm25")}, data, **QUICK).labels == ["mine"]
    harness.evaluate(harness.load_retriever("bm25"), folder, results_dir=tmp_path, k=10, metrics=["ndcg@10"])
    words = ("dataset=folder", f"dataset.path={folder}", f"results_dir={tmp_path}")
    assert run_command(*COMMAND, *words) == 0
    assert len([*Store(tmp_path).records()]) == 1


def test_scores_alone_are_taken_from_what_the_command_measured(tmp_path, folder):
    words = ("dataset=folder", f"dataset.path={folder}", f"results_dir={tmp_path}")
    assert run_command(*COMMAND, *words) == 0
    results = harness.evaluate("bm25", folder, results_dir=tmp_path, **QUICK)
    (record,) = Store(tmp_path).records()
    assert results.records == [record]


@pytest.mark.parametrize("k", [5, 200])
def test_the_depth_of_a_hybrid_follows_k_in_python_as_on_the_command_line(tmp_path, folder, k):
    part, results = "retriever@retriever.retrievers.dense=bm25_mteb", tmp_path / "r"
    words = [part, "dataset=folder", f"dataset.path={folder}", f"k={k}", "metrics=[ndcg@5]", f"results_dir={results}"]
    assert run_command("retriever=hybrid", *words) == 0
    harness.evaluate(f"hybrid {part}", folder, k=k, metrics=["ndcg@5"], results_dir=results)
    (record,) = Store(results).records()
    assert record.retriever.config["depth"] == k


def test_rows_can_be_named(data, tmp_path, folder):
    words = ("dataset=folder", f"dataset.path={folder}", "name=checkpoint-3000", f"results_dir={tmp_path / 'r'}")
    assert run_command(*COMMAND, *words) == 0
    (record,) = Store(tmp_path / "r").records()
    assert record.retriever.label == "checkpoint-3000"
    assert harness.evaluate(["bm25"], data, names={"bm25": "first"}, **QUICK).labels == ["first"]
    assert harness.evaluate(["bm25", lookup], data, names={1: "second"}, **QUICK).labels == ["bm25", "second"]
    assert harness.evaluate(["bm25"], data, names={0: "zeroth"}, **QUICK).labels == ["zeroth"]
    with pytest.raises(ConfigError, match="is not a retriever; choices"):
        harness.evaluate(["bm25"], data, names={"bm52": "first"}, **QUICK)


def test_mteb_finds_what_was_exported_under_the_retrievers_identity(data, tmp_path):
    mteb = pytest.importorskip("mteb")
    folder = write(tmp_path / "repo", rows_of(data))
    stored = harness.evaluate("bm25", f"mteb:SciFact folder={folder}", results_dir=tmp_path / "results")
    (record,) = stored.records
    retriever = harness.load_retriever("bm25")
    model = SearchModel(retriever)
    assert model.mteb_model_meta.revision == record.retriever.identity == retriever_identity(retriever)
    results.write(results.from_records(stored.records).models, tmp_path / "cache", tmp_path / "results")
    kept = mteb.ResultCache(cache_path=tmp_path / "cache")
    task = task_of("SciFact", folder=str(folder))
    found = evaluated(model, task, cache=kept, overwrite_strategy="only-missing")
    assert scores(found)["main_score"] == pytest.approx(record.metrics["ndcg@10"], abs=1e-5)
    with pytest.raises(RunError, match="index"):
        retriever.search(data.queries, 1)  # mteb took the exported result: nothing was indexed


def test_mteb_reads_a_stored_evaluation_of_the_same_retriever_and_searches_nothing(data, tmp_path):
    from harness.interop.mteb.cache import ResultCache

    folder, searches = write(tmp_path / "repo", rows_of(data)), []

    class Counting(BM25):
        def search(self, queries, k):
            searches.append(len(queries))
            return super().search(queries, k)

    stored = harness.evaluate(Counting(k1=0.9), f"mteb:SciFact folder={folder}", results_dir=tmp_path / "results")
    (record,), n_searches = stored.records, len(searches)
    cache = ResultCache(tmp_path / "results", tmp_path / "cache")
    task = task_of("SciFact", folder=str(folder))
    found = evaluated(SearchModel(Counting(k1=0.9)), task, cache=cache, overwrite_strategy="only-missing")
    assert len(searches) == n_searches > 0
    assert scores(found)["main_score"] == pytest.approx(record.metrics["ndcg@10"], abs=1e-5)
    settings = {"k": record.k, "metrics": DEFAULT_METRICS, "timing": TimingPlan().model_dump(), "seed": record.seed}
    fingerprint = harness.load_dataset(f"mteb:SciFact folder={folder}").fingerprint
    revision = SearchModel(Counting(k1=0.9)).mteb_model_meta.revision
    assert evaluation_identity(revision, fingerprint, **settings) == record.id
    evaluated(SearchModel(Counting(k1=1.5)), task, cache=cache, overwrite_strategy="only-missing")
    assert len(searches) > n_searches, "another retriever is evaluated"


def test_a_model_of_mteb_has_the_task_of_its_dataset_however_that_was_loaded(data, tmp_path, monkeypatch):
    """mteb's BM25 takes its stemmer from the task's language."""
    import mteb
    from mteb.models.model_implementations import bm25

    folder, languages = write(tmp_path / "repo", rows_of(data), split="validation", subset="de"), []
    constructor = bm25.BM25Tokenizer.__init__

    def noting(self, language, *rest, **more):
        languages.append(language)
        constructor(self, language, *rest, **more)

    monkeypatch.setattr(bm25.BM25Tokenizer, "__init__", noting)
    name = f"mteb:XQuADRetrieval folder={folder} language=deu"
    results_dir, model = tmp_path / "results", "mteb model=mteb/baseline-bm25s"
    loaded = [harness.load_dataset(name), interop_load("XQuADRetrieval:de:validation", folder=str(folder))]
    by_name = harness.evaluate(model, name, results_dir=results_dir).records
    for dataset in loaded:
        for retriever in (model, mteb.get_model("mteb/baseline-bm25s")):
            harness.evaluate(retriever, dataset, **QUICK)
        assert harness.evaluate(model, dataset, results_dir=tmp_path / "other").records[0].id == by_name[0].id
    harness.evaluate(mteb.get_model("mteb/baseline-bm25s"), name, **QUICK)
    assert len(languages) >= 7
    assert set(languages) == {"deu"}


# ------------------------------------------------------------------------------------------------- results


def test_the_results_are_tidy_frames(results_of_two, data):
    frame = results_of_two.to_pandas()
    assert list(frame["retriever"]) == ["terms", "worse"]
    assert {"ndcg@10", "latency_p95_ms", "queries_per_s", "index_mb", "id"} <= set(frame.columns)
    queries = results_of_two.to_pandas("query")
    assert list(queries.columns) == ["retriever", "dataset", "query_id", "metric", "value"]
    means = queries[queries["metric"] == "ndcg@10"].groupby("retriever")["value"].mean()
    assert means["terms"] == pytest.approx(frame["ndcg@10"][0])
    hits = results_of_two.to_pandas("hit")
    first = hits[(hits["retriever"] == "terms") & (hits["query_id"] == "q1") & (hits["rank"] == 1)]
    assert (first["doc_id"].item(), first["grade"].item()) == ("d2", 1)
    assert results_of_two.to_polars("hit").shape == hits.shape
    with pytest.raises(ConfigError, match="level='row'; choices: evaluation, query, hit"):
        results_of_two.to_pandas("row")


def test_stored_results_give_the_same_frames(data, tmp_path):
    made = harness.evaluate("bm25", data, results_dir=tmp_path)
    stored = harness.open_results(tmp_path)
    pd.testing.assert_frame_equal(stored.to_pandas(), made.to_pandas())
    pd.testing.assert_frame_equal(stored.to_pandas("query"), made.to_pandas("query"))
    with pytest.raises(ConfigError, match="no records in"):
        harness.open_results(tmp_path / "nowhere")


def test_comparisons_and_recommendations(results_of_two):
    comparison = results_of_two.compare("terms", "worse")
    assert (comparison.a, comparison.b) == ("terms", "worse")
    assert comparison.difference("pets") is not None
    paired = results_of_two.paired("terms", "worse")
    assert list(paired["query_id"]) == ["q0", "q1", "q2"]
    assert comparison.difference("pets").delta == pytest.approx(paired["difference"].mean())
    assert results_of_two.recommend(max_latency_ms=1e6).best.label in results_of_two.labels
    with pytest.raises(ConfigError, match="no limit is called 'max_latency'; choices: 'max_latency_ms'"):
        results_of_two.recommend(max_latency=5)
    with pytest.raises(ConfigError, match="no row is called 'other'; choices: 'terms', 'worse'"):
        results_of_two.compare("terms", "other")
    assert harness.compare("bm25", "bm25 k1=0.0", _small(), timing=None).b == "bm25 [k1=0.0]"


def _small() -> Dataset:
    corpus = Corpus(["a", "b"], ["red apples", "green pears"])
    return Dataset("fruit", "test", corpus, Queries(["q"], ["apples"]), Qrels({"q": {"a": 1}}))


def test_the_worst_queries_show_what_was_missed(data):
    def never(queries, k):
        return {query: {"d3": 1.0} for query in queries.ids}

    worst = harness.evaluate({"never": never}, data, **QUICK).worst("never", 2)
    assert len(worst) == 2
    assert worst["score"].tolist() == [0.0, 0.0]
    assert worst["query"][0] == "cats"
    assert worst["first"][0] == TEXTS["d3"]
    best = worst["relevant"][0][0]
    assert best == {"doc_id": "d1", "grade": 2, "rank": None, "text": TEXTS["d1"]}


def test_plots(results_of_two):
    pytest.importorskip("matplotlib")
    figure = results_of_two.plot_pareto(x="latency_p95_ms")
    assert figure.axes[0].get_xlabel() == "latency_p95_ms"
    assert results_of_two.plot_differences("terms", "worse").axes[0].get_ylabel() == "ndcg@10: worse - terms"
    with pytest.raises(ConfigError, match="x='speed' is not a numeric column; choices: "):
        results_of_two.plot_pareto(x="speed")


def test_the_table_is_what_the_terminal_and_a_notebook_show(results_of_two):
    text = repr(results_of_two)
    assert text.splitlines()[0].startswith("ndcg@10")
    assert "Against terms" in text
    html = results_of_two._repr_html_()
    assert "<script" not in html
    assert "best of its column" in html
    assert 'scope="row">terms</th>' in html


def test_names_are_escaped_in_the_notebook(data):
    html = harness.evaluate({"<b>bold</b>": "bm25"}, data, **QUICK)._repr_html_()
    assert "<b>bold</b>" not in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html


@pytest.mark.parametrize(
    ("name", "begins"), [("csv", "metric,"), ("md", "| "), ("latex", "\\begin"), ("html", "<!doctype")]
)
def test_the_leaderboard_is_saved_in_every_format(results_of_two, tmp_path, monkeypatch, name, begins):
    monkeypatch.chdir(tmp_path)
    path = results_of_two.save(name)
    content = path.read_text(encoding="utf-8")
    assert "terms" in content
    assert begins in content[:200] or begins in content
    assert results_of_two.save(tmp_path / f"board{path.suffix}").read_text(encoding="utf-8") == content
    with pytest.raises(ConfigError, match="is not a known format"):
        results_of_two.save("table.docx")


# ------------------------------------------------------------------------------------------------- datasets, score


def test_datasets_by_name_folder_and_settings(folder, data, monkeypatch):
    assert len(harness.load_dataset("stdlib documents=50").corpus) == 50
    loaded = harness.load_dataset(folder)
    assert loaded.fingerprint == data.fingerprint
    assert harness.load_dataset(str(folder), name="mine").name == "mine"
    monkeypatch.chdir(folder.parent)
    folder.with_name("scifact").mkdir()
    assert load.dataset_overrides("scifact") == ["dataset=scifact"], "a config's name wins over a folder's"
    assert load.dataset_overrides("./scifact") == ["dataset=folder", "dataset.path='./scifact'"]
    results = harness.evaluate("bm25", [loaded, str(folder)], **QUICK)
    assert results.to_pandas()["ndcg@10"].nunique() == 1
    with pytest.raises(ConfigError, match="has no key 'splt'"):
        harness.load_dataset("scifact splt=dev")


def test_a_run_is_scored_alone(data):
    run = {"q0": {"d1": 2.0, "d0": 1.0}, "q1": {"d2": 1.0}}
    assert harness.score(run, data.qrels, ["ndcg@10", "recall@10"]) == pytest.approx(
        {"ndcg@10": 2 / 3, "recall@10": 2 / 3}
    )
    per_query = harness.score(run, {"q0": {"d1": 1}}, ["ndcg@10"], per_query=True)
    assert per_query == {"ndcg@10": {"q0": 1.0}}
    with pytest.raises(ConfigError, match="is a string; give a list"):
        harness.score(run, data, "ndcg@10")
    with pytest.raises(DataError, match="no query in common: the run has 'x'"):
        harness.score({"x": {"d1": 1.0}}, data)
    with pytest.raises(DataError, match="no query of the qrels has a relevant document"):
        harness.score(run, {"q0": {"d1": 0}})


def test_a_comparison_and_a_recommendation_are_printed_as_tables(tmp_path):
    data = harness.load_dataset("stdlib", documents=60, queries=20)
    results = harness.evaluate(["bm25", "bm25 k1=0.9"], data)
    comparison = repr(results.compare("bm25", "bm25 [k1=0.9]"))
    assert comparison.startswith("A: bm25, B: bm25 [k1=0.9], ndcg@10\n")
    assert "won/tied/lost" in comparison
    recommendation = repr(results.recommend(max_index_mb=100))
    assert recommendation.startswith("take bm25")
    assert "mean over stdlib" in recommendation
    by_config = results.compare("bm25", "bm25 k1=0.9")
    assert repr(by_config) == comparison
