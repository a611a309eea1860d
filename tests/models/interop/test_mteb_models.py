"""Our retrievers in mteb's evaluator and its models in ours give one another's numbers."""

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from support.models import write_dense, write_masked
from support.mteb_tasks import evaluated, scores
from support.reranking import with_strangers

from harness.config import build
from harness.errors import ConfigError, WeightsError
from harness.evaluation.timing import TimingPlan, measure
from harness.interop.mteb import MtebRetriever, SearchModel, load, names, task_of
from harness.metrics import parse, score
from harness.types import Corpus, Dataset, Qrels, Queries

PLAN = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)
METRICS = ["ndcg@10", "map@1000", "recall@100", "mrr@10", "precision@5", "hit@1"]
FAMILIES = ["bm25", "minilm", "splade_tiny", "colbert_minilm", "hybrid", "rerank_colbert_minilm"]


def built(name, *overrides):
    return build.construct(build.composed([f"retriever={name}", "k=1000", *overrides])["retriever"], "retriever")


@pytest.fixture(scope="module")
def small(real_dataset):
    """Beginnings of Cranfield's first documents, enough for the embedding cache, and the queries that they answer."""
    whole, n = real_dataset("cranfield"), 130
    ids, texts = list(whole.corpus.ids)[:n], [text[:250] for text in whole.corpus.texts[:n]]
    judged = {
        query: {doc: grade for doc, grade in docs.items() if doc in set(ids)} for query, docs in whole.qrels.items()
    }
    answered = [query for query, docs in judged.items() if any(grade > 0 for grade in docs.values())][:15]
    qrels = Qrels({query: judged[query] for query in answered})
    asked = dict(zip(whole.queries.ids, whole.queries.texts, strict=True))
    return Dataset("small", "test", Corpus(ids, texts), Queries(list(qrels), [asked[query] for query in qrels]), qrels)


