"""Batches of texts of similar length under a token budget; each text is tokenised once.

A corpus is sorted by bytes (`by_length`), and each block of about a thousand texts by tokens.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from harness.errors import RunError
from harness.types import StringColumn

R = TypeVar("R")
Rows = NDArray[np.int64]

_BLOCK = 1024  # texts that are tokenised in one call
tokenizing = Lock()  # a fast tokenizer cannot be configured by one thread while another uses it


@dataclass(frozen=True)
class Batch:
    """The model's inputs for several texts, on the CPU."""

    rows: Rows
    features: dict[str, Any]
    lengths: NDArray[np.int64]
    """Tokens that the model reads of each text, padding excluded."""
    truncated: int
    """Number of truncated texts."""
    padding: int
    """Number of padding tokens."""


def by_length(texts: StringColumn) -> Rows:
    """Return text indices sorted by bytes, longest first; equal lengths keep their order."""
    nbytes = pc.binary_length(texts.arrow).to_numpy().astype(np.int64)
    return np.argsort(-nbytes, kind="stable").astype(np.int64)


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[Rows]:
    """Yield the row indices of batches, longest texts first.

    Args:
        lengths: Number of tokens of each text, shape [n].
        budget: Maximum number of tokens in a batch, padding included; a longer text forms a batch by itself.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(1, budget // longest)
        yield order[start:stop]
        start = stop


def prepare_batches(
    texts: Sequence[str],
    tokenize: Callable[[list[str]], dict[str, Any]],
    count: Callable[[list[str]], NDArray[np.int64]],
    *,
    budget: int,
    limit: int | None,
    min_tokens: int = 0,
) -> Iterator[Batch]:
    """Tokenise texts into batches.

    Args:
        texts: The texts; they are tokenised in blocks of about a thousand.
        tokenize: Returns the model's inputs for texts, truncated. It is called once per block if its rows can be
            sliced into batches, else once per batch.
        count: Returns the number of tokens of each text without truncation.
        budget: Maximum number of tokens in a batch, padding included.
        limit: Maximum number of tokens that the model reads from a text; None for no limit.
        min_tokens: Number of tokens that every text is padded to.
    """
    for start in range(0, len(texts), _BLOCK):
        block = list(texts[start : start + _BLOCK])
        features = None if min_tokens else _tokenize_block(block, tokenize)
        if features is None:
            prepared = _tokenize_by_batch(block, tokenize, count, budget, limit, min_tokens)
        else:
            prepared = _slice_batches(features, block, count, budget, limit)
        for batch in prepared:
            yield replace(batch, rows=batch.rows + start)


def _tokenize_block(block: list[str], tokenize: Callable[[list[str]], dict[str, Any]]) -> dict[str, Any] | None:
    """Return the features of all texts, or None if those of two texts already show that they cannot be sliced."""
    with tokenizing:
        features = tokenize(block[:2])
        if _is_sliceable(features, len(block[:2])) and len(block) > 2:
            features = tokenize(block)
    return features if _is_sliceable(features, len(block)) else None  # padding shows only where lengths differ


def _is_sliceable(features: dict[str, Any], n: int) -> bool:
    """Return True if all tensors have the shape [n, tokens] of the attention mask, with padding on the right."""
    mask = features.get("attention_mask")
    if not torch.is_tensor(mask) or mask.ndim != 2 or len(mask) != n or not bool(mask[:, 0].all()):
        return False
    return all(value.shape == mask.shape for value in features.values() if torch.is_tensor(value))


def _slice_batches(
    features: dict[str, Any],
    block: list[str],
    count: Callable[[list[str]], NDArray[np.int64]],
    budget: int,
    limit: int | None,
) -> Iterator[Batch]:
    lengths = features["attention_mask"].sum(dim=1).numpy().astype(np.int64)
    truncated = np.zeros(len(block), bool)
    if limit is not None and len(full := np.flatnonzero(lengths >= limit)):
        with tokenizing:
            truncated[full] = count([block[row] for row in full]) > limit
    for rows in batches(lengths, budget):
        longest, index = int(lengths[rows[0]]), torch.from_numpy(rows)
        sliced = {name: value[index, :longest] if torch.is_tensor(value) else value for name, value in features.items()}
        padding = len(rows) * longest - int(lengths[rows].sum())
        yield Batch(rows, sliced, lengths[rows], int(truncated[rows].sum()), padding)


def _tokenize_by_batch(
    block: list[str],
    tokenize: Callable[[list[str]], dict[str, Any]],
    count: Callable[[list[str]], NDArray[np.int64]],
    budget: int,
    limit: int | None,
    min_tokens: int,
) -> Iterator[Batch]:
    with tokenizing:
        lengths = count(block)
    truncated = lengths > limit if limit is not None else np.zeros(len(block), bool)
    read = lengths if limit is None else np.minimum(lengths, limit)
    padded = np.maximum(read, min_tokens)
    for rows in batches(padded, budget):
        with tokenizing:
            features = tokenize([block[row] for row in rows])
        mask = features.get("attention_mask")  # not a matrix for packed sequences and bags of tokens
        padding = int(mask.numel() - padded[rows].sum()) if mask is not None and mask.ndim == 2 else 0
        yield Batch(rows, features, read[rows], int(truncated[rows].sum()), max(0, padding))


def token_counts(model: Any, texts: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of tokens of each text [n], special tokens included, without truncation.

    Args:
        model: A sentence-transformers model. Without a fast tokenizer, 4 characters are counted as a token.
        texts: The texts, without their prompts.
    """
    fast = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    if not hasattr(fast, "encode_batch_fast"):
        return np.array([len(text) // 4 + 2 for text in texts], np.int64)
    truncation, padding = fast.truncation, fast.padding
    fast.no_truncation()
    fast.no_padding()
    try:
        return np.array([len(encoding) for encoding in fast.encode_batch_fast(list(texts))], np.int64)
    finally:  # a static model encodes with the same tokenizer object
        if truncation:
            fast.enable_truncation(**truncation)
        if padding:
            fast.enable_padding(**padding)


class BatchSplitter:
    """Runs batches, recursively splitting them on CUDA out-of-memory; remembers the largest size that fits."""

    def __init__(self) -> None:
        self.max_tokens: int | None = None
        """Maximum number of tokens in a batch, padding included; None until a batch runs out of memory."""

    def run(
        self,
        forward: Callable[[dict[str, Any]], R],
        tokenize: Callable[[Rows], dict[str, Any]],
        rows: Rows,
        features: dict[str, Any],
    ) -> list[tuple[Rows, R]]:
        """Run a batch, whole or in parts; return the rows and the result of each part.

        Args:
            forward: Computes the result of features.
            tokenize: Makes the features of a part of the rows.
            rows: Row indices of the batch.
            features: Their features.

        Raises:
            RunError: If a single text runs out of memory.
        """
        size = next((value.numel() for value in features.values() if torch.is_tensor(value)), 0)
        if self.max_tokens is None or size <= self.max_tokens or len(rows) == 1:
            try:
                return [(rows, forward(features))]
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise RunError(
                        f"out of memory on one text of {size:,} tokens; set encoder.max_length lower, or "
                        "encoder.device=cpu"
                    ) from None
            self.max_tokens = size // 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        parts: list[tuple[Rows, R]] = []
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            with tokenizing:
                half_features = tokenize(half)
            parts += self.run(forward, tokenize, half, half_features)
        return parts
