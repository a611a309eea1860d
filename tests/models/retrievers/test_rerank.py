"""Tests of reranking: a cross-encoder trained here on SciFact's triplets, and other retrievers as scorers."""

import json
import logging

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as Peer

from harness.config import build
from harness.encoders.cross import CrossEncoder
from harness.errors import ConfigError, RunError, WeightsError
from harness.instrument import recording
from harness.metrics import parse, score
from harness.retrievers.rerank import CrossEncoderScorer, Rerank
from harness.types import Corpus, Dataset, Qrels, Queries, StringColumn

STEPS, TRIPLETS, LENGTH = 200, 2, 64


def save_cross_encoder(models, folder, labels=1):
    """Save MiniLM with a new classification head, and return the model."""
    torch.manual_seed(0)
    model = Peer(str(models / "all-MiniLM-L6-v2"), num_labels=labels, max_length=LENGTH, device="cpu")
    model.save_pretrained(str(folder))
    return model


@pytest.fixture(scope="module")
def untrained(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    save_cross_encoder(models, folder)
    return folder


@pytest.fixture(scope="module")
def trained(models, reference, data, tmp_path_factory):
    """Train the cross-encoder for 200 steps to score a relevant document above a hard negative; return its folder."""
    folder = tmp_path_factory.mktemp("trained")
    model = save_cross_encoder(models, folder)
    lines = (reference / "training" / "scifact.train.triplets.jsonl").read_text(encoding="utf-8").splitlines()
    triplets = [json.loads(line) for line in lines]
    queries, documents = read_texts(data / "scifact" / "queries.jsonl"), read_texts(data / "scifact" / "corpus.jsonl")
    bert = model.transformers_model.bert
    for module in (bert.embeddings, *bert.encoder.layer[:3]):  # three quarters of the weights: faster, and it suffices
        module.requires_grad_(False)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    rng = np.random.default_rng(0)
    model.train()
    for step in range(STEPS):
        chosen = [triplets[row] for row in rng.integers(0, len(triplets), TRIPLETS)]
        pairs = [(queries[triplet["query-id"]], documents[triplet["pos"]]) for triplet in chosen]
        negatives = [triplet["neg"][step % len(triplet["neg"])] for triplet in chosen]
        pairs += [
            (queries[triplet["query-id"]], documents[doc]) for triplet, doc in zip(chosen, negatives, strict=True)
        ]
        scores = model(model.preprocess(pairs))["scores"].view(2, TRIPLETS)
        loss = -torch.nn.functional.logsigmoid(scores[0] - scores[1]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    model.save_pretrained(str(folder))
    return folder


def read_texts(path):
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}


@pytest.fixture(scope="module")
def scifact_sample(real_dataset):
    """Return fifty queries of the test split, their judged documents and five hundred others."""
    whole = real_dataset("scifact")
    qrels = dict(list(whole.qrels.items())[:50])
    doc_ids = {doc for docs in qrels.values() for doc in docs} | set(whole.corpus.ids[:500])
    rows = [row for row, doc in enumerate(whole.corpus.ids) if doc in doc_ids]
    corpus = Corpus(whole.corpus.ids.take(np.array(rows)), whole.corpus.texts.take(np.array(rows)))
    query_texts = dict(zip(whole.queries.ids, whole.queries.texts, strict=True))
    return Dataset("slice", "test", corpus, Queries(list(qrels), [query_texts[query] for query in qrels]), Qrels(qrels))


def make_retriever(name, *overrides):
    return build.construct(build.composed([f"retriever={name}", *overrides])["retriever"], "retriever")


def rerank(folder, dataset, depth=10):
    """Return the run of BM25 reranked by a cross-encoder, with twice the length that it was trained with."""
    reranker = Rerank(
        make_retriever("bm25"),
        CrossEncoderScorer(CrossEncoder(str(folder), device="cpu", max_length=2 * LENGTH)),
        depth,
    )
    reranker.index(dataset.corpus)
    return reranker.search(dataset.queries, depth)


def ndcg(run, dataset):
    return float(score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean())


# ----------------------------------------------------------------------------------------------------- cross-encoders

QUERIES = StringColumn(["what lowers the risk of influenza", "", "bread", "a much longer question " * 12])
DOCUMENTS = StringColumn(
    ["Vaccination does.", "", "Bread is baked from flour and water. " * 40, "short", "日本語の文書"]
)


@pytest.mark.slow
def test_cross_encoder_scores_equal_sentence_transformers(trained):
    peer = Peer(str(trained), device="cpu")
    docs = np.array([[3, 0, 2], [4, 1, 0], [2, 3, 4], [1, 2, 0]], np.int32)
    scores = CrossEncoder(str(trained), device="cpu").score(QUERIES, DOCUMENTS, docs)
    pairs = [(QUERIES[row], DOCUMENTS[int(doc)]) for row in range(4) for doc in docs[row]]
    expected = peer.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False).reshape(4, 3)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    with_activation = peer.predict(pairs, show_progress_bar=False).reshape(4, 3)
    np.testing.assert_array_equal(scores.argsort(axis=1), with_activation.argsort(axis=1))


