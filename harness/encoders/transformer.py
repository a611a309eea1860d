"""What the encoders of texts share: prompts, the cache, and shards of texts that are tokenised ahead of the model."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch

from harness import environment, instrument
from harness.embedding_cache import cache
from harness.embedding_cache.shards import Arrays
from harness.encoders.model import Model, attention_of, moved, wait_for
from harness.encoders.runtime import batching, mfu
from harness.encoders.runtime.batching import Batch, Rows
from harness.encoders.runtime.prefetch import Ahead
from harness.encoders.runtime.slab import Slab
from harness.encoders.runtime.workers import Workers
from harness.types import StringColumn

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
        self._workers: Workers | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded weights, and the processes on other devices."""
        return {**super().__getstate__(), "_workers": None}

    def _load(self) -> Any:
        model = super()._load()
        if (n := len(self._devices)) > 1:
            self._workers = Workers(self, self._devices, max(1, environment.threads() // n))
        return model

    @abstractmethod
    def _run(self, model: Any, features: dict[str, Any], side: Side) -> Any:
        """What the model makes of one batch."""

    @abstractmethod
    def _join(self, found: list[tuple[Rows, Any]], n: int) -> Arrays:
        """One shard's arrays in the order of its n texts, from what the batches gave: (rows, result) each."""

    def _settings(self) -> dict[str, Any]:
        """What else than the weights, lengths and prompts the vectors depend on."""
        return {}

    def _shards(self, texts: StringColumn, side: Side) -> Iterator[tuple[Rows, Arrays]]:
        """The numbers of some texts and their arrays, shard by shard, the longest texts first."""
        model = self._loaded()
        instrument.count("texts", len(texts))
        with instrument.stage("encode", total=len(texts)) as step, ExitStack() as opened, self._crew():

            def begin(block: list[str]) -> cache.Finish:
                if self._workers and len(texts) > cache.SHARD:
                    return partial(self._workers.begin(block, side), step)
                if len(block) < mfu.WEIGHED:
                    return partial(self.shard, block, side, step=step)
                ahead = Ahead(self._prepared(model, block, side))
                opened.callback(ahead.close)
                return lambda: self.shard(block, side, ahead, step)

            yield from cache.encoded(
                texts,
                self._identity(model, side),
                begin,
                self._cache and side == "document",
                conditions={"device": self._devices, "batch_tokens": self._budget(model)},
                about={"model": self._name},
                order=batching.by_length(texts),
                ahead=2 * len(self._devices) if self._workers else 1,
            )
        if self._room.tokens is not None:
            instrument.fact("batch_tokens_that_fit", self._room.tokens)

    @contextmanager
    def _crew(self) -> Iterator[None]:
        """Whatever ends the block early, the processes on other devices do not go on with what is left."""
        try:
            yield
        except BaseException as error:
            if self._workers:
                self._workers.cancel(now=isinstance(error, KeyboardInterrupt))
            raise

    def _identity(self, model: Any, side: Side) -> dict[str, Any]:
        return {
            "encoder": type(self).__name__,
            **cache.encoder_identity(type(self)),
            "weights": self._found.identity,
            "dtype": str(model.dtype),
            "backend": self._backend,
            "attention": attention_of(model),
            "prompt": self.prompt(model, side),
            "max_length": self._side_limit(model, side),
            "side": side,
            **self._settings(),
        }

    def shard(
        self,
        texts: list[str],
        side: Side,
        ahead: Iterator[Batch] | None = None,
        step: instrument.Advance = instrument.ignore,
    ) -> Arrays:
        """The arrays of one shard's texts; `ahead` gives its batches where they are being made already."""
        model = self._loaded()
        per_token = mfu.weights_per_token(model) if len(texts) >= mfu.WEIGHED else (0, 0)
        found: list[tuple[Rows, Any]] = []
        flops, slab = 0, Slab()
        with instrument.recording() as seen:
            for batch in self._prepared(model, texts, side) if ahead is None else ahead:
                found += map(slab.keep, self._run_batch(model, texts, batch, side))
                instrument.count("tokens", int(batch.lengths.sum()))
                instrument.count("padding", batch.padding)
                instrument.count("truncated", batch.truncated)
                flops += mfu.flops(per_token, batch.lengths)
                step(len(batch.rows))
            wait_for(model.device)
        instrument.bill(seen.phase(), "encode", earlier=False)
        mfu.weigh(model, flops, seen.wall_s)
        return self._join(found, len(texts))

    def _prepared(self, model: Any, texts: list[str], side: Side) -> Iterator[Batch]:
        prompt = self.prompt(model, side)
        return batching.prepared(
            texts,
            partial(self._features, model, side=side),
            lambda some: batching.token_counts(model, [prompt + text for text in some]),
            budget=self._budget(model),
            limit=self._side_limit(model, side),
            least=self._least(model, side),
        )

    def _run_batch(self, model: Any, texts: list[str], batch: Batch, side: Side) -> list[tuple[Rows, Any]]:
        def run(features: dict[str, Any]) -> Any:
            with torch.inference_mode():
                return self._run(model, moved(features, model.device), side)

        def again(rows: Rows) -> dict[str, Any]:
            return self._features(model, [texts[row] for row in rows], side)

        return self._room.fitted(run, again, batch.rows, batch.features)

    def _features(self, model: Any, texts: list[str], side: Side) -> dict[str, Any]:
        """What the model takes of some texts, on the CPU."""
        features: dict[str, Any] = dict(model.preprocess(texts, prompt=self.prompt(model, side) or None, task=side))
        return features

    def _side_limit(self, model: Any, side: Side) -> int | None:
        """Tokens that the model reads of a text on this side; None: all."""
        return self._limit(model)

    def _document_limit(self, model: Any) -> int | None:
        return self._side_limit(model, "document")

    def _least(self, model: Any, side: Side) -> int:
        """Tokens that every text of this side is filled up to."""
        return 0

    def prompt(self, model: Any, side: Side) -> str:
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
        instrument.fact("max_length", lengths["query"] if len(set(lengths.values())) == 1 else lengths)
        instrument.fact("prompts", {side: self.prompt(model, side) for side in ("query", "document")})
