"""The losses of training against their definitions, value and gradient."""

import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
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
"""Anchor 0 stands in two rows, with a positive of its own in each: neither is a negative in the other."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dense(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return write_masked(tmp_path_factory.mktemp("masked"))


def expected(scores: torch.Tensor) -> torch.Tensor:
    """The mean over rows of -log softmax; `scores` [rows, rows, columns]. What is known to answer is left out."""
    total = torch.zeros(())
    for row in range(len(scores)):
        anchor, kept = int(LABELS[row, 0]), []
        for other in range(len(scores)):
            for column in range(scores.shape[2]):
                own = other == row and column == 0
                if own or int(LABELS[other, 1 + column]) not in POSITIVES[anchor]:
                    kept.append(scores[row, other, column])
        total = total - (scores[row, row, 0] - torch.logsumexp(torch.stack(kept), 0))
    return total / len(scores)


def features(model, texts, task):
    return dict(model.preprocess(texts, task=task))


def columns(model):
    return [features(model, ANCHORS, "query"), *(features(model, texts, "document") for texts in DOCS)]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    found = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    model.zero_grad()
    return found


def same_gradients(one, other):
    assert len(one) == len(other) > 0
    for mine, theirs in zip(one, other, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def known(positives=POSITIVES):
    return KnownPositives(positives, 7)


def dense_scores(model, cut=None):
    anchors, *docs = [model(one)["sentence_embedding"][:, :cut] for one in columns(model)]
    anchors, *docs = [torch.nn.functional.normalize(one, dim=1) for one in (anchors, *docs)]
    return torch.stack([anchors @ own.T for own in docs], dim=2)


@pytest.mark.parametrize("mini_batch", [None, 1, 3, 10])
def test_dense_is_the_softmax_without_known_positives(folder, mini_batch):
    model = SentenceTransformer(str(folder), device="cpu").eval()
    family = family_of(DenseEncoder(str(folder)))
    loss = family.loss(model, known(), LossPlan(mini_batch=mini_batch))
    right = expected(20 * dense_scores(model))
    found = loss(columns(model), LABELS)
    torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
    same_gradients(gradients(model, loss(columns(model), LABELS)), gradients(model, right))


def test_nothing_is_left_out_where_nothing_more_is_known(folder):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(folder), device="cpu").eval()
    own = KnownPositives({0: {0: 1}, 1: {1: 1}, 3: {3: 1}}, 7)
    loss = family_of(DenseEncoder(str(folder))).loss(model, own, LossPlan(scale=5))
    plain = MultipleNegativesRankingLoss(model, scale=5)(columns(model), None)
    mine = LABELS.clone()
    mine[2] = torch.tensor([2, 2, 5])
    torch.testing.assert_close(loss(columns(model), mine), plain)


@pytest.mark.parametrize("plan", [LossPlan(), LossPlan(mini_batch=2), LossPlan(matryoshka=[8])])
def test_the_trainer_puts_the_model_that_processes_share_in_the_place_of_the_bare_one(folder, plan):
    from sentence_transformers import SentenceTransformerTrainer

    model, shared = SentenceTransformer(str(folder), device="cpu"), torch.nn.Identity()
    loss = family_of(DenseEncoder(str(folder))).loss(model, known(), plan)
    assert hasattr(loss, "model"), "else the trainer leaves every process to its own gradients"
    SentenceTransformerTrainer.__new__(SentenceTransformerTrainer).override_model_in_loss(loss, shared)
    owners = [part for part in loss.modules() if "model" in part._modules]
    assert len(owners) >= 2
    assert all(part.model is shared for part in owners)


@pytest.mark.parametrize("mini_batch", [None, 2])
def test_matryoshka_adds_the_loss_of_each_dimension(folder, mini_batch):
    model = SentenceTransformer(str(folder), device="cpu").eval()
    plan = LossPlan(matryoshka=[8, 4], mini_batch=mini_batch)
    loss = family_of(DenseEncoder(str(folder))).loss(model, known(), plan)
    right = sum(expected(20 * dense_scores(model, cut)) for cut in (16, 8, 4))
    torch.testing.assert_close(loss(columns(model), LABELS), right, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("mini_batch", [None, 2])
def test_splade_is_that_softmax_and_the_flops_of_both_sides(masked, mini_batch):
    model = SparseEncoder(str(masked), device="cpu").eval()
    loss = family_of(Sparse(str(masked))).loss(model, known(), LossPlan(mini_batch=mini_batch))
    anchors, *docs = [model(one)["sentence_embedding"] for one in columns(model)]
    scores = torch.stack([anchors @ own.T for own in docs], dim=2)
    found = loss(columns(model), LABELS)
    torch.testing.assert_close(found["base_loss"], expected(scores), atol=1e-4, rtol=1e-5)
    flops = [(own.abs().mean(0) ** 2).sum() for own in (anchors, torch.cat(docs))]
    torch.testing.assert_close(found["query_regularizer_loss"], 5e-5 * flops[0])
    torch.testing.assert_close(found["document_regularizer_loss"], 3e-5 * flops[1])


@pytest.mark.parametrize("mini_batch", [None, 3])
def test_late_interaction_is_the_softmax_over_maxsim(folder, mini_batch):
    family = family_of(MultiVector(str(folder), projection="none"))
    model = family.open(folder / "0_Transformer" if (folder / "0_Transformer").exists() else folder, SETTINGS).eval()
    assert isinstance(model, MultiVectorEncoder)
    loss = family.loss(model, known(), LossPlan(mini_batch=mini_batch))
    outs = [model(one, task=task) for one, task in zip(columns(model), ("query", "document", "document"), strict=True)]
    vectors = [
        [own[keep.bool()] for own, keep in zip(out["token_embeddings"], out["attention_mask"], strict=True)]
        for out in outs
    ]
    scores = torch.stack(
        [
            torch.stack([torch.stack([(q @ d.T).max(1).values.sum() for d in side]) for q in vectors[0]])
            for side in vectors[1:]
        ],
        dim=2,
    )
    torch.testing.assert_close(loss(columns(model), LABELS), expected(scores), atol=1e-4, rtol=1e-5)


SETTINGS = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}, "local_files_only": True}
