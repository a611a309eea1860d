"""Benchmarks of exact MaxSim against a padded torch einsum and the similarity of sentence-transformers, as in mteb."""

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


def random_tokens(n, min_length, max_length, seed):
    """Return unit vectors of n texts of random lengths."""
    lengths = np.random.default_rng(seed).integers(min_length, max_length + 1, n)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    generator = torch.Generator().manual_seed(seed)
    return TokenEmbeddings(
        starts, torch.nn.functional.normalize(torch.randn((int(starts[-1]), DIMENSIONS), generator=generator))
    )


def make_input(measuring):
    n, m = (5_000, 50) if measuring else (200, 5)
    return random_tokens(n, 10, 180, 0), random_tokens(m, 32, 32, 1), np.arange(n, dtype=np.int32)


def describe_size(documents, queries):
    return f"{len(documents):,} documents, {len(documents.vectors):,} tokens, {len(queries):,} queries"


def token_matrices(tokens):
    return [tokens.vectors_of(row) for row in range(len(tokens))]


@pytest.mark.benchmark(group="MaxSim")
def test_maxsim_against_a_padded_einsum(versus, measuring):
    documents, queries, ranks = make_input(measuring)
    padded = torch.nn.utils.rnn.pad_sequence(token_matrices(documents), batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.from_numpy(np.diff(documents.starts))[:, None]
    query_matrices = torch.stack(token_matrices(queries))

    def peer():
        parts = []
        for start in range(0, len(padded), 64):
            products = torch.einsum("qtd,nsd->qnts", query_matrices, padded[start : start + 64])
            products.masked_fill_(~mask[start : start + 64][None, :, None, :], -torch.inf)
            parts.append(products.amax(dim=-1).sum(dim=-1))
        return torch.cat(parts, dim=1).topk(K, dim=1).values

    (_, scores), peer_scores = versus(
        lambda: maxsim.search(documents, queries, K, ranks, cores()),
        peer,
        rounds=3,
        package="torch",
        details="padded einsum",
        size=describe_size(documents, queries),
    )
    np.testing.assert_allclose(scores, peer_scores.numpy(), atol=1e-4)


@pytest.mark.benchmark(group="MaxSim")
def test_maxsim_against_sentence_transformers(versus, measuring):
    from sentence_transformers.util import maxsim as peer_maxsim

    documents, queries, ranks = make_input(measuring)
    document_matrices, query_matrices = token_matrices(documents), token_matrices(queries)
    (_, scores), peer_scores = versus(
        lambda: maxsim.search(documents, queries, K, ranks, cores()),
        lambda: peer_maxsim(query_matrices, document_matrices).topk(K, dim=1).values,
        rounds=3,
        package="sentence-transformers",
        details="maxsim, as mteb",
        size=describe_size(documents, queries),
    )
    np.testing.assert_allclose(scores, peer_scores.numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.benchmark(group="MaxSim, two stages")
def test_two_stage_search_against_exact_search(versus, measuring, real_dataset, minilm_tokens):
    """Use real token vectors: random ones have no near neighbours, which centroids rely on."""
    documents, queries = minilm_tokens(measuring)
    ranks, n = np.arange(len(documents), dtype=np.int32), 500 if measuring else 20
    centroids, k = Centroids(documents, seed=0), K if measuring else 5

    def two_stages():
        candidates, _ = centroids.search(queries, n, ranks, cores())
        scores = maxsim.score(documents, queries, candidates, cores())
        return np.take_along_axis(candidates, np.argsort(-scores, axis=1)[:, :k], axis=1)

    docs, (exact, _) = versus(
        two_stages,
        lambda: maxsim.search(documents, queries, k, ranks, cores()),
        rounds=3,
        package="retrieval-harness",
        details="exact MaxSim",
        size=describe_size(documents, queries),
    )
    assert recall(docs, exact) > 0.9


@pytest.fixture
def minilm_tokens(real_dataset):
    """Return a function that encodes NFCorpus, or a sample of it, and its queries to MiniLM's token vectors."""

    def encode(measuring):
        from harness.config import build

        dataset = real_dataset("nfcorpus")
        encoder = build.construct(build.composed(["retriever=colbert_minilm"])["retriever"]["encoder"], "encoder")
        n, m = (len(dataset.corpus), 100) if measuring else (40, 5)
        queries = encoder.encode(dataset.queries.texts[:m], "query")
        return encoder.encode(dataset.corpus.texts[:n], "document"), queries

    return encode
