"""Sparse encoders over a vocabulary: SPLADE of sentence-transformers, and weighted query tokens.

SPLADE's weight of a term is the maximum of log(1 + relu(logit)) over the text's tokens (Formal et al., 2021).
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
from harness.encoders.runtime.storage import concatenated_ranges
from harness.encoders.transformer import Side, TransformerEncoder
from harness.errors import ConfigError, RunError, WeightsError
from harness.search.postings import SparseRows
from harness.types import StringColumn
from harness.types.protocols import Component

_DEFAULT_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 16384}  # the logits of a batch are tokens x vocabulary

Batch = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], int]


class SparseEncoder(TransformerEncoder):
    """A sentence-transformers SparseEncoder, or any masked language model.

    Args:
        model: The model, as for `TransformerEncoder`. Queries take the model's query route if it has one.
        query_terms: Number of terms, those of largest weight, to keep of a query; None for all.
        document_terms: Number of terms, those of largest weight, to keep of a document; None for all.
        settings: Other arguments of `TransformerEncoder`.

    Raises:
        ConfigError: If an argument is below 1.
    """

    family: ClassVar[str] = "splade"

    def __init__(
        self, model: str, *, query_terms: int | None = None, document_terms: int | None = None, **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        self._terms = {"query": query_terms, "document": document_terms}
        self.n_terms = 0
        """Size of the vocabulary, known after documents were encoded."""
        for side, n in self._terms.items():
            if n is not None and n < 1:
                raise ConfigError(f"encoder.{side}_terms={n} must be at least 1, or null for all")

    def encode(self, texts: StringColumn, side: Side) -> SparseRows:
        """Return a row of terms and weights for each of `texts`; `side` is "query" or "document".

        Raises:
            RunError: A weight is NaN or infinite.
        """
        counts, parts = np.zeros(len(texts), np.int32), []
        for rows, arrays in self._shards(texts, side):
            counts[rows] = arrays["counts"]
            parts.append((rows, arrays["terms"], arrays["weights"]))
            self.n_terms = int(arrays["width"][0])
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        terms, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
        for rows, part_terms, part_values in reversed(parts):
            indices = concatenated_ranges(starts[rows], counts[rows])
            terms[indices], values[indices] = part_terms, part_values
        if not np.isfinite(values).all():
            raise RunError(f"the sparse encoder {self._name!r} gave a weight that is not finite")
        instrument.count("terms", len(terms))
        return SparseRows(starts, terms, values)

    def decode(self, vectors: SparseRows, row: int, n: int | None = None) -> list[tuple[str, float]]:
        """Return the `n` terms (None: all) of largest weight in row `row` of `vectors`, as text, and their weights."""
        terms, values = _heaviest(vectors, row, n)
        return list(zip(self.decode_terms(terms), values, strict=True))

    def decode_terms(self, terms: NDArray[np.int32]) -> list[str]:
        """Return the terms [n] as spelled in the vocabulary."""
        names: list[str] = self._loaded().tokenizer.convert_ids_to_tokens(terms.tolist())
        return names

    def _budget(self, model: Any) -> int:
        return self._batch_tokens or _DEFAULT_BATCH_TOKENS.get(model.device.type, _DEFAULT_BATCH_TOKENS["cuda"])

    def _identity(self, model: Any, side: Side) -> dict[str, Any]:
        return {**super()._identity(model, side), "terms": self._terms[side]}

    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Open the model in `folder` and fuse its output layer with the pooling if that gives the same vectors.

        `settings` are SparseEncoder's keyword arguments. Raises `WeightsError` for a model without a trained head.
        """
        from sentence_transformers import SparseEncoder as Model
        from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

        from harness.encoders.splade_head import fuse

        model = Model(str(folder), **settings)
        saved = folder / "modules.json"
        is_saved = saved.is_file() and SparseAutoEncoder.__name__ in saved.read_text(encoding="utf-8")
        if not is_saved and any(isinstance(part, SparseAutoEncoder) for part in model):
            raise WeightsError(
                f"{self._name!r} has no masked-language-model head, so its sparse vectors would be random; "
                "give a SPLADE model: retriever.encoder.model=naver/splade-v3"
            )
        expected = self._probe(model)
        fuse(model)
        tolerance = 1e-4 if model.dtype == torch.float32 else 1e-2
        try:
            pairs = zip(expected, self._probe(model), strict=True)
            is_same = all(torch.allclose(before, after, atol=tolerance) for before, after in pairs)
        except (AttributeError, RuntimeError):  # an architecture that uses its output layer in another way
            is_same = False
        return model if is_same else Model(str(folder), **settings)

    def _probe(self, model: Any) -> list[torch.Tensor]:
        """Return the vectors of two short texts, encoded as queries and as documents."""
        sides: tuple[Side, Side] = ("query", "document")
        model.eval()
        with torch.inference_mode():
            features = [moved(self._features(model, ["a short text", "two"], side), model.device) for side in sides]
            outputs = [model(inputs, task=side) for inputs, side in zip(features, sides, strict=True)]
            return [output["sentence_embedding"].float() for output in outputs]

    def _run(self, model: Any, features: dict[str, Any], side: Side) -> Batch:
        vectors: torch.Tensor = model(features, task=side)["sentence_embedding"]
        vectors = (vectors.to_dense() if vectors.is_sparse else vectors).float()
        if (n := self._terms[side]) is not None and n < vectors.shape[1]:
            best = vectors.topk(n, dim=1)
            vectors = torch.zeros_like(vectors).scatter_(1, best.indices, best.values)
        is_term = vectors != 0
        counts = is_term.sum(dim=1, dtype=torch.int32).cpu().numpy()
        terms = is_term.nonzero()[:, 1].to(torch.int32).cpu().numpy()
        return counts, terms, vectors[is_term].cpu().numpy(), vectors.shape[1]

    def _join(self, results: list[tuple[Rows, Batch]], n: int) -> Arrays:
        order = np.argsort(np.concatenate([rows for rows, _ in results]), kind="stable")
        counts, terms, values = (np.concatenate([batch[part] for _, batch in results]) for part in range(3))
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        sorted_terms = concatenated_ranges(starts[:-1][order], counts[order])
        width = np.array([results[0][1][3]], np.int32)
        return {"counts": counts[order], "terms": terms[sorted_terms], "weights": values[sorted_terms], "width": width}


