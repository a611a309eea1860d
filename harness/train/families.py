"""What is trained how: by the encoder that a retriever's config names, its model, loss and rows for the trainer.

dense           MultipleNegativesRankingLoss, cached and with MatryoshkaLoss where the plan says so
SPLADE          SpladeLoss around it, with the FLOPS regulariser
late interaction  the same softmax over MaxSim; a bare encoder gets a projection
cross-encoders  binary cross-entropy of single pairs
"""

import string
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.encoders import cross, dense, model, multi_vector, sparse
from harness.errors import ConfigError
from harness.retrievers.colbert import ColBERT
from harness.retrievers.dense import Dense
from harness.retrievers.rerank import CrossEncoderScorer, Rerank
from harness.retrievers.splade import Splade
from harness.train.examples import Examples
from harness.train.losses import Known, Masked, Score
from harness.train.plan import LossPlan
from harness.types import Retriever

_PROJECTED = 128
"""Dimensions of a new projection, ColBERT's (Khattab & Zaharia, 2020)."""
_QUERY_TOKENS = 32
_DEV_DEPTH = 20
"""Candidates that a cross-encoder scores for a dev query."""


class Family(ABC):
    """One way to train the model of an `encoder`."""

    trainer: ClassVar[str]
    """The name of sentence-transformers' trainer."""
    learning_rate: ClassVar[float] = 2e-5
    reads: ClassVar[frozenset[str]]
    """The settings of a LossPlan that it has."""
    after: ClassVar[Mapping[str, Any]] = {}
    """What the config of the encoder says once its model is trained."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def check(self, plan: LossPlan, base: Path) -> None:
        """Raises `ConfigError` for a setting that this family has not, or weights that it cannot train."""
        for name, value in plan:
            if name not in self.reads and value != LossPlan.model_fields[name].default:
                raise ConfigError(
                    f"loss.{name}={value}: {type(self.encoder).__name__} is trained without it; choices: "
                    f"{', '.join(sorted(self.reads)) or 'none'}"
                )

    @abstractmethod
    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The model to train, from a folder of weights."""

    @abstractmethod
    def loss(self, model: Any, known: Known, plan: LossPlan) -> torch.nn.Module:
        """What is minimised over a batch."""

    @abstractmethod
    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """What ranks with the encoder; a reranker takes its candidates from `first_stage`."""

    def columns(self, examples: Examples) -> dict[str, list[Any]]:
        """The trainer's columns by name, and the numbers of each row's texts as its label."""
        texts, rows = examples.documents.texts, examples.rows
        names = ["positive", *(f"negative_{number}" for number in range(1, rows.shape[1] - 1))]
        columns: dict[str, list[Any]] = {"anchor": [examples.anchors[anchor] for anchor in rows[:, 0]]}
        columns |= {name: texts.take(rows[:, place]) for place, name in enumerate(names, start=1)}
        return {**columns, "label": rows.tolist()}

    def prompts(self, model: Any, columns: Mapping[str, Any]) -> dict[str, str]:
        """What stands before the texts of each column."""
        sides = {name: self.encoder.prompt(model, "query" if name == "anchor" else "document") for name in columns}
        return {name: prompt for name, prompt in sides.items() if prompt and name != "label"}


