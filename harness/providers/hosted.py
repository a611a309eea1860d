"""Text to vectors by a server: texts put into requests, requests in flight, answers checked, and what it all costs.

A killed run goes on at the next shard: what was paid for is in the embedding cache.
"""

from abc import abstractmethod
from collections.abc import Generator
from contextlib import closing
from functools import partial
from threading import Event, Lock
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from harness import instrument
from harness.embedding_cache import cache
from harness.encoders.runtime import storage
from harness.encoders.transformer import Side
from harness.errors import ApiError, ConfigError
from harness.providers.requests import Failure, Outcome, concurrently, cut, estimated, masked, repeated, spans
from harness.providers.server import Server
from harness.providers.vectors import Answer, checked
from harness.types import Strings

_SHARD = 512  # texts whose vectors are kept together: what was paid for and is lost when a run is killed
_LEAST = 16  # fewer texts are not worth a request of their own


class HostedEncoder(Server):
    """A `Server` that encodes queries and documents, each with its prompt before it.

    `batch_texts` and `batch_tokens` bound a request, `concurrency` the requests in flight. Tokens are estimated, as
    bytes / 3, where the server does not count them. `max_tokens` of a text are sent, all where it is None.
    `price_per_million_tokens`: USD. `cache`: keep the documents' vectors on disk and use those that are there.
    """

    most_texts: ClassVar[int]
    """Texts that the provider takes in one request."""
    about_answers = "dimensions"
    about_requests = ".dimensions and, for texts that are too long, .max_tokens and .batch_tokens"
    server_cuts: ClassVar[bool] = False
    """The server itself cuts a text that is over `max_tokens`."""
    _agreeing: ClassVar[Lock] = Lock()

    def __init__(
        self,
        model: str | None,
        *,
        batch_texts: int,
        batch_tokens: int,
        dimensions: int | None = None,
        query_prompt: str = "",
        document_prompt: str = "",
        max_tokens: int | None = None,
        concurrency: int = 4,
        retries: int = 6,
        price_per_million_tokens: float | None = None,
        normalize: bool = True,
        cache: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(model, **settings)
        counts = {"batch_texts": batch_texts, "batch_tokens": batch_tokens, "concurrency": concurrency}
        self._at_least(1, {**counts, "dimensions": dimensions, "max_tokens": max_tokens})
        self._at_least(0, {"retries": retries, "price_per_million_tokens": price_per_million_tokens})
        if batch_texts > self.most_texts:
            raise ConfigError(f"encoder.batch_texts={batch_texts}: {self.provider} takes {self.most_texts} at most")
        self._dimensions, self._max_tokens, self._normalize = dimensions, max_tokens, normalize
        self._prompts = {"query": query_prompt, "document": document_prompt}
        self._batch_texts, self._batch_tokens, self._concurrency = batch_texts, batch_tokens, concurrency
        self._retries, self._price, self._cache = retries, price_per_million_tokens, cache
        self._jitter, self._width = np.random.default_rng(0), dimensions

    @abstractmethod
    def _post(self, texts: list[str], side: Side) -> Any:
        """The server's answer to one request, or a `Failure`."""

    @abstractmethod
    def _read(self, answer: Any) -> tuple[list[Any], Any]:
        """The vectors of an answer in the order of the texts, and how many tokens it says they were, if it does."""

    def encode(self, texts: Strings, side: Side) -> torch.Tensor:
        """Vectors [texts, dimensions] as float32, on the CPU."""
        if not self._model:
            raise ConfigError(f"encoder.model is not set; retriever.encoder.model=NAME, one of {self._url}/models")
        instrument.count("texts", len(texts))
        vectors: torch.Tensor | None = None
        with instrument.stage("encode", total=len(texts)) as step:

            def begin(block: list[str]) -> cache.Finish:
                return lambda: {"vectors": self._block(block, side, step)}

            keep, about = self._cache and side == "document", {"model": self._model}
            found = cache.encoded(texts, self._identity(side), begin, keep, shard=_SHARD, paid=True, about=about)
            for rows, arrays in found:
                own = torch.from_numpy(arrays["vectors"])
                self._agree_with_cached(own.shape[1])
                if vectors is None:
                    vectors = storage.allocate((len(texts), own.shape[1]), torch.device("cpu"))
                vectors[torch.from_numpy(rows)] = torch.nn.functional.normalize(own) if self._normalize else own
        self._say()
        return torch.empty((0, self._width or 0)) if vectors is None else vectors

    def _say(self) -> None:
        instrument.fact("provider", self.provider)
        instrument.fact("model", self._model)
        instrument.fact("base_url", self._url)
        instrument.fact("dimensions", self._width)
        instrument.fact("prompts", dict(self._prompts))
        instrument.fact("price_per_million_tokens", self._price)

    def _identity(self, side: Side) -> dict[str, Any]:
        return {
            "encoder": self.provider,
            **cache.foreign(type(self)),
            "base_url": self._url,
            "model": self._model,
            "dimensions": self._dimensions,
            "prompt": self._prompts[side],
            "max_tokens": self._max_tokens,
            "side": side,
        }

    def _block(self, texts: list[str], side: Side, step: instrument.Advance) -> NDArray[np.float32]:
        """The vectors of some texts, as the server gives them."""
        self._connect()
        sent = self._sent(texts, side)
        vectors, tokens = np.empty((0, 0), np.float32), 0
        with closing(self._asked(sent, side)) as asked:
            for span, outcome in asked:  # the clock is this thread's, so the counting is done here
                instrument.count("requests", 1 + outcome.retries)
                instrument.count("retries", outcome.retries)
                if isinstance(outcome.found, Failure):
                    raise self._error(outcome.found, outcome.retries)
                if not len(vectors):
                    vectors = np.empty((len(sent), outcome.found.vectors.shape[1]), np.float32)
                vectors[span] = outcome.found.vectors
                tokens += outcome.tokens
                step(span.stop - span.start)
        instrument.count("tokens", tokens)
        if self._price is not None:  # USD for a million tokens: as many millionths of a USD for one
            instrument.count("micro_usd", round(tokens * self._price))
        return vectors

    def _sent(self, texts: list[str], side: Side) -> list[str]:
        whole, limit = [self._prompts[side] + text for text in texts], self._max_tokens
        if limit is not None and not self.server_cuts:
            instrument.count("truncated", sum(estimated(text) > limit for text in whole))
            whole = [cut(text, limit) for text in whole]
        # OpenAI refuses a whole request for an empty string in it; a blank is the nearest text that it takes
        return [text or " " for text in whole]

    def _asked(self, sent: list[str], side: Side) -> Generator[tuple[slice, Outcome[Answer]], None, None]:
        """What each request came to, as they come back; the texts are spread over those that may be in flight."""
        share = min(self._batch_texts, max(_LEAST, -(-len(sent) // self._concurrency)))

        def asked(span: slice, stop: Event) -> Outcome[Answer]:
            return repeated(partial(self._attempt, sent[span], side), self._name, self._retries, self._jitter, stop)

        return concurrently(asked, spans(sent, share, self._batch_tokens), self._concurrency, self.provider)

    def _attempt(self, texts: list[str], side: Side) -> Answer | Failure:
        tokens = sum(map(estimated, texts))
        try:
            answer = self._post(texts, side)
            if isinstance(answer, Failure):
                return answer
            found, counted = self._read(answer)
            tokens = int(counted or tokens)
            vectors = checked(found, len(texts))
            self._agree(vectors.shape[1])
            return Answer(vectors, tokens)
        except (AttributeError, TypeError) as error:
            said = f"no vectors in it ({error})"
        except ValueError as error:  # no JSON, too
            said = str(error)
        return Failure(masked(f"an answer that cannot be used: {said}", self._key), 200, tokens=tokens)

    def _agree(self, width: int) -> None:
        """Hold every vector to one width: that of `dimensions`, else of the first. Raises `ValueError`."""
        with self._agreeing:
            self._width = self._width or width
        if width != self._width:
            raise ValueError(f"vectors of {width} dimensions, not {self._width}")

    def _agree_with_cached(self, width: int) -> None:
        try:
            self._agree(width)
        except ValueError as error:
            raise ApiError(
                f"{self._name}: the cache holds {error}: the server has another model under this name now; "
                "encode anew: resume=false"
            ) from None