@pytest.mark.slow
def test_padding_scores_minus_infinity_and_no_candidates_give_no_scores(trained):
    encoder = CrossEncoder(str(trained), device="cpu")
    scores = encoder.score(QUERIES, DOCUMENTS, np.array([[0, -1], [-1, -1], [2, 3], [-1, 1]], np.int32))
    assert np.isneginf(scores).tolist() == [[False, True], [True, True], [False, False], [True, False]]
    assert encoder.score(QUERIES, DOCUMENTS, np.full((4, 0), -1, np.int32)).shape == (4, 0)


@pytest.mark.slow
def test_pairs_are_batched_by_length_within_the_token_limit(trained, monkeypatch):
    encoder = CrossEncoder(str(trained), device="cpu", batch_tokens=128)
    encoder.load()
    shapes, preprocess = [], encoder._model.preprocess

    def recorded_preprocess(pairs):
        features = preprocess(pairs)
        shapes.append(tuple(features["input_ids"].shape))
        return features

    monkeypatch.setattr(encoder._model, "preprocess", recorded_preprocess)
    with recording() as recorder:
        encoder.score(QUERIES, DOCUMENTS, np.tile(np.arange(5, dtype=np.int32), (4, 1)))
    assert sum(rows for rows, _ in shapes) == 20
    assert all(rows == 1 or rows * tokens <= 128 for rows, tokens in shapes)
    assert [tokens for _, tokens in shapes] == sorted((tokens for _, tokens in shapes), reverse=True)
    assert recorder.counters[""]["pairs"] == 20
    assert recorder.counters[""]["truncated"] == 4, "the long document is cut for each query"


@pytest.mark.slow
def test_a_trained_cross_encoder_ranks_better_than_an_untrained_one(trained, untrained, scifact_sample):
    assert (
        ndcg(rerank(trained, scifact_sample), scifact_sample)
        > ndcg(rerank(untrained, scifact_sample), scifact_sample) + 0.1
    )


@pytest.mark.slow
def test_reranking_reorders_the_candidates_of_the_first_stage(untrained, scifact_sample):
    first = make_retriever("bm25")
    first.index(scifact_sample.corpus)
    before, after = first.search(scifact_sample.queries, 10), rerank(untrained, scifact_sample)
    for row in range(len(before)):
        assert set(after.hits(row)[0]) == set(before.hits(row)[0])
    assert any(after.hits(row)[0] != before.hits(row)[0] for row in range(len(before)))


def test_a_depth_below_k_is_warned_of_and_limits_the_run(untrained, scifact_sample, caplog):
    reranker = Rerank(make_retriever("bm25"), CrossEncoderScorer(CrossEncoder(str(untrained), device="cpu")), depth=3)
    reranker.index(scifact_sample.corpus)
    with caplog.at_level(logging.WARNING), recording() as recorder:
        run = reranker.search(scifact_sample.queries[:2], 10)
        reranker.search(scifact_sample.queries[:2], 10)
    assert run.depth == 3
    assert recorder.metadata["depth"] == 3
    (warning,) = [record.message for record in caplog.records]
    assert "retriever.depth=3" in warning
    assert "k=10" in warning


