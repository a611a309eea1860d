"""Tests of the int8, binary and faiss indexes: codes, scores, rescoring, recall, and their loss on NFCorpus."""

import itertools
import sys

import numpy as np
import pytest
import torch
from support.brute_force import top_k

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


def random_vectors(n: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    """Return random vectors, shape [n, dimensions], each dimension on a different scale."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, dimensions), generator=generator) * torch.logspace(-2, 1, dimensions)


def random_ranks(n: int) -> np.ndarray:
    return np.random.default_rng(1).permutation(n).astype(np.int32)


def dequantised(index: Int8) -> np.ndarray:
    return index._codes.numpy().astype(np.float64) * index._scale.numpy().astype(np.float64)


def signs(vectors: torch.Tensor) -> np.ndarray:
    return (vectors.numpy() > 0).astype(int)


def equal_signs(documents: torch.Tensor, queries: torch.Tensor) -> np.ndarray:
    """Return inner products of the signs as -1 and 1: dimensions minus twice the Hamming distance."""
    distances = (signs(queries)[:, None, :] != signs(documents)[None, :, :]).sum(axis=2)
    return documents.shape[1] - 2 * distances


# -------------------------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("dimensions", SIZES)
def test_int8_codes_are_the_vectors_divided_by_a_scale_per_dimension(dimensions):
    vectors = random_vectors(200, dimensions)
    index = Int8()
    index.build(vectors)
    scale = np.abs(vectors.numpy()).max(axis=0) / np.float32(127)
    np.testing.assert_allclose(index._scale.numpy(), scale, rtol=1e-6)
    assert index._codes.dtype == torch.int8
    np.testing.assert_array_equal(index._codes.numpy(), np.round(vectors.numpy() / index._scale.numpy()))
    assert np.abs(index._codes.numpy()).max(axis=0).tolist() == [127] * dimensions
    assert (np.abs(dequantised(index) - vectors.numpy()) <= scale / 2 * 1.001).all()


def test_int8_scores_are_inner_products_with_dequantised_vectors():
    documents, queries, ranks = random_vectors(300, 384), random_vectors(20, 384, seed=5), random_ranks(300)
    index = Int8()
    index.build(documents / documents.norm(dim=1, keepdim=True))
    queries /= queries.norm(dim=1, keepdim=True)
    expected = queries.numpy().astype(np.float64) @ dequantised(index).T
    docs, scores = index.search(queries, 300, ranks, 2)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, docs, axis=1), atol=1e-5)
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1), atol=1e-5)
    candidates = np.array([[5, -1, 299]] * 20, np.int32)
    candidate_scores = index.score(queries, candidates)
    np.testing.assert_allclose(candidate_scores[:, [0, 2]], expected[:, [5, 299]], atol=1e-5)
    assert np.isneginf(candidate_scores[:, 1]).all()


def test_a_dimension_that_is_always_zero_quantises_to_zero():
    vectors = random_vectors(10, 4)
    vectors[:, 2] = 0
    index = Int8()
    index.build(vectors)
    assert (index._codes[:, 2] == 0).all()
    assert np.isfinite(index.search(random_vectors(2, 4), 10, random_ranks(10), 1)[1]).all()


def test_quantising_in_several_blocks_gives_the_same_codes():
    single_block, several_blocks = Int8(), Int8()
    vectors = random_vectors(70_000, 2)
    several_blocks.build(vectors)
    single_block.build(torch.cat([vectors[-5:], vectors.abs().amax(dim=0, keepdim=True)]))  # with the same scale
    assert torch.equal(several_blocks._codes[-5:], single_block._codes[:5])


# ------------------------------------------------------------------------------------------------------------ binary


@pytest.mark.parametrize("dimensions", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_binary_without_rescoring_ranks_by_the_product_of_signs(dimensions, threads):
    documents, queries, ranks = (
        random_vectors(150, dimensions),
        random_vectors(9, dimensions, seed=3),
        random_ranks(150),
    )
    documents[7] = 0  # zero counts as negative
    index = Binary(rescore=None)
    index.build(documents)
    expected = equal_signs(documents, queries)
    docs, scores = index.search(queries, 40, ranks, threads)
    np.testing.assert_array_equal(docs, top_k(expected, ranks, 40))
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, docs, axis=1))


@pytest.mark.parametrize("rescore", ["int8", "float32"])
@pytest.mark.parametrize("oversample", [1, 3])
def test_rescoring_reorders_k_times_oversample_candidates(rescore, oversample):
    documents, queries, ranks = random_vectors(150, 70), random_vectors(9, 70, seed=3), random_ranks(150)
    index = Binary(rescore=rescore, oversample=oversample)
    index.build(documents)
    int8 = Int8()
    int8.build(documents)
    rescoring_vectors = dequantised(int8) if rescore == "int8" else documents.numpy()
    products = queries.numpy() @ rescoring_vectors.T
    candidate_rows = top_k(equal_signs(documents, queries), ranks, 10 * oversample)
    docs, scores = index.search(queries, 10, ranks, 2)
    for row, candidates in enumerate(candidate_rows):
        best = sorted(candidates, key=lambda doc: -products[row, doc])[:10]
        assert docs[row].tolist() == best
        np.testing.assert_allclose(scores[row], products[row, best], rtol=1e-4)


def test_rescoring_all_documents_in_float32_equals_exact_search():
    documents, queries, ranks = random_vectors(60, 33), random_vectors(5, 33, seed=3), random_ranks(60)
    index = Binary(rescore="float32", oversample=60)
    index.build(documents)
    docs, scores = index.search(queries, 12, ranks, 2)
    exact_docs, exact_scores = dense.search(documents, queries, 12, ranks, 2)
    np.testing.assert_array_equal(docs, exact_docs)
    np.testing.assert_allclose(scores, exact_scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "value", "choices"),
    [
        ({"rescore": "int4"}, "index.rescore='int4'", "choices: null, int8, float32"),
        ({"oversample": 0}, "index.oversample=0", "at least 1"),
    ],
)
def test_an_invalid_binary_setting_is_refused(settings, value, choices):
    with pytest.raises(ConfigError) as error:
        Binary(**settings)
    assert value in str(error.value)
    assert choices in str(error.value)


# ----------------------------------------------------------------------------------------------------- all indexes

KINDS = {
    "int8": Int8,
    "binary": lambda: Binary(rescore=None),
    "binary int8": Binary,
    "binary float32": lambda: Binary(rescore="float32"),
    "hnsw": lambda: Faiss("hnsw"),
    "ivf": lambda: Faiss("ivf", nlist=10, nprobe=10),  # all lists, so that search is exact
}
BUILT_IN = [name for name in KINDS if name not in ("hnsw", "ivf")]


def built(name: str, vectors: torch.Tensor):
    if name not in BUILT_IN:
        pytest.importorskip("faiss")
    index = KINDS[name]()
    index.build(vectors)
    return index


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_k_above_the_number_of_documents_gives_each_document_once(name, n):
    docs, scores = built(name, random_vectors(n, 40)).search(random_vectors(4, 40, seed=2), 25, random_ranks(n), 2)
    assert docs.dtype == np.int32
    assert scores.dtype == np.float32
    for row in range(4):
        is_hit = docs[row] >= 0
        assert sorted(docs[row, is_hit].tolist()) == list(range(n))
        assert np.isfinite(scores[row, is_hit]).all()
        assert np.isneginf(scores[row, ~is_hit]).all()
    Run(["a", "b", "c", "d"], [f"d{doc}" for doc in range(n)], docs, scores)


@pytest.mark.parametrize("name", KINDS)
def test_an_index_without_documents_queries_or_k_gives_no_hits(name):
    empty = built(name, random_vectors(0, 40))
    assert (empty.search(random_vectors(3, 40), 5, random_ranks(0), 2)[0] == -1).all()
    index = built(name, random_vectors(20, 40))
    assert len(index.search(random_vectors(0, 40), 5, random_ranks(20), 2)[0]) == 0
    assert index.search(random_vectors(3, 40), 0, random_ranks(20), 2)[0].size == 0


@pytest.mark.parametrize("name", BUILT_IN)
def test_ties_are_ordered_by_rank_in_quantised_indexes(name):
    vectors, ranks = random_vectors(6, 40), random_ranks(60)
    index = built(name, vectors.repeat(10, 1))
    docs, scores = index.search(vectors[:1], 15, ranks, 2)
    best = docs[0][scores[0] == scores[0, 0]]
    assert best.tolist() == sorted((doc for doc in range(60) if doc % 6 == 0), key=lambda doc: ranks[doc])
    for first, second in itertools.pairwise(zip(-scores[0], ranks[docs[0]], strict=True)):
        assert first < second


@pytest.mark.parametrize("name", KINDS)
def test_build_replaces_the_previous_vectors(name):
    index = built(name, random_vectors(50, 40))
    index.build(random_vectors(3, 40, seed=9))
    docs, _ = index.search(random_vectors(2, 40), 3, random_ranks(3), 1)
    assert sorted(docs[0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("name", KINDS)
def test_any_number_of_threads_gives_the_same_hits(name):
    vectors = random_vectors(400, 48)
    index, ranks, queries = built(name, vectors), random_ranks(400), random_vectors(30, 48, seed=2)
    expected = index.search(queries, 10, ranks, 1)
    for threads in (1, 2, 4):
        docs, scores = index.search(queries, 10, ranks, threads)
        np.testing.assert_array_equal(docs, expected[0])
        np.testing.assert_array_equal(scores, expected[1])
    single_queries = np.concatenate([index.search(queries[row : row + 1], 10, ranks, 2)[0] for row in range(30)])
    np.testing.assert_array_equal(single_queries, expected[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("int8", 1000 * 384 + 384 * 4),  # codes and a scale per dimension
        ("binary", 1000 * 384 // 8),
        ("binary int8", 1000 * 384 // 8 + 1000 * 384 + 384 * 4),
        ("binary float32", 1000 * 384 // 8 + 1000 * 384 * 4),
    ],
)
def test_nbytes_of_quantised_indexes_counts_codes_scales_and_rescoring_vectors(name, expected):
    assert built(name, random_vectors(1000, 384)).nbytes == expected


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_nbytes_of_a_faiss_index_equals_its_serialised_size(kind):
    faiss = pytest.importorskip("faiss")
    index = built(kind, random_vectors(1000, 384))
    assert index.nbytes == pytest.approx(faiss.serialize_index(index._index).nbytes, rel=0.002)


# ------------------------------------------------------------------------------------------------------ inside Dense


class MatrixEncoder:
    """An encoder that reads each text as the number of a row of a matrix."""

    def __init__(self, documents: torch.Tensor, queries: torch.Tensor):
        self._rows = {"document": documents, "query": queries}

    def encode(self, texts, side):
        return self._rows[side][torch.tensor([int(text) for text in texts], dtype=torch.long)]


def numbered(kind: type, letter: str, n: int):
    return kind([f"{letter}{row}" for row in range(n)], [str(row) for row in range(n)])


def measure_index(index, recall_sample: int = 50):
    """Evaluate an index on 60 queries over 500 documents; return the result and each query's recall of exact search."""
    documents, queries = random_vectors(500, 32), random_vectors(60, 32, seed=2)
    retriever = Dense(MatrixEncoder(documents, queries), index, recall_sample)
    corpus = numbered(Corpus, "d", 500)
    qrels = Qrels({f"q{row}": {"d1": 1} for row in range(60)})
    dataset = Dataset("made", "test", corpus, numbered(Queries, "q", 60), qrels)
    result = measure(retriever, dataset, k=10, metrics=["ndcg@10"], plan=TimingPlan(repeats=2, latency_queries=1))
    exact = dense.search(documents, queries, 10, corpus.ranks, 1)[0]
    return result, [
        len(set(docs) & set(exact_docs)) / 10 for docs, exact_docs in zip(result.run.docs, exact, strict=True)
    ]


@pytest.mark.parametrize("recall_sample", [1, 50, 1000])
def test_recall_of_exact_search_is_recorded_for_the_sampled_queries(recall_sample):
    result, recalls = measure_index(Binary(rescore=None), recall_sample)
    assert 0 < np.mean(recalls) < 0.9
    assert result.description.recall_of_exact[""].recall == pytest.approx(np.mean(recalls[:recall_sample]))
    assert result.timing.index_bytes == 500 * 8  # without the float32 vectors of the exact search


def test_recall_is_not_recorded_without_a_sample_or_for_exact_search():
    for index, recall_sample in ((Binary(), 0), (None, 50)):
        assert not measure_index(index, recall_sample)[0].description.recall_of_exact


def test_recall_is_averaged_over_queries_with_exact_hits():
    exact = np.array([[1, 2, 3], [4, -1, -1], [-1, -1, -1], [7, 8, 9]])
    approximate = np.array([[3, 9, 1], [4, -1, -1], [5, -1, -1], [-1, -1, -1]])
    assert recall(approximate, exact) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert recall(approximate[:0], exact[:0]) == 1.0


# -------------------------------------------------------------------------------------------------- on a real dataset


@pytest.fixture(scope="module")
def nfcorpus(real_dataset, minilm_index):
    """Return NFCorpus, MiniLM's document and query vectors, and the 100 best documents of exact search."""
    dataset, index = real_dataset("nfcorpus"), minilm_index("nfcorpus")
    queries = index._encoder.encode(dataset.queries.texts, "query")
    return dataset, index._vectors, queries, dense.search(index._vectors, queries, 100, dataset.corpus.ranks, 2)


def ndcg(dataset: Dataset, hits) -> float:
    run = Run(dataset.queries.ids, dataset.corpus.ids, *hits, dataset.corpus.ranks)
    return float(score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean())


def configured_index(name: str, **changed):
    """Construct the index of a config in conf/retriever, with changed settings."""
    return build.construct({**build.composed([f"retriever={name}"])["retriever"]["index"], **changed}, "index")


@pytest.mark.parametrize(
    ("name", "changed"),
    [("minilm_int8", {}), ("minilm_binary", {}), ("minilm_binary", {"rescore": "float32"})],
    ids=["int8", "binary, rescored with int8", "binary, rescored with float32"],
)
def test_quantised_minilm_loses_at_most_a_hundredth_of_ndcg_on_nfcorpus(nfcorpus, name, changed):
    dataset, vectors, queries, exact = nfcorpus
    index = configured_index(name, **changed)
    index.build(vectors)
    hits = index.search(queries, 100, dataset.corpus.ranks, 2)
    assert ndcg(dataset, exact) > 0.3
    assert ndcg(dataset, hits) == pytest.approx(ndcg(dataset, exact), abs=0.01)
    assert recall(hits[0][:, :10], exact[0][:, :10]) > 0.9


def test_binary_without_rescoring_loses_more_than_a_hundredth_of_ndcg(nfcorpus):
    dataset, vectors, queries, exact = nfcorpus
    index = configured_index("minilm_binary", rescore=None)
    index.build(vectors)
    assert ndcg(dataset, index.search(queries, 100, dataset.corpus.ranks, 2)) < ndcg(dataset, exact) - 0.01


@pytest.mark.parametrize("name", ["minilm_hnsw", "minilm_ivf"])
def test_faiss_recall_on_nfcorpus_is_above_nine_tenths_and_recorded(nfcorpus, name):
    pytest.importorskip("faiss")
    dataset, vectors, queries, exact = nfcorpus
    retriever = Dense(MatrixEncoder(vectors, queries), configured_index(name))
    by_number = Dataset(
        "nfcorpus",
        "test",
        Corpus(dataset.corpus.ids, map(str, range(len(vectors)))),
        Queries(dataset.queries.ids, map(str, range(len(queries)))),
        dataset.qrels,
    )
    plan = TimingPlan(repeats=2, latency_queries=1)
    result = measure(retriever, by_number, k=100, metrics=["ndcg@10"], plan=plan)
    recorded_recall = result.description.recall_of_exact[""].recall
    assert recorded_recall > 0.9
    assert recorded_recall == pytest.approx(recall(result.run.docs[:50], exact[0][:50]))
    assert result.means["ndcg@10"] == pytest.approx(ndcg(dataset, exact), abs=0.02)
    again = retriever.search(by_number.queries, 100)
    np.testing.assert_array_equal(again.docs, result.run.docs)
    np.testing.assert_array_equal(again.scores, result.run.scores)


# -------------------------------------------------------------------------------------------------------------- faiss


@pytest.mark.parametrize("name", ["hnsw", "ivf"])
def test_faiss_scores_are_inner_products(name):
    documents, queries = random_vectors(300, 24), random_vectors(5, 24, seed=2)
    docs, scores = built(name, documents).search(queries, 10, random_ranks(300), 2)
    np.testing.assert_allclose(scores, np.take_along_axis((queries @ documents.T).numpy(), docs, axis=1), rtol=1e-4)


def test_ivf_with_all_lists_probed_equals_exact_search():
    pytest.importorskip("faiss")
    documents, queries, ranks = random_vectors(300, 24), random_vectors(5, 24, seed=2), random_ranks(300)
    index = Faiss("ivf", nlist=20, nprobe=20)
    index.build(documents)
    np.testing.assert_array_equal(
        index.search(queries, 10, ranks, 2)[0], dense.search(documents, queries, 10, ranks, 2)[0]
    )


@pytest.mark.parametrize(
    ("settings", "value", "choices"),
    [
        ({"kind": "flat"}, "index.kind='flat'", "choices: hnsw, ivf"),
        ({"M": 0}, "index.M=0", "at least 1"),
        ({"ef_search": 0}, "index.ef_search=0", "at least 1"),
        ({"ef_construction": -1}, "index.ef_construction=-1", "at least 1"),
        ({"kind": "ivf", "nprobe": 0}, "index.nprobe=0", "at least 1"),
        ({"kind": "ivf", "nlist": 0}, "index.nlist=0", "at least 1"),
    ],
)
def test_an_invalid_faiss_setting_is_refused(settings, value, choices):
    with pytest.raises(ConfigError) as error:
        Faiss(**settings)
    assert value in str(error.value)
    assert choices in str(error.value)


def test_a_missing_faiss_is_refused_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError) as error:
        Faiss().build(random_vectors(3, 4))
    assert "pip install 'retrieval-harness[faiss]'" in str(error.value)
