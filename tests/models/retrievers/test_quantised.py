"""Smaller and faster dense indexes: their codes and scores as formulas say, and what they lose on a real collection."""

import itertools
import sys

import numpy as np
import pytest
import torch

from harness.config import build
from harness.errors import ConfigError
from harness.evaluation.timing import TimingPlan, measure
from harness.metrics import parse, score
from harness.retrievers.dense import Dense
from harness.search import dense
from harness.search.ann import Faiss
from harness.search.quantised import Binary, Int8
from harness.search.topk import recall
from harness.types import Corpus, Dataset, Qrels, Queries, Run

SIZES = [1, 7, 63, 64, 65, 100, 384]


def made(n: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    """Random vectors [n, dimensions], each dimension on a scale of its own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, dimensions), generator=generator) * torch.logspace(-2, 1, dimensions)


def some_ranks(n: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(n).astype(np.int32)


def canonical(scores: np.ndarray, ranks: np.ndarray, k: int) -> np.ndarray:
    """The k best documents [queries, k] of scores [queries, documents]: score descending, then rank ascending."""
    return np.stack([sorted(range(len(ranks)), key=lambda doc: (-row[doc], ranks[doc]))[:k] for row in scores])


def dequantised(index: Int8) -> np.ndarray:
    return index._codes.numpy().astype(np.float64) * index._scale.numpy().astype(np.float64)


def signs(vectors: torch.Tensor) -> np.ndarray:
    return (vectors.numpy() > 0).astype(int)


def equal_signs(documents: torch.Tensor, queries: torch.Tensor) -> np.ndarray:
    """Inner products of the signs as -1 and 1: dimensions less twice the Hamming distance."""
    apart = (signs(queries)[:, None, :] != signs(documents)[None, :, :]).sum(axis=2)
    return documents.shape[1] - 2 * apart


# -------------------------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("dimensions", SIZES)
def test_int8_codes_are_the_vectors_over_a_scale_by_dimension(dimensions):
    vectors = made(200, dimensions)
    index = Int8()
    index.build(vectors)
    scale = np.abs(vectors.numpy()).max(axis=0) / np.float32(127)
    np.testing.assert_allclose(index._scale.numpy(), scale, rtol=1e-6)
    assert index._codes.dtype == torch.int8
    np.testing.assert_array_equal(index._codes.numpy(), np.round(vectors.numpy() / index._scale.numpy()))
    assert np.abs(index._codes.numpy()).max(axis=0).tolist() == [127] * dimensions
    assert (np.abs(dequantised(index) - vectors.numpy()) <= scale / 2 * 1.001).all()


def test_int8_scores_are_inner_products_with_the_dequantised_vectors():
    documents, queries, ranks = made(300, 384), made(20, 384, seed=5), some_ranks(300)
    index = Int8()
    index.build(documents / documents.norm(dim=1, keepdim=True))
    queries /= queries.norm(dim=1, keepdim=True)
    expected = queries.numpy().astype(np.float64) @ dequantised(index).T
    docs, scores = index.search(queries, 300, ranks, 2)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, docs, axis=1), atol=1e-5)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1), atol=1e-5)
    asked = np.array([[5, -1, 299]] * 20, np.int32)
    given = index.score(queries, asked)
    np.testing.assert_allclose(given[:, [0, 2]], expected[:, [5, 299]], atol=1e-5)
    assert np.isneginf(given[:, 1]).all()


def test_a_dimension_that_is_always_zero_quantises_to_zero():
    vectors = made(10, 4)
    vectors[:, 2] = 0
    index = Int8()
    index.build(vectors)
    assert (index._codes[:, 2] == 0).all()
    assert np.isfinite(index.search(made(2, 4), 10, some_ranks(10), 1)[1]).all()


def test_documents_over_many_blocks_are_quantised_like_one():
    few, many = Int8(), Int8()
    vectors = made(70_000, 2)
    many.build(vectors)
    few.build(torch.cat([vectors[-5:], vectors.abs().amax(dim=0, keepdim=True)]))  # of the same scale
    assert torch.equal(many._codes[-5:], few._codes[:5])


# ------------------------------------------------------------------------------------------------------------ binary


@pytest.mark.parametrize("dimensions", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_binary_without_rescoring_ranks_by_the_signs_that_are_equal(dimensions, threads):
    documents, queries, ranks = made(150, dimensions), made(9, dimensions, seed=3), some_ranks(150)
    documents[7] = 0  # a zero is no positive sign
    index = Binary(rescore=None)
    index.build(documents)
    expected = equal_signs(documents, queries)
    docs, scores = index.search(queries, 40, ranks, threads)
    np.testing.assert_array_equal(docs, canonical(expected, ranks, 40))
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, docs, axis=1))


@pytest.mark.parametrize("rescore", ["int8", "float32"])
@pytest.mark.parametrize("oversample", [1, 3])
def test_rescoring_orders_the_nearest_k_times_oversample_by_the_finer_product(rescore, oversample):
    documents, queries, ranks = made(150, 70), made(9, 70, seed=3), some_ranks(150)
    index = Binary(rescore=rescore, oversample=oversample)
    index.build(documents)
    fine = Int8()
    fine.build(documents)
    held = dequantised(fine) if rescore == "int8" else documents.numpy()
    products = queries.numpy() @ held.T
    likely = canonical(equal_signs(documents, queries), ranks, 10 * oversample)
    docs, scores = index.search(queries, 10, ranks, 2)
    for row, candidates in enumerate(likely):
        best = sorted(candidates, key=lambda doc: -products[row, doc])[:10]
        assert docs[row].tolist() == best
        np.testing.assert_allclose(scores[row], products[row, best], rtol=1e-4)


def test_rescoring_all_documents_in_float32_is_the_exact_search():
    documents, queries, ranks = made(60, 33), made(5, 33, seed=3), some_ranks(60)
    index = Binary(rescore="float32", oversample=60)
    index.build(documents)
    docs, scores = index.search(queries, 12, ranks, 2)
    exact_docs, exact_scores = dense.search(documents, queries, 12, ranks, 2)
    np.testing.assert_array_equal(docs, exact_docs)
    np.testing.assert_allclose(scores, exact_scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rescore": "int4"}, "index.rescore='int4'; choices: null, int8, float32"),
        ({"oversample": 0}, "index.oversample=0 must be at least 1"),
    ],
)
def test_a_setting_of_binary_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError) as error:
        Binary(**settings)
    assert str(error.value) == said


# --------------------------------------------------------------------------------------------------- all kinds alike

KINDS = {
    "int8": Int8,
    "binary": lambda: Binary(rescore=None),
    "binary int8": Binary,
    "binary float32": lambda: Binary(rescore="float32"),
    "hnsw": lambda: Faiss("hnsw"),
    "ivf": lambda: Faiss("ivf", nlist=10, nprobe=10),  # every list, so that nothing is missed
}
OURS = [name for name in KINDS if name not in ("hnsw", "ivf")]


def built(name: str, vectors: torch.Tensor):
    if name not in OURS:
        pytest.importorskip("faiss")
    index = KINDS[name]()
    index.build(vectors)
    return index


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_more_places_than_documents_give_every_document_once(name, n):
    docs, scores = built(name, made(n, 40)).search(made(4, 40, seed=2), 25, some_ranks(n), 2)
    assert docs.dtype == np.int32
    assert scores.dtype == np.float32
    for row in range(4):
        hit = docs[row] >= 0
        assert sorted(docs[row, hit].tolist()) == list(range(n))
        assert np.isfinite(scores[row, hit]).all()
        assert np.isneginf(scores[row, ~hit]).all()
    Run(["a", "b", "c", "d"], [f"d{doc}" for doc in range(n)], docs, scores)


@pytest.mark.parametrize("name", KINDS)
def test_no_documents_no_queries_and_no_places_give_no_hits(name):
    empty = built(name, made(0, 40))
    assert (empty.search(made(3, 40), 5, some_ranks(0), 2)[0] == -1).all()
    index = built(name, made(20, 40))
    assert len(index.search(made(0, 40), 5, some_ranks(20), 2)[0]) == 0
    assert index.search(made(3, 40), 0, some_ranks(20), 2)[0].size == 0


@pytest.mark.parametrize("name", OURS)
def test_documents_of_equal_score_are_in_the_order_of_their_ranks_and_the_first_are_kept(name):
    vectors, ranks = made(6, 40), some_ranks(60)
    index = built(name, vectors.repeat(10, 1))
    docs, scores = index.search(vectors[:1], 15, ranks, 2)
    best = docs[0][scores[0] == scores[0, 0]]
    assert best.tolist() == sorted((doc for doc in range(60) if doc % 6 == 0), key=lambda doc: ranks[doc])
    for one, other in itertools.pairwise(zip(-scores[0], ranks[docs[0]], strict=True)):
        assert one < other


@pytest.mark.parametrize("name", KINDS)
def test_building_again_forgets_what_was_there(name):
    index = built(name, made(50, 40))
    index.build(made(3, 40, seed=9))
    docs, _ = index.search(made(2, 40), 3, some_ranks(3), 1)
    assert sorted(docs[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("name", KINDS)
def test_the_same_search_gives_the_same_hits_on_any_number_of_threads(name):
    vectors = made(400, 48)
    index, ranks, queries = built(name, vectors), some_ranks(400), made(30, 48, seed=2)
    first = index.search(queries, 10, ranks, 1)
    for threads in (1, 2, 4):
        docs, scores = index.search(queries, 10, ranks, threads)
        np.testing.assert_array_equal(docs, first[0])
        np.testing.assert_array_equal(scores, first[1])
    alone = np.concatenate([index.search(queries[row : row + 1], 10, ranks, 2)[0] for row in range(30)])
    np.testing.assert_array_equal(alone, first[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("int8", 1000 * 384 + 384 * 4),  # codes, and a scale for each dimension
        ("binary", 1000 * 384 // 8),
        ("binary int8", 1000 * 384 // 8 + 1000 * 384 + 384 * 4),
        ("binary float32", 1000 * 384 // 8 + 1000 * 384 * 4),
    ],
)
def test_an_index_says_the_bytes_it_holds(name, expected):
    assert built(name, made(1000, 384)).nbytes == expected


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_faiss_index_says_the_bytes_that_faiss_would_write(kind):
    faiss = pytest.importorskip("faiss")
    index = built(kind, made(1000, 384))
    assert index.nbytes == pytest.approx(faiss.serialize_index(index._index).nbytes, rel=0.002)


# ------------------------------------------------------------------------------------------------------ inside Dense


class Fixed:
    """An encoder whose texts are the numbers of rows of a matrix."""

    def __init__(self, documents: torch.Tensor, queries: torch.Tensor):
        self._rows = {"document": documents, "query": queries}

    def encode(self, texts, side):
        return self._rows[side][torch.tensor([int(text) for text in texts], dtype=torch.long)]


def numbered(kind: type, letter: str, n: int):
    return kind([f"{letter}{row}" for row in range(n)], [str(row) for row in range(n)])


def measured(index, checked: int = 50):
    """What a measurement of 60 queries over 500 documents gives, and how far the index is from exact for each."""
    documents, queries = made(500, 32), made(60, 32, seed=2)
    retriever = Dense(Fixed(documents, queries), index, checked)
    corpus = numbered(Corpus, "d", 500)
    qrels = Qrels({f"q{row}": {"d1": 1} for row in range(60)})
    dataset = Dataset("made", "test", corpus, numbered(Queries, "q", 60), qrels)
    found = measure(retriever, dataset, k=10, metrics=["ndcg@10"], plan=TimingPlan(repeats=2, latency_queries=1))
    exact = dense.search(documents, queries, 10, corpus.ranks, 1)[0]
    return found, [len(set(own) & set(best)) / 10 for own, best in zip(found.run.docs, exact, strict=True)]


@pytest.mark.parametrize("checked", [1, 50, 1000])
def test_recall_against_the_exact_search_is_in_the_record_for_the_queries_that_are_checked(checked):
    found, shares = measured(Binary(rescore=None), checked)
    assert 0 < np.mean(shares) < 0.9
    assert found.description.recall_of_exact[""].recall == pytest.approx(np.mean(shares[:checked]))
    assert found.timing.index_bytes == 500 * 8  # the float32 vectors that check are no index


def test_no_recall_is_said_where_nothing_is_checked_or_nothing_can_be_missed():
    for index, checked in ((Binary(), 0), (None, 50)):
        assert not measured(index, checked)[0].description.recall_of_exact


def test_recall_is_the_mean_share_of_what_there_was_to_find():
    exact = np.array([[1, 2, 3], [4, -1, -1], [-1, -1, -1], [7, 8, 9]])
    found = np.array([[3, 9, 1], [4, -1, -1], [5, -1, -1], [-1, -1, -1]])
    assert recall(found, exact) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert recall(found[:0], exact[:0]) == 1.0


# ----------------------------------------------------------------------------------------------- on a real collection


@pytest.fixture(scope="module")
def nfcorpus(real_dataset, minilm_index):
    """NFCorpus, MiniLM's vectors of its documents, those of its queries, and the exact search's 100 best."""
    dataset, index = real_dataset("nfcorpus"), minilm_index("nfcorpus")
    queries = index._encoder.encode(dataset.queries.texts, "query")
    return dataset, index._vectors, queries, dense.search(index._vectors, queries, 100, dataset.corpus.ranks, 2)


def ndcg(dataset: Dataset, hits) -> float:
    run = Run(dataset.queries.ids, dataset.corpus.ids, *hits, dataset.corpus.ranks)
    return float(score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean())


def configured(name: str, **changed):
    """The index of a config."""
    return build.construct({**build.composed([f"retriever={name}"])["retriever"]["index"], **changed}, "index")


@pytest.mark.parametrize(
    ("name", "changed"),
    [("minilm_int8", {}), ("minilm_binary", {}), ("minilm_binary", {"rescore": "float32"})],
    ids=["int8", "binary, rescored with int8", "binary, rescored with float32"],
)
def test_minilm_quantised_loses_no_more_than_a_hundredth_of_ndcg_on_nfcorpus(nfcorpus, name, changed):
    dataset, vectors, queries, exact = nfcorpus
    index = configured(name, **changed)
    index.build(vectors)
    hits = index.search(queries, 100, dataset.corpus.ranks, 2)
    assert ndcg(dataset, exact) > 0.3
    assert ndcg(dataset, hits) == pytest.approx(ndcg(dataset, exact), abs=0.01)
    assert recall(hits[0][:, :10], exact[0][:, :10]) > 0.9


def test_the_signs_alone_lose_more_than_those_that_are_rescored(nfcorpus):
    dataset, vectors, queries, exact = nfcorpus
    index = configured("minilm_binary", rescore=None)
    index.build(vectors)
    assert ndcg(dataset, index.search(queries, 100, dataset.corpus.ranks, 2)) < ndcg(dataset, exact) - 0.01


@pytest.mark.parametrize("name", ["minilm_hnsw", "minilm_ivf"])
def test_faiss_finds_nine_tenths_of_what_the_exact_search_does_on_nfcorpus_and_the_record_says_so(nfcorpus, name):
    pytest.importorskip("faiss")
    dataset, vectors, queries, exact = nfcorpus
    retriever = Dense(Fixed(vectors, queries), configured(name))
    by_number = Dataset(
        "nfcorpus",
        "test",
        Corpus(dataset.corpus.ids, map(str, range(len(vectors)))),
        Queries(dataset.queries.ids, map(str, range(len(queries)))),
        dataset.qrels,
    )
    plan = TimingPlan(repeats=2, latency_queries=1)
    found = measure(retriever, by_number, k=100, metrics=["ndcg@10"], plan=plan)
    share = found.description.recall_of_exact[""].recall
    assert share > 0.9
    assert share == pytest.approx(recall(found.run.docs[:50], exact[0][:50]))
    assert found.means["ndcg@10"] == pytest.approx(ndcg(dataset, exact), abs=0.02)
    again = retriever.search(by_number.queries, 100)
    np.testing.assert_array_equal(again.docs, found.run.docs)
    np.testing.assert_array_equal(again.scores, found.run.scores)


# -------------------------------------------------------------------------------------------------------------- faiss


@pytest.mark.parametrize("name", ["hnsw", "ivf"])
def test_what_faiss_scores_are_inner_products(name):
    documents, queries = made(300, 24), made(5, 24, seed=2)
    docs, scores = built(name, documents).search(queries, 10, some_ranks(300), 2)
    np.testing.assert_allclose(scores, np.take_along_axis((queries @ documents.T).numpy(), docs, axis=1), rtol=1e-4)


def test_all_lists_probed_are_the_exact_search():
    pytest.importorskip("faiss")
    documents, queries, ranks = made(300, 24), made(5, 24, seed=2), some_ranks(300)
    index = Faiss("ivf", nlist=20, nprobe=20)
    index.build(documents)
    np.testing.assert_array_equal(
        index.search(queries, 10, ranks, 2)[0], dense.search(documents, queries, 10, ranks, 2)[0]
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "flat"}, "index.kind='flat'; choices: hnsw, ivf"),
        ({"M": 0}, "index.M=0 must be at least 1"),
        ({"ef_search": 0}, "index.ef_search=0 must be at least 1"),
        ({"ef_construction": -1}, "index.ef_construction=-1 must be at least 1"),
        ({"kind": "ivf", "nprobe": 0}, "index.nprobe=0 must be at least 1"),
        ({"kind": "ivf", "nlist": 0}, "index.nlist=0 must be at least 1"),
    ],
)
def test_a_setting_of_faiss_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError) as error:
        Faiss(**settings)
    assert str(error.value) == said


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError) as error:
        Faiss().build(made(3, 4))
    assert str(error.value) == "this index needs a package: pip install 'retrieval-harness[faiss]'"
