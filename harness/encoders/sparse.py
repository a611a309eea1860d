"""Text to sparse vectors over a vocabulary: SPLADE through sentence-transformers, and weighted query tokens.

SPLADE's weight of a term is log(1 + relu(logit)) at its greatest over the text's tokens (Formal et al., 2021).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import instrument, weights
from harness.embedding_cache.shards import Arrays
from harness.encoders.model import moved
from harness.encoders.runtime.batching import Rows
from harness.encoders.runtime.storage import spans
from harness.encoders.transformer import Side, TransformerEncoder
from harness.errors import ConfigError, RunError, WeightsError
from harness.search.postings import Sparse
from harness.types import StringColumn
from harness.types.component import Component

_BUDGET = {"cpu": 2048, "mps": 8192, "cuda": 16384}  # the logits of a batch are tokens x vocabulary

Batch = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], int]


class SparseEncoder(TransformerEncoder):
    """A sentence-transformers SparseEncoder, or any masked language model; the settings of `TransformerEncoder`.

    `query_terms` and `document_terms`: only so many of a text's terms, the heaviest, are kept; None: all. A model with
    a route of its own for queries (inference-free ones) takes it.
    """

    family: ClassVar[str] = "splade"

    def __init__(
        self, model: str, *, query_terms: int | None = None, document_terms: int | None = None, **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        self._terms = {"query": query_terms, "document": document_terms}
        self.n_terms = 0
        """The size of the vocabulary, once documents were encoded."""
        for side, n in self._terms.items():
            if n is not None and n < 1:
                raise ConfigError(f"encoder.{side}_terms={n} must be at least 1, or null for all")

    def encode(self, texts: StringColumn, side: Side) -> Sparse:
        """One row of terms and weights for each text."""
        counts, parts = np.zeros(len(texts), np.int32), []
        for rows, arrays in self._shards(texts, side):
            counts[rows] = arrays["counts"]
            parts.append((rows, arrays["terms"], arrays["weights"]))
            self.n_terms = int(arrays["width"][0])
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        terms, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
        for rows, *found in reversed(parts):
            places = spans(starts[rows], counts[rows])
            terms[places], values[places] = found
        if not np.isfinite(values).all():
            raise RunError(f"the sparse encoder {self._name!r} gave a weight that is not finite")
        instrument.count("terms", len(terms))
        return Sparse(starts, terms, values)

    def decode(self, vectors: Sparse, row: int, n: int | None = None) -> list[tuple[str, float]]:
        """The n heaviest terms of a row as the vocabulary writes them, with their weights, heaviest first."""
        terms, values = heaviest(vectors, row, n)
        return list(zip(self.decode_terms(terms), values, strict=True))

    def decode_terms(self, terms: NDArray[np.int32]) -> list[str]:
        """The terms [n] as the vocabulary writes them."""
        names: list[str] = self._loaded().tokenizer.convert_ids_to_tokens(terms.tolist())
        return names

    def _budget(self, model: Any) -> int:
        return self._batch_tokens or _BUDGET.get(model.device.type, _BUDGET["cuda"])

    def _identity(self, model: Any, side: Side) -> dict[str, Any]:
        return {**super()._identity(model, side), "terms": self._terms[side]}

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The model, its head fused where that gives the same vectors."""
        from sentence_transformers import SparseEncoder as Model
        from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

        from harness.encoders.splade_head import fuse

        model = Model(str(folder), **settings)
        saved = folder / "modules.json"
        own = saved.is_file() and SparseAutoEncoder.__name__ in saved.read_text(encoding="utf-8")
        if not own and any(isinstance(part, SparseAutoEncoder) for part in model):
            raise WeightsError(
                f"{self._name!r} has no masked-language-model head, so its sparse vectors would be random; "
                "give a SPLADE model: retriever.encoder.model=naver/splade-v3"
            )
        expected = self._probed(model)
        fuse(model)
        slack = 1e-4 if model.dtype == torch.float32 else 1e-2
        try:
            same = all(
                torch.allclose(one, other, atol=slack) for one, other in zip(expected, self._probed(model), strict=True)
            )
        except (AttributeError, RuntimeError):  # an architecture that uses its output layer in a way of its own
            same = False
        return model if same else Model(str(folder), **settings)

    def _probed(self, model: Any) -> list[torch.Tensor]:
        """The vectors of a short text on each side."""
        sides: tuple[Side, Side] = ("query", "document")
        model.eval()
        with torch.inference_mode():
            features = [moved(self._features(model, ["a short text", "two"], side), model.device) for side in sides]
            return [
                model(own, task=side)["sentence_embedding"].float() for own, side in zip(features, sides, strict=True)
            ]

    def _run(self, model: Any, features: dict[str, Any], side: Side) -> Batch:
        found: torch.Tensor = model(features, task=side)["sentence_embedding"]
        found = (found.to_dense() if found.is_sparse else found).float()
        if (n := self._terms[side]) is not None and n < found.shape[1]:
            best = found.topk(n, dim=1)
            found = torch.zeros_like(found).scatter_(1, best.indices, best.values)
        hits = found != 0
        counts = hits.sum(dim=1, dtype=torch.int32).cpu().numpy()
        terms = hits.nonzero()[:, 1].to(torch.int32).cpu().numpy()
        return counts, terms, found[hits].cpu().numpy(), found.shape[1]

    def _join(self, found: list[tuple[Rows, Batch]], n: int) -> Arrays:
        order = np.argsort(np.concatenate([rows for rows, _ in found]), kind="stable")
        counts, terms, values = (np.concatenate([batch[part] for _, batch in found]) for part in range(3))
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        taken = spans(starts[:-1][order], counts[order])
        width = np.array([found[0][1][3]], np.int32)
        return {"counts": counts[order], "terms": terms[taken], "weights": values[taken], "width": width}


