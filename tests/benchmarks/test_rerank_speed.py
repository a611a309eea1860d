"""Benchmark of reranking against CrossEncoder.predict on the same pairs and weights."""

import numpy as np
import pytest
import torch

from harness.encoders.cross import CrossEncoder


@pytest.mark.benchmark(group="rerank")
def test_reranking_against_predict(versus, measuring, models, real_dataset, tmp_path):
    """Use MiniLM with a new head: its scores are random, and its time is that of a trained head."""
    from sentence_transformers import CrossEncoder as Peer

    torch.manual_seed(0)
    model = Peer(str(models / "all-MiniLM-L6-v2"), num_labels=1, device="cpu")
    model.save_pretrained(str(tmp_path / "cross"))
    peer, encoder = Peer(str(tmp_path / "cross"), device="cpu"), CrossEncoder(str(tmp_path / "cross"), device="cpu")
    dataset = real_dataset("scifact")
    n, depth = (8, 32) if measuring else (2, 3)
    queries, documents = dataset.queries.texts[:n], dataset.corpus.texts
    docs = np.random.default_rng(0).permutation(len(documents))[: n * depth].astype(np.int32).reshape(n, depth)
    pairs = [(queries[row], documents[int(doc)]) for row in range(n) for doc in docs[row]]
    scores, peer_scores = versus(
        lambda: encoder.score(queries, documents, docs),
        lambda: peer.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False),
        rounds=3,
        package="sentence-transformers",
        details="CrossEncoder.predict",
        size=f"{len(pairs):,} pairs of SciFact",
    )
    np.testing.assert_allclose(scores.ravel(), peer_scores, atol=1e-4)