class DenseFamily(Family):
    """One vector a text."""

    trainer = "SentenceTransformerTrainer"
    reads = frozenset({"scale", "mini_batch", "matryoshka"})

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The encoder's own model, with the pooling of its config."""
        return self.encoder.open(folder, settings)

    def loss(self, model: Any, known: Known, plan: LossPlan) -> torch.nn.Module:
        """MultipleNegativesRankingLoss over the model's similarity."""
        from sentence_transformers.sentence_transformer import losses
        from sentence_transformers.util import cos_sim, dot_score

        cosine, whole = model.similarity_fn_name == "cosine", model.get_embedding_dimension()
        if wide := [width for width in plan.matryoshka or () if width > whole]:
            raise ConfigError(
                f"loss.matryoshka={plan.matryoshka}: {wide[0]} is more than the model's {whole} dimensions"
            )

        def make(score: Score) -> torch.nn.Module:
            shared: dict[str, Any] = {"scale": plan.scale or (20.0 if cosine else 1.0), "similarity_fct": score}
            inner = (
                losses.MultipleNegativesRankingLoss(model, **shared)
                if plan.mini_batch is None
                else losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=plan.mini_batch, **shared)
            )
            return losses.MatryoshkaLoss(model, inner, [whole, *plan.matryoshka]) if plan.matryoshka else inner

        return Masked(model, known, cos_sim if cosine else dot_score, make, by_row=False)

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Exact search."""
        return Dense(self.encoder)


class SpladeFamily(Family):
    """Weighted terms of the vocabulary."""

    trainer = "SparseEncoderTrainer"
    reads = frozenset({"scale", "mini_batch", "query_flops", "document_flops"})

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The model with its head as it was saved; a bare masked language model is given SPLADE's pooling."""
        from sentence_transformers import SparseEncoder

        return SparseEncoder(str(folder), **settings)

    def loss(self, model: Any, known: Known, plan: LossPlan) -> torch.nn.Module:
        """SpladeLoss over the dot product."""
        from sentence_transformers.sparse_encoder import losses
        from sentence_transformers.util import dot_score

        def make(score: Score) -> torch.nn.Module:
            inner = losses.SparseMultipleNegativesRankingLoss(model, scale=plan.scale or 1.0, similarity_fct=score)
            weights: dict[str, Any] = {
                "document_regularizer_weight": plan.document_flops,
                "query_regularizer_weight": plan.query_flops,
            }
            if plan.mini_batch is None:
                return losses.SpladeLoss(model, inner, **weights)
            return losses.CachedSpladeLoss(model, inner, mini_batch_size=plan.mini_batch, **weights)

        return Masked(model, known, dot_score, make, by_row=False)

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Postings."""
        return Splade(self.encoder)


class ColBERTFamily(Family):
    """A vector a token."""

    trainer = "MultiVectorEncoderTrainer"
    reads = frozenset({"scale", "mini_batch"})
    after: ClassVar[Mapping[str, Any]] = {"projection": "own"}

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The checkpoint as it is; a bare encoder with a new projection, query expansion and skipped punctuation.

        The projection is orthogonal, so that it begins near the encoder's own similarities.
        """
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.base.modules import Dense as Projection
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        if multi_vector.is_late_interaction(folder):
            return MultiVectorEncoder(str(folder), **settings)
        bare = Transformer(
            str(folder),
            model_kwargs=settings["model_kwargs"],
            query_expansion={"strategy": "fixed", "attend": False, "length": _QUERY_TOKENS},
        )
        width = bare.get_embedding_dimension()
        weight = torch.nn.init.orthogonal_(torch.empty(_PROJECTED, width))
        projection = Projection(
            width,
            _PROJECTED,
            bias=False,
            activation_function=torch.nn.Identity(),
            init_weight=weight,
            module_input_name="token_embeddings",
        )
        mask = MultiVectorMask(skiplist_words=list(string.punctuation))
        modules = [bare, projection, mask, Normalize(module_input_name="token_embeddings")]
        return MultiVectorEncoder(modules=modules, device=settings["device"])

    def loss(self, model: Any, known: Known, plan: LossPlan) -> torch.nn.Module:
        """Softmax over MaxSim."""
        from sentence_transformers.multi_vector_encoder import losses
        from sentence_transformers.multi_vector_encoder.scoring import colbert_scores

        def make(score: Score) -> torch.nn.Module:
            shared: dict[str, Any] = {"scale": plan.scale or 1.0, "similarity_fct": score}
            if plan.mini_batch is None:
                return losses.MultiVectorMultipleNegativesRankingLoss(model, **shared)
            kind = losses.CachedMultiVectorMultipleNegativesRankingLoss
            return kind(model, mini_batch_size=plan.mini_batch, **shared)

        return Masked(model, known, colbert_scores, make, by_row=True)

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Every document."""
        return ColBERT(self.encoder)


class CrossFamily(Family):
    """A pair read together."""

    trainer = "CrossEncoderTrainer"
    reads: ClassVar[frozenset[str]] = frozenset()

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The model with its head of one label; a bare encoder is given a new one."""
        from sentence_transformers import CrossEncoder

        return CrossEncoder(str(folder), num_labels=1, **settings)

    def check(self, plan: LossPlan, base: Path) -> None:
        """Of several labels there is no one score."""
        from transformers import AutoConfig

        super().check(plan, base)
        found = AutoConfig.from_pretrained(str(base), trust_remote_code=self.encoder.trusted)
        heads = [name for name in found.architectures or () if name.endswith("ForSequenceClassification")]
        if heads and found.num_labels != 1:
            raise ConfigError(
                f"{base} has a head of {found.num_labels} labels; a reranker gives one score a pair: choose a model "
                "whose head has one, or a model without a head, which is given a new one"
            )

    def columns(self, examples: Examples) -> dict[str, list[Any]]:
        """Pairs, 1 for a positive and 0 for a negative."""
        texts, rows = examples.documents.texts, examples.rows
        n = rows.shape[1] - 1
        if n < 2:
            raise ConfigError(
                "a cross-encoder learns nothing from positives alone; choose negatives=mined or negatives=random, or a "
                "file of triplets with negatives"
            )
        anchors = [examples.anchors[anchor] for anchor in rows[:, 0] for _ in range(n)]
        documents = texts.take(rows[:, 1:].ravel())
        return {"anchor": anchors, "document": documents, "label": [1.0, *[0.0] * (n - 1)] * len(rows)}

    def prompts(self, model: Any, columns: Mapping[str, Any]) -> dict[str, str]:
        """None."""
        return {}

    def loss(self, model: Any, known: Known, plan: LossPlan) -> torch.nn.Module:
        """Binary cross-entropy of the logit."""
        from sentence_transformers.cross_encoder import losses

        loss: torch.nn.Module = losses.BinaryCrossEntropyLoss(model)
        return loss

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """The first stage's best, scored."""
        if first_stage is None:
            raise ConfigError("a cross-encoder scores another retriever's candidates; choose retriever=rerank")
        return Rerank(first_stage, CrossEncoderScorer(self.encoder), _DEV_DEPTH)


_FAMILIES: Mapping[type[model.Model], type[Family]] = {
    dense.DenseEncoder: DenseFamily,
    sparse.SparseEncoder: SpladeFamily,
    multi_vector.MultiVectorEncoder: ColBERTFamily,
    cross.CrossEncoder: CrossFamily,
}


def family_of(encoder: Any) -> Family:
    """How the model of an encoder is trained. Raises `ConfigError` for one that has none."""
    family = _FAMILIES.get(type(encoder))
    if family is None:
        raise ConfigError(
            f"{type(encoder).__name__} has no weights to train; choose a retriever with a model of its own, such as "
            "retriever=minilm, splade_tiny, colbert_minilm or rerank"
        )
    return family(encoder)
