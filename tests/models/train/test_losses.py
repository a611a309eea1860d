"""Tests of the training losses: values and gradients against their definitions."""

import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SentenceTransformerTrainer, SparseEncoder
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from support.models import write_dense, write_masked

from harness.encoders.dense import DenseEncoder
from harness.encoders.multi_vector import MultiVectorEncoder as MultiVector
from harness.encoders.sparse import SparseEncoder as Sparse
from harness.train.families import family_of
from harness.train.losses import KnownPositives
from harness.train.plan import LossPlan

ANCHORS = ["a b", "c d", "a b", "e f g"]
DOCS = [["1 2", "3 4", "5 6", "7 8"], ["9 1", "5 6", "2 2", "3 3"]]
"""Columns: positives, negatives. The third row's positive is the second row's negative."""
LABELS = torch.tensor([[0, 0, 4], [1, 1, 2], [0, 2, 5], [3, 3, 6]])
POSITIVES = {0: {0: 1, 2: 1}, 1: {1: 1}, 3: {3: 1}}
"""Anchor 0 has two rows with different positives; neither is a negative in the other row."""

SETTINGS = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}, "local_files_only": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dense(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return write_masked(tmp_path_factory.mktemp("masked"))


def expected_loss(scores: torch.Tensor) -> torch.Tensor:
    """Return the mean over rows of -log softmax without known positives; `scores` is [rows, rows, columns]."""
    total = torch.zeros(())
    for row in range(len(scores)):
        anchor, candidates = int(LABELS[row, 0]), []
        for other in range(len(scores)):
            for column in range(scores.shape[2]):
                is_own_positive = other == row and column == 0
                if is_own_positive or int(LABELS[other, 1 + column]) not in POSITIVES[anchor]:
                    candidates.append(scores[row, other, column])
        total = total - (scores[row, row, 0] - torch.logsumexp(torch.stack(candidates), 0))
    return total / len(scores)


def features(model, texts, task):
    return dict(model.preprocess(texts, task=task))


def columns(model):
    """Return the features of the anchors, the positives and the negatives."""
    return [features(model, ANCHORS, "query"), *(features(model, texts, "document") for texts in DOCS)]


def gradients(model, loss):
    """Return the gradients of a loss by the model's parameters."""
    model.zero_grad()
    loss.backward()
    values = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return values


def assert_same_gradients(actual, reference):
    assert len(actual) == len(reference) > 0
    for value, expected_value in zip(actual, reference, strict=True):
        torch.testing.assert_close(value, expected_value, atol=1e-5, rtol=1e-3)


def known_positives(positives=POSITIVES):
    return KnownPositives(positives, 7)


def dense_scores(model, dimensions=None):
    """Return cosine similarities of embeddings truncated to `dimensions`, of shape [rows, rows, columns]."""
    embeddings = [model(column)["sentence_embedding"][:, :dimensions] for column in columns(model)]
    anchors, *docs = [torch.nn.functional.normalize(embedding, dim=1) for embedding in embeddings]
    return torch.stack([anchors @ embedding.T for embedding in docs], dim=2)


@pytest.mark.parametrize("mini_batch", [None, 1, 3, 10])
def test_dense_loss_is_the_softmax_without_known_positives(folder, mini_batch):
    model = SentenceTransformer(str(folder), device="cpu").eval()
    family = family_of(DenseEncoder(str(folder)))
    loss = family.loss(model, known_positives(), LossPlan(mini_batch=mini_batch))
    reference = expected_loss(20 * dense_scores(model))
    torch.testing.assert_close(loss(columns(model), LABELS), reference, atol=1e-5, rtol=1e-5)
    assert_same_gradients(gradients(model, loss(columns(model), LABELS)), gradients(model, reference))


def test_loss_without_further_positives_equals_sentence_transformers(folder):
    model = SentenceTransformer(str(folder), device="cpu").eval()
    row_positives = KnownPositives({0: {0: 1}, 1: {1: 1}, 3: {3: 1}}, 7)
    loss = family_of(DenseEncoder(str(folder))).loss(model, row_positives, LossPlan(scale=5))
    plain = MultipleNegativesRankingLoss(model, scale=5)(columns(model), None)
    labels = LABELS.clone()
    labels[2] = torch.tensor([2, 2, 5])
    torch.testing.assert_close(loss(columns(model), labels), plain)


@pytest.mark.parametrize("plan", [LossPlan(), LossPlan(mini_batch=2), LossPlan(matryoshka=[8])])
def test_trainer_replaces_the_model_by_the_distributed_one(folder, plan):
    model, shared = SentenceTransformer(str(folder), device="cpu"), torch.nn.Identity()
    loss = family_of(DenseEncoder(str(folder))).loss(model, known_positives(), plan)
    assert hasattr(loss, "model"), "otherwise the processes of the trainer do not share gradients"
    SentenceTransformerTrainer.__new__(SentenceTransformerTrainer).override_model_in_loss(loss, shared)
    holders = [module for module in loss.modules() if "model" in module._modules]
    assert len(holders) >= 2
    assert all(module.model is shared for module in holders)


@pytest.mark.parametrize("mini_batch", [None, 2])
def test_matryoshka_adds_the_loss_of_each_dimension(folder, mini_batch):
    model = SentenceTransformer(str(folder), device="cpu").eval()
    plan = LossPlan(matryoshka=[8, 4], mini_batch=mini_batch)
    loss = family_of(DenseEncoder(str(folder))).loss(model, known_positives(), plan)
    reference = sum(expected_loss(20 * dense_scores(model, dimensions)) for dimensions in (16, 8, 4))
    torch.testing.assert_close(loss(columns(model), LABELS), reference, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("mini_batch", [None, 2])
def test_splade_loss_is_the_softmax_plus_flops_regularizers(masked, mini_batch):
    model = SparseEncoder(str(masked), device="cpu").eval()
    loss = family_of(Sparse(str(masked))).loss(model, known_positives(), LossPlan(mini_batch=mini_batch))
    anchors, *docs = [model(column)["sentence_embedding"] for column in columns(model)]
    scores = torch.stack([anchors @ embedding.T for embedding in docs], dim=2)
    losses = loss(columns(model), LABELS)
    torch.testing.assert_close(losses["base_loss"], expected_loss(scores), atol=1e-4, rtol=1e-5)
    flops = [(embedding.abs().mean(0) ** 2).sum() for embedding in (anchors, torch.cat(docs))]
    torch.testing.assert_close(losses["query_regularizer_loss"], 5e-5 * flops[0])
    torch.testing.assert_close(losses["document_regularizer_loss"], 3e-5 * flops[1])


@pytest.mark.parametrize("mini_batch", [None, 3])
def test_late_interaction_loss_is_the_softmax_over_maxsim(folder, mini_batch):
    family = family_of(MultiVector(str(folder), projection="none"))
    model = family.open(folder / "0_Transformer" if (folder / "0_Transformer").exists() else folder, SETTINGS).eval()
    assert isinstance(model, MultiVectorEncoder)
    loss = family.loss(model, known_positives(), LossPlan(mini_batch=mini_batch))
    tasks = ("query", "document", "document")
    outputs = [model(column, task=task) for column, task in zip(columns(model), tasks, strict=True)]
    vectors = [
        [tokens[mask.bool()] for tokens, mask in zip(output["token_embeddings"], output["attention_mask"], strict=True)]
        for output in outputs
    ]
    scores = torch.stack(
        [
            torch.stack([torch.stack([(q @ d.T).max(1).values.sum() for d in side]) for q in vectors[0]])
            for side in vectors[1:]
        ],
        dim=2,
    )
    torch.testing.assert_close(loss(columns(model), LABELS), expected_loss(scores), atol=1e-4, rtol=1e-5)
