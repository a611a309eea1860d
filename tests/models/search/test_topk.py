"""Tests of exact dense and sparse search against brute force in float64, with ties in canonical order."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.brute_force import top_k

from harness.errors import RunError
from harness.search import dense
from harness.search.postings import Postings, SparseRows
from harness.types import Run

Ints = NDArray[np.int32]


def scores_of(scores: NDArray[np.float64], docs: Ints) -> NDArray[np.float64]:
    """Return the scores of documents, -inf for -1."""
    padded = np.pad(scores, ((0, 0), (0, 1)), constant_values=-np.inf)
    return np.take_along_axis(padded, docs.astype(np.int64), axis=1)


def integer_vectors(rng: np.random.Generator, rows: int, dimensions: int, largest: int = 2) -> NDArray[np.float32]:
    """Return vectors of integers; float32 holds their inner products exactly, and many tie."""
    return rng.integers(-largest, largest + 1, (rows, dimensions)).astype(np.float32)


def search(documents: np.ndarray, queries: np.ndarray, k: int, ranks: Ints, threads: int = 1) -> tuple:
    return dense.search(torch.from_numpy(documents), torch.from_numpy(queries), k, ranks, threads)


# ------------------------------------------------------------------------------------------------------------- dense


@pytest.mark.parametrize(
    ("n", "m", "dimensions", "k"),
    [
        (1, 1, 1, 1),
        (50, 7, 3, 50),
        (4096, 3, 4, 10),  # one block of documents, exactly
        (4097, 3, 4, 10),
        (9000, 5, 4, 100),  # three blocks
        (300, 512, 4, 5),  # one block of queries, exactly
        (300, 1030, 4, 5),
        (5000, 520, 3, 7),  # more than one of both
        (200, 4, 384, 10),
    ],
)
def test_dense_search_equals_brute_force_with_ties_in_canonical_order(n: int, m: int, dimensions: int, k: int) -> None:
    rng = np.random.default_rng(n + m)
    documents, queries = integer_vectors(rng, n, dimensions), integer_vectors(rng, m, dimensions)
    ranks = rng.permutation(n).astype(np.int32)
    docs, scores = search(documents, queries, k, ranks)
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    assert docs.tolist() == top_k(exact, ranks, k).tolist()
    assert scores.tolist() == scores_of(exact, docs).tolist()
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)


def test_dense_search_of_real_valued_vectors_equals_brute_force() -> None:
    rng = np.random.default_rng(3)
    documents = rng.normal(size=(4500, 64)).astype(np.float32)
    queries = rng.normal(size=(30, 64)).astype(np.float32)
    docs, scores = search(documents, queries, 20, np.arange(4500, dtype=np.int32))
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :20], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores, scores_of(exact, docs), rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == 20 for row in docs.tolist())


@pytest.mark.parametrize("k", [1, 4, 5000])
def test_dense_search_orders_tied_documents_by_rank(k: int) -> None:
    ranks = np.random.default_rng(0).permutation(5000).astype(np.int32)
    docs, _ = search(np.ones((5000, 2), np.float32), np.ones((2, 2), np.float32), k, ranks)
    assert docs.tolist() == [np.argsort(ranks)[:k].tolist()] * 2


def test_dense_search_prefers_the_lower_rank_at_place_k_in_any_block() -> None:
    # scores 2 1 1 ... 1: among the ones, the document of lowest rank may be in another block
    documents = np.ones((6000, 1), np.float32)
    documents[0] = 2.0
    for winner in (1, 3000, 4095, 4096, 5999):
        ranks = np.arange(1, 6001, dtype=np.int32)
        ranks[winner] = 0
        docs, _ = search(documents, np.ones((1, 1), np.float32), 2, ranks)
        assert docs.tolist() == [[0, winner]]


def test_dense_search_returns_negative_scores() -> None:
    documents = np.array([[-3.0], [-1.0], [-2.0]], np.float32)
    docs, scores = search(documents, np.ones((1, 1), np.float32), 2, np.arange(3, dtype=np.int32))
    assert docs.tolist() == [[1, 2]]
    assert scores.tolist() == [[-1.0, -2.0]]


def test_dense_search_pads_when_there_are_fewer_documents_than_k() -> None:
    rng = np.random.default_rng(1)
    documents, queries = integer_vectors(rng, 3, 4), integer_vectors(rng, 2, 4)
    docs, scores = search(documents, queries, 5, np.arange(3, dtype=np.int32))
    assert docs.shape == scores.shape == (2, 5)
    assert (docs[:, 3:] == -1).all()
    assert (scores[:, 3:] == -np.inf).all()
    assert all(sorted(row) == [0, 1, 2] for row in docs[:, :3].tolist())


def test_dense_search_without_queries_or_documents_gives_no_hits() -> None:
    empty, vectors = np.zeros((0, 4), np.float32), np.ones((2, 4), np.float32)
    docs, scores = search(vectors, empty, 3, np.arange(2, dtype=np.int32))
    assert docs.shape == scores.shape == (0, 3)
    docs, scores = search(empty, vectors, 3, np.zeros(0, np.int32))
    assert docs.tolist() == [[-1] * 3] * 2
    assert (scores == -np.inf).all()


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_dense_search_gives_the_same_hits_on_any_number_of_threads(threads: int) -> None:
    rng = np.random.default_rng(5)
    documents, queries = integer_vectors(rng, 5000, 4), integer_vectors(rng, 600, 4)
    ranks = rng.permutation(5000).astype(np.int32)
    single, threaded = search(documents, queries, 10, ranks), search(documents, queries, 10, ranks, threads)
    np.testing.assert_array_equal(single[0], threaded[0])
    np.testing.assert_array_equal(single[1], threaded[1])


@pytest.mark.parametrize("place", [0, 2, 3, 7, 4999])
def test_dense_search_keeps_nan_scores_and_run_refuses_them(place: int) -> None:
    documents = np.ones((5000, 2), np.float32)
    documents[place] = np.nan
    docs, scores = search(documents, np.ones((1, 2), np.float32), 3, np.arange(5000, dtype=np.int32))
    with pytest.raises(RunError, match=r"query 'q': a score is nan; scores must be finite"):
        Run(["q"], [str(i) for i in range(5000)], docs, scores)


def on_accelerator(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: Ints | None = None) -> tuple:
    """Run the accelerator's search on the CPU."""
    return dense._on_accelerator(
        documents, queries, k, np.arange(len(documents), dtype=np.int32) if ranks is None else ranks
    )