class TokenWeights(Component):
    """Queries as their own tokens with a weight each, no network run: OpenSearch's inference-free document models.

    `model` is the folder or hub id that has the tokenizer and, as OpenSearch's do, `idf.json` of token weights; with
    `file` null every token that is there weighs 1. A token counts once (Geng et al., 2024).
    """

    family: ClassVar[str] = "token_weights"

    def __init__(self, model: str, package: weights.Package | None = None, file: str | None = "idf.json") -> None:
        self._name, self._package, self._file = model, package, file
        self._tokenizer: Any = None

    def weights_identity(self) -> str:
        """Return what tells this model's files from others: a hash of their content, or a revision."""
        return weights.identity(self._name, self._package)

    def encode(self, texts: StringColumn, side: Side) -> Sparse:
        """One row of the text's different tokens for each text."""
        self._load()
        with instrument.stage("encode", total=len(texts)) as step:
            settings = {"add_special_tokens": False, "truncation": True}
            rows = self._tokenizer(list(texts), **settings)["input_ids"] if len(texts) else []
            kept = [ids[self._weights[ids] > 0] for ids in (np.unique(np.array(row, np.int32)) for row in rows)]
            step(len(texts))
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids in kept], dtype=np.int64)])
        terms = np.concatenate([*kept, np.empty(0, np.int32)]).astype(np.int32)
        instrument.count("texts", len(texts))
        return Sparse(starts, terms, self._weights[terms])

    def decode_terms(self, terms: NDArray[np.int32]) -> list[str]:
        """The tokens [n] as the vocabulary writes them."""
        self._load()
        names: list[str] = self._tokenizer.convert_ids_to_tokens(terms.tolist())
        return names

    def _load(self) -> None:
        if self._tokenizer is not None:
            return
        from transformers import AutoTokenizer

        with instrument.stage("load"):
            found = weights.find(self._name, self._package)
            self._tokenizer = AutoTokenizer.from_pretrained(str(found.path), local_files_only=True)
            self._weights = np.ones(len(self._tokenizer), np.float32)
            if self._file is not None:
                self._weights = self._read(found.path / self._file)

    def _read(self, path: Path) -> NDArray[np.float32]:
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            known = self._tokenizer.get_vocab()
            held = {known[token]: float(weight) for token, weight in said.items() if token in known}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise WeightsError(
                f"no token weights in {str(path)!r} ({error}); give the file's name: query_encoder.file=NAME, or null"
            ) from None
        found = np.zeros(len(self._tokenizer), np.float32)
        found[list(held)] = list(held.values())
        return found


def heaviest(vectors: Sparse, row: int, n: int | None) -> tuple[NDArray[np.int32], list[float]]:
    """The n heaviest terms of a row and their weights, heaviest first, ties by term."""
    span = slice(vectors.starts[row], vectors.starts[row + 1])
    terms, values = vectors.terms[span], vectors.weights[span]
    order = np.lexsort((terms, -values))[:n]
    return terms[order], values[order].tolist()
