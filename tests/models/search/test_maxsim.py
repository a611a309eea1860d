"""MaxSim over packed tokens is brute force in float64, however it is cut up; centroids find what they should."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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


def tokens(rng: np.random.Generator, sizes: list[int], dtype: torch.dtype = torch.float32) -> TokenEmbeddings:
    """Ragged texts of whole-number vectors, whose products and sums float16 and float32 hold exactly; many tie."""
    values = rng.integers(-2, 3, (sum(sizes), DIMENSIONS)).astype(np.float32)
    return TokenEmbeddings(np.cumsum([0, *sizes], dtype=np.int64), torch.from_numpy(values).to(dtype))


def unit(rng: np.random.Generator, sizes: list[int], dimensions: int = 16) -> TokenEmbeddings:
    """Ragged texts of unit vectors."""
    values = torch.from_numpy(rng.normal(size=(sum(sizes), dimensions)).astype(np.float32))
    return TokenEmbeddings(np.cumsum([0, *sizes], dtype=np.int64), torch.nn.functional.normalize(values, dim=1))


def matrix(texts: TokenEmbeddings, text: int) -> NDArray[np.float64]:
    return texts.vectors[texts.starts[text] : texts.starts[text + 1]].double().numpy()


def brute(documents: TokenEmbeddings, queries: TokenEmbeddings) -> NDArray[np.float64]:
    """Sum over query tokens of the greatest product [queries, documents]; -inf for a document without tokens."""
    found = np.full((len(queries), len(documents)), -np.inf)
    for query in range(len(queries)):
        for doc in range(len(documents)):
            if len(own := matrix(documents, doc)):
                found[query, doc] = (matrix(queries, query) @ own.T).max(axis=1).sum()
    return found


def ranked(scores: NDArray[np.float64], ranks: NDArray[np.int32], k: int) -> list[list[int]]:
    """Score descending, then rank ascending; -1 where there is no hit."""
    rows = []
    for own in scores:
        order = sorted(np.flatnonzero(own > -np.inf).tolist(), key=lambda doc: (-own[doc], ranks[doc]))
        rows.append((order + [-1] * k)[:k])
    return rows


def assert_brute_force(
    documents: TokenEmbeddings,
    queries: TokenEmbeddings,
    k: int,
    ranks: NDArray[np.int32],
    threads: int = 1,
    exact: bool = True,
) -> None:
    docs, scores = maxsim.search(documents, queries, k, ranks, threads)
    expected = brute(documents, queries)
    wanted = ranked(expected, ranks, k)
    assert docs.shape == scores.shape == (len(queries), k)
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)
    for row, (found, best) in enumerate(zip(docs.tolist(), wanted, strict=True)):
        if exact:
            assert found == best
        right = np.array([expected[row, doc] if doc >= 0 else -np.inf for doc in found])
        np.testing.assert_allclose(scores[row], right, atol=0 if exact else 1e-5)
        np.testing.assert_allclose(
            right, [expected[row, doc] if doc >= 0 else -np.inf for doc in best], atol=0 if exact else 1e-5
        )


@pytest.fixture(params=BLOCKS, ids=str)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sizes of what is multiplied and kept at once."""
    for name, size in request.param.items():
        monkeypatch.setattr(maxsim, name, size)


# ------------------------------------------------------------------------------------------------------------ search

sizes = st.lists(st.integers(0, 4), max_size=7)


