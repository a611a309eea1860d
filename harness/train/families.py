"""Training recipes by encoder type: model, loss with in-batch negatives, and columns for the trainer.

dense             MultipleNegativesRankingLoss, optionally cached (GradCache) and with MatryoshkaLoss
SPLADE            SpladeLoss around the same loss, with the FLOPS regulariser
late interaction  the same loss over MaxSim; an encoder without a projection gets a new one
cross-encoders    binary cross-entropy of single pairs
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
from harness.train.losses import KnownPositives, MaskedLoss, Score
from harness.train.plan import LossPlan
from harness.types import Retriever

_PROJECTION_DIMENSIONS = 128
"""Dimensions of a new projection, as in ColBERT (Khattab & Zaharia, 2020)."""
_QUERY_TOKENS = 32
"""Number of tokens to which a new late-interaction model expands a query."""
_DEV_DEPTH = 20
"""Number of candidates that a cross-encoder reranks for a dev query."""


class Family(ABC):
    """Base class of training recipes for an `encoder`."""

    trainer: ClassVar[str]
    """Class name of the sentence-transformers trainer."""
    learning_rate: ClassVar[float] = 2e-5
    loss_settings: ClassVar[frozenset[str]]
    """Names of the `LossPlan` settings that apply."""
    config_changes: ClassVar[Mapping[str, Any]] = {}
    """Settings that change in the encoder's config after training."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def check(self, plan: LossPlan, base: Path) -> None:
        """Raise `ConfigError` if a setting of `plan` does not apply, or the weights in `base` cannot be trained."""
        for name, value in plan:
            if name not in self.loss_settings and value != LossPlan.model_fields[name].default:
                raise ConfigError(
                    f"loss.{name}={value}: {type(self.encoder).__name__} is trained without this setting; choices: "
                    f"{', '.join(sorted(self.loss_settings)) or 'none'}"
                )

    @abstractmethod
    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Load the model to train from the weights in `folder`; `settings` are the arguments of its constructor."""

    @abstractmethod
    def loss(self, model: Any, known: KnownPositives, plan: LossPlan) -> torch.nn.Module:
        """Return the loss of `model` with the settings of `plan`; `known` positives are masked in each batch."""

    @abstractmethod
    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Return a retriever with the encoder; a reranker takes its candidates from `first_stage`."""

    def columns(self, examples: Examples) -> dict[str, list[Any]]:
        """Return the trainer's columns by name, with the indices of each row's texts as its label."""
        texts, rows = examples.documents.texts, examples.rows
        names = ["positive", *(f"negative_{number}" for number in range(1, rows.shape[1] - 1))]
        columns: dict[str, list[Any]] = {"anchor": [examples.anchors[anchor] for anchor in rows[:, 0]]}
        columns |= {name: texts.take(rows[:, column]) for column, name in enumerate(names, start=1)}
        return {**columns, "label": rows.tolist()}

    def prompts(self, model: Any, columns: Mapping[str, Any]) -> dict[str, str]:
        """Return the prompt that `model` puts before the texts of each of `columns`, without columns that have none."""
        sides = {name: self.encoder.prompt(model, "query" if name == "anchor" else "document") for name in columns}
        return {name: prompt for name, prompt in sides.items() if prompt and name != "label"}


