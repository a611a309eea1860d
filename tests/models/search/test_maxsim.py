"""Tests of MaxSim search over packed token vectors against brute force in float64, and of centroid candidates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.brute_force import top_k

from harness.search import maxsim, topk
from harness.search.centroids import Centroids
from harness.search.maxsim import TokenEmbeddings

DIMENSIONS = 4
BLOCKS = [
    {},
    {"_PRODUCTS": 1, "_COLUMNS": 1, "_DOCS": 1},
    {"_PRODUCTS": 64, "_COLUMNS": 5, "_DOCS": 3},
    {"_DOCS": 7, "_TOKENS": 9},
]


def integer_tokens(
    rng: np.random.Generator, text_sizes: list[int], dtype: torch.dtype = torch.float32
) -> TokenEmbeddings:
    """Return texts of `text_sizes` integer vectors; float16 and float32 hold their products and sums exactly."""
    values = rng.integers(-2, 3, (sum(text_sizes), DIMENSIONS)).astype(np.float32)
    return TokenEmbeddings(np.cumsum([0, *text_sizes], dtype=np.int64), torch.from_numpy(values).to(dtype))


def unit_tokens(rng: np.random.Generator, text_sizes: list[int], dimensions: int = 16) -> TokenEmbeddings:
    """Return texts of `text_sizes` unit vectors."""
    values = torch.from_numpy(rng.normal(size=(sum(text_sizes), dimensions)).astype(np.float32))
    return TokenEmbeddings(np.cumsum([0, *text_sizes], dtype=np.int64), torch.nn.functional.normalize(values, dim=1))


def matrix(texts: TokenEmbeddings, text: int) -> NDArray[np.float64]:
    return texts.vectors[texts.starts[text] : texts.starts[text + 1]].double().numpy()


def brute_force(documents: TokenEmbeddings, queries: TokenEmbeddings) -> NDArray[np.float64]:
    """Return the sum over query tokens of the largest product, shape [queries, documents]; -inf for no tokens."""
    scores = np.full((len(queries), len(documents)), -np.inf)
    for query in range(len(queries)):
        for doc in range(len(documents)):
            if len(vectors := matrix(documents, doc)):
                scores[query, doc] = (matrix(queries, query) @ vectors.T).max(axis=1).sum()
    return scores


def assert_equals_brute_force(
    documents: TokenEmbeddings,
    queries: TokenEmbeddings,
    k: int,
    ranks: NDArray[np.int32],
    threads: int = 1,
    exact: bool = True,
) -> None:
    docs, scores = maxsim.search(documents, queries, k, ranks, threads)
    expected = brute_force(documents, queries)
    expected_docs = top_k(expected, ranks, k, expected > -np.inf)
    assert docs.shape == scores.shape == (len(queries), k)
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)
    for row, (row_docs, best) in enumerate(zip(docs.tolist(), expected_docs.tolist(), strict=True)):
        if exact:
            assert row_docs == best
        row_scores = np.array([expected[row, doc] if doc >= 0 else -np.inf for doc in row_docs])
        np.testing.assert_allclose(scores[row], row_scores, atol=0 if exact else 1e-5)
        np.testing.assert_allclose(
            row_scores, [expected[row, doc] if doc >= 0 else -np.inf for doc in best], atol=0 if exact else 1e-5
        )


@pytest.fixture(params=BLOCKS, ids=str)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the sizes of the blocks of a search."""
    for name, size in request.param.items():
        monkeypatch.setattr(maxsim, name, size)


# ------------------------------------------------------------------------------------------------------------ search

text_sizes = st.lists(st.integers(0, 4), max_size=7)


