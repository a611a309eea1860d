"""Exact MaxSim against a padded torch einsum and against the library's own similarity, which mteb takes."""

import numpy as np
import pytest
import torch

from harness.environment import cores
from harness.search import maxsim
from harness.search.centroids import Centroids
from harness.search.maxsim import TokenEmbeddings
from harness.search.topk import recall

K = 100
DIMENSIONS = 128


def drawn(n, lowest, highest, seed):
    """Unit vectors of texts of mixed lengths."""
    lengths = np.random.default_rng(seed).integers(lowest, highest + 1, n)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    generator = torch.Generator().manual_seed(seed)
    return TokenEmbeddings(
        starts, torch.nn.functional.normalize(torch.randn((int(starts[-1]), DIMENSIONS), generator=generator))
    )


def made(measuring):
    n, m = (5_000, 50) if measuring else (200, 5)
    return drawn(n, 10, 180, 0), drawn(m, 32, 32, 1), np.arange(n, dtype=np.int32)


def said(documents, queries):
    return f"{len(documents):,} documents, {len(documents.vectors):,} tokens, {len(queries):,} queries"


def rows(tokens):
    return [tokens.vectors_of(row) for row in range(len(tokens))]


@pytest.mark.benchmark(group="MaxSim")
def test_maxsim_against_a_padded_einsum(versus, measuring):
    documents, queries, ranks = made(measuring)
    padded = torch.nn.utils.rnn.pad_sequence(rows(documents), batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.from_numpy(np.diff(documents.starts))[:, None]
    asked = torch.stack(rows(queries))

    def peer():
        parts = []
        for start in range(0, len(padded), 64):
            products = torch.einsum("qtd,nsd->qnts", asked, padded[start : start + 64])
            products.masked_fill_(~mask[start : start + 64][None, :, None, :], -torch.inf)
            parts.append(products.amax(dim=-1).sum(dim=-1))
        return torch.cat(parts, dim=1).topk(K, dim=1).values

    (_, scores), theirs = versus(
        lambda: maxsim.search(documents, queries, K, ranks, cores()),
        peer,
        rounds=3,
        of="torch",
        how="padded einsum",
        size=said(documents, queries),
    )
    np.testing.assert_allclose(scores, theirs.numpy(), atol=1e-4)


@pytest.mark.benchmark(group="MaxSim")
def test_maxsim_against_the_librarys_similarity_that_mteb_takes(versus, measuring):
    from sentence_transformers.util import maxsim as library

    documents, queries, ranks = made(measuring)
    held, asked = rows(documents), rows(queries)
    (_, scores), theirs = versus(
        lambda: maxsim.search(documents, queries, K, ranks, cores()),
        lambda: library(asked, held).topk(K, dim=1).values,
        rounds=3,
        of="sentence-transformers",
        how="maxsim, as mteb",
        size=said(documents, queries),
    )
    np.testing.assert_allclose(scores, theirs.numpy(), atol=1e-4)


@pytest.mark.benchmark(group="MaxSim, two stages")
def test_two_stage_search_against_exact_search(versus, measuring, real_dataset, minilm_tokens):
    """Real token vectors: random ones have no near neighbours for a centroid to stand for."""
    documents, queries = minilm_tokens(measuring)
    ranks, n = np.arange(len(documents), dtype=np.int32), 500 if measuring else 20
    centroids, k = Centroids(documents, seed=0), K if measuring else 5

    def two_stages():
        likely, _ = centroids.search(queries, n, ranks, cores())
        scores = maxsim.score(documents, queries, likely, cores())
        return np.take_along_axis(likely, np.argsort(-scores, axis=1)[:, :k], axis=1)

    found, (exact, _) = versus(
        two_stages,
        lambda: maxsim.search(documents, queries, k, ranks, cores()),
        rounds=3,
        of="retrieval-harness",
        how="exact MaxSim",
        size=said(documents, queries),
    )
    assert recall(found, exact) > 0.9


@pytest.fixture
def minilm_tokens(real_dataset):
    """`minilm_tokens(measuring)` gives NFCorpus, or the beginning of it, and its queries as MiniLM's token vectors."""

    def encoded(measuring):
        from harness.config import build

        dataset = real_dataset("nfcorpus")
        encoder = build.construct(build.composed(["retriever=colbert_minilm"])["retriever"]["encoder"], "encoder")
        n, m = (len(dataset.corpus), 100) if measuring else (40, 5)
        queries = encoder.encode(dataset.queries.texts[:m], "query")
        return encoder.encode(dataset.corpus.texts[:n], "document"), queries

    return encoded
