"""Cross-encoders of sentence-transformers: one score per pair of query and document."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import instrument
from harness.encoders.model import Model, moved, wait_for
from harness.encoders.runtime import mfu
from harness.encoders.runtime.batching import batches, token_counts, tokenizing
from harness.encoders.runtime.prefetch import Prefetch
from harness.errors import ConfigError, RunError, WeightsError
from harness.types import StringColumn

_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining")  # endings of architectures without a classification head


class CrossEncoder(Model):
    """A sentence-transformers CrossEncoder with one label, on one device.

    Scores are logits, without the model's activation: a sigmoid would saturate to ties.

    Args:
        model: The model, as for `Model`.
        settings: Other arguments of `Model`.

    Raises:
        ConfigError: If `device` names several devices.
    """

    family: ClassVar[str] = "cross_encoder"

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        if not isinstance(device := settings.get("device", "auto"), str) or device == "all":
            raise ConfigError(f"encoder.device={device!r}: a cross-encoder runs on one device; choose auto or cuda:1")

    def score(self, queries: StringColumn, documents: StringColumn, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return logits [queries, candidates], -inf where the document index is -1.

        Args:
            queries: Texts of the queries.
            documents: Texts of the corpus.
            docs: Document indices, shape [queries, candidates], padded with -1.

        Raises:
            RunError: If a score is NaN or infinite, or a single pair does not fit into memory.
        """
        rows, columns = np.nonzero(docs >= 0)
        candidates, text_of_pair = np.unique(docs[rows, columns], return_inverse=True)
        scores = np.full(docs.shape, -np.inf, np.float32)
        scores[rows, columns] = self._score_pairs(list(queries), documents.take(candidates), rows, text_of_pair)
        instrument.count("pairs", len(rows))
        if not np.isfinite(scores[rows, columns]).all():
            raise RunError(f"the cross-encoder {self._name!r} gave a score that is not a number, or infinite")
        return scores

    def _score_pairs(
        self, queries: list[str], texts: list[str], query_of_pair: NDArray[np.int64], text_of_pair: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the logit of each pair [pairs] of `queries[query_of_pair[i]]` and `texts[text_of_pair[i]]`."""
        model = self._loaded()
        scores = np.empty(len(query_of_pair), np.float32)
        with instrument.stage("score", total=len(scores)) as step:
            lengths = self._lengths(model, queries, texts, query_of_pair, text_of_pair)

            def tokenize(batch: NDArray[np.int64]) -> dict[str, Any]:
                pairs = zip(query_of_pair[batch], text_of_pair[batch], strict=True)
                return dict(model.preprocess([(queries[query], texts[text]) for query, text in pairs]))

            def tokenized() -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
                for batch in batches(lengths, self._budget(model)):
                    with tokenizing:
                        features = tokenize(batch)
                    yield batch, features

            per_token, flops = mfu.weights_per_token(model), 0
            with instrument.recording() as recorder, closing(Prefetch(tokenized())) as prefetch:
                for batch, features in prefetch:
                    read = features["attention_mask"].sum(dim=1).numpy()
                    instrument.count("padding", int(features["attention_mask"].numel() - read.sum()))
                    flops += mfu.flops(per_token, read)
                    for part, values in self._splitter.run(partial(self._run, model), tokenize, batch, features):
                        scores[part] = values
                    step(len(batch))
                wait_for(model.device)
            instrument.add_counters(recorder.phase())
            mfu.count_flops(model, flops if len(scores) >= mfu.MIN_TEXTS else 0, recorder.wall_s)
        return scores

    def _lengths(
        self,
        model: Any,
        queries: list[str],
        texts: list[str],
        query_of_pair: NDArray[np.int64],
        text_of_pair: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the tokens that the model reads of each pair, which has one special token fewer than its two texts."""
        lengths = token_counts(model, queries)[query_of_pair] + token_counts(model, texts)[text_of_pair] - 1
        limit = self._limit(model)
        if limit is not None:
            instrument.count("truncated", int((lengths > limit).sum()))
            lengths = np.minimum(lengths, limit)
        instrument.count("texts", len(lengths))
        instrument.count("tokens", int(lengths.sum()))
        return lengths

    def _run(self, model: Any, features: dict[str, Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: torch.Tensor = model(moved(features, model.device))["scores"]
        scores: NDArray[np.float32] = logits.float().reshape(-1).cpu().numpy()
        return scores

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Open the model in `folder`; `settings` are the keyword arguments of sentence-transformers' CrossEncoder.

        Raises:
            WeightsError: The model has no trained classification head, or one with several labels.
        """
        from sentence_transformers import CrossEncoder as Peer

        model = Peer(str(folder), **settings)
        if _lacks_head(folder):
            raise WeightsError(
                f"{self._name!r} has no head that scores pairs, so its scores would be random; give one, such as "
                "retriever.scorer.encoder.model=cross-encoder/ms-marco-MiniLM-L6-v2"
            )
        if model.num_labels != 1:
            raise WeightsError(
                f"{self._name!r} has {model.num_labels} labels; a reranker gives one score a pair, such as "
                "retriever.scorer.encoder.model=cross-encoder/ms-marco-MiniLM-L6-v2"
            )
        return model


def _lacks_head(folder: Path) -> bool:
    """Return True if the weights are a bare encoder's, which transformers would give a random head."""
    configs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("config*.json")]
    if any(config.get("model_type") == "CrossEncoder" for config in configs):
        return False
    names = [name for config in configs for name in config.get("architectures") or ()]
    return bool(names) and all(name.endswith(_HEADLESS) and not name.endswith("LMHeadModel") for name in names)
