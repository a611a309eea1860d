"""Text to dense vectors with any sentence-transformers model, as the model's own config says: pooling, prompts, length.

Texts are sorted by length in tokens over a large block and put together under a token budget, so that little is padded.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness import clock, weights
from harness.errors import ConfigError
from harness.types import Strings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Side = Literal["query", "document"]
_BLOCK = 16384
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BUDGET = {"cpu": 2048, "mps": 16384, "cuda": 65536}


class DenseEncoder:
    """A sentence-transformers model: a local folder, or `org/name@revision` on the hub.

    `device` auto takes a GPU where there is one; `dtype` auto is bfloat16 on CUDA and float32 elsewhere. The prompts
    and `max_length` (tokens) are the model's own where they are None. `batch_tokens` bounds a batch with its padding.
    """

    def __init__(
        self,
        model: str,
        package: weights.Package | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        batch_tokens: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if dtype != "auto" and dtype not in _DTYPES:
            raise ConfigError(f"encoder.dtype={dtype!r}; choices: auto, {', '.join(_DTYPES)}")
        for name, value in (("max_length", max_length), ("batch_tokens", batch_tokens)):
            if value is not None and value < 1:
                raise ConfigError(f"encoder.{name}={value} must be at least 1")
        _device(device)
        self._name, self._package, self._trusted = model, package, trust_remote_code
        self._device, self._dtype = device, dtype
        self._max_length, self._batch_tokens = max_length, batch_tokens
        self._prompts = {"query": query_prompt, "document": document_prompt}
        self._model: SentenceTransformer | None = None

    def encode(self, texts: Strings, side: Side) -> torch.Tensor:
        """Vectors [texts, dimensions] as float32, on the device."""
        model = self._loaded()
        with clock.stage("encode", total=len(texts)) as step:
            vectors: torch.Tensor | None = None
            prompt = self._prompt(model, side)
            for offset in range(0, len(texts), _BLOCK):
                block = texts[offset : offset + _BLOCK].arrow.to_pylist()
                for rows, found in self._block(model, block, prompt, side):
                    if vectors is None:
                        vectors = torch.empty((len(texts), found.shape[1]), dtype=torch.float32, device=found.device)
                    vectors[offset + torch.from_numpy(rows).to(found.device)] = found.float()
                    step(len(rows))
            if vectors is None:
                vectors = torch.empty((0, model.get_embedding_dimension() or 0), device=model.device)
            _wait_for(vectors.device)
        clock.count("texts", len(texts))
        return vectors

    def _block(
        self, model: "SentenceTransformer", texts: list[str], prompt: str, side: Side
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        limit = model.max_seq_length
        lengths = _token_counts(model, [prompt + text for text in texts])
        if limit is not None:
            clock.count("truncated", int((lengths > limit).sum()))
            lengths = np.minimum(lengths, limit)
        clock.count("tokens", int(lengths.sum()))
        budget = self._budget(model)
        for rows in batches(lengths, budget):
            own = [texts[row] for row in rows]
            features = model.preprocess(own, prompt=prompt or None, task=side)
            features = {
                key: value.to(model.device) if hasattr(value, "to") else value for key, value in features.items()
            }
            with torch.inference_mode():
                found = model(features, task=side)["sentence_embedding"]
            yield rows, found

    def _budget(self, model: "SentenceTransformer") -> int:
        return self._batch_tokens or _BUDGET.get(model.device.type, _BUDGET["cuda"])

    def _prompt(self, model: "SentenceTransformer", side: Side) -> str:
        """The config's prompt, else the model's own for this side, as `encode_query` and `encode_document` take it."""
        chosen = self._prompts[side]
        if chosen is not None:
            return chosen
        names = {"query": ["query"], "document": ["document", "passage", "corpus"]}[side]
        own = model.prompts or {}
        return next((prompt for name in names if (prompt := own.get(name))), "")

    def _loaded(self) -> "SentenceTransformer":
        if self._model is None:
            with clock.stage("load"):
                self._model = self._load()
        model = self._model
        clock.fact("device", str(model.device))
        clock.fact("dtype", str(model.dtype).removeprefix("torch."))
        clock.fact("max_length", model.max_seq_length)
        clock.fact("batch_tokens", self._budget(model))
        clock.fact("prompts", {side: self._prompt(model, side) for side in ("query", "document")})
        clock.fact("weights", {"model": self._name, "source": self._found.source, "identity": self._found.identity})
        return model

    def _load(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        self._found = weights.find(self._name, self._package)
        device = _device(self._device)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"encoder.device={self._device!r}: torch finds no CUDA GPU here; choose auto or cpu")
        dtype = _DTYPES[
            ("bfloat16" if device.startswith("cuda") else "float32") if self._dtype == "auto" else self._dtype
        ]
        model = SentenceTransformer(
            str(self._found.path),
            device=device,
            trust_remote_code=self._trusted,
            local_files_only=not self._trusted,
            model_kwargs={"dtype": dtype},
        )
        model.eval()
        if self._max_length is not None:
            most = getattr(model.config, "max_position_embeddings", None)
            if most is not None and self._max_length > most:
                raise ConfigError(f"encoder.max_length={self._max_length} is more than the model's {most} positions")
            model.max_seq_length = self._max_length
        return model


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Rows put together by length, longest first, so that rows x longest stays within `budget` tokens."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(1, budget // longest)
        yield order[start:stop]
        start = stop


def _token_counts(model: Any, texts: Sequence[str]) -> NDArray[np.int64]:
    """How many tokens each text has with the special ones and without truncation."""
    fast = getattr(model.tokenizer, "backend_tokenizer", None)
    if fast is None:
        return np.array([len(text) // 4 + 2 for text in texts], np.int64)
    fast.no_truncation()
    fast.no_padding()
    return np.array([len(encoding) for encoding in fast.encode_batch_fast(list(texts))], np.int64)


def _wait_for(device: torch.device) -> None:
    """Let the work that was handed to a GPU end, so that the clock sees it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _device(chosen: str) -> str:
    if chosen != "auto":
        try:
            return str(torch.device(chosen))
        except RuntimeError:
            raise ConfigError(f"encoder.device={chosen!r}; choices: auto, cpu, cuda, cuda:0, mps") from None
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
