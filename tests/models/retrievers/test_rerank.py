"""Rerankers: a real cross-encoder, trained here on SciFact's triplets, and others that score given documents."""

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


def made(models, folder, labels=1):
    """MiniLM with a new head."""
    torch.manual_seed(0)
    model = Peer(str(models / "all-MiniLM-L6-v2"), num_labels=labels, max_length=LENGTH, device="cpu")
    model.save_pretrained(str(folder))
    return model


@pytest.fixture(scope="module")
def untrained(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    made(models, folder)
    return folder


@pytest.fixture(scope="module")
def trained(models, reference, data, tmp_path_factory):
    """The same after a few hundred steps in which a relevant document should come before a mined negative."""
    folder = tmp_path_factory.mktemp("trained")
    model = made(models, folder)
    lines = (reference / "training" / "scifact.train.triplets.jsonl").read_text(encoding="utf-8").splitlines()
    triplets = [json.loads(line) for line in lines]
    queries, documents = texts(data / "scifact" / "queries.jsonl"), texts(data / "scifact" / "corpus.jsonl")
    bert = model.transformers_model.bert
    for part in (bert.embeddings, *bert.encoder.layer[:3]):  # three quarters of the weights, and little to gain there
        part.requires_grad_(False)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    drawn = np.random.default_rng(0)
    model.train()
    for step in range(STEPS):
        chosen = [triplets[row] for row in drawn.integers(0, len(triplets), TRIPLETS)]
        pairs = [(queries[one["query-id"]], documents[one["pos"]]) for one in chosen]
        pairs += [(queries[one["query-id"]], documents[one["neg"][step % len(one["neg"])]]) for one in chosen]
        scores = model(model.preprocess(pairs))["scores"].view(2, TRIPLETS)
        loss = -torch.nn.functional.logsigmoid(scores[0] - scores[1]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    model.save_pretrained(str(folder))
    return folder


def texts(path):
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}


@pytest.fixture(scope="module")
def slice_of_scifact(real_dataset):
    """Fifty queries of the test split, their relevant documents and five hundred others."""
    whole = real_dataset("scifact")
    asked = dict(list(whole.qrels.items())[:50])
    kept = {doc for docs in asked.values() for doc in docs} | set(whole.corpus.ids[:500])
    rows = [row for row, doc in enumerate(whole.corpus.ids) if doc in kept]
    corpus = Corpus(whole.corpus.ids.take(np.array(rows)), whole.corpus.texts.take(np.array(rows)))
    words = dict(zip(whole.queries.ids, whole.queries.texts, strict=True))
    return Dataset("slice", "test", corpus, Queries(list(asked), [words[query] for query in asked]), Qrels(asked))


def retriever(name, *overrides):
    return build.construct(build.composed([f"retriever={name}", *overrides])["retriever"], "retriever")


def reranked(folder, dataset, depth=10):
    """With twice the tokens that it was trained on."""
    found = Rerank(
        retriever("bm25"), CrossEncoderScorer(CrossEncoder(str(folder), device="cpu", max_length=2 * LENGTH)), depth
    )
    found.index(dataset.corpus)
    return found.search(dataset.queries, depth)


def ndcg(run, dataset):
    return float(score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean())


# ----------------------------------------------------------------------------------------------------- cross-encoders

QUERIES = StringColumn(["what lowers the risk of influenza", "", "bread", "a much longer question " * 12])
DOCUMENTS = StringColumn(
    ["Vaccination does.", "", "Bread is baked from flour and water. " * 40, "short", "日本語の文書"]
)


def test_scores_are_the_librarys_for_pairs_of_any_length_and_order(trained):
    peer = Peer(str(trained), device="cpu")
    docs = np.array([[3, 0, 2], [4, 1, 0], [2, 3, 4], [1, 2, 0]], np.int32)
    found = CrossEncoder(str(trained), device="cpu").score(QUERIES, DOCUMENTS, docs)
    pairs = [(QUERIES[row], DOCUMENTS[int(doc)]) for row in range(4) for doc in docs[row]]
    expected = peer.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False).reshape(4, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    usual = peer.predict(pairs, show_progress_bar=False).reshape(4, 3)
    np.testing.assert_array_equal(found.argsort(axis=1), usual.argsort(axis=1))


def test_an_empty_place_has_no_score_and_no_candidates_no_work(trained):
    encoder = CrossEncoder(str(trained), device="cpu")
    found = encoder.score(QUERIES, DOCUMENTS, np.array([[0, -1], [-1, -1], [2, 3], [-1, 1]], np.int32))
    assert np.isneginf(found).tolist() == [[False, True], [True, True], [False, False], [True, False]]
    assert encoder.score(QUERIES, DOCUMENTS, np.full((4, 0), -1, np.int32)).shape == (4, 0)


def test_pairs_go_by_length_under_the_token_budget(trained, monkeypatch):
    encoder = CrossEncoder(str(trained), device="cpu", batch_tokens=128)
    encoder.load()
    shapes, whole = [], encoder._model.preprocess

    def seen(pairs):
        features = whole(pairs)
        shapes.append(tuple(features["input_ids"].shape))
        return features

    monkeypatch.setattr(encoder._model, "preprocess", seen)
    with recording() as recorder:
        encoder.score(QUERIES, DOCUMENTS, np.tile(np.arange(5, dtype=np.int32), (4, 1)))
    assert sum(rows for rows, _ in shapes) == 20
    assert all(rows == 1 or rows * tokens <= 128 for rows, tokens in shapes)
    assert [tokens for _, tokens in shapes] == sorted((tokens for _, tokens in shapes), reverse=True)
    assert recorder.counters[""]["pairs"] == 20
    assert recorder.counters[""]["truncated"] == 4, "the long document is cut for each query"


def test_training_on_the_triplets_makes_it_rank_better(trained, untrained, slice_of_scifact):
    assert (
        ndcg(reranked(trained, slice_of_scifact), slice_of_scifact)
        > ndcg(reranked(untrained, slice_of_scifact), slice_of_scifact) + 0.1
    )


def test_the_candidates_are_the_first_stages_and_no_others(untrained, slice_of_scifact):
    first = retriever("bm25")
    first.index(slice_of_scifact.corpus)
    before, after = first.search(slice_of_scifact.queries, 10), reranked(untrained, slice_of_scifact)
    for row in range(len(before)):
        assert set(after.hits(row)[0]) == set(before.hits(row)[0])
    assert any(after.hits(row)[0] != before.hits(row)[0] for row in range(len(before)))


def test_less_depth_than_k_is_said_and_gives_the_depth(untrained, slice_of_scifact, caplog):
    found = Rerank(retriever("bm25"), CrossEncoderScorer(CrossEncoder(str(untrained), device="cpu")), depth=3)
    found.index(slice_of_scifact.corpus)
    with caplog.at_level(logging.WARNING), recording() as recorder:
        run = found.search(slice_of_scifact.queries[:2], 10)
        found.search(slice_of_scifact.queries[:2], 10)
    assert run.depth == 3
    assert recorder.metadata["depth"] == 3
    assert [record.message for record in caplog.records] == [
        "retriever.depth=3 is less than k=10: recall beyond it is not measured"
    ]


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"retriever\.depth=0 must be at least 1"):
        Rerank(retriever("bm25"), retriever("bm25"), depth=0)


