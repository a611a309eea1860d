"""Our figures on real collections with real weights are the published ones.

MiniLM: MTEB's results for revision 8b3219a92973c328a8e22fadcfa821b5dc75636a. BM25: MTEB's baseline-bm25s (0_1_10) and
Anserini's flat BM25 runs on BEIR v1.0.0.
"""

import pytest
from support import ROOT

from harness.config import build
from harness.metrics import parse, score
from harness.store import Store

BOARD = ROOT / "results" / "board"


def ndcg(run, dataset):
    return float(score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean())


@pytest.mark.parametrize(
    ("preset", "name", "published", "within"),
    [
        ("bm25_mteb", "scifact", 0.6874, 0.003),
        ("bm25_mteb", "nfcorpus", 0.3208, 0.003),
        ("bm25_anserini", "scifact", 0.6789, 0.004),
        ("bm25_anserini", "nfcorpus", 0.3218, 0.004),
    ],
)
def test_bm25_with_a_peers_settings_gives_the_peers_figure(preset, name, published, within, real_dataset):
    dataset = real_dataset(name)
    retriever = build.construct(build.composed([f"retriever={preset}"])["retriever"], "retriever")
    retriever.index(dataset.corpus)
    assert abs(ndcg(retriever.search(dataset.queries, 100), dataset) - published) <= within


def test_minilm_gives_its_published_figure(real_dataset, minilm_index):
    """On the smaller collection; that of SciFact is measured for the committed board."""
    dataset = real_dataset("nfcorpus")
    found = ndcg(minilm_index("nfcorpus").search(dataset.queries, 100), dataset)
    assert abs(found - 0.31594) <= 0.001


def test_the_committed_boards_minilm_in_single_precision_has_its_published_figures():
    latest = {own.dataset.name: own for own in Store(BOARD).records() if own.retriever.label == "minilm"}
    for name, published in (("scifact", 0.64508), ("nfcorpus", 0.31594)):
        assert abs(latest[name].metrics["ndcg@10"] - published) <= 0.001
