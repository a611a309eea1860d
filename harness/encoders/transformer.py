"""What the encoders of texts share: prompts, the cache, and batches of texts of like length.

Texts are sorted by length in tokens over a large block and put together under a token budget, so that little is padded.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness import clock
from harness.encoders import cache
from harness.encoders.cache import Arrays
from harness.encoders.model import Model, moved, wait_for
from harness.types import Strings

Side = Literal["query", "document"]


class TransformerEncoder(Model):
    """A `Model` that encodes queries and documents, each with its prompt: the model's own where it is None.

    `cache`: keep the documents' vectors on disk and use those that are there.
    """

    def __init__(
        self,
        model: str,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        cache: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        self._prompts, self._cache = {"query": query_prompt, "document": document_prompt}, cache

    @abstractmethod
    def _run(self, model: Any, features: dict[str, Any], side: Side) -> Any:
        """What the model makes of one batch."""

    @abstractmethod
    def _join(self, found: list[tuple[NDArray[np.int64], Any]], n: int) -> Arrays:
        """One block's arrays in the order of its n texts, from what the batches gave: (rows, result) each."""

    def _settings(self) -> dict[str, Any]:
        """What else than the weights, lengths and prompts the vectors depend on."""
        return {}

    def _shards(self, texts: Strings, side: Side) -> Iterator[Arrays]:
        """The arrays of the texts, block by block in their order."""
        model = self._loaded()
        clock.count("texts", len(texts))
        with clock.stage("encode", total=len(texts)) as step:

            def compute(block: list[str]) -> Arrays:
                return self._join(list(self._batches(block, side, step)), len(block))

            keep = self._cache and side == "document"
            conditions = {"device": str(model.device), "batch_tokens": self._budget(model)}
            yield from cache.encoded(texts, self._identity(model, side), compute, keep, conditions=conditions)

    def _identity(self, model: Any, side: Side) -> dict[str, Any]:
        return {
            "encoder": type(self).__name__,
            **cache.foreign(type(self)),
            "weights": self._found.identity,
            "dtype": str(model.dtype),
            "prompt": self._prompt(model, side),
            "max_length": self._side_limit(model, side),
            "side": side,
            **self._settings(),
        }

    def _batches(self, texts: list[str], side: Side, step: clock.Advance) -> Iterator[tuple[NDArray[np.int64], Any]]:
        model = self._loaded()
        prompt, limit = self._prompt(model, side), self._side_limit(model, side)
        lengths = token_counts(model, [prompt + text for text in texts])
        if limit is not None:
            clock.count("truncated", int((lengths > limit).sum()))
            lengths = np.minimum(lengths, limit)
        clock.count("tokens", int(lengths.sum()))
        for rows in batches(np.maximum(lengths, self._least(model, side)), self._budget(model)):
            features = self._features(model, [texts[row] for row in rows], side)
            with torch.inference_mode():
                result = self._run(model, features, side)
            step(len(rows))
            yield rows, result
        wait_for(model.device)

    def _features(self, model: Any, texts: list[str], side: Side) -> dict[str, Any]:
        """What the model takes of some texts, on its device."""
        return moved(model.preprocess(texts, prompt=self._prompt(model, side) or None, task=side), model.device)

    def _side_limit(self, model: Any, side: Side) -> int | None:
        """Tokens that the model reads of a text on this side; None: all."""
        return self._limit(model)

    def _least(self, model: Any, side: Side) -> int:
        """Tokens that every text of this side is filled up to."""
        return 0

    def _prompt(self, model: Any, side: Side) -> str:
        """The config's prompt, else the model's own for this side, as `encode_query` and `encode_document` take it."""
        chosen = self._prompts[side]
        if chosen is not None:
            return chosen
        names = {"query": ["query"], "document": ["document", "passage", "corpus"]}[side]
        own = model.prompts or {}
        return next((prompt for name in names if (prompt := own.get(name))), "")

    def _say(self, model: Any) -> None:
        super()._say(model)
        lengths = {side: self._side_limit(model, side) for side in ("query", "document")}
        clock.fact("max_length", lengths["query"] if len(set(lengths.values())) == 1 else lengths)
        clock.fact("prompts", {side: self._prompt(model, side) for side in ("query", "document")})


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Rows put together by length, longest first, so that rows x longest stays within `budget` tokens."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(1, budget // longest)
        yield order[start:stop]
        start = stop


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
