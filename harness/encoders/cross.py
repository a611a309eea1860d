"""Cross-encoders: a query and a document read together, one score a pair, through sentence-transformers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import instrument
from harness.encoders.model import Model, moved, wait_for
from harness.encoders.runtime import mfu
from harness.encoders.runtime.batching import batches, token_counts, tokenizing
from harness.encoders.runtime.prefetch import Ahead
from harness.errors import ConfigError, RunError, WeightsError
from harness.types import StringColumn

_HEADLESS = ("Model", "ForMaskedLM", "ForPreTraining")


class CrossEncoder(Model):
    """A sentence-transformers CrossEncoder of one label, on one device; the settings of `Model`.

    Scores are the logits, without the model's own activation: a sigmoid keeps their order until it makes ties of them.
    """

    family: ClassVar[str] = "cross_encoder"

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        if not isinstance(device := settings.get("device", "auto"), str) or device == "all":
            raise ConfigError(f"encoder.device={device!r}: a cross-encoder runs on one device; choose auto or cuda:1")

    def score(self, queries: StringColumn, documents: StringColumn, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores [queries, candidates] of the candidates `docs` of each query; -inf where there is none (-1)."""
        model = self._loaded()
        rows, columns = np.nonzero(docs >= 0)
        wanted, own = np.unique(docs[rows, columns], return_inverse=True)
        texts, asked = documents.take(wanted), list(queries)
        found = np.full(docs.shape, -np.inf, np.float32)
        with instrument.stage("score", total=len(rows)) as step:
            lengths = self._lengths(model, asked, texts, rows, own)

            def make(batch: NDArray[np.int64]) -> dict[str, Any]:
                pairs = zip(rows[batch], own[batch], strict=True)
                return dict(model.preprocess([(asked[row], texts[doc]) for row, doc in pairs]))

            def made() -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
                for batch in batches(lengths, self._budget(model)):
                    with tokenizing:
                        features = make(batch)
                    yield batch, features

            per_token, flops = mfu.weights_per_token(model), 0
            with instrument.recording() as seen, closing(Ahead(made())) as ahead:
                for batch, features in ahead:
                    read = features["attention_mask"].sum(dim=1).numpy()
                    instrument.count("padding", int(features["attention_mask"].numel() - read.sum()))
                    flops += mfu.flops(per_token, read)
                    for part, scores in self._room.fitted(lambda own: self._run(model, own), make, batch, features):
                        found[rows[part], columns[part]] = scores
                    step(len(batch))
                wait_for(model.device)
            instrument.bill(seen.phase(), "score", earlier=False)
            mfu.weigh(model, flops if len(rows) >= mfu.WEIGHED else 0, seen.wall_s)
        instrument.count("pairs", len(rows))
        if not np.isfinite(found[rows, columns]).all():
            raise RunError(f"the cross-encoder {self._name!r} gave a score that is not a number, or infinite")
        return found

    def _lengths(
        self, model: Any, queries: list[str], texts: list[str], rows: NDArray[np.int64], own: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Tokens of each pair as the model reads it; the special tokens of both texts are counted, one too many."""
        lengths = token_counts(model, queries)[rows] + token_counts(model, texts)[own] - 1
        limit = self._limit(model)
        if limit is not None:
            instrument.count("truncated", int((lengths > limit).sum()))
            lengths = np.minimum(lengths, limit)
        instrument.count("texts", len(rows))
        instrument.count("tokens", int(lengths.sum()))
        return lengths

    def _run(self, model: Any, features: dict[str, Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            out: torch.Tensor = model(moved(features, model.device))["scores"]
        scores: NDArray[np.float32] = out.float().reshape(-1).cpu().numpy()
        return scores

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The model, which must have one label and a head that was trained."""
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
    """Whether the weights are a bare encoder's: transformers gives it a head of random numbers."""
    said = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("config*.json")]
    if any(own.get("model_type") == "CrossEncoder" for own in said):
        return False
    names = [name for own in said for name in own.get("architectures") or ()]
    return bool(names) and all(name.endswith(_HEADLESS) and not name.endswith("LMHeadModel") for name in names)
