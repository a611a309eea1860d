"""SPLADE search against scipy's sparse product and against the library's own similarity, which mteb takes."""

import numpy as np
import pytest
import torch

from harness.environment import cores
from harness.search.postings import Postings, SparseRows

K = 100
TERMS = 30_522


def drawn(n, nnz, seed):
    """Rows of about nnz terms, common ones often, with SPLADE's weights between 0 and 3."""
    rng = np.random.default_rng(seed)
    rows = [np.unique((TERMS * rng.random(nnz) ** 3).astype(np.int32)) for _ in range(n)]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return SparseRows(starts, np.concatenate(rows), rng.uniform(0.01, 3, starts[-1]).astype(np.float32))


def made(measuring):
    n, m = (100_000, 200) if measuring else (2_000, 10)
    return drawn(n, 120, 0), drawn(m, 40, 1), np.arange(n, dtype=np.int32)


def said(documents, queries):
    return f"{len(documents):,} documents, {len(queries):,} queries"


def best_of(found, expected):
    """Both give the k best scores of every query."""
    np.testing.assert_allclose(found, -np.sort(-expected, axis=1)[:, :K], rtol=1e-4)


@pytest.mark.benchmark(group="SPLADE search")
def test_splade_search_against_scipy(versus, measuring):
    sparse = pytest.importorskip("scipy.sparse")
    documents, queries, ranks = made(measuring)
    postings = Postings(documents, TERMS)
    held = (
        sparse.csr_matrix((documents.weights, documents.terms, documents.starts), (len(documents), TERMS)).T.tocsc().T
    )
    asked = sparse.csr_matrix((queries.weights, queries.terms, queries.starts), (len(queries), TERMS))

    def peer():
        scores = (held @ asked.T).T.toarray()
        return np.take_along_axis(scores, np.argpartition(-scores, K, axis=1)[:, :K], axis=1)

    (_, scores), theirs = versus(
        lambda: postings.search(queries, K, ranks, cores()), peer, rounds=3, of="scipy", size=said(documents, queries)
    )
    best_of(scores, theirs)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")  # of the product that mteb takes
@pytest.mark.benchmark(group="SPLADE search")
def test_splade_search_against_the_librarys_similarity_that_mteb_takes(versus, measuring):
    from sentence_transformers.util import dot_score

    documents, queries, ranks = made(measuring)
    documents = SparseRows(*_first(documents, len(documents) // 10))
    postings, ranks = Postings(documents, TERMS), ranks[: len(documents)]
    held, asked = _coo(documents), _coo(queries)

    def peer():
        scores = dot_score(asked, held)
        return (scores.to_dense() if scores.is_sparse else scores).topk(K, dim=1).values

    (_, scores), theirs = versus(
        lambda: postings.search(queries, K, ranks, cores()),
        peer,
        rounds=3,
        of="sentence-transformers",
        how="dot_score, as mteb",
        size=said(documents, queries),
    )
    best_of(scores, theirs.numpy())


def _first(rows, n):
    return rows.starts[: n + 1], rows.terms[: rows.starts[n]], rows.weights[: rows.starts[n]]


def _coo(rows):
    places = np.stack([np.repeat(np.arange(len(rows)), np.diff(rows.starts)), rows.terms])
    shape = (len(rows), TERMS)
    return torch.sparse_coo_tensor(
        torch.from_numpy(places), torch.from_numpy(rows.weights), shape, check_invariants=True
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
    plain = list(texts)
    with cache.using("off"):
        ours, theirs = versus(
            lambda: encoder.encode(texts, "document"),
            lambda: peer.encode(plain, show_progress_bar=False),
            rounds=3,
            of="sentence-transformers",
            how="SparseEncoder",
            size=f"{len(plain):,} documents of SciFact",
        )
    dense = np.zeros((len(plain), TERMS), np.float32)
    dense[np.repeat(np.arange(len(plain)), np.diff(ours.starts)), ours.terms] = ours.weights
    np.testing.assert_allclose(dense, theirs.to_dense().numpy(), atol=1e-4)
