"""Dense encoders: any sentence-transformers model of one vector per text, static ones included."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from harness.embedding_cache.shards import Arrays
from harness.encoders.runtime import storage
from harness.encoders.runtime.batching import Rows
from harness.encoders.transformer import Side, TransformerEncoder
from harness.errors import ConfigError
from harness.types import StringColumn

_POOLINGS = {"mean": "mean", "cls": "cls", "last_token": "lasttoken", "weighted_mean": "weightedmean", "max": "max"}


class DenseEncoder(TransformerEncoder):
    """A sentence-transformers model of one vector per text.

    Args:
        model: The model, as for `TransformerEncoder`.
        pooling: `mean`, `cls`, `last_token`, `weighted_mean` or `max`; None for the model's own.
        dimensions: Number of leading dimensions to keep of each vector (Matryoshka truncation); None for all.
        normalize: Normalise to unit length; None to do so if the model's similarity is the cosine.
        settings: Other arguments of `TransformerEncoder`.

    Raises:
        ConfigError: If an argument has a value that is not one of its choices.
    """

    family: ClassVar[str] = "dense"

    def __init__(
        self,
        model: str,
        *,
        pooling: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        if pooling is not None and pooling not in _POOLINGS:
            raise ConfigError(f"encoder.pooling={pooling!r}; choices: null, {', '.join(_POOLINGS)}")
        if dimensions is not None and dimensions < 1:
            raise ConfigError(f"encoder.dimensions={dimensions} must be at least 1")
        self._pooling, self._dimensions, self._normalize = pooling, dimensions, normalize

    def encode(self, texts: StringColumn, side: Side) -> torch.Tensor:
        """Return float32 embeddings [texts, dimensions] of `texts`; `side` is "query" or "document".

        They are on the device, in host memory or memory-mapped, as `storage.allocate` chooses.
        """
        model = self._loaded()
        vectors: torch.Tensor | None = None
        for rows, arrays in self._shards(texts, side):
            shard = torch.from_numpy(arrays["vectors"])
            if vectors is None:
                vectors = storage.allocate((len(texts), shard.shape[1]), model.device)
            vectors[torch.from_numpy(rows).to(vectors.device)] = shard.to(vectors.device)
        if vectors is None:
            return torch.empty((0, self._dimensions or model.get_embedding_dimension() or 0), device=model.device)
        return vectors

    def _settings(self) -> dict[str, Any]:
        return {"pooling": self._pooling, "dimensions": self._dimensions, "normalize": self._normalize}

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Open the model in `folder` with the configured pooling; `settings` are SentenceTransformer's arguments."""
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), **settings)
        if self._pooling is not None:
            _pool(model, self._pooling)
        width = model.get_embedding_dimension()
        if self._dimensions is not None and width is not None and self._dimensions > width:
            raise ConfigError(f"encoder.dimensions={self._dimensions} is more than the model's {width}")
        if self._normalize is None and model.similarity_fn_name not in ("cosine", "dot"):
            raise ConfigError(
                f"the model's similarity is {model.similarity_fn_name!r}, and dense search takes cosine or dot; set "
                "retriever.encoder.normalize=true for the cosine, false for the inner product"
            )
        return model

    def _run(self, model: Any, features: dict[str, Any], side: Side) -> torch.Tensor:
        vectors: torch.Tensor = model(features, task=side)["sentence_embedding"].float()[:, : self._dimensions]
        normalize = model.similarity_fn_name == "cosine" if self._normalize is None else self._normalize
        return torch.nn.functional.normalize(vectors, dim=1) if normalize else vectors

    def _join(self, results: list[tuple[Rows, torch.Tensor]], n: int) -> Arrays:
        vectors = np.empty((n, results[0][1].shape[1]), np.float32)
        for rows, part in results:
            vectors[rows] = part.cpu().numpy()
        return {"vectors": vectors}


def _pool(model: Any, pooling: str) -> None:
    """Replace the model's pooling module."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    for position, module in enumerate(model):
        if isinstance(module, Pooling):
            model[position] = Pooling(
                module.embedding_dimension, pooling_mode=_POOLINGS[pooling], include_prompt=module.include_prompt
            )
            return
    raise ConfigError(f"encoder.pooling={pooling!r}: this model has no pooling to replace")