class TokenWeights(Component):
    """Inference-free query encoder: each distinct token has a fixed weight, as in OpenSearch (Geng et al., 2024).

    Args:
        model: A folder or hub id with the tokenizer and the token weights.
        package: See `Model`.
        file: JSON file of the weights in the model's folder; None for a weight of 1 for every token.
    """

    family: ClassVar[str] = "token_weights"

    def __init__(self, model: str, package: weights.Package | None = None, file: str | None = "idf.json") -> None:
        self._name, self._package, self._file = model, package, file
        self._tokenizer: Any = None

    def weights_identity(self) -> str:
        """Return the identity of the model's files: a hash of their content, or a revision."""
        return weights.identity(self._name, self._package)

    def encode(self, texts: StringColumn, side: Side) -> SparseRows:
        """Return a row of distinct tokens and their weights for each of `texts`; `side` is ignored."""
        self._load()
        with instrument.stage("encode", total=len(texts)) as step:
            settings = {"add_special_tokens": False, "truncation": True}
            rows = self._tokenizer(list(texts), **settings)["input_ids"] if len(texts) else []
            tokens = [ids[self._weights[ids] > 0] for ids in (np.unique(np.array(row, np.int32)) for row in rows)]
            step(len(texts))
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens], dtype=np.int64)])
        terms = np.concatenate([*tokens, np.empty(0, np.int32)]).astype(np.int32)
        instrument.count("texts", len(texts))
        return SparseRows(starts, terms, self._weights[terms])

    def decode_terms(self, terms: NDArray[np.int32]) -> list[str]:
        """Return the tokens [n] as spelled in the vocabulary."""
        self._load()
        names: list[str] = self._tokenizer.convert_ids_to_tokens(terms.tolist())
        return names

    def _load(self) -> None:
        if self._tokenizer is not None:
            return
        from transformers import AutoTokenizer

        with instrument.stage("load"):
            folder = weights.find(self._name, self._package).path
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self._weights = np.ones(len(self._tokenizer), np.float32)
            if self._file is not None:
                self._weights = self._read(folder / self._file)

    def _read(self, path: Path) -> NDArray[np.float32]:
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            vocabulary = self._tokenizer.get_vocab()
            by_id = {vocabulary[token]: float(weight) for token, weight in saved.items() if token in vocabulary}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise WeightsError(
                f"no token weights in {str(path)!r} ({error}); give the file's name: query_encoder.file=NAME, or null"
            ) from None
        token_weights = np.zeros(len(self._tokenizer), np.float32)
        token_weights[list(by_id)] = list(by_id.values())
        return token_weights


def _heaviest(vectors: SparseRows, row: int, n: int | None) -> tuple[NDArray[np.int32], list[float]]:
    """Return the n terms of a row with the largest weights and their weights, in descending order, ties by term."""
    span = slice(vectors.starts[row], vectors.starts[row + 1])
    terms, values = vectors.terms[span], vectors.weights[span]
    order = np.lexsort((terms, -values))[:n]
    return terms[order], values[order].tolist()