@pytest.fixture(scope="module")
def families():
    """Retrievers by their config's name, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = built(name)
        return made[name]

    return of


def own_means(retriever, dataset, k=1000):
    try:
        return measure(retriever, dataset, k=k, metrics=METRICS, plan=PLAN).means
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


def assert_same(own, theirs):
    """mteb rounds to five digits."""
    assert 0.1 < own["ndcg@10"] < 1
    for name in METRICS:
        assert theirs[names.to_score(name)] == pytest.approx(own[name], abs=1e-4), name


@pytest.mark.parametrize("name", FAMILIES)
def test_the_adapter_gives_the_numbers_of_our_records(name, families, small):
    own = own_means(families(name), small)
    assert_same(own, scores(evaluated(SearchModel(families(name)), task_of("SciFact", dataset=small))))


@pytest.mark.parametrize("name", ["SciFact", "NFCorpus"])
def test_bm25_through_the_adapter_is_our_record_with_queries_that_find_nothing(name, data):
    folder = str(data / name.lower())
    retriever = built("bm25")
    own = own_means(retriever, load(name, folder=folder))
    theirs = scores(evaluated(SearchModel(retriever), task_of(name, folder)))
    assert_same(own, theirs)
    assert theirs["main_score"] == theirs["ndcg_at_10"]


def test_minilms_main_score_through_the_adapter_is_our_record_and_the_published_one(minilm_index, data, real_dataset):
    """On the smaller collection, whose vectors the other tests have made; SciFact's is measured by `make bench`."""
    dataset = real_dataset("nfcorpus")
    retriever = minilm_index("nfcorpus")
    run = retriever.search(dataset.queries, 1000)
    own = float(score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean())
    result = evaluated(SearchModel(retriever), task_of("NFCorpus", str(data / "nfcorpus")))
    assert result.get_score() == pytest.approx(own, abs=1e-4)
    assert result.get_score() == pytest.approx(0.31594, abs=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reranking_task_is_scored_by_every_family(name, families, small):
    """Nothing but the candidates is ranked, whatever a search of the whole corpus would find."""
    retriever, dataset = families(name), with_strangers(small)
    own = own_means(retriever, dataset)
    run = measure(retriever, dataset, k=1000, metrics=["map@1000"], plan=PLAN).run
    for row, query in enumerate(run.query_ids):
        assert set(run.hits(row)[0]) == set(dataset.candidates[query])
    result = scores(evaluated(SearchModel(retriever), task_of("AskUbuntuDupQuestions", dataset=dataset)))
    assert_same(own, result)
    assert result["main_score"] == pytest.approx(own["map@1000"], abs=1e-4)


@pytest.mark.parametrize("name", ["bm25", "minilm", "splade_tiny", "colbert_minilm"])
def test_a_candidate_has_the_score_that_a_search_gives_it(name, families, small):
    retriever, dataset = families(name), with_strangers(small)
    own_means(retriever, small)
    found = retriever.score(dataset.queries, dataset.candidate_matrix)
    run = retriever.search(dataset.queries, len(dataset.corpus))
    for row in range(len(run)):
        places = dict(zip(run.docs[row].tolist(), run.scores[row].tolist(), strict=True))
        for doc, value in zip(dataset.candidate_matrix[row].tolist(), found[row].tolist(), strict=True):
            assert value == (pytest.approx(places.get(doc, 0.0), abs=1e-5) if doc >= 0 else -np.inf)


def test_a_reranker_scores_what_its_first_stage_would_never_find(families, small):
    reranker = built("rerank_colbert_minilm", "retriever.depth=1")
    dataset = with_strangers(small)
    own = own_means(reranker, dataset)
    assert own == pytest.approx(own_means(families("colbert_minilm"), dataset), abs=1e-6)
    assert measure(reranker, small, k=1, metrics=["recall@1"], plan=PLAN).run.depth == 1


def test_our_minilm_reranks_as_mtebs_does(families, small, models):
    dataset = with_strangers(small)
    own = own_means(families("minilm"), dataset)
    peer = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    theirs = scores(evaluated(peer, task_of("AskUbuntuDupQuestions", dataset=dataset)))
    assert theirs["main_score"] == pytest.approx(own["map@1000"], abs=5e-4)


def test_a_retriever_that_cannot_score_says_so_before_it_indexes(small):
    class Bare:
        def index(self, corpus):
            raise AssertionError("it indexed")

        def search(self, queries, k): ...

        def nbytes(self):
            return 0

    with pytest.raises(
        ConfigError, match=r"Bare cannot score given documents: it has no method score\(queries, docs\)"
    ):
        measure(Bare(), with_strangers(small), k=10, metrics=["ndcg@10"], plan=PLAN)


KINDS = {
    "dense": lambda folder: SentenceTransformer(str(write_dense(folder)), device="cpu"),
    "sparse": lambda folder: SparseEncoder(str(write_masked(folder)), device="cpu"),
    "late": lambda folder: MultiVectorEncoder(
        modules=[
            Transformer(str(write_dense(folder).parent / "bert")),
            MultiVectorMask(),
            Normalize(module_input_name="token_embeddings"),
        ],
        device="cpu",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("candidates", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_mtebs_models_in_our_harness_give_mtebs_numbers(kind, candidates, small, tmp_path):
    model = KINDS[kind](tmp_path)
    dataset = with_strangers(small) if candidates else small
    own = own_means(MtebRetriever(model), dataset)
    task = "AskUbuntuDupQuestions" if candidates else "SciFact"
    theirs = scores(evaluated(model, task_of(task, dataset=dataset)))
    for name in METRICS:
        assert theirs[names.to_score(name)] == pytest.approx(own[name], abs=1e-4), name


def test_a_cross_encoder_of_mtebs_reranks_and_does_not_search(small, tmp_path):
    write_dense(tmp_path)
    model = CrossEncoder(str(tmp_path / "bert"), num_labels=1, device="cpu")
    dataset = with_strangers(small)
    own = own_means(MtebRetriever(model), dataset)
    theirs = scores(evaluated(model, task_of("AskUbuntuDupQuestions", dataset=dataset)))
    assert theirs["main_score"] == pytest.approx(own["map@1000"], abs=1e-4)
    with pytest.raises(ConfigError, match="is a cross-encoder, which only scores candidates"):
        own_means(MtebRetriever(model), small)


def test_a_search_model_of_mtebs_is_searched_as_mteb_does(small):
    """mteb's own BM25, by its name in the registry."""
    own = own_means(MtebRetriever("mteb/baseline-bm25s"), small)
    import mteb

    theirs = scores(evaluated(mteb.get_model("mteb/baseline-bm25s"), task_of("SciFact", dataset=small)))
    assert_same(own, theirs)


def test_there_and_back_again_changes_nothing(families, small):
    for dataset in (small, with_strangers(small)):
        own = own_means(families("bm25"), dataset)
        assert own_means(MtebRetriever(SearchModel(families("bm25"))), dataset) == pytest.approx(own, abs=1e-9)


def test_what_is_no_model_is_refused():
    with pytest.raises(ConfigError, match=r"retriever\.model='org/none': mteb cannot load it"):
        MtebRetriever("org/none").index(Corpus(["d"], ["text"]))
    with pytest.raises(ConfigError, match="list is not a model of mteb or sentence-transformers"):
        MtebRetriever([1]).index(Corpus(["d"], ["text"]))


def test_a_model_of_mtebs_is_told_the_language_of_the_subset(monkeypatch):
    """mteb's BM25 takes its stemmer and stop words from there."""
    from mteb.models.model_implementations import bm25

    asked = []
    own = bm25.BM25Tokenizer.__init__

    def noting(self, language, *rest, **more):
        asked.append(language)
        own(self, language, *rest, **more)

    monkeypatch.setattr(bm25.BM25Tokenizer, "__init__", noting)
    corpus = Corpus(["d1", "d2"], ["Der schnelle Fuchs springt.", "Die Zinsen steigen."])
    for settings in ({"task": "XQuADRetrieval:de:validation"}, {"task": "XQuADRetrieval", "language": "deu"}, {}):
        MtebRetriever("mteb/baseline-bm25s", **settings).index(corpus)
    assert asked == ["deu", "deu", "eng"]
