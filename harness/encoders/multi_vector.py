"""Late-interaction encoders (ColBERT and similar) of sentence-transformers: one vector per token.

Checkpoints of Stanford's ColBERT (`artifact.metadata`), PyLate and sentence-transformers are used with the prefixes,
lengths, query expansion, skiplist and projection that they were saved with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import instrument
from harness.embedding_cache.shards import Arrays
from harness.encoders.model import moved
from harness.encoders.runtime import storage
from harness.encoders.runtime.batching import Rows
from harness.encoders.runtime.storage import concatenated_ranges
from harness.encoders.transformer import Side, TransformerEncoder
from harness.errors import ConfigError, RunError, WeightsError
from harness.search.maxsim import TokenEmbeddings
from harness.types import StringColumn

_STORAGE_DTYPES = {"float16": np.float16, "float32": np.float32}
_PYLATE = {"query_prefix", "document_prefix", "query_length", "document_length", "skiplist_words"}

Batch = tuple[NDArray[np.int64], NDArray[Any]]


class MultiVectorEncoder(TransformerEncoder):
    """A late-interaction model.

    Args:
        model: The model, as for `TransformerEncoder`.
        projection: `own` for the checkpoint's (an error if it has none), `none` for token vectors without projection.
        storage_dtype: Precision of document embeddings, `float16` or `float32`; query embeddings are float32.
        settings: Other arguments of `TransformerEncoder`; `max_length` is that of documents.

    Raises:
        ConfigError: If an argument has a value that is not one of its choices.
    """

    family: ClassVar[str] = "colbert"

    def __init__(
        self,
        model: str,
        *,
        projection: str = "own",
        storage_dtype: str = "float16",
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        if projection not in ("own", "none"):
            raise ConfigError(f"encoder.projection={projection!r}; choices: own, none")
        if storage_dtype not in _STORAGE_DTYPES:
            raise ConfigError(f"encoder.storage_dtype={storage_dtype!r}; choices: {', '.join(_STORAGE_DTYPES)}")
        self._projection, self._storage_dtype = projection, storage_dtype

    def encode(self, texts: StringColumn, side: Side) -> TokenEmbeddings:
        """Return the packed embeddings of all scored tokens of `texts`; `side` is "query" or "document".

        They are on the device, in host memory or memory-mapped, as `storage.allocate` chooses.
        """
        model = self._loaded()
        counts, parts = np.zeros(len(texts), np.int64), []
        for rows, arrays in self._shards(texts, side):
            counts[rows] = arrays["counts"]
            parts.append((rows, arrays["vectors"]))
        starts = np.concatenate([[0], np.cumsum(counts)])
        width = parts[0][1].shape[1] if parts else int(model.get_embedding_dimension() or 0)
        dtype = torch.from_numpy(parts[0][1][:0]).dtype if parts else torch.float32
        vectors = storage.allocate((int(starts[-1]), width), model.device, dtype)
        while parts:  # each is freed before the next is copied
            rows, part = parts.pop()
            indices = torch.from_numpy(concatenated_ranges(starts[rows], counts[rows])).to(vectors.device)
            vectors[indices] = torch.from_numpy(part).to(vectors.device)
        instrument.count("vectors", int(starts[-1]))
        return TokenEmbeddings(starts, vectors)

    def token_names(self, text: str, side: Side) -> list[str]:
        """Return the token of each vector of `text` on `side` ("query" or "document"), as spelled in the vocabulary."""
        model = self._loaded()
        features = moved(self._features(model, [text], side), model.device)
        with torch.inference_mode():
            mask = model(dict(features), task=side)["attention_mask"].bool()
        names: list[str] = model.tokenizer.convert_ids_to_tokens(features["input_ids"][mask].tolist())
        return names

    def _record_metadata(self, model: Any) -> None:
        super()._record_metadata(model)
        if self._projection == "none":
            instrument.describe_encoder(remark="Token vectors without a projection, not trained for late interaction")

    def _settings(self) -> dict[str, Any]:
        return {"projection": self._projection, "storage_dtype": self._storage_dtype}

    def _side_limit(self, model: Any, side: Side) -> int | None:
        if side == "query":
            expansion = model[0].query_expansion or {}
            length = expansion["length"] if expansion.get("strategy") == "fixed" else model[0].query_length
        else:
            length = model[0].document_length
        limit: int | None = length or super()._side_limit(model, side)
        return limit

    def _min_tokens(self, model: Any, side: Side) -> int:
        return int((model[0].query_expansion or {}).get("length", 0)) if side == "query" else 0

    def _set_max_length(self, model: Any, length: int) -> None:
        model[0].document_length = length

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Open the model in `folder` with the checkpoint's projection, or without one if `projection` is `none`.

        `settings` are MultiVectorEncoder's keyword arguments. Raises `WeightsError` if the projection is missing.
        """
        from sentence_transformers import MultiVectorEncoder as Model

        if self._projection == "own":
            if not is_late_interaction(folder):
                raise WeightsError(
                    f"{self._name!r} is not a late-interaction checkpoint: it has no projection, and a random one "
                    "would give random rankings. Give a ColBERT model: retriever.encoder.model=colbert-ir/colbertv2.0; "
                    "or use its token vectors as they are: retriever.encoder.projection=none"
                )
            try:
                return Model(str(folder), **settings)
            except KeyError as error:  # raised if a tensor of a Stanford checkpoint is missing
                raise WeightsError(f"{self._name!r} has no tensor {error}: its projection is missing") from None
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Normalize
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        bare = SentenceTransformer(str(folder), **settings)
        modules = [bare[0], MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
        return Model(modules=modules, device=settings["device"])

    def _run(self, model: Any, features: dict[str, Any], side: Side) -> Batch:
        out = model(features, task=side)
        mask = out["attention_mask"].bool()
        counts = mask.sum(dim=1).cpu().numpy()
        vectors = out["token_embeddings"][mask]
        if not torch.isfinite(vectors).all():
            raise RunError(f"the late-interaction encoder {self._name!r} gave a vector that is not finite")
        dtype = np.float32 if side == "query" else _STORAGE_DTYPES[self._storage_dtype]
        return counts, vectors.float().cpu().numpy().astype(dtype)

    def _join(self, results: list[tuple[Rows, Batch]], n: int) -> Arrays:
        counts = np.zeros(n, np.int64)
        for rows, (sizes, _) in results:
            counts[rows] = sizes
        starts = np.concatenate([[0], np.cumsum(counts)])
        first = results[0][1][1]
        vectors = np.empty((starts[-1], first.shape[1]), first.dtype)
        for rows, (sizes, part) in results:
            ends = np.cumsum(sizes)
            for row, size, end in zip(rows.tolist(), sizes.tolist(), ends.tolist(), strict=True):
                vectors[starts[row] : starts[row] + size] = part[end - size : end]
        return {"counts": counts, "vectors": vectors}


def is_late_interaction(folder: Path) -> bool:
    """Return True if the config of a checkpoint declares a late-interaction model."""
    config = _json(folder / "config.json")
    architectures = config.get("architectures") or []
    if "HF_ColBERT" in architectures or any(str(name).endswith("ForRetrieval") for name in architectures):
        return True
    saved = _json(folder / "config_sentence_transformers.json")
    return saved.get("model_type") in ("ColBERT", "MultiVectorEncoder") or bool(_PYLATE & set(saved))


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