@pytest.mark.parametrize("n", [1, 12, 13, 1000, 300_000])  # the last needs two blocks
@pytest.mark.parametrize("where", ["on the device", "in host memory"])
def test_accelerator_search_equals_brute_force_with_ties_in_canonical_order(n: int, where: str, monkeypatch) -> None:
    rng = np.random.default_rng(9)
    documents, queries = integer_vectors(rng, n, 4), integer_vectors(rng, 40, 4)
    ranks = rng.permutation(n).astype(np.int32)
    if where == "in host memory":  # copy blocks as to a device
        monkeypatch.setattr(dense, "_needs_copy", lambda *_: True)
        monkeypatch.setattr(dense, "_ROWS", max(1, n // 7))
    docs, scores = on_accelerator(torch.from_numpy(documents), torch.from_numpy(queries), 12, ranks)
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    assert docs.tolist() == top_k(exact, ranks, 12).tolist()
    assert scores.tolist() == scores_of(exact, docs).tolist()
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("rows", [1, 2, 5, 512])
def test_accelerator_search_orders_tied_documents_by_rank(rows: int, monkeypatch) -> None:
    monkeypatch.setattr(dense, "_ROWS", rows)
    ranks = np.random.default_rng(0).permutation(200).astype(np.int32)
    documents = torch.tensor([[0.0, 1.0], [-0.0, -1.0]]).repeat(100, 1)  # products 0.0 and -0.0, which are equal
    docs, scores = on_accelerator(documents, torch.tensor([[-1.0, 0.0]] * 70), 9, ranks)
    assert docs.tolist() == [np.argsort(ranks)[:9].tolist()] * 70
    assert (scores == 0).all()


def test_accelerator_search_pads_and_accepts_no_queries_or_documents() -> None:
    vectors, empty = torch.ones((2, 3)), torch.zeros((0, 3))
    docs, scores = on_accelerator(vectors, torch.ones((1, 3)), 4)
    assert docs.tolist() == [[0, 1, -1, -1]]
    assert scores[0, 2:].tolist() == [-np.inf, -np.inf]
    assert on_accelerator(vectors, empty, 4)[0].shape == (0, 4)
    assert on_accelerator(empty, vectors, 4)[0].tolist() == [[-1] * 4] * 2


def test_accelerator_search_multiplies_float16_documents_as_float32() -> None:
    rng = np.random.default_rng(4)
    documents, queries = integer_vectors(rng, 50, 4), integer_vectors(rng, 3, 4)
    float32 = on_accelerator(torch.from_numpy(documents), torch.from_numpy(queries), 7)
    float16 = on_accelerator(torch.from_numpy(documents).half(), torch.from_numpy(queries), 7)
    assert [array.tolist() for array in float16] == [array.tolist() for array in float32]


@pytest.mark.parametrize("place", [0, 7, 4999])
def test_accelerator_search_ranks_nan_scores_first(place: int) -> None:
    documents = torch.ones((5000, 2))
    documents[place] = torch.nan
    docs, scores = on_accelerator(documents, torch.ones((1, 2)), 3)
    assert np.isnan(scores[0, 0])
    assert docs[0, 0] == place


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_cuda_search_equals_cpu_search_for_documents_on_either_device(where: str, monkeypatch) -> None:
    monkeypatch.setattr(dense, "_ROWS", 1 << 12)
    rng = np.random.default_rng(2)
    documents, queries = integer_vectors(rng, 50_000, 8), torch.from_numpy(integer_vectors(rng, 600, 8))
    ranks = rng.permutation(50_000).astype(np.int32)
    expected = search(documents, queries.numpy(), 100, ranks, threads=2)
    hits = dense.search(torch.from_numpy(documents).to(where), queries.to("cuda"), 100, ranks, 2)
    np.testing.assert_array_equal(hits[0], expected[0])
    np.testing.assert_array_equal(hits[1], expected[1])


# ---------------------------------------------------------------------------------------------------------- postings

Rows = Sequence[dict[int, float]]


def sparse(rows: Rows) -> SparseRows:
    """Return rows of weights by term as SparseRows."""
    return SparseRows(
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([term for row in rows for term in row], np.int32),
        np.array([weight for row in rows for weight in row.values()], np.float32),
    )


def to_matrix(rows: Rows, n_terms: int) -> NDArray[np.float64]:
    """Return the rows as a dense matrix, shape [rows, terms]."""
    matrix = np.zeros((len(rows), n_terms))
    for i, row in enumerate(rows):
        matrix[i, list(row.keys())] = list(row.values())
    return matrix


def random_rows(rng: np.random.Generator, rows: int, n_terms: int, max_terms: int) -> Rows:
    """Return rows of a few terms, some empty; float32 holds the sums of products of their weights exactly."""
    lengths = rng.integers(0, max_terms + 1, rows)
    term_lists = (rng.choice(n_terms, min(n, n_terms), replace=False).tolist() for n in lengths)
    return [{term: float(rng.choice([0.5, 1.0, 2.0])) for term in terms} for terms in term_lists]


def assert_equals_brute_force(
    documents: Rows, queries: Rows, n_terms: int, k: int, ranks: Ints, threads: int = 1
) -> None:
    docs, scores = Postings(sparse(documents), n_terms).search(sparse(queries), k, ranks, threads)
    exact = to_matrix(queries, n_terms) @ to_matrix(documents, n_terms).T
    assert docs.tolist() == top_k(exact, ranks, k, exact > 0).tolist()
    assert scores.tolist() == scores_of(exact, docs).tolist()
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(
    ("n", "m", "n_terms", "k"), [(1, 1, 1, 1), (200, 40, 30, 10), (200, 40, 30, 200), (6000, 20, 50, 25), (50, 9, 1, 3)]
)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_postings_search_equals_brute_force_with_ties_in_canonical_order(
    n: int, m: int, n_terms: int, k: int, threads: int
) -> None:
    rng = np.random.default_rng(n + k)
    documents, queries = random_rows(rng, n, n_terms, 8), random_rows(rng, m, n_terms, 5)
    assert_equals_brute_force(documents, queries, n_terms, k, rng.permutation(n).astype(np.int32), threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_postings_search_over_blocks_equals_brute_force_for_rare_and_common_terms(threads: int) -> None:
    """Search three blocks of documents with terms that occur in all, some or none of a block's documents."""
    n, rng = 150_000, np.random.default_rng(6)
    matrix = np.zeros((n, 6), np.float32)
    for term, step in enumerate((1, 3, 40, 3_000, 70_000)):  # the last term has no document
        matrix[::step, term] = rng.choice([0.5, 1.0, 2.0], -(-n // step))
    matrix[rng.permutation(n)[: n // 2], 0] = 0.0
    rows, terms = matrix.nonzero()
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    postings = Postings(SparseRows(starts, terms.astype(np.int32), matrix[rows, terms]), 6)
    queries = [{0: 1.0, 1: 2.0}, {2: 1.0}, {3: 1.0, 2: 0.5}, {4: 1.0}, {3: 1.0, 4: 1.0, 5: 1.0}, {5: 1.0}, {}, {1: 1.0}]
    ranks = rng.permutation(n).astype(np.int32)
    exact = to_matrix(queries, 6) @ matrix.T.astype(np.float64)
    for k in (1, 30, 4_000):
        docs, scores = postings.search(sparse(queries), k, ranks, threads)
        assert docs.tolist() == top_k(exact, ranks, k, exact > 0).tolist()
        assert scores.tolist() == scores_of(exact, docs).tolist()


weights = st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0])
vectors = st.lists(st.dictionaries(st.integers(0, 5), weights, max_size=4), max_size=9)


@given(vectors, vectors, st.integers(1, 12), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_any_postings_search_equals_brute_force(
    documents: Rows, queries: Rows, k: int, threads: int, random: Random
) -> None:
    ranks = list(range(len(documents)))
    random.shuffle(ranks)
    assert_equals_brute_force(documents, queries, 6, k, np.array(ranks, np.int32), threads)


def test_postings_search_returns_only_documents_that_share_a_term() -> None:
    docs, scores = Postings(sparse([{0: 1.0}, {1: 2.0}, {0: 0.5, 1: 0.5}, {}]), 3).search(
        sparse([{0: 1.0}, {2: 1.0}, {}]), 4, np.arange(4, dtype=np.int32), 1
    )
    assert docs.tolist() == [[0, 2, -1, -1], [-1] * 4, [-1] * 4]
    assert scores.tolist() == [[1.0, 0.5, -np.inf, -np.inf], [-np.inf] * 4, [-np.inf] * 4]


def test_postings_search_of_a_batch_equals_single_queries() -> None:
    postings, ranks = Postings(sparse([{0: 1.0}, {1: 1.0}]), 2), np.arange(2, dtype=np.int32)
    queries = [{0: 1.0}, {1: 1.0}, {0: 1.0}, {}, {0: 2.0, 1: 1.0}]
    docs, scores = postings.search(sparse(queries), 2, ranks, 1)
    for row, query in enumerate(queries):
        alone = postings.search(sparse([query]), 2, ranks, 1)
        assert (docs[row].tolist(), scores[row].tolist()) == (alone[0][0].tolist(), alone[1][0].tolist())


def test_postings_search_multiplies_by_query_weights() -> None:
    _, scores = Postings(sparse([{0: 1.5, 1: 1.0}]), 2).search(sparse([{0: 2.0, 1: 0.5}]), 1, np.zeros(1, np.int32), 1)
    assert scores.tolist() == [[3.5]]


def test_postings_search_without_documents_terms_or_queries_gives_no_hits() -> None:
    no_ranks, one_rank = np.zeros(0, np.int32), np.zeros(1, np.int32)
    empty = Postings(sparse([]), 0)
    assert empty.search(sparse([{}, {}]), 3, no_ranks, 2)[0].tolist() == [[-1] * 3] * 2
    assert empty.search(sparse([]), 3, no_ranks, 2)[0].shape == (0, 3)
    assert Postings(sparse([]), 4).search(sparse([{3: 1.0}]), 2, no_ranks, 1)[0].tolist() == [[-1, -1]]
    assert Postings(sparse([{}]), 0).search(sparse([{}]), 2, one_rank, 1)[0].tolist() == [[-1, -1]]
    assert Postings(sparse([{0: 1.0}]), 1).search(sparse([]), 2, one_rank, 2)[0].shape == (0, 2)


def test_postings_are_ordered_by_term_then_document() -> None:
    postings = Postings(sparse([{2: 1.0, 0: 2.0}, {}, {2: 3.0}]), 4)
    assert postings.starts.tolist() == [0, 1, 1, 3, 3]
    assert postings.docs.tolist() == [0, 0, 2]
    assert postings.weights.tolist() == [2.0, 1.0, 3.0]
    assert postings.n_docs == 3
    assert postings.nbytes == 5 * 8 + 3 * 4 + 3 * 4