def test_a_depth_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"retriever\.depth=0 must be at least 1"):
        Rerank(make_retriever("bm25"), make_retriever("bm25"), depth=0)


def test_a_cross_encoder_with_several_labels_is_refused_by_index(models, tmp_path):
    save_cross_encoder(models, tmp_path, labels=3)
    reranker = Rerank(make_retriever("bm25"), CrossEncoderScorer(CrossEncoder(str(tmp_path), device="cpu")))
    with pytest.raises(WeightsError, match="has 3 labels"):
        reranker.index(Corpus(["d"], ["text"]))


def test_an_encoder_without_a_classification_head_is_refused(models, scifact_sample):
    """transformers would add a head of random weights, which ranks at random."""
    encoder = CrossEncoder(str(models / "all-MiniLM-L6-v2"), device="cpu")
    with pytest.raises(WeightsError, match=r"no head that scores pairs.*give one, such as"):
        Rerank(make_retriever("bm25"), CrossEncoderScorer(encoder), depth=3).index(scifact_sample.corpus)


@pytest.mark.slow
def test_a_nan_score_is_an_error(trained, monkeypatch):
    encoder = CrossEncoder(str(trained), device="cpu")
    monkeypatch.setattr(encoder, "_run", lambda model, pairs: np.full(len(pairs), np.nan, np.float32))
    with pytest.raises(RunError, match="gave a score that is not a number"):
        encoder.score(QUERIES, DOCUMENTS, np.zeros((4, 1), np.int32))


# ------------------------------------------------------------------------------------------------------ other scorers


def first_documents_and_queries(dataset):
    """Return forty documents, which are encoded quickly, and three queries."""
    return dataset.corpus[:40], dataset.queries[:3]


@pytest.mark.slow
def test_maxsim_as_a_reranker_gives_the_scores_of_full_search(models, scifact_sample):
    corpus, queries = first_documents_and_queries(scifact_sample)
    reranker, full_search = make_retriever("rerank_colbert_minilm"), make_retriever("colbert_minilm")
    reranker.index(corpus)
    full_search.index(corpus)
    full_run = full_search.search(queries, 100)
    run = reranker.search(queries, 5)
    for row in range(3):
        expected = dict(zip(*full_run.hits(row), strict=True))
        ids, scores = run.hits(row)
        np.testing.assert_allclose(scores, [expected[doc] for doc in ids], rtol=1e-5)


@pytest.mark.slow
def test_a_dense_model_as_a_reranker_gives_the_scores_of_full_search(models, scifact_sample):
    corpus, queries = first_documents_and_queries(scifact_sample)
    reranker, full_search = (
        make_retriever("rerank_colbert_minilm", "retriever@retriever.scorer=minilm"),
        make_retriever("minilm"),
    )
    reranker.index(corpus)
    full_search.index(corpus)
    full_run = full_search.search(queries, 100)
    for row in range(3):
        expected = dict(zip(*full_run.hits(row), strict=True))
        ids, scores = reranker.search(queries, 5).hits(row)
        np.testing.assert_allclose(scores, [expected[doc] for doc in ids], atol=1e-5)


def test_a_hybrid_can_be_the_first_stage(models):
    config = build.composed(["retriever=rerank", "retriever@retriever.first_stage=hybrid", "retriever.depth=7"])
    assert config["retriever"]["first_stage"]["_target_"] == "harness.retrievers.hybrid.Hybrid"
    assert isinstance(build.construct(config["retriever"], "retriever"), Rerank)


def test_nbytes_counts_the_first_stage_and_the_texts(untrained, scifact_sample):
    first, reranker = (
        make_retriever("bm25"),
        Rerank(make_retriever("bm25"), CrossEncoderScorer(CrossEncoder(str(untrained), device="cpu"))),
    )
    for stage in (first, reranker):
        stage.index(scifact_sample.corpus)
    assert reranker.nbytes() == first.nbytes() + scifact_sample.corpus.texts.arrow.nbytes
