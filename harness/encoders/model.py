"""A sentence-transformers model of any kind: found, put on its device in its precision, and cut to a length."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from harness import instrument, weights
from harness.encoders.runtime import backends, cpu
from harness.encoders.runtime.batching import Room
from harness.errors import ConfigError
from harness.types.component import Component

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BUDGET = {"cpu": 2048, "mps": 16384, "cuda": 65536}
IN_MEMORY = "in memory"
"""Name of a model that was handed over as an object."""
_ATTENTION = ("auto", "eager", "sdpa", "flash_attention_2")


class Model(Component):
    """A local folder, or `org/name@revision` on the hub, or the package that ships it.

    `device` auto takes a GPU where there is one, all takes every GPU; a list names several. `dtype` auto is bfloat16 on
    CUDA and float32 elsewhere; `max_length` (tokens) is the model's own where it is None. `batch_tokens` bounds a batch
    with its padding; None: by device. `backend` torch, compile, onnx or openvino runs the network; `attention` auto is
    the fastest that the device, the precision and the model have.
    """

    def __init__(
        self,
        model: str,
        package: weights.Package | None = None,
        device: str | list[str] = "auto",
        dtype: str = "auto",
        max_length: int | None = None,
        batch_tokens: int | None = None,
        trust_remote_code: bool = False,
        backend: str = "torch",
        attention: str = "auto",
    ) -> None:
        if dtype != "auto" and dtype not in _DTYPES:
            raise ConfigError(f"encoder.dtype={dtype!r}; choices: auto, {', '.join(_DTYPES)}")
        for name, value in (("max_length", max_length), ("batch_tokens", batch_tokens)):
            if value is not None and value < 1:
                raise ConfigError(f"encoder.{name}={value} must be at least 1")
        for name, chosen, choices in (("backend", backend, backends.CHOICES), ("attention", attention, _ATTENTION)):
            if chosen not in choices:
                raise ConfigError(f"encoder.{name}={chosen!r}; choices: {', '.join(choices)}")
        devices(device)
        self._backend, self.attention = backend, attention
        self._name, self._package, self.trusted = model, package, trust_remote_code
        self._device, self._dtype = device, dtype
        self._max_length, self._batch_tokens = max_length, batch_tokens
        self._most: int | None = None
        self._model: Any = None
        self._devices: list[str] = []
        self._room = Room()

    def find(self) -> weights.Weights:
        """Where the weights lie. Raises `WeightsError`."""
        return weights.find(self._name, self._package)

    def adopt(self, model: Any) -> None:
        """Encode with a model that is in memory, such as one being trained, as it is now and where it is."""
        self._model, self._devices = model, [str(model.device)]
        self._found = weights.Weights(Path(), "training", "training")

    def within(self, length: int | None) -> None:
        """Let the model read no more than so many tokens of a document, where it has a length; before it is loaded."""
        self._most = length

    @contextmanager
    def shortened(self, model: Any, length: int | None) -> Iterator[None]:
        """Let a model that is being trained read what the config says meanwhile, and no more than that."""
        own = self._document_limit(model)
        if self._max_length is not None:
            self._cut(model, self._max_length)
        self._shorten(model, length)
        try:
            yield
        finally:
            if own is not None and own != self._document_limit(model):
                self._cut(model, own)

    def _shorten(self, model: Any, length: int | None) -> None:
        """Cut the model to a length if it reads more."""
        own = self._document_limit(model)
        if length is not None and own is not None and own > length:
            self._cut(model, length)

    def _document_limit(self, model: Any) -> int | None:
        """Tokens that the model reads of a document; None: all."""
        return self._limit(model)

    def settle(self, device: str) -> None:
        """Take another device than the config's, before the weights are loaded."""
        self._device = device

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded weights, which another process loads for itself."""
        return {**vars(self), "_model": None}

    def weights_identity(self) -> str:
        """Return what tells this model's weights from others: a hash of their content, or a revision."""
        if self._name == IN_MEMORY:
            return weights.network_identity(self._model)
        return weights.identity(self._name, self._package)

    @abstractmethod
    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
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
            with instrument.stage("load"):
                self._model = self._load()
        self._say(self._model)
        return self._model

    def _say(self, model: Any) -> None:
        """What belongs in the record."""
        instrument.fact("device", str(model.device))
        instrument.fact("dtype", str(model.dtype).removeprefix("torch."))
        instrument.fact("max_length", self._limit(model))
        instrument.fact("batch_tokens", self._budget(model))
        instrument.fact("backend", self._backend)
        instrument.fact("attention", attention_of(model))
        if any(map(cpu.packed, model.modules())):
            instrument.fact("linear_layers", "onednn")
        instrument.fact(
            "weights", {"model": self._name, "source": self._found.source, "identity": self._found.identity}
        )

    def _load(self) -> Any:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        self._found = self.find()
        self._devices = devices(self._device)
        _refuse_missing(self._devices, self._device)
        model = self._opened(self._devices[0])
        model.eval()
        if self._max_length is not None:
            most = getattr(model.config, "max_position_embeddings", None)
            if most is not None and self._max_length > most:
                raise ConfigError(f"encoder.max_length={self._max_length} is more than the model's {most} positions")
            self._cut(model, self._max_length)
        self._shorten(model, self._most)
        backends.swap(model, self._backend, self._name)
        if self._backend == "torch" and model.device.type == "cpu":
            cpu.ready(model)
        return model

    def _opened(self, device: str) -> Any:
        """The model on a device, with flash attention where that is chosen or can be had."""
        usual = "bfloat16" if device.startswith("cuda") else "float32"
        dtype = _DTYPES[usual if self._dtype == "auto" else self._dtype]
        settings: dict[str, Any] = {
            "device": device,
            "trust_remote_code": self.trusted,
            "local_files_only": not self.trusted,
            "model_kwargs": {"dtype": dtype},
        }
        chosen = self.attention
        if chosen == "auto" and device.startswith("cuda") and dtype != torch.float32 and _has_flash_attention():
            chosen = "flash_attention_2"
        if chosen == "auto":
            return self.open(self._found.path, settings)
        own = {**settings, "model_kwargs": {"dtype": dtype, "attn_implementation": chosen}}
        try:
            return self.open(self._found.path, own)
        except (ValueError, ImportError) as error:  # how transformers says that a model or machine has it not
            if self.attention != "auto":
                raise ConfigError(f"encoder.attention={chosen!r}: {error}; auto takes what there is") from None
            return self.open(self._found.path, settings)


