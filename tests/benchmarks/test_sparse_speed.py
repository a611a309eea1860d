"""Benchmarks of SPLADE search against scipy and the similarity of sentence-transformers, as in mteb; of encoding."""

import numpy as np
import pytest
import torch

from harness.environment import cores
from harness.search.postings import Postings, SparseRows

K = 100
TERMS = 30_522


def random_rows(n, nnz, seed):
    """Return rows of about nnz terms of skewed frequency, with weights between 0 and 3 as in SPLADE."""
    rng = np.random.default_rng(seed)
    rows = [np.unique((TERMS * rng.random(nnz) ** 3).astype(np.int32)) for _ in range(n)]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return SparseRows(starts, np.concatenate(rows), rng.uniform(0.01, 3, starts[-1]).astype(np.float32))


def make_input(measuring):
    n, m = (100_000, 200) if measuring else (2_000, 10)
    return random_rows(n, 120, 0), random_rows(m, 40, 1), np.arange(n, dtype=np.int32)


def describe_size(documents, queries):
    return f"{len(documents):,} documents, {len(queries):,} queries"


def assert_best_scores(scores, expected):
    """Assert that both have the k best scores of every query."""
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :K], rtol=1e-4)


@pytest.mark.benchmark(group="SPLADE search")
def test_splade_search_against_scipy(versus, measuring):
    sparse = pytest.importorskip("scipy.sparse")
    documents, queries, ranks = make_input(measuring)
    postings = Postings(documents, TERMS)
    document_matrix = (
        sparse.csr_matrix((documents.weights, documents.terms, documents.starts), (len(documents), TERMS)).T.tocsc().T
    )
    query_matrix = sparse.csr_matrix((queries.weights, queries.terms, queries.starts), (len(queries), TERMS))

    def peer():
        scores = (document_matrix @ query_matrix.T).T.toarray()
        return np.take_along_axis(scores, np.argpartition(-scores, K, axis=1)[:, :K], axis=1)

    (_, scores), peer_scores = versus(
        lambda: postings.search(queries, K, ranks, cores()),
        peer,
        rounds=3,
        package="scipy",
        size=describe_size(documents, queries),
    )
    assert_best_scores(scores, peer_scores)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # from the product that mteb uses
@pytest.mark.benchmark(group="SPLADE search")
def test_splade_search_against_sentence_transformers(versus, measuring):
    from sentence_transformers.util import dot_score

    documents, queries, ranks = make_input(measuring)
    documents = SparseRows(*first_rows(documents, len(documents) // 10))
    postings, ranks = Postings(documents, TERMS), ranks[: len(documents)]
    document_matrix, query_matrix = to_coo(documents), to_coo(queries)

    def peer():
        scores = dot_score(query_matrix, document_matrix)
        return (scores.to_dense() if scores.is_sparse else scores).topk(K, dim=1).values

    (_, scores), peer_scores = versus(
        lambda: postings.search(queries, K, ranks, cores()),
        peer,
        rounds=3,
        package="sentence-transformers",
        details="dot_score, as mteb",
        size=describe_size(documents, queries),
    )
    assert_best_scores(scores, peer_scores.numpy())


def first_rows(rows, n):
    return rows.starts[: n + 1], rows.terms[: rows.starts[n]], rows.weights[: rows.starts[n]]


def to_coo(rows):
    indices = np.stack([np.repeat(np.arange(len(rows)), np.diff(rows.starts)), rows.terms])
    shape = (len(rows), TERMS)
    return torch.sparse_coo_tensor(
        torch.from_numpy(indices), torch.from_numpy(rows.weights), shape, check_invariants=True
    )


@pytest.mark.benchmark(group="SPLADE encode")
def test_splade_encoding_against_sentence_transformers(versus, measuring, real_dataset):
    from sentence_transformers import SparseEncoder

    from harness import weights
    from harness.config import build
    from harness.embedding_cache import cache

    config = build.composed(["retriever=splade_tiny"])["retriever"]["encoder"]
    encoder = build.construct(config, "encoder")
    folder = weights.find(config["model"], build.construct(config["package"], "package")).path
    peer = SparseEncoder(str(folder), device="cpu")
    texts = real_dataset("scifact").corpus.texts[: 128 if measuring else 8]
    text_list = list(texts)
    with cache.using("off"):
        rows, peer_rows = versus(
            lambda: encoder.encode(texts, "document"),
            lambda: peer.encode(text_list, show_progress_bar=False),
            rounds=3,
            package="sentence-transformers",
            details="SparseEncoder",
            size=f"{len(text_list):,} documents of SciFact",
        )
    dense = np.zeros((len(text_list), TERMS), np.float32)
    dense[np.repeat(np.arange(len(text_list)), np.diff(rows.starts)), rows.terms] = rows.weights
    np.testing.assert_allclose(dense, peer_rows.to_dense().numpy(), atol=1e-4)
