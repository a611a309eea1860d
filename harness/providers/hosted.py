"""Encoding by a hosted API: batching, concurrent requests, validation of answers, and the price.

A run that was killed resumes at the next shard, because paid embeddings are in the embedding cache.
"""

from abc import abstractmethod
from contextlib import closing
from functools import partial
from threading import Event
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import instrument
from harness.embedding_cache import cache
from harness.encoders.runtime import storage
from harness.encoders.transformer import Side
from harness.errors import ApiError, ConfigError
from harness.providers import batching
from harness.providers.client import ApiClient
from harness.providers.retries import Call
from harness.types import StringColumn

_SHARD = 512  # texts in a shard of the cache: at most these are paid for again after a run is killed
_MIN_BATCH = 16  # minimum number of texts in a request when a block is divided among concurrent requests

Vectors = NDArray[np.float32]


class HostedEncoder(ApiClient):
    """An `ApiClient` that encodes queries and documents.

    Args:
        model: The model, as for `ApiClient`.
        batch_texts: Maximum number of texts in a request; None for the provider's limit.
        batch_tokens: Maximum number of tokens in a request, estimated as bytes / 3; None for the provider's default.
        dimensions: Dimensions to request of each vector; None for the model's own.
        query_prompt: Prefix of queries.
        document_prompt: Prefix of documents.
        max_tokens: Maximum number of tokens of a text; longer texts are truncated. None for no limit.
        price_per_million_tokens: Price in USD. Tokens are estimated if the server does not report them.
        normalize: Normalise vectors to unit length.
        cache: Store document embeddings in the embedding cache on disk and reuse them.
        settings: Other arguments of `ApiClient`.

    Raises:
        ConfigError: An argument has an invalid value.
    """

    max_texts: ClassVar[int]  # maximum number of texts in one request
    max_batch_tokens: ClassVar[int]  # default of batch_tokens
    answer_setting = "dimensions"
    request_settings = ".dimensions and, for texts that are too long, .max_tokens and .batch_tokens"
    server_truncates: ClassVar[bool] = False  # True if the server truncates texts over max_tokens

    def __init__(
        self,
        model: str | None,
        *,
        batch_texts: int | None = None,
        batch_tokens: int | None = None,
        dimensions: int | None = None,
        query_prompt: str = "",
        document_prompt: str = "",
        max_tokens: int | None = None,
        price_per_million_tokens: float | None = None,
        normalize: bool = True,
        cache: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        limits = {"batch_texts": batch_texts, "batch_tokens": batch_tokens}
        self._require_at_least(1, **limits, dimensions=dimensions, max_tokens=max_tokens)
        self._require_at_least(0, price_per_million_tokens=price_per_million_tokens)
        if (batch_texts or 0) > self.max_texts:
            raise ConfigError(f"encoder.batch_texts={batch_texts}: {self.provider} takes {self.max_texts} at most")
        self._dimensions, self._max_tokens, self._normalize = dimensions, max_tokens, normalize
        self._prompts = {"query": query_prompt, "document": document_prompt}
        self._batch_texts = batch_texts or self.max_texts
        self._batch_tokens = batch_tokens or self.max_batch_tokens
        self._price, self._cache = price_per_million_tokens, cache
        self._width = {} if dimensions is None else {"dimensions": dimensions}

    @abstractmethod
    def _send(self, texts: list[str], side: Side) -> Any:
        """Send one request; return the SDK's answer."""

    @abstractmethod
    def _vectors(self, answer: Any) -> list[Any]:
        """Return the vectors of an answer in the order of the texts. Raises `ValueError` if it is invalid."""

    def encode(self, texts: StringColumn, side: Side) -> torch.Tensor:
        """Return float32 embeddings [texts, dimensions] of `texts` on the CPU; `side` is "query" or "document".

        Raises:
            ApiError: A request failed in spite of its retries, or the server's model has changed.
            ConfigError: No model is set, or the SDK or the API key is missing.
        """
        if not self._model:
            raise ConfigError(f"encoder.model is not set; retriever.encoder.model=NAME, one of {self._url}/models")
        instrument.count("texts", len(texts))
        embeddings: torch.Tensor | None = None
        with instrument.stage("encode", total=len(texts)) as advance:

            def begin(block: list[str]) -> cache.Finish:
                return lambda: {"vectors": self._encode_block(block, side, advance)}

            keep, about = self._cache and side == "document", {"model": self._model}
            blocks = cache.encoded(texts, self._identity(side), begin, keep, shard=_SHARD, paid=True, about=about)
            for rows, arrays in blocks:
                block = torch.from_numpy(arrays["vectors"])
                width = self._width.setdefault("dimensions", block.shape[1])
                if block.shape[1] != width:
                    raise ApiError(
                        f"{self._name}: the cache holds vectors of {block.shape[1]} dimensions, not {width}: the "
                        "server has another model under this name now; to encode again: resume=false"
                    )
                if embeddings is None:
                    embeddings = storage.allocate((len(texts), width), torch.device("cpu"))
                embeddings[torch.from_numpy(rows)] = torch.nn.functional.normalize(block) if self._normalize else block
        instrument.describe_encoder(
            provider=self.provider,
            model=self._model,
            base_url=self._url,
            dimensions=self._width.get("dimensions"),
            prompts=dict(self._prompts),
            price_per_million_tokens=self._price,
        )
        return torch.empty((0, self._width.get("dimensions", 0))) if embeddings is None else embeddings

    def _identity(self, side: Side) -> dict[str, Any]:
        return {
            "encoder": self.provider,
            **cache.encoder_identity(type(self)),
            "base_url": self._url,
            "model": self._model,
            "dimensions": self._dimensions,
            "prompt": self._prompts[side],
            "max_tokens": self._max_tokens,
            "side": side,
        }

    def _encode_block(self, texts: list[str], side: Side, advance: instrument.Advance) -> Vectors:
        """Return the vectors of a block of texts as the server returns them."""
        self._connect()
        inputs = self._prepare(texts, side)
        spread = max(_MIN_BATCH, -(-len(inputs) // self._concurrency))  # divided among the concurrent requests
        spans = batching.split(inputs, min(self._batch_texts, spread), self._batch_tokens)

        def encode(span: slice, stop: Event) -> tuple[Vectors, Call]:
            return self._encode_batch(inputs[span], side, stop)

        parts, tokens = dict[int, Vectors](), 0
        with closing(batching.run_concurrently(encode, spans, self._concurrency, self.provider)) as batches:
            for span, (vectors, call) in batches:  # counted on this thread, which has the recorder
                instrument.count("requests", call.attempts)
                instrument.count("retries", call.attempts - 1)
                parts[span.start] = vectors
                tokens += call.tokens
                advance(len(vectors))
        instrument.count("tokens", tokens)
        if self._price is not None:  # USD per million tokens equals micro-USD per token
            instrument.count("micro_usd", round(tokens * self._price))
        return np.concatenate([parts[start] for start in sorted(parts)])

    def _prepare(self, texts: list[str], side: Side) -> list[str]:
        """Return the texts with their prompt, truncated unless the server does that."""
        inputs, limit = [self._prompts[side] + text for text in texts], self._max_tokens
        if limit is not None and not self.server_truncates:
            instrument.count("truncated", sum(batching.estimate_tokens(text) > limit for text in inputs))
            inputs = [batching.truncate(text, limit) for text in inputs]
        # OpenAI rejects a request with an empty string; a blank is the closest text that it accepts
        return [text or " " for text in inputs]

    def _encode_batch(self, texts: list[str], side: Side, stop: Event) -> tuple[Vectors, Call]:
        estimate = sum(map(batching.estimate_tokens, texts))
        return self._request(partial(self._send, texts, side), partial(self._read, n=len(texts)), estimate, stop)

    def _read(self, answer: Any, n: int) -> Vectors:
        """Return the vectors of an answer as an array [n, dimensions].

        Raises:
            ValueError: Their number is not `n`, their lengths are not that of the first answer, or one is not finite.
        """
        rows = self._vectors(answer)
        if len(rows) != n:
            raise ValueError(f"{len(rows)} vectors for {n} texts")
        widths = sorted({len(row) for row in rows})
        if len(widths) != 1 or not widths[0]:
            raise ValueError(f"vectors of {' and '.join(map(str, widths))} dimensions")
        with np.errstate(over="ignore"):
            vectors = np.asarray(rows, np.float64).astype(np.float32)  # a null becomes NaN
        if not np.isfinite(vectors).all():
            raise ValueError("a vector with a value that is not finite")
        width = self._width.setdefault("dimensions", widths[0])  # atomic: answers are read on several threads
        if widths[0] != width:
            raise ValueError(f"vectors of {widths[0]} dimensions, not {width}")
        return vectors