def moved(features: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Features with their tensors on the device; a copy to a GPU goes on while the next is made ready."""
    return {
        key: (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)
        if torch.is_tensor(value)
        else value
        for key, value in features.items()
    }


def _refuse_missing(found: list[str], chosen: str | list[str]) -> None:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device in map(torch.device, found):
        if device.type == "cuda" and (device.index or 0) >= gpus:
            there = f"{gpus} CUDA GPUs, numbered from 0" if gpus else "no CUDA GPU here"
            raise ConfigError(f"encoder.device={chosen!r}: torch finds {there}; choose auto or cpu")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise ConfigError(f"encoder.device={chosen!r}: torch finds no Apple GPU here; choose auto or cpu")


def _has_flash_attention() -> bool:
    from transformers.utils.import_utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def attention_of(model: Any) -> str | None:
    """What the network's attention is computed by; None where it has none."""
    network = getattr(model[0], "model", None)
    chosen: str | None = getattr(getattr(network, "config", None), "_attn_implementation", None)
    return chosen


def wait_for(device: torch.device) -> None:
    """Let the work that was handed to a GPU end, so that the clock sees it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def devices(chosen: str | list[str]) -> list[str]:
    """The devices that a config names, the first one also for queries. Raises `ConfigError`."""
    if not isinstance(chosen, str):
        if not chosen:
            raise ConfigError(
                "encoder.device=[] names no device; choices: auto, all, cpu, cuda, cuda:1, mps, or a list"
            )
        return [device for one in chosen for device in devices(one)]
    if chosen == "all" and torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if chosen not in ("auto", "all"):
        try:
            return [str(torch.device(chosen))]
        except RuntimeError:
            raise ConfigError(
                f"encoder.device={chosen!r}; choices: auto, all, cpu, cuda, cuda:1, mps, or a list of them"
            ) from None
    if torch.cuda.is_available():
        return ["cuda"]
    return ["mps" if torch.backends.mps.is_available() else "cpu"]
