"""Base class of the text encoders: prompts, the embedding cache, and shards of texts with prefetched batches."""

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
from harness.encoders.runtime import batching, cpu, mfu
from harness.encoders.runtime.batching import Batch, Rows
from harness.encoders.runtime.prefetch import Prefetch
from harness.encoders.runtime.workers import Workers
from harness.types import StringColumn

Side = Literal["query", "document"]


class TransformerEncoder(Model):
    """A `Model` that encodes queries and documents.

    Args:
        model: The model, as for `Model`.
        query_prompt: Prefix of queries; None for the model's own prompt.
        document_prompt: Prefix of documents; None for the model's own prompt.
        cache: Store document embeddings in the embedding cache on disk and reuse them.
        settings: Other arguments of `Model`.
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
        """Leave out the loaded model and the worker processes."""
        return {**super().__getstate__(), "_workers": None}

    def _load(self) -> Any:
        model = super()._load()
        if (n := len(self._devices)) > 1:
            self._workers = Workers(self, self._devices, max(1, environment.threads() // n))
        return model

    @abstractmethod
    def _run(self, model: Any, features: dict[str, Any], side: Side) -> Any:
        """Encode one batch on the device."""

    @abstractmethod
    def _join(self, results: list[tuple[Rows, Any]], n: int) -> Arrays:
        """Join the results of batches, each with its row indices, to arrays in the order of a shard's n texts."""

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the subclass that embeddings depend on, for the cache key."""
        return {}

    def _shards(self, texts: StringColumn, side: Side) -> Iterator[tuple[Rows, Arrays]]:
        """Yield the text indices and arrays of each shard, longest texts first."""
        model = self._loaded()
        instrument.count("texts", len(texts))
        with (
            instrument.stage("encode", total=len(texts)) as step,
            ExitStack() as prefetches,
            self._cancelling_workers(),
        ):

            def begin(block: list[str]) -> cache.Finish:
                if self._workers and len(texts) > cache.SHARD:
                    return partial(self._workers.begin(block, side), step)
                if len(block) < mfu.MIN_TEXTS:
                    return partial(self.shard, block, side, step=step)
                prefetch = Prefetch(self._prepare(model, block, side))
                prefetches.callback(prefetch.close)
                return lambda: self.shard(block, side, prefetch, step)

            yield from cache.encoded(
                texts,
                self._identity(model, side),
                begin,
                self._cache and side == "document",
                conditions={
                    "device": self._devices,
                    "batch_tokens": self._budget(model),
                    "optimize_cpu": self._optimizes(model.device),
                },
                about={"model": self._name},
                order=batching.by_length(texts),
                ahead=2 * len(self._devices) if self._workers else 1,
            )
        if self._splitter.max_tokens is not None:
            instrument.describe_encoder(max_batch_tokens=self._splitter.max_tokens)

    @contextmanager
    def _cancelling_workers(self) -> Iterator[None]:
        """Cancel the shards of the worker processes if the block raises."""
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
            "weights": self._weights.identity,
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
        batches: Iterator[Batch] | None = None,
        step: instrument.Advance = instrument.ignore,
    ) -> Arrays:
        """Encode a shard.

        Args:
            texts: The shard's texts.
            side: `query` or `document`.
            batches: Prefetched batches of the texts; None to prepare them here.
            step: Called with the number of texts of each batch that is done.
        """
        model = self._loaded()
        per_token = mfu.weights_per_token(model) if len(texts) >= mfu.MIN_TEXTS else (0, 0)
        results: list[tuple[Rows, Any]] = []
        flops, arena = 0, cpu.Arena() if self._optimizes(model.device) else None
        with instrument.recording() as recorder:
            for batch in self._prepare(model, texts, side) if batches is None else batches:
                parts = self._run_batch(model, texts, batch, side)
                results += map(arena.copy, parts) if arena else parts
                instrument.count("tokens", int(batch.lengths.sum()))
                instrument.count("padding", batch.padding)
                instrument.count("truncated", batch.truncated)
                flops += mfu.flops(per_token, batch.lengths)
                step(len(batch.rows))
            wait_for(model.device)
        instrument.add_counters(recorder.phase())
        mfu.count_flops(model, flops, recorder.wall_s)
        return self._join(results, len(texts))

    def _prepare(self, model: Any, texts: list[str], side: Side) -> Iterator[Batch]:
        prompt = self.prompt(model, side)
        return batching.prepare_batches(
            texts,
            partial(self._features, model, side=side),
            lambda block: batching.token_counts(model, [prompt + text for text in block]),
            budget=self._budget(model),
            limit=self._side_limit(model, side),
            min_tokens=self._min_tokens(model, side),
        )

    def _run_batch(self, model: Any, texts: list[str], batch: Batch, side: Side) -> list[tuple[Rows, Any]]:
        def forward(features: dict[str, Any]) -> Any:
            with torch.inference_mode():
                return self._run(model, moved(features, model.device), side)

        def tokenize(rows: Rows) -> dict[str, Any]:
            return self._features(model, [texts[row] for row in rows], side)

        return self._splitter.run(forward, tokenize, batch.rows, batch.features)

    def _features(self, model: Any, texts: list[str], side: Side) -> dict[str, Any]:
        """Tokenise texts to the model's inputs, on the CPU."""
        features: dict[str, Any] = dict(model.preprocess(texts, prompt=self.prompt(model, side) or None, task=side))
        return features

    def _side_limit(self, model: Any, side: Side) -> int | None:
        """Return the maximum number of tokens that the model reads from a text of this side; None for no limit."""
        return self._limit(model)

    def _document_limit(self, model: Any) -> int | None:
        return self._side_limit(model, "document")

    def _min_tokens(self, model: Any, side: Side) -> int:
        """Return the number of tokens that every text of this side is padded to; 0 for no such padding."""
        return 0

    def prompt(self, model: Any, side: Side) -> str:
        """Return the configured prompt of `side`, else the one saved with `model`, else an empty string."""
        configured = self._prompts[side]
        if configured is not None:
            return configured
        names = {"query": ["query"], "document": ["document", "passage", "corpus"]}[side]
        prompts = model.prompts or {}
        return next((prompt for name in names if (prompt := prompts.get(name))), "")

    def _record_metadata(self, model: Any) -> None:
        super()._record_metadata(model)
        lengths = {side: self._side_limit(model, side) for side in ("query", "document")}
        instrument.describe_encoder(
            max_length=lengths["query"] if len(set(lengths.values())) == 1 else lengths,
            prompts={side: self.prompt(model, side) for side in ("query", "document")},
        )
