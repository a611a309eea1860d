"""Benchmarks of exact dense search against torch, faiss and sentence-transformers, and of encoding."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import dot_score, semantic_search

from harness.embedding_cache import cache
from harness.environment import cores
from harness.search import dense

K = 100


def random_vectors(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn((n, 384), generator=generator))


@pytest.fixture
def against(versus, measuring):
    """Return a function that times dense search and a peer and returns both results.

    `peer(documents, queries)` returns the callable to time.
    """
    n, m = (100_000, 500) if measuring else (2_000, 20)
    documents, queries, ranks = random_vectors(n, 0), random_vectors(m, 1), np.arange(n, dtype=np.int32)

    def run(peer, package, details):
        (_, scores), peer_result = versus(
            lambda: dense.search(documents, queries, K, ranks, cores()),
            peer(documents, queries),
            package=package,
            details=details,
            size=f"{n:,} documents, {m:,} queries, 384 dimensions",
        )
        return scores, peer_result

    return run


@pytest.mark.benchmark(group="dense top-k")
def test_exact_top_k_against_torch_topk(against):
    scores, peer_result = against(
        lambda documents, queries: lambda: (queries @ documents.T).topk(K, dim=1), "torch", "matmul, topk"
    )
    np.testing.assert_allclose(scores, peer_result.values.numpy(), atol=1e-5)


@pytest.mark.benchmark(group="dense top-k")
def test_exact_top_k_against_faiss(against, faiss):
    faiss, blas_setting = faiss
    faiss.omp_set_num_threads(cores())

    def peer(documents, queries):
        index = faiss.IndexFlatIP(documents.shape[1])
        index.add(documents.numpy())
        return lambda: index.search(queries.numpy(), K)

    scores, (peer_result, _) = against(peer, "faiss-cpu", ", ".join(filter(None, ["IndexFlatIP", blas_setting])))
    np.testing.assert_allclose(scores, peer_result, atol=1e-5)


@pytest.mark.benchmark(group="dense top-k")
def test_exact_top_k_against_semantic_search(against):
    def peer(documents, queries):
        return lambda: semantic_search(queries, documents, top_k=K, score_function=dot_score)

    scores, peer_result = against(peer, "sentence-transformers", "semantic_search")
    np.testing.assert_allclose(scores, [[hit["score"] for hit in hits] for hits in peer_result], atol=1e-5)


@pytest.mark.benchmark(group="encode")
def test_encoding_against_sentence_transformers(versus, measuring, minilm, real_dataset, models):
    texts = real_dataset("scifact").corpus.texts[: 256 if measuring else 8]
    peer = SentenceTransformer(str(models / "all-MiniLM-L6-v2"), device="cpu")
    text_list = list(texts)
    with cache.using("off"):
        vectors, peer_vectors = versus(
            lambda: minilm._encoder.encode(texts, "document"),
            lambda: peer.encode(text_list, show_progress_bar=False),
            rounds=3,
            package="sentence-transformers",
            details="SentenceTransformer.encode",
            size=f"{len(texts):,} documents of SciFact, all-MiniLM-L6-v2",
        )
    np.testing.assert_allclose(vectors.numpy(), peer_vectors, atol=1e-5)