def test_a_model_of_several_labels_is_refused_before_anything_is_searched(models, tmp_path):
    made(models, tmp_path, labels=3)
    found = Rerank(retriever("bm25"), CrossEncoderScorer(CrossEncoder(str(tmp_path), device="cpu")))
    with pytest.raises(WeightsError, match="has 3 labels; a reranker gives one score a pair"):
        found.index(Corpus(["d"], ["text"]))


def test_an_encoder_without_a_head_is_refused(models, slice_of_scifact):
    """transformers would give it random weights, and it would rank at random."""
    encoder = CrossEncoder(str(models / "all-MiniLM-L6-v2"), device="cpu")
    with pytest.raises(WeightsError, match="no head that scores pairs, so its scores would be random; give one, such"):
        Rerank(retriever("bm25"), CrossEncoderScorer(encoder), depth=3).index(slice_of_scifact.corpus)


def test_a_score_that_is_no_number_is_an_error(trained, monkeypatch):
    encoder = CrossEncoder(str(trained), device="cpu")
    monkeypatch.setattr(encoder, "_run", lambda model, pairs: np.full(len(pairs), np.nan, np.float32))
    with pytest.raises(RunError, match="gave a score that is not a number"):
        encoder.score(QUERIES, DOCUMENTS, np.zeros((4, 1), np.int32))


# ------------------------------------------------------------------------------------------------------ other scorers


def few(dataset):
    """Forty documents, so that they are soon encoded, and three queries."""
    return dataset.corpus[:40], dataset.queries[:3]


def test_maxsim_as_a_reranker_gives_late_interactions_own_scores(models, slice_of_scifact):
    corpus, queries = few(slice_of_scifact)
    found, own = retriever("rerank_colbert_minilm"), retriever("colbert_minilm")
    found.index(corpus)
    own.index(corpus)
    whole = own.search(queries, 100)
    run = found.search(queries, 5)
    for row in range(3):
        expected = dict(zip(*whole.hits(row), strict=True))
        ids, scores = run.hits(row)
        np.testing.assert_allclose(scores, [expected[doc] for doc in ids], rtol=1e-5)


def test_a_dense_model_as_a_reranker_gives_its_inner_products(models, slice_of_scifact):
    corpus, queries = few(slice_of_scifact)
    found, own = retriever("rerank_colbert_minilm", "retriever@retriever.scorer=minilm"), retriever("minilm")
    found.index(corpus)
    own.index(corpus)
    whole = own.search(queries, 100)
    for row in range(3):
        expected = dict(zip(*whole.hits(row), strict=True))
        ids, scores = found.search(queries, 5).hits(row)
        np.testing.assert_allclose(scores, [expected[doc] for doc in ids], atol=1e-5)


def test_a_hybrid_can_be_the_first_stage(models):
    config = build.composed(["retriever=rerank", "retriever@retriever.first_stage=hybrid", "retriever.depth=7"])
    assert config["retriever"]["first_stage"]["_target_"] == "harness.retrievers.hybrid.Hybrid"
    assert isinstance(build.construct(config["retriever"], "retriever"), Rerank)


def test_the_bytes_of_both_stages_count(untrained, slice_of_scifact):
    first, found = (
        retriever("bm25"),
        Rerank(retriever("bm25"), CrossEncoderScorer(CrossEncoder(str(untrained), device="cpu"))),
    )
    for one in (first, found):
        one.index(slice_of_scifact.corpus)
    assert found.nbytes() == first.nbytes() + slice_of_scifact.corpus.texts.arrow.nbytes
