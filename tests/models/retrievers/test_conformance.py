"""Tests of the Retriever protocol for every config in conf/retriever whose weights are available offline.

Retrievers over hosted APIs call a server on the loopback interface that returns MiniLM's vectors.
"""

import inspect
from functools import cache

import numpy as np
import pytest
from support.api_server import KEY, Provider, embed_with, serving

from harness.config import build
from harness.config.conf import options_of
from harness.errors import RunError, WeightsError
from harness.retrievers.bm25 import BM25
from harness.retrievers.run_file import RunFile
from harness.types import Corpus, Queries, Retriever, Run

pytestmark = pytest.mark.slow

TEXTS = {
    "d1": "The quick brown fox jumps over the lazy dog.",
    "d2": "A fast auburn fox leaps above a sleepy hound.",
    "d3": "Interest rates rose again after the central bank's meeting.",
    "d4": "The bank of the river was flooded in spring.",
    "d5": "",
    "d6": "Vaccination lowers the risk of severe influenza in older adults.",
    "d7": "Ein schneller brauner Fuchs springt über den faulen Hund.",
    "ä8": "日本語の文書です。 fox",
}
QUERIES = {
    "q1": "fox jumping over a dog",
    "q2": "central bank interest rates",
    "q3": "",
    "q4": "zzyzx qwertzuiop",
    "q5": "influenza vaccination of older people",
}
LEFT_OUT = {"run_file": "does not rank"}
"""Configs that these tests leave out, and the reason, such as a service that cannot run here."""
NAMES = [name for name, _ in options_of("retriever") if name not in LEFT_OUT]

_built: dict[str, Retriever] = {}
_indexed: set[str] = set()
"""Names of the retrievers whose index holds TEXTS."""


@pytest.fixture(autouse=True, scope="module")
def provider(minilm):
    """Serve MiniLM's vectors as a hosted API, and set the API keys."""
    with pytest.MonkeyPatch.context() as patch, serving(embed_with(minilm)) as server:
        for name in ("OPENAI_API_KEY", "CO_API_KEY"):
            patch.setenv(name, KEY)
        _providers.append(server)
        yield
        _providers.clear()


_providers: list[Provider] = []


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    """Return the name of a retriever. Its weights are released before the next one is loaded."""
    yield request.param
    _built.clear()
    _indexed.clear()
    search_top_3.cache_clear()


def corpus() -> Corpus:
    return Corpus(TEXTS.keys(), TEXTS.values())


def queries() -> Queries:
    return Queries(QUERIES.keys(), QUERIES.values())


def construct(name: str) -> Retriever:
    """Construct the retriever of a config, with an mteb model or the loopback server's address filled in."""
    config = build.composed([f"retriever={name}"])["retriever"]
    encoder = config.get("encoder", {})
    if name == "mteb":
        config["model"] = "mteb/baseline-bm25s"
    if "base_url" in encoder:
        version = "" if encoder["_target_"].endswith("CohereEncoder") else "/v1"
        encoder.update(base_url=_providers[0].address + version, model=encoder["model"] or "minilm")
    return build.construct(config, "retriever")


def built(name: str) -> Retriever:
    """Return the retriever with TEXTS indexed, once; skip the test where its weights are not available."""
    if name not in _built:
        _built[name] = construct(name)
    if name not in _indexed:
        try:
            _built[name].index(corpus())
        except WeightsError as error:
            pytest.skip(str(error).splitlines()[0])
        _indexed.add(name)
    return _built[name]


def reindexed(name: str, new_corpus: Corpus) -> Retriever:
    """Index TEXTS and then another corpus, and return the retriever."""
    retriever = built(name)
    _indexed.discard(name)
    retriever.index(new_corpus)
    return retriever


@cache
def search_top_3(name: str) -> Run:
    return built(name).search(queries(), 3)


def not_indexed_message(kind: object) -> str:
    return f"{type(kind).__name__} was not indexed before search: call index\\(corpus\\) first"


def test_search_before_index_is_refused_with_the_call_to_make(name):
    retriever = construct(name)
    with pytest.raises(RunError, match=not_indexed_message(retriever)):
        retriever.search(queries(), 3)


def test_search_of_a_run_file_before_index_is_refused(tmp_path):
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 2.0 t\n")
    retriever = RunFile(str(tmp_path / "run.trec"))
    with pytest.raises(RunError, match=not_indexed_message(retriever)):
        retriever.search(queries(), 3)
    retriever.index(corpus())
    assert retriever.search(queries(), 3)["q1"] == {"d1": 2.0}


@pytest.mark.parametrize("name", ["bm25", "bm25_rank_bm25"])
def test_score_before_index_is_refused(name):
    retriever = construct(name)
    with pytest.raises(RunError, match=not_indexed_message(retriever)):
        retriever.score(queries(), np.zeros((len(QUERIES), 1), np.int32))


def test_a_retriever_can_be_inspected_before_index():
    """`inspect.getmembers` and `vars` do not raise for attributes that `index` sets."""
    assert {"_doc_ids", "_postings"} <= {name for name, _ in inspect.getmembers(BM25)}
    assert "_doc_ids" not in vars(construct("bm25"))


def test_the_same_search_gives_the_same_run(name):
    retriever = built(name)
    first, second = retriever.search(queries(), 5), retriever.search(queries(), 5)
    np.testing.assert_array_equal(first.docs, second.docs)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_a_batch_gives_the_same_hits_as_single_queries(name):
    retriever = built(name)
    batch = retriever.search(queries(), 4)
    for row in range(len(QUERIES)):
        docs, scores = batch.hits(row)
        alone_docs, alone_scores = retriever.search(queries()[row : row + 1], 4).hits(0)
        assert docs == alone_docs
        np.testing.assert_allclose(scores, alone_scores, atol=1e-5)


def test_a_run_has_the_queries_in_order_and_at_most_k_documents_each(name):
    run = search_top_3(name)
    assert list(run.query_ids) == list(QUERIES)
    for row in range(len(run)):
        ids, scores = run.hits(row)
        assert len(ids) <= 3
        assert set(ids) <= set(TEXTS)
        assert np.isfinite(scores).all()


def test_k_above_the_corpus_size_gives_at_most_all_documents(name):
    retriever = built(name)
    run = retriever.search(queries(), 1000)
    ids, _ = run.hits(0)
    assert 1 <= len(ids) <= len(TEXTS)
    assert ids[:3] == search_top_3(name).hits(0)[0]


def test_the_relevant_document_is_ranked_first(name):
    run = search_top_3(name)
    assert run.hits(1)[0][0] == "d3"
    assert run.hits(4)[0][0] == "d6"


def test_index_replaces_the_previous_corpus(name):
    retriever = reindexed(name, Corpus(["other"], ["The central bank left interest rates unchanged."]))
    run = retriever.search(queries(), 3)
    assert run.hits(1)[0] == ["other"]
    assert {doc for row in range(len(run)) for doc in run.hits(row)[0]} <= {"other"}


def test_nbytes_grows_with_the_corpus(name):
    small = built(name).nbytes()
    ids = [f"{key}{copy}" for copy in range(6) for key in TEXTS]
    texts = [f"{text} {key}" for key, text in zip(ids, list(TEXTS.values()) * 6, strict=True)]
    assert reindexed(name, Corpus(ids, texts)).nbytes() > small > 0


def test_a_corpus_of_empty_texts_can_be_indexed(name):
    if name == "mteb":
        pytest.skip("mteb's own BM25 cannot index a corpus without a word")
    retriever = reindexed(name, Corpus(["e1", "e2"], ["", " "]))
    assert len(retriever.search(queries(), 2)) == len(QUERIES)
