"""CPU optimizations of the encoders, which `optimize_cpu` switches together.

`pack_linear_layers` runs float32 linear layers by oneDNN: torch calls MKL, which packs the weights in every call and
has no kernels for AMD processors. `keep_freed_memory` and `Arena` avoid page faults when each layer allocates memory.
"""

import ctypes
import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness.encoders.runtime import storage

Linear = Callable[[torch.Tensor], torch.Tensor]

_MEMORY_SHARE = 0.25  # of free memory that the packed copy of the weights may take
_FEED_FORWARD = (("dense", "intermediate_act_fn"), ("dense", "transform_act_fn"), ("lin1", "activation"))
_MALLOC = {"M_MMAP_THRESHOLD": (-3, 32 << 20), "M_TRIM_THRESHOLD": (-1, 256 << 20)}
"""Number and value in bytes of glibc's mallopt parameters; 32 MiB is the largest threshold that it accepts."""
_FIRST_BLOCK, _LARGEST_BLOCK, _ALIGNMENT = 1 << 20, 16 << 20, 64  # bytes


def pack_linear_layers(model: Any) -> None:
    """Run the float32 linear layers of an inference model on the CPU by oneDNN, if that is faster here.

    The weights are stored a second time, so a model that is large relative to the free memory is not changed. Outputs
    differ by rounding only.
    """
    layers = {id(module): module for module in model.modules() if _is_float32_linear(module)}
    nbytes = sum(layer.weight.nbytes for layer in layers.values())
    if not onednn_is_faster(model.dtype) or nbytes > _MEMORY_SHARE * storage.free_memory():
        return
    for module in list(model.modules()):
        if type(module).__module__.startswith("transformers."):
            _fuse_gelu(module)
    for layer in layers.values():
        if not is_packed(layer):
            vars(layer)["forward"] = _pack(layer)


def onednn_is_faster(dtype: torch.dtype) -> bool:
    """Return True if oneDNN's product beats torch's: in float32 where torch calls MKL on an AMD processor."""
    available = torch._C.has_mkl and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return dtype == torch.float32 and bool(available) and _is_amd()


def is_packed(layer: nn.Module) -> bool:
    """Return True if `pack_linear_layers` replaced the layer's forward pass."""
    return isinstance(layer, nn.Linear) and "forward" in vars(layer)


def packed_linear(weight: torch.Tensor, bias: torch.Tensor | None = None, activation: str = "none") -> Linear:
    """Pack a weight matrix for oneDNN.

    Args:
        weight: Shape [out, in].
        bias: Shape [out].
        activation: Fused into the product: `none` or `gelu`.

    Returns:
        A function from inputs [..., in] to outputs [..., out].
    """
    run = torch.ops.mkldnn._linear_pointwise
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = run(inputs, packed, bias, activation, [], "none")
        return outputs

    return forward


def _pack(layer: nn.Linear, activation: str = "none") -> Linear:
    return packed_linear(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), activation)


def _is_float32_linear(module: object) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and module.weight.dtype == torch.float32


def _fuse_gelu(module: nn.Module) -> None:
    """Fuse a feed-forward block's activation into its first layer if it is the exact GELU."""
    for linear, function in _FEED_FORWARD:
        layer, activation = getattr(module, linear, None), getattr(module, function, None)
        if _is_float32_linear(layer) and getattr(activation, "act", None) is nn.functional.gelu:
            vars(layer)["forward"] = _pack(layer, "gelu")
            setattr(module, function, nn.Identity())


@functools.cache
def _is_amd() -> bool:
    info = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and info.exists() and "AuthenticAMD" in info.read_text(errors="replace")


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep freed memory in this process, and allocate large arrays from the heap.

    By default each layer's arrays are returned to the system, which clears them again for the next layer. Malloc
    settings in the user's environment take precedence.
    """
    configured = any(name.startswith("MALLOC_") for name in os.environ)
    if configured or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in _MALLOC.values():
        libc.mallopt(parameter, value)


class Arena:
    """Copies the results of batches into large blocks.

    Left among the networks' activations, each small result would split the free memory around it, and the next batch
    would need new memory.
    """

    def __init__(self) -> None:
        self._free, self._block_size = np.empty(0, np.uint8), _FIRST_BLOCK

    def copy(self, result: Any) -> Any:
        """Copy an array, a CPU tensor, or each of a tuple of them; return anything else unchanged."""
        if isinstance(result, tuple):
            return tuple(self.copy(item) for item in result)
        if torch.is_tensor(result) and result.device.type == "cpu":
            return torch.from_numpy(self._copy(result.numpy()))
        return self._copy(result) if isinstance(result, np.ndarray) else result

    def _copy(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.nbytes > len(self._free):
            self._free = np.empty(max(self._block_size, array.nbytes), np.uint8)
            self._block_size = min(2 * self._block_size, _LARGEST_BLOCK)
        copied: NDArray[Any] = self._free[: array.nbytes].view(array.dtype).reshape(array.shape)
        copied[...] = array
        self._free = self._free[-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT :]
        return copied
