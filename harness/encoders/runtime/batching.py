"""Texts to batches that a model takes: like lengths together under a token budget, tokenised once.

Corpus-wide, texts are ordered by their bytes (`by_length`); inside a few hundred of those, by their tokens.
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

_TOGETHER = 1024  # texts that are tokenised in one call
tokenizing = Lock()  # a fast tokenizer refuses to be set up by one thread while another uses it


@dataclass(frozen=True)
class Batch:
    """Some texts as the model takes them, on the CPU."""

    rows: Rows
    features: dict[str, Any]
    lengths: NDArray[np.int64]
    """Tokens of each text that the model reads, without padding."""
    truncated: int
    """Texts of it that the model does not read to their end."""
    padding: int
    """Tokens that are computed only to fill rows up."""


def by_length(texts: StringColumn) -> Rows:
    """The numbers of the texts, longest first by bytes, equal ones in their own order."""
    nbytes = pc.binary_length(texts.arrow).to_numpy().astype(np.int64)
    return np.argsort(-nbytes, kind="stable").astype(np.int64)


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[Rows]:
    """Rows put together by length, longest first, so that rows x longest stays within `budget` tokens."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(1, budget // longest)
        yield order[start:stop]
        start = stop


def prepared(
    texts: Sequence[str],
    make: Callable[[list[str]], dict[str, Any]],
    count: Callable[[list[str]], NDArray[np.int64]],
    *,
    budget: int,
    limit: int | None,
    least: int = 0,
) -> Iterator[Batch]:
    """Batches of `texts` within `budget` tokens, padding included.

    `make` gives some texts' features, `count` their tokens without truncation, `limit` is what the model reads of a
    text, `least` what every text is filled up to. Features that are plain rows are made once for many texts and cut up.
    """
    for start in range(0, len(texts), _TOGETHER):
        part = list(texts[start : start + _TOGETHER])
        whole = None if least else _whole(part, make)
        if whole is None:
            found = _one_by_one(part, make, count, budget, limit, least)
        else:
            found = _cut_up(whole, part, count, budget, limit)
        for batch in found:
            yield replace(batch, rows=batch.rows + start)


def _whole(part: list[str], make: Callable[[list[str]], dict[str, Any]]) -> dict[str, Any] | None:
    """The features of all texts at once; None where those of two show that they cannot be cut up."""
    with tokenizing:
        features = make(part[:2])
        if _plain(features, len(part[:2])) and len(part) > 2:
            features = make(part)
    return features if _plain(features, len(part)) else None  # padding shows only where lengths differ


def _plain(features: dict[str, Any], n: int) -> bool:
    """Whether features are rows of tokens with padding behind them, and no more than that."""
    mask = features.get("attention_mask")
    if not torch.is_tensor(mask) or mask.ndim != 2 or len(mask) != n or not bool(mask[:, 0].all()):
        return False
    return all(value.shape == mask.shape for value in features.values() if torch.is_tensor(value))


def _cut_up(
    whole: dict[str, Any],
    part: list[str],
    count: Callable[[list[str]], NDArray[np.int64]],
    budget: int,
    limit: int | None,
) -> Iterator[Batch]:
    lengths = whole["attention_mask"].sum(dim=1).numpy().astype(np.int64)
    over = np.zeros(len(part), bool)
    if limit is not None and len(full := np.flatnonzero(lengths >= limit)):
        with tokenizing:
            over[full] = count([part[row] for row in full]) > limit
    for rows in batches(lengths, budget):
        longest, taken = int(lengths[rows[0]]), torch.from_numpy(rows)
        cut = {name: value[taken, :longest] if torch.is_tensor(value) else value for name, value in whole.items()}
        padding = len(rows) * longest - int(lengths[rows].sum())
        yield Batch(rows, cut, lengths[rows], int(over[rows].sum()), padding)


def _one_by_one(
    part: list[str],
    make: Callable[[list[str]], dict[str, Any]],
    count: Callable[[list[str]], NDArray[np.int64]],
    budget: int,
    limit: int | None,
    least: int,
) -> Iterator[Batch]:
    with tokenizing:
        lengths = count(part)
    over = lengths > limit if limit is not None else np.zeros(len(part), bool)
    read = lengths if limit is None else np.minimum(lengths, limit)
    for rows in batches(np.maximum(read, least), budget):
        with tokenizing:
            features = make([part[row] for row in rows])
        mask = features.get("attention_mask")  # texts that lie end to end, and bags of tokens, have none in rows
        padded = int(mask.numel() - np.maximum(read[rows], least).sum()) if mask is not None and mask.ndim == 2 else 0
        yield Batch(rows, features, read[rows], int(over[rows].sum()), max(0, padded))


def token_counts(model: Any, texts: Sequence[str]) -> NDArray[np.int64]:
    """How many tokens each text has with the special ones and without truncation."""
    fast = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
    if not hasattr(fast, "encode_batch_fast"):
        return np.array([len(text) // 4 + 2 for text in texts], np.int64)
    truncation, padding = fast.truncation, fast.padding
    fast.no_truncation()
    fast.no_padding()
    try:
        return np.array([len(encoding) for encoding in fast.encode_batch_fast(list(texts))], np.int64)
    finally:  # a static model reads its texts with the same tokenizer as it stands
        if truncation:
            fast.enable_truncation(**truncation)
        if padding:
            fast.enable_padding(**padding)


class Room:
    """Runs batches in one piece or, where the device has no room for them, in halves of halves; remembers what fits."""

    def __init__(self) -> None:
        self.tokens: int | None = None
        """With padding, what a batch may have; None while every batch has fitted."""

    def fitted(
        self,
        run: Callable[[dict[str, Any]], R],
        make: Callable[[Rows], dict[str, Any]],
        rows: Rows,
        features: dict[str, Any],
    ) -> list[tuple[Rows, R]]:
        """Rows and what `run` gives for them. `make` gives the features of some of the rows anew.

        Raises `RunError` when a single text does not fit.
        """
        size = next((value.numel() for value in features.values() if torch.is_tensor(value)), 0)
        if self.tokens is None or size <= self.tokens or len(rows) == 1:
            try:
                return [(rows, run(features))]
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise RunError(
                        "the device has no room for one text alone; set encoder.max_length lower, or encoder.device=cpu"
                    ) from None
            self.tokens = size // 2
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        pieces: list[tuple[Rows, R]] = []
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            with tokenizing:
                again = make(half)
            pieces += self.fitted(run, make, half, again)
        return pieces