@given(text_sizes, text_sizes, st.integers(1, 9), st.integers(1, 3), st.integers(0, 10_000), st.sampled_from(BLOCKS))
@settings(deadline=None, max_examples=150)
def test_any_maxsim_search_equals_brute_force_with_ties_in_canonical_order(
    doc_sizes: list[int], query_sizes: list[int], k: int, threads: int, seed: int, block_sizes: dict[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    documents, queries = integer_tokens(rng, doc_sizes), integer_tokens(rng, query_sizes)
    with pytest.MonkeyPatch.context() as patched:
        for name, size in block_sizes.items():
            patched.setattr(maxsim, name, size)
        assert_equals_brute_force(documents, queries, k, rng.permutation(len(doc_sizes)).astype(np.int32), threads)


@pytest.mark.parametrize("k", [1, 10, 61])
def test_maxsim_search_in_blocks_of_any_size_equals_brute_force(blocks: None, k: int) -> None:
    rng = np.random.default_rng(k)
    documents = integer_tokens(rng, rng.integers(0, 9, 60).tolist())
    queries = integer_tokens(rng, rng.integers(0, 5, 12).tolist())
    assert_equals_brute_force(documents, queries, k, rng.permutation(60).astype(np.int32), threads=2)


def test_maxsim_of_real_valued_vectors_equals_float64(blocks: None) -> None:
    rng = np.random.default_rng(4)
    documents, queries = (
        unit_tokens(rng, rng.integers(0, 9, 50).tolist()),
        unit_tokens(rng, rng.integers(1, 32, 6).tolist()),
    )
    assert_equals_brute_force(documents, queries, 20, np.arange(50, dtype=np.int32), exact=False)


def test_maxsim_returns_negative_scores_and_no_documents_without_tokens() -> None:
    documents = TokenEmbeddings(np.array([0, 0, 1, 1, 2, 2]), torch.tensor([[-1.0], [-3.0]]))
    query = TokenEmbeddings(np.array([0, 1]), torch.ones((1, 1)))
    docs, scores = maxsim.search(documents, query, 5, np.arange(5, dtype=np.int32), 1)
    assert docs.tolist() == [[1, 3, -1, -1, -1]]
    assert scores.tolist() == [[-1.0, -3.0, -np.inf, -np.inf, -np.inf]]


def test_maxsim_of_a_query_without_tokens_is_zero() -> None:
    documents = TokenEmbeddings(np.array([0, 1, 1, 2]), torch.ones((2, 2)))
    queries = TokenEmbeddings(np.array([0, 0, 1]), torch.ones((1, 2)))
    docs, scores = maxsim.search(documents, queries, 3, np.array([2, 1, 0], np.int32), 1)
    assert docs.tolist() == [[2, 0, -1]] * 2
    assert scores.tolist() == [[0.0, 0.0, -np.inf], [2.0, 2.0, -np.inf]]


def test_maxsim_search_without_documents_queries_or_k_gives_no_hits() -> None:
    rng = np.random.default_rng(0)
    empty, texts, no_ranks = integer_tokens(rng, []), integer_tokens(rng, [2, 1]), np.zeros(0, np.int32)
    assert maxsim.search(empty, texts, 3, no_ranks, 1)[0].tolist() == [[-1] * 3] * 2
    assert maxsim.search(texts, empty, 3, np.arange(2, dtype=np.int32), 1)[0].shape == (0, 3)
    assert maxsim.search(texts, texts, 0, np.arange(2, dtype=np.int32), 1)[0].shape == (2, 0)


@given(text_sizes, st.integers(0, 9))
def test_chunks_hold_each_document_once_within_the_token_limit(doc_sizes: list[int], max_tokens: int) -> None:
    starts = np.cumsum([0, *doc_sizes], dtype=np.int64)
    spans = list(maxsim._chunks(starts, 0, len(doc_sizes), max_tokens))
    assert [doc for first, stop in spans for doc in range(first, stop)] == list(range(len(doc_sizes)))
    for first, stop in spans:
        assert stop - first == 1 or starts[stop] - starts[first] <= max(max_tokens, 1)


def test_maxsim_multiplies_float16_documents_as_float32(blocks: None) -> None:
    rng = np.random.default_rng(6)
    doc_sizes, queries = rng.integers(0, 6, 40).tolist(), unit_tokens(rng, [5, 1, 32], DIMENSIONS)
    documents = integer_tokens(rng, doc_sizes, torch.float16)
    documents = TokenEmbeddings(documents.starts, (documents.vectors.float() / 3).half())
    assert_equals_brute_force(documents, queries, 10, np.arange(40, dtype=np.int32), exact=False)
    assert documents.nbytes == 41 * 8 + sum(doc_sizes) * DIMENSIONS * 2


def test_maxsim_gives_the_same_hits_on_two_threads(blocks: None) -> None:
    rng = np.random.default_rng(7)
    documents, queries = (
        unit_tokens(rng, rng.integers(0, 40, 600).tolist()),
        unit_tokens(rng, rng.integers(1, 33, 20).tolist()),
    )
    ranks = rng.permutation(600).astype(np.int32)
    single, threaded = (maxsim.search(documents, queries, 50, ranks, threads) for threads in (1, 2))
    np.testing.assert_array_equal(single[0], threaded[0])
    np.testing.assert_array_equal(single[1], threaded[1])


@pytest.mark.parametrize("chunk", [1, 50, 1 << 27])
def test_accelerator_maxsim_equals_cpu_maxsim(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(maxsim, "_DEVICE_PRODUCTS", chunk)
    rng = np.random.default_rng(8)
    documents = integer_tokens(rng, [0, 3, 1, 0, 7, 2, 2, 0])
    for query_sizes in ([4, 0, 1], [0, 0]):
        queries = integer_tokens(rng, query_sizes)
        for first, last in ((0, 8), (2, 6), (3, 4)):
            scores = maxsim._on_accelerator(documents, queries.vectors.T, queries.starts, first, last)
            expected = maxsim.scores(documents, queries, first, last, 1)
            assert scores.tolist() == expected.tolist()
            np.testing.assert_array_equal(expected, brute_force(documents, queries)[:, first:last])


# ------------------------------------------------------------------------------------------------- given candidates


def test_maxsim_scores_of_candidates_equal_search_and_padding_is_minus_infinity(blocks: None) -> None:
    rng = np.random.default_rng(9)
    documents, queries = integer_tokens(rng, rng.integers(0, 6, 30).tolist()), integer_tokens(rng, [3, 0, 5, 1])
    docs = np.stack([rng.permutation(30)[:12] for _ in range(4)]).astype(np.int32)
    docs[1, 3:] = -1
    docs[2, ::2] = -1
    docs[3] = -1
    scores = maxsim.score(documents, queries, docs, 2)
    expected = np.pad(brute_force(documents, queries), ((0, 0), (0, 1)), constant_values=-np.inf)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.take_along_axis(expected, docs.astype(np.int64), axis=1))


def test_a_document_can_be_a_candidate_twice_and_of_several_queries() -> None:
    rng = np.random.default_rng(10)
    documents, queries = integer_tokens(rng, [2, 3]), integer_tokens(rng, [1, 4])
    expected = brute_force(documents, queries)
    scores = maxsim.score(documents, queries, np.array([[1, 1, 0], [1, 0, 1]], np.int32), 1)
    assert scores.tolist() == [expected[0, [1, 1, 0]].tolist(), expected[1, [1, 0, 1]].tolist()]


# --------------------------------------------------------------------------------------------------------- centroids


def test_centroids_are_determined_by_the_seed() -> None:
    documents = unit_tokens(np.random.default_rng(11), [9] * 80)
    queries, ranks = unit_tokens(np.random.default_rng(12), [8] * 5), np.arange(80, dtype=np.int32)
    first, same_seed, other_seed = (Centroids(documents, seed) for seed in (0, 0, 1))
    assert torch.equal(first.centroids, same_seed.centroids)
    assert not torch.equal(first.centroids, other_seed.centroids)
    for array, array_again in zip(
        first.search(queries, 10, ranks, 1), same_seed.search(queries, 10, ranks, 2), strict=True
    ):
        np.testing.assert_array_equal(array, array_again)


def test_approximate_scores_are_maxsim_with_the_nearest_centroids() -> None:
    rng = np.random.default_rng(13)
    documents, queries = unit_tokens(rng, rng.integers(0, 12, 50).tolist()), unit_tokens(rng, [6, 1, 0, 3])
    centroids, ranks = Centroids(documents, 0), rng.permutation(50).astype(np.int32)
    nearest = (documents.vectors @ centroids.centroids.T).argmax(dim=1)
    quantised = TokenEmbeddings(documents.starts, centroids.centroids[nearest])
    docs, scores = centroids.search(queries, 50, ranks, 2)
    expected = np.pad(brute_force(quantised, queries), ((0, 0), (0, 1)), constant_values=-np.inf)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, docs.astype(np.int64), axis=1), atol=1e-5)
    np.testing.assert_allclose(scores, -np.sort(-expected[:, :50], axis=1), atol=1e-5)
    assert len(centroids.centroids) < len(documents.vectors) / 2
    assert centroids.nbytes == centroids.centroids.nbytes + centroids.starts.nbytes + centroids.codes.nbytes


