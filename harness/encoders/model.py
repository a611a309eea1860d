"""A sentence-transformers model of any kind: found, put on its device in its precision, and cut to a length."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from harness import clock, weights
from harness.errors import ConfigError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BUDGET = {"cpu": 2048, "mps": 16384, "cuda": 65536}


class Model:
    """A local folder, or `org/name@revision` on the hub, or the package that ships it.

    `device` auto takes a GPU where there is one; `dtype` auto is bfloat16 on CUDA and float32 elsewhere; `max_length`
    (tokens) is the model's own where it is None. `batch_tokens` bounds a batch with its padding; None: by device.
    """

    def __init__(
        self,
        model: str,
        package: weights.Package | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int | None = None,
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
        self._model: Any = None

    @abstractmethod
    def _open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """The sentence-transformers model in a folder."""

    def load(self) -> None:
        """Find and load the weights now, so that what cannot be had is refused at once."""
        self._loaded()

    def _cut(self, model: Any, length: int) -> None:
        """Let the model read no more than so many tokens."""
        try:
            model.max_seq_length = length
        except AttributeError:  # a static model's is a property that says: all
            raise ConfigError(
                f"encoder.max_length={length}: this model reads texts of any length; set it to null"
            ) from None

    def _limit(self, model: Any) -> int | None:
        """Tokens that the model reads; None: all."""
        limit = model.max_seq_length
        return None if limit is None or math.isinf(limit) else int(limit)

    def _budget(self, model: Any) -> int:
        return self._batch_tokens or _BUDGET.get(model.device.type, _BUDGET["cuda"])

    def _loaded(self) -> Any:
        if self._model is None:
            with clock.stage("load"):
                self._model = self._load()
        self._say(self._model)
        return self._model

    def _say(self, model: Any) -> None:
        """What belongs in the record."""
        clock.fact("device", str(model.device))
        clock.fact("dtype", str(model.dtype).removeprefix("torch."))
        clock.fact("max_length", self._limit(model))
        clock.fact("batch_tokens", self._budget(model))
        clock.fact("weights", {"model": self._name, "source": self._found.source, "identity": self._found.identity})

    def _load(self) -> Any:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        self._found = weights.find(self._name, self._package)
        device = _device(self._device)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"encoder.device={self._device!r}: torch finds no CUDA GPU here; choose auto or cpu")
        usual = "bfloat16" if device.startswith("cuda") else "float32"
        settings = {
            "device": device,
            "trust_remote_code": self._trusted,
            "local_files_only": not self._trusted,
            "model_kwargs": {"dtype": _DTYPES[usual if self._dtype == "auto" else self._dtype]},
        }
        model = self._open(self._found.path, settings)
        model.eval()
        if self._max_length is not None:
            most = getattr(model.config, "max_position_embeddings", None)
            if most is not None and self._max_length > most:
                raise ConfigError(f"encoder.max_length={self._max_length} is more than the model's {most} positions")
            self._cut(model, self._max_length)
        return model


def moved(features: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Features with their tensors on the device."""
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}


def wait_for(device: torch.device) -> None:
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