class DenseFamily(Family):
    """Bi-encoders with one embedding per text."""

    trainer = "SentenceTransformerTrainer"
    loss_settings = frozenset({"scale", "mini_batch", "matryoshka"})

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Load the model in `folder` with `settings` and the pooling of the encoder's config."""
        return self.encoder.open(folder, settings)

    def loss(self, model: Any, known: KnownPositives, plan: LossPlan) -> torch.nn.Module:
        """Return MultipleNegativesRankingLoss of `model`, masking positives in `known`, with the settings of `plan`."""
        from sentence_transformers.sentence_transformer import losses
        from sentence_transformers.util import cos_sim, dot_score

        cosine, dimensions = model.similarity_fn_name == "cosine", model.get_embedding_dimension()
        if too_wide := [width for width in plan.matryoshka or () if width > dimensions]:
            raise ConfigError(
                f"loss.matryoshka={plan.matryoshka}: {too_wide[0]} is more than the model's {dimensions} dimensions"
            )

        def make(score: Score) -> torch.nn.Module:
            shared: dict[str, Any] = {"scale": plan.scale or (20.0 if cosine else 1.0), "similarity_fct": score}
            inner = (
                losses.MultipleNegativesRankingLoss(model, **shared)
                if plan.mini_batch is None
                else losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=plan.mini_batch, **shared)
            )
            return losses.MatryoshkaLoss(model, inner, [dimensions, *plan.matryoshka]) if plan.matryoshka else inner

        return MaskedLoss(model, known, cos_sim if cosine else dot_score, make, by_row=False)

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Return a dense retriever with exact search."""
        return Dense(self.encoder)


class SpladeFamily(Family):
    """SPLADE encoders: sparse weights over the vocabulary."""

    trainer = "SparseEncoderTrainer"
    loss_settings = frozenset({"scale", "mini_batch", "query_flops", "document_flops"})

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Load the model in `folder` with `settings`; a masked language model gets SPLADE's pooling."""
        from sentence_transformers import SparseEncoder

        return SparseEncoder(str(folder), **settings)

    def loss(self, model: Any, known: KnownPositives, plan: LossPlan) -> torch.nn.Module:
        """Return SpladeLoss of `model` with the settings of `plan`; positives in `known` are masked."""
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

        return MaskedLoss(model, known, dot_score, make, by_row=False)

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Return a SPLADE retriever."""
        return Splade(self.encoder)


class ColBERTFamily(Family):
    """Late-interaction encoders: one embedding per token."""

    trainer = "MultiVectorEncoderTrainer"
    loss_settings = frozenset({"scale", "mini_batch"})
    config_changes: ClassVar[Mapping[str, Any]] = {"projection": "own"}

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Load the late-interaction model in `folder` with `settings`, or make one from a model of another type.

        The new model has query expansion, a skip list of punctuation, and an orthogonal projection, with which
        similarities stay close to the encoder's.
        """
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.base.modules import Dense as Projection
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        if multi_vector.is_late_interaction(folder):
            return MultiVectorEncoder(str(folder), **settings)
        hub = {key: settings[key] for key in ("trust_remote_code", "local_files_only") if key in settings}
        bare = Transformer(
            str(folder),
            model_kwargs={**settings["model_kwargs"], **hub},
            config_kwargs=hub,
            processor_kwargs=hub,
            query_expansion={"strategy": "fixed", "attend": False, "length": _QUERY_TOKENS},
        )
        width = bare.get_embedding_dimension()
        weight = torch.nn.init.orthogonal_(torch.empty(_PROJECTION_DIMENSIONS, width))
        projection = Projection(
            width,
            _PROJECTION_DIMENSIONS,
            bias=False,
            activation_function=torch.nn.Identity(),
            init_weight=weight,
            module_input_name="token_embeddings",
        )
        mask = MultiVectorMask(skiplist_words=list(string.punctuation))
        modules = [bare, projection, mask, Normalize(module_input_name="token_embeddings")]
        return MultiVectorEncoder(modules=modules, device=settings["device"])

    def loss(self, model: Any, known: KnownPositives, plan: LossPlan) -> torch.nn.Module:
        """Return the loss of `model` over MaxSim with the settings of `plan`; positives in `known` are masked."""
        from sentence_transformers.multi_vector_encoder import losses
        from sentence_transformers.multi_vector_encoder.scoring import colbert_scores

        def make(score: Score) -> torch.nn.Module:
            shared: dict[str, Any] = {"scale": plan.scale or 1.0, "similarity_fct": score}
            if plan.mini_batch is None:
                return losses.MultiVectorMultipleNegativesRankingLoss(model, **shared)
            kind = losses.CachedMultiVectorMultipleNegativesRankingLoss
            return kind(model, mini_batch_size=plan.mini_batch, **shared)

        return MaskedLoss(model, known, colbert_scores, make, by_row=True)

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Return a ColBERT retriever that scores every document."""
        return ColBERT(self.encoder)


class CrossFamily(Family):
    """Cross-encoders, which score a query and a document together."""

    trainer = "CrossEncoderTrainer"
    loss_settings: ClassVar[frozenset[str]] = frozenset()

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Load the model in `folder` with `settings`; without a classification head it gets a new one."""
        from sentence_transformers import CrossEncoder

        return CrossEncoder(str(folder), num_labels=1, **settings)

    def check(self, plan: LossPlan, base: Path) -> None:
        """Raise `ConfigError` as `Family.check` does for `plan`, and if the head in `base` has several labels."""
        from transformers import AutoConfig

        super().check(plan, base)
        model_config = AutoConfig.from_pretrained(str(base), trust_remote_code=self.encoder.trusted)
        heads = [name for name in model_config.architectures or () if name.endswith("ForSequenceClassification")]
        if heads and model_config.num_labels != 1:
            raise ConfigError(
                f"{base} has a head of {model_config.num_labels} labels, but a reranker needs one score for a pair; "
                "choose a model whose head has one label, or a model without a head, which gets a new one"
            )

    def columns(self, examples: Examples) -> dict[str, list[Any]]:
        """Return pairs with label 1 for a positive and 0 for a negative."""
        texts, rows = examples.documents.texts, examples.rows
        n = rows.shape[1] - 1
        if n < 2:
            raise ConfigError(
                "a cross-encoder cannot be trained on positives alone; choose negatives=mined or negatives=random, or "
                "a file of triplets with negatives"
            )
        anchors = [examples.anchors[anchor] for anchor in rows[:, 0] for _ in range(n)]
        documents = texts.take(rows[:, 1:].ravel())
        return {"anchor": anchors, "document": documents, "label": [1.0, *[0.0] * (n - 1)] * len(rows)}

    def prompts(self, model: Any, columns: Mapping[str, Any]) -> dict[str, str]:
        """Return no prompts, whatever `model` and `columns` are."""
        return {}

    def loss(self, model: Any, known: KnownPositives, plan: LossPlan) -> torch.nn.Module:
        """Return BinaryCrossEntropyLoss of the logit of `model`; `known` and `plan` are not used."""
        from sentence_transformers.cross_encoder import losses

        loss: torch.nn.Module = losses.BinaryCrossEntropyLoss(model)
        return loss

    def retriever(self, first_stage: Retriever | None) -> Retriever:
        """Return a reranker of the first stage's best candidates."""
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
    """Return the training recipe of an encoder. Raises `ConfigError` for an encoder without trainable weights."""
    family = _FAMILIES.get(type(encoder))
    if family is None:
        raise ConfigError(
            f"{type(encoder).__name__} has no weights to train; choose a retriever with a trainable model, such as "
            "retriever=minilm, splade_tiny, colbert_minilm or rerank"
        )
    return family(encoder)