def test_centroid_search_with_large_k_returns_all_documents_with_tokens() -> None:
    rng = np.random.default_rng(14)
    doc_sizes = rng.integers(0, 5, 40).tolist()
    docs, _ = Centroids(unit_tokens(rng, doc_sizes), 0).search(
        unit_tokens(rng, [4, 9]), 100, np.arange(40, dtype=np.int32), 1
    )
    for row in docs.tolist():
        assert sorted(doc for doc in row if doc >= 0) == [doc for doc, size in enumerate(doc_sizes) if size]


@pytest.mark.parametrize("doc_sizes", [[], [0, 0], [1], [0, 1, 0]])
def test_centroids_of_few_tokens_return_all_documents_with_tokens(doc_sizes: list[int]) -> None:
    rng = np.random.default_rng(15)
    docs = Centroids(unit_tokens(rng, doc_sizes), 0).search(
        unit_tokens(rng, [3]), 2, np.arange(len(doc_sizes), dtype=np.int32), 1
    )[0]
    assert [doc for doc in docs[0].tolist() if doc >= 0] == [doc for doc, size in enumerate(doc_sizes) if size]


def test_centroids_distinguish_documents_of_orthogonal_directions() -> None:
    axes = torch.eye(8).repeat_interleave(40, dim=0)  # eight documents of forty equal tokens
    documents = TokenEmbeddings(np.arange(0, 321, 40), axes)
    docs, _ = Centroids(documents, 0).search(
        TokenEmbeddings(np.arange(9), torch.eye(8)), 1, np.arange(8, dtype=np.int32), 1
    )
    assert docs[:, 0].tolist() == list(range(8))


def test_recall_is_the_mean_share_of_exact_hits_that_are_returned() -> None:
    exact = np.array([[1, 2, 3, 4], [5, 6, -1, -1], [-1, -1, -1, -1]], np.int32)
    approximate = np.array([[4, 9, 1, -1], [6, 5, 7, 8], [1, 2, 3, 4]], np.int32)
    assert topk.recall(approximate, exact) == (2 / 4 + 2 / 2) / 2, "queries without exact hits are excluded"
    assert topk.recall(exact, exact) == 1.0
    assert topk.recall(np.full_like(exact, -1), exact) == 0.0
    assert topk.recall(exact[2:], exact[2:]) == 1.0