@given(sizes, sizes, st.integers(1, 9), st.integers(1, 3), st.integers(0, 10_000), st.sampled_from(BLOCKS))
@settings(deadline=None, max_examples=150)
def test_any_search_is_brute_force_with_ties_in_canonical_order(
    held: list[int], asked: list[int], k: int, threads: int, seed: int, cut: dict[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    documents, queries = tokens(rng, held), tokens(rng, asked)
    with pytest.MonkeyPatch.context() as patched:
        for name, size in cut.items():
            patched.setattr(maxsim, name, size)
        assert_brute_force(documents, queries, k, rng.permutation(len(held)).astype(np.int32), threads)


@pytest.mark.parametrize("k", [1, 10, 61])
def test_a_search_in_any_blocks_is_brute_force(blocks: None, k: int) -> None:
    rng = np.random.default_rng(k)
    documents = tokens(rng, rng.integers(0, 9, 60).tolist())
    queries = tokens(rng, rng.integers(0, 5, 12).tolist())
    assert_brute_force(documents, queries, k, rng.permutation(60).astype(np.int32), threads=2)


def test_real_valued_vectors_score_as_in_float64(blocks: None) -> None:
    rng = np.random.default_rng(4)
    documents, queries = unit(rng, rng.integers(0, 9, 50).tolist()), unit(rng, rng.integers(1, 32, 6).tolist())
    assert_brute_force(documents, queries, 20, np.arange(50, dtype=np.int32), exact=False)


def test_a_negative_score_is_a_hit_and_a_document_without_tokens_never_is() -> None:
    documents = TokenEmbeddings(np.array([0, 0, 1, 1, 2, 2]), torch.tensor([[-1.0], [-3.0]]))
    query = TokenEmbeddings(np.array([0, 1]), torch.ones((1, 1)))
    docs, scores = maxsim.search(documents, query, 5, np.arange(5, dtype=np.int32), 1)
    assert docs.tolist() == [[1, 3, -1, -1, -1]]
    assert scores.tolist() == [[-1.0, -3.0, -np.inf, -np.inf, -np.inf]]


def test_a_query_without_tokens_scores_nought_everywhere() -> None:
    documents = TokenEmbeddings(np.array([0, 1, 1, 2]), torch.ones((2, 2)))
    queries = TokenEmbeddings(np.array([0, 0, 1]), torch.ones((1, 2)))
    docs, scores = maxsim.search(documents, queries, 3, np.array([2, 1, 0], np.int32), 1)
    assert docs.tolist() == [[2, 0, -1]] * 2
    assert scores.tolist() == [[0.0, 0.0, -np.inf], [2.0, 2.0, -np.inf]]


def test_no_documents_no_queries_and_no_places_give_empty_places() -> None:
    rng = np.random.default_rng(0)
    none, some, no_ranks = tokens(rng, []), tokens(rng, [2, 1]), np.zeros(0, np.int32)
    assert maxsim.search(none, some, 3, no_ranks, 1)[0].tolist() == [[-1] * 3] * 2
    assert maxsim.search(some, none, 3, np.arange(2, dtype=np.int32), 1)[0].shape == (0, 3)
    assert maxsim.search(some, some, 0, np.arange(2, dtype=np.int32), 1)[0].shape == (2, 0)


@given(sizes, st.integers(0, 9))
def test_chunks_cover_every_document_once_and_hold_no_more_tokens_than_they_may(held: list[int], most: int) -> None:
    starts = np.cumsum([0, *held], dtype=np.int64)
    spans = list(maxsim._chunks(starts, 0, len(held), most))
    assert [doc for first, stop in spans for doc in range(first, stop)] == list(range(len(held)))
    for first, stop in spans:
        assert stop - first == 1 or starts[stop] - starts[first] <= max(most, 1)


def test_half_precision_documents_are_multiplied_as_float32(blocks: None) -> None:
    rng = np.random.default_rng(6)
    held, queries = rng.integers(0, 6, 40).tolist(), unit(rng, [5, 1, 32], DIMENSIONS)
    documents = tokens(rng, held, torch.float16)
    documents = TokenEmbeddings(documents.starts, (documents.vectors.float() / 3).half())
    assert_brute_force(documents, queries, 10, np.arange(40, dtype=np.int32), exact=False)
    assert documents.nbytes == 41 * 8 + sum(held) * DIMENSIONS * 2


def test_two_threads_give_what_one_gives(blocks: None) -> None:
    rng = np.random.default_rng(7)
    documents, queries = unit(rng, rng.integers(0, 40, 600).tolist()), unit(rng, rng.integers(1, 33, 20).tolist())
    ranks = rng.permutation(600).astype(np.int32)
    one, two = (maxsim.search(documents, queries, 50, ranks, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("chunk", [1, 50, 1 << 27])
def test_the_accelerators_path_gives_the_cpus_scores(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(maxsim, "_DEVICE_PRODUCTS", chunk)
    rng = np.random.default_rng(8)
    documents = tokens(rng, [0, 3, 1, 0, 7, 2, 2, 0])
    for asked in ([4, 0, 1], [0, 0]):
        queries = tokens(rng, asked)
        for first, last in ((0, 8), (2, 6), (3, 4)):
            own = maxsim._on_accelerator(documents, queries.vectors.T, queries.starts, first, last)
            expected = maxsim.scores(documents, queries, first, last, 1)
            assert own.tolist() == expected.tolist()
            np.testing.assert_array_equal(expected, brute(documents, queries)[:, first:last])


# ------------------------------------------------------------------------------------------------- given candidates


def test_candidates_score_as_in_a_search_and_empty_places_do_not(blocks: None) -> None:
    rng = np.random.default_rng(9)
    documents, queries = tokens(rng, rng.integers(0, 6, 30).tolist()), tokens(rng, [3, 0, 5, 1])
    docs = np.stack([rng.permutation(30)[:12] for _ in range(4)]).astype(np.int32)
    docs[1, 3:] = -1
    docs[2, ::2] = -1
    docs[3] = -1
    found = maxsim.score(documents, queries, docs, 2)
    expected = np.pad(brute(documents, queries), ((0, 0), (0, 1)), constant_values=-np.inf)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.take_along_axis(expected, docs.astype(np.int64), axis=1))


def test_a_document_may_be_a_candidate_of_many_queries_and_twice_of_one() -> None:
    rng = np.random.default_rng(10)
    documents, queries = tokens(rng, [2, 3]), tokens(rng, [1, 4])
    expected = brute(documents, queries)
    found = maxsim.score(documents, queries, np.array([[1, 1, 0], [1, 0, 1]], np.int32), 1)
    assert found.tolist() == [expected[0, [1, 1, 0]].tolist(), expected[1, [1, 0, 1]].tolist()]


# --------------------------------------------------------------------------------------------------------- centroids


def test_the_same_seed_gives_the_same_centroids_and_another_seed_others() -> None:
    documents = unit(np.random.default_rng(11), [9] * 80)
    queries, ranks = unit(np.random.default_rng(12), [8] * 5), np.arange(80, dtype=np.int32)
    first, again, other = (Centroids(documents, seed) for seed in (0, 0, 1))
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.centroids, other.centroids)
    for one, two in zip(first.search(queries, 10, ranks, 1), again.search(queries, 10, ranks, 2), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_documents_approximate_score_is_maxsim_with_its_tokens_centres() -> None:
    rng = np.random.default_rng(13)
    documents, queries = unit(rng, rng.integers(0, 12, 50).tolist()), unit(rng, [6, 1, 0, 3])
    centroids, ranks = Centroids(documents, 0), rng.permutation(50).astype(np.int32)
    nearest = (documents.vectors @ centroids.centroids.T).argmax(dim=1)
    moved = TokenEmbeddings(documents.starts, centroids.centroids[nearest])
    docs, scores = centroids.search(queries, 50, ranks, 2)
    expected = np.pad(brute(moved, queries), ((0, 0), (0, 1)), constant_values=-np.inf)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, docs.astype(np.int64), axis=1), atol=1e-5)
    np.testing.assert_allclose(scores, -np.sort(-expected[:, :50], axis=1), atol=1e-5)
    assert len(centroids.centroids) < len(documents.vectors) / 2
    assert centroids.nbytes == centroids.centroids.nbytes + centroids.starts.nbytes + centroids.codes.nbytes


def test_every_document_with_tokens_is_found_when_all_are_asked_for() -> None:
    rng = np.random.default_rng(14)
    held = rng.integers(0, 5, 40).tolist()
    docs, _ = Centroids(unit(rng, held), 0).search(unit(rng, [4, 9]), 100, np.arange(40, dtype=np.int32), 1)
    for row in docs.tolist():
        assert sorted(doc for doc in row if doc >= 0) == [doc for doc, size in enumerate(held) if size]


@pytest.mark.parametrize("held", [[], [0, 0], [1], [0, 1, 0]])
def test_centroids_of_hardly_any_tokens_find_what_there_is(held: list[int]) -> None:
    rng = np.random.default_rng(15)
    found = Centroids(unit(rng, held), 0).search(unit(rng, [3]), 2, np.arange(len(held), dtype=np.int32), 1)[0]
    assert [doc for doc in found[0].tolist() if doc >= 0] == [doc for doc, size in enumerate(held) if size]


def test_documents_of_clearly_different_directions_are_told_apart() -> None:
    axes = torch.eye(8).repeat_interleave(40, dim=0)  # eight documents of forty equal tokens
    documents = TokenEmbeddings(np.arange(0, 321, 40), axes)
    docs, _ = Centroids(documents, 0).search(
        TokenEmbeddings(np.arange(9), torch.eye(8)), 1, np.arange(8, dtype=np.int32), 1
    )
    assert docs[:, 0].tolist() == list(range(8))


def test_recall_is_the_mean_share_of_the_exact_hits_that_were_found() -> None:
    exact = np.array([[1, 2, 3, 4], [5, 6, -1, -1], [-1, -1, -1, -1]], np.int32)
    found = np.array([[4, 9, 1, -1], [6, 5, 7, 8], [1, 2, 3, 4]], np.int32)
    assert topk.recall(found, exact) == (2 / 4 + 2 / 2) / 2, "a query without exact hits does not count"
    assert topk.recall(exact, exact) == 1.0
    assert topk.recall(np.full_like(exact, -1), exact) == 0.0
    assert topk.recall(exact[2:], exact[2:]) == 1.0
