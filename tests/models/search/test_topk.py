"""Exact search: the matrix product and the postings give what brute force in float64 gives, ties in the one order."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.errors import RunError
from harness.search import dense
from harness.search.postings import Postings, SparseRows
from harness.types import Run

Ints = NDArray[np.int32]


def canonical(scores: NDArray[np.float64], ranks: Ints, k: int, found: NDArray[np.bool_] | None = None) -> Ints:
    """The k best documents of each row: score descending, then rank ascending; -1 where there is none."""
    best = np.full((len(scores), k), -1, np.int32)
    for row, own in enumerate(scores):
        order = np.lexsort((ranks, -own))
        order = order if found is None else order[found[row][order]]
        best[row, : len(order)] = order[:k]
    return best


def at(scores: NDArray[np.float64], docs: Ints) -> NDArray[np.float64]:
    """The scores of those documents, -inf for -1."""
    padded = np.pad(scores, ((0, 0), (0, 1)), constant_values=-np.inf)
    return np.take_along_axis(padded, docs.astype(np.int64), axis=1)


def whole_numbers(rng: np.random.Generator, rows: int, dimensions: int, top: int = 2) -> NDArray[np.float32]:
    """Vectors whose inner products float32 holds exactly, and many of them equal."""
    return rng.integers(-top, top + 1, (rows, dimensions)).astype(np.float32)


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
def test_dense_search_is_brute_force_with_ties_in_canonical_order(n: int, m: int, dimensions: int, k: int) -> None:
    rng = np.random.default_rng(n + m)
    documents, queries = whole_numbers(rng, n, dimensions), whole_numbers(rng, m, dimensions)
    ranks = rng.permutation(n).astype(np.int32)
    docs, scores = search(documents, queries, k, ranks)
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    assert docs.tolist() == canonical(exact, ranks, k).tolist()
    assert scores.tolist() == at(exact, docs).tolist()
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)


def test_dense_search_of_real_valued_vectors_is_brute_force() -> None:
    rng = np.random.default_rng(3)
    documents = rng.normal(size=(4500, 64)).astype(np.float32)
    queries = rng.normal(size=(30, 64)).astype(np.float32)
    docs, scores = search(documents, queries, 20, np.arange(4500, dtype=np.int32))
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :20], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores, at(exact, docs), rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == 20 for row in docs.tolist())


@pytest.mark.parametrize("k", [1, 4, 5000])
def test_documents_that_all_tie_come_in_the_order_of_their_ranks(k: int) -> None:
    ranks = np.random.default_rng(0).permutation(5000).astype(np.int32)
    docs, _ = search(np.ones((5000, 2), np.float32), np.ones((2, 2), np.float32), k, ranks)
    assert docs.tolist() == [np.argsort(ranks)[:k].tolist()] * 2


def test_a_tie_at_the_kth_place_is_won_by_the_lower_rank_wherever_it_lies() -> None:
    # scores 2 1 1 ... 1: of the ones, the best rank lies in another block than the first
    documents = np.ones((6000, 1), np.float32)
    documents[0] = 2.0
    for winner in (1, 3000, 4095, 4096, 5999):
        ranks = np.arange(1, 6001, dtype=np.int32)
        ranks[winner] = 0
        docs, _ = search(documents, np.ones((1, 1), np.float32), 2, ranks)
        assert docs.tolist() == [[0, winner]]


def test_negative_products_are_found_too() -> None:
    documents = np.array([[-3.0], [-1.0], [-2.0]], np.float32)
    docs, scores = search(documents, np.ones((1, 1), np.float32), 2, np.arange(3, dtype=np.int32))
    assert docs.tolist() == [[1, 2]]
    assert scores.tolist() == [[-1.0, -2.0]]


def test_fewer_documents_than_k_leave_empty_places() -> None:
    rng = np.random.default_rng(1)
    documents, queries = whole_numbers(rng, 3, 4), whole_numbers(rng, 2, 4)
    docs, scores = search(documents, queries, 5, np.arange(3, dtype=np.int32))
    assert docs.shape == scores.shape == (2, 5)
    assert (docs[:, 3:] == -1).all()
    assert (scores[:, 3:] == -np.inf).all()
    assert all(sorted(row) == [0, 1, 2] for row in docs[:, :3].tolist())


def test_dense_search_without_queries_or_without_documents_finds_nothing() -> None:
    none, some = np.zeros((0, 4), np.float32), np.ones((2, 4), np.float32)
    docs, scores = search(some, none, 3, np.arange(2, dtype=np.int32))
    assert docs.shape == scores.shape == (0, 3)
    docs, scores = search(none, some, 3, np.zeros(0, np.int32))
    assert docs.tolist() == [[-1] * 3] * 2
    assert (scores == -np.inf).all()


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_dense_search_gives_the_same_on_any_number_of_threads(threads: int) -> None:
    rng = np.random.default_rng(5)
    documents, queries = whole_numbers(rng, 5000, 4), whole_numbers(rng, 600, 4)
    ranks = rng.permutation(5000).astype(np.int32)
    one, several = search(documents, queries, 10, ranks), search(documents, queries, 10, ranks, threads)
    np.testing.assert_array_equal(one[0], several[0])
    np.testing.assert_array_equal(one[1], several[1])


@pytest.mark.parametrize("place", [0, 2, 3, 7, 4999])
def test_a_vector_that_is_not_a_number_reaches_the_run_which_refuses_it(place: int) -> None:
    documents = np.ones((5000, 2), np.float32)
    documents[place] = np.nan
    docs, scores = search(documents, np.ones((1, 2), np.float32), 3, np.arange(5000, dtype=np.int32))
    with pytest.raises(RunError, match=r"^query 'q': a score is nan; scores must be finite$"):
        Run(["q"], [str(i) for i in range(5000)], docs, scores)


def on_accelerator(documents: torch.Tensor, queries: torch.Tensor, k: int, ranks: Ints | None = None) -> tuple:
    """The path of an accelerator, run on the processor."""
    return dense._on_accelerator(
        documents, queries, k, np.arange(len(documents), dtype=np.int32) if ranks is None else ranks
    )


@pytest.mark.parametrize("n", [1, 12, 13, 1000, 300_000])  # the last needs two of its blocks
@pytest.mark.parametrize("where", ["on the device", "in host memory"])
def test_the_accelerators_path_is_brute_force_with_ties_in_canonical_order(n: int, where: str, monkeypatch) -> None:
    rng = np.random.default_rng(9)
    documents, queries = whole_numbers(rng, n, 4), whole_numbers(rng, 40, 4)
    ranks = rng.permutation(n).astype(np.int32)
    if where == "in host memory":  # the copies, without a device that is apart
        monkeypatch.setattr(dense, "_needs_copy", lambda *_: True)
        monkeypatch.setattr(dense, "_ROWS", max(1, n // 7))
    docs, scores = on_accelerator(torch.from_numpy(documents), torch.from_numpy(queries), 12, ranks)
    exact = queries.astype(np.float64) @ documents.T.astype(np.float64)
    assert docs.tolist() == canonical(exact, ranks, 12).tolist()
    assert scores.tolist() == at(exact, docs).tolist()
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("rows", [1, 2, 5, 512])
def test_documents_that_all_tie_on_an_accelerator_come_in_the_order_of_their_ranks(rows: int, monkeypatch) -> None:
    monkeypatch.setattr(dense, "_ROWS", rows)
    ranks = np.random.default_rng(0).permutation(200).astype(np.int32)
    documents = torch.tensor([[0.0, 1.0], [-0.0, -1.0]]).repeat(100, 1)  # products of both zeros, which are equal
    docs, scores = on_accelerator(documents, torch.tensor([[-1.0, 0.0]] * 70), 9, ranks)
    assert docs.tolist() == [np.argsort(ranks)[:9].tolist()] * 70
    assert (scores == 0).all()


def test_the_accelerators_path_leaves_empty_places_and_takes_no_queries() -> None:
    few, none = torch.ones((2, 3)), torch.zeros((0, 3))
    docs, scores = on_accelerator(few, torch.ones((1, 3)), 4)
    assert docs.tolist() == [[0, 1, -1, -1]]
    assert scores[0, 2:].tolist() == [-np.inf, -np.inf]
    assert on_accelerator(few, none, 4)[0].shape == (0, 4)
    assert on_accelerator(none, few, 4)[0].tolist() == [[-1] * 4] * 2


def test_half_precision_documents_are_multiplied_as_float32_on_an_accelerator() -> None:
    rng = np.random.default_rng(4)
    documents, queries = whole_numbers(rng, 50, 4), whole_numbers(rng, 3, 4)
    whole = on_accelerator(torch.from_numpy(documents), torch.from_numpy(queries), 7)
    half = on_accelerator(torch.from_numpy(documents).half(), torch.from_numpy(queries), 7)
    assert [found.tolist() for found in half] == [found.tolist() for found in whole]


@pytest.mark.parametrize("place", [0, 7, 4999])
def test_a_vector_that_is_not_a_number_is_first_on_an_accelerator_too(place: int) -> None:
    documents = torch.ones((5000, 2))
    documents[place] = torch.nan
    docs, scores = on_accelerator(documents, torch.ones((1, 2)), 3)
    assert np.isnan(scores[0, 0])
    assert docs[0, 0] == place


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_a_cuda_device_finds_what_the_processor_finds_wherever_the_documents_lie(where: str, monkeypatch) -> None:
    monkeypatch.setattr(dense, "_ROWS", 1 << 12)
    rng = np.random.default_rng(2)
    documents, queries = whole_numbers(rng, 50_000, 8), torch.from_numpy(whole_numbers(rng, 600, 8))
    ranks = rng.permutation(50_000).astype(np.int32)
    expected = search(documents, queries.numpy(), 100, ranks, threads=2)
    found = dense.search(torch.from_numpy(documents).to(where), queries.to("cuda"), 100, ranks, 2)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


# ---------------------------------------------------------------------------------------------------------- postings

Rows = Sequence[dict[int, float]]


def sparse(rows: Rows) -> SparseRows:
    return SparseRows(
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([term for row in rows for term in row], np.int32),
        np.array([weight for row in rows for weight in row.values()], np.float32),
    )


def filled(rows: Rows, n_terms: int) -> NDArray[np.float64]:
    """The same as a matrix [rows, terms]."""
    matrix = np.zeros((len(rows), n_terms))
    for i, row in enumerate(rows):
        matrix[i, list(row.keys())] = list(row.values())
    return matrix


def random_rows(rng: np.random.Generator, rows: int, n_terms: int, longest: int) -> Rows:
    """Rows of a few terms with weights whose sums of products float32 holds exactly; some rows are empty."""
    lengths = rng.integers(0, longest + 1, rows)
    drawn = (rng.choice(n_terms, min(n, n_terms), replace=False).tolist() for n in lengths)
    return [{term: float(rng.choice([0.5, 1.0, 2.0])) for term in terms} for terms in drawn]


def assert_brute_force(documents: Rows, queries: Rows, n_terms: int, k: int, ranks: Ints, threads: int = 1) -> None:
    docs, scores = Postings(sparse(documents), n_terms).search(sparse(queries), k, ranks, threads)
    exact = filled(queries, n_terms) @ filled(documents, n_terms).T
    assert docs.tolist() == canonical(exact, ranks, k, exact > 0).tolist()
    assert scores.tolist() == at(exact, docs).tolist()
    assert (docs.dtype, scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(
    ("n", "m", "n_terms", "k"), [(1, 1, 1, 1), (200, 40, 30, 10), (200, 40, 30, 200), (6000, 20, 50, 25), (50, 9, 1, 3)]
)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_postings_are_brute_force_with_ties_in_canonical_order(
    n: int, m: int, n_terms: int, k: int, threads: int
) -> None:
    rng = np.random.default_rng(n + k)
    documents, queries = random_rows(rng, n, n_terms, 8), random_rows(rng, m, n_terms, 5)
    assert_brute_force(documents, queries, n_terms, k, rng.permutation(n).astype(np.int32), threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_postings_of_many_documents_are_brute_force_whatever_share_of_them_a_query_reaches(threads: int) -> None:
    """Three blocks of documents, each of which a query's terms fill, touch here and there, or leave out."""
    n, rng = 150_000, np.random.default_rng(6)
    matrix = np.zeros((n, 6), np.float32)
    for term, every in enumerate((1, 3, 40, 3_000, 70_000)):  # the last term has no document
        matrix[::every, term] = rng.choice([0.5, 1.0, 2.0], -(-n // every))
    matrix[rng.permutation(n)[: n // 2], 0] = 0.0
    rows, terms = matrix.nonzero()
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    postings = Postings(SparseRows(starts, terms.astype(np.int32), matrix[rows, terms]), 6)
    asked = [{0: 1.0, 1: 2.0}, {2: 1.0}, {3: 1.0, 2: 0.5}, {4: 1.0}, {3: 1.0, 4: 1.0, 5: 1.0}, {5: 1.0}, {}, {1: 1.0}]
    ranks = rng.permutation(n).astype(np.int32)
    exact = filled(asked, 6) @ matrix.T.astype(np.float64)
    for k in (1, 30, 4_000):
        docs, scores = postings.search(sparse(asked), k, ranks, threads)
        assert docs.tolist() == canonical(exact, ranks, k, exact > 0).tolist()
        assert scores.tolist() == at(exact, docs).tolist()


weights = st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0])
vectors = st.lists(st.dictionaries(st.integers(0, 5), weights, max_size=4), max_size=9)


@given(vectors, vectors, st.integers(1, 12), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_any_postings_are_brute_force(documents: Rows, queries: Rows, k: int, threads: int, random: Random) -> None:
    ranks = list(range(len(documents)))
    random.shuffle(ranks)
    assert_brute_force(documents, queries, 6, k, np.array(ranks, np.int32), threads)


def test_postings_find_only_documents_that_share_a_term() -> None:
    docs, scores = Postings(sparse([{0: 1.0}, {1: 2.0}, {0: 0.5, 1: 0.5}, {}]), 3).search(
        sparse([{0: 1.0}, {2: 1.0}, {}]), 4, np.arange(4, dtype=np.int32), 1
    )
    assert docs.tolist() == [[0, 2, -1, -1], [-1] * 4, [-1] * 4]
    assert scores.tolist() == [[1.0, 0.5, -np.inf, -np.inf], [-np.inf] * 4, [-np.inf] * 4]


def test_a_query_leaves_nothing_behind_for_the_next_one() -> None:
    postings, ranks = Postings(sparse([{0: 1.0}, {1: 1.0}]), 2), np.arange(2, dtype=np.int32)
    asked = [{0: 1.0}, {1: 1.0}, {0: 1.0}, {}, {0: 2.0, 1: 1.0}]
    docs, scores = postings.search(sparse(asked), 2, ranks, 1)
    for row, query in enumerate(asked):
        alone = postings.search(sparse([query]), 2, ranks, 1)
        assert (docs[row].tolist(), scores[row].tolist()) == (alone[0][0].tolist(), alone[1][0].tolist())


def test_a_querys_own_weight_counts() -> None:
    _, scores = Postings(sparse([{0: 1.5, 1: 1.0}]), 2).search(sparse([{0: 2.0, 1: 0.5}]), 1, np.zeros(1, np.int32), 1)
    assert scores.tolist() == [[3.5]]


def test_postings_without_documents_terms_or_queries_find_nothing() -> None:
    no_ranks, one_rank = np.zeros(0, np.int32), np.zeros(1, np.int32)
    empty = Postings(sparse([]), 0)
    assert empty.search(sparse([{}, {}]), 3, no_ranks, 2)[0].tolist() == [[-1] * 3] * 2
    assert empty.search(sparse([]), 3, no_ranks, 2)[0].shape == (0, 3)
    assert Postings(sparse([]), 4).search(sparse([{3: 1.0}]), 2, no_ranks, 1)[0].tolist() == [[-1, -1]]
    assert Postings(sparse([{}]), 0).search(sparse([{}]), 2, one_rank, 1)[0].tolist() == [[-1, -1]]
    assert Postings(sparse([{0: 1.0}]), 1).search(sparse([]), 2, one_rank, 2)[0].shape == (0, 2)


def test_postings_lie_by_term_with_documents_ascending() -> None:
    postings = Postings(sparse([{2: 1.0, 0: 2.0}, {}, {2: 3.0}]), 4)
    assert postings.starts.tolist() == [0, 1, 1, 3, 3]
    assert postings.docs.tolist() == [0, 0, 2]
    assert postings.weights.tolist() == [2.0, 1.0, 3.0]
    assert postings.n_docs == 3
    assert postings.nbytes == 5 * 8 + 3 * 4 + 3 * 4
