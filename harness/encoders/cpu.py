"""A network on a CPU: its linear layers by oneDNN with weights that are laid out once, and memory that is kept.

torch gives a float32 product to MKL, which packs the weights anew in every call and has no kernels of its own for AMD's
processors. glibc gives freed memory back to the system, which clears it again for the next layer: a tenth of the time.
"""

import ctypes
import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

Product = Callable[[torch.Tensor], torch.Tensor]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT, _LARGEST = 256 << 20, 32 << 20  # glibc takes no more than 32 MiB as its threshold
_FOLLOWED = (("dense", "intermediate_act_fn"), ("dense", "transform_act_fn"), ("lin1", "activation"))


def ready(model: Any) -> None:
    """Make a model that lies on the CPU and is not trained quick; its numbers change by rounding alone."""
    keep_memory()
    if not quicker(model.dtype):
        return
    for module in list(model.modules()):
        if type(module).__module__.startswith("transformers."):
            _with_gelu(module)
    for module in list(model.modules()):
        if _is_plain(module) and not packed(module):
            vars(module)["forward"] = _product(module)


def quicker(dtype: torch.dtype) -> bool:
    """Whether oneDNN's product is the quicker one here: in float32, where MKL meets another maker's processor."""
    return dtype == torch.float32 and torch._C._has_mkldnn and _is_amd()


def packed(layer: nn.Module) -> bool:
    """Whether a layer's product is oneDNN's."""
    return "forward" in vars(layer)


def _is_plain(module: object) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and module.weight.dtype == torch.float32


def _product(layer: nn.Linear, then: str = "none") -> Product:
    """`layer` as one call on packed weights, a second copy of them; `then` gelu puts the function behind it."""
    run = torch.ops.mkldnn._linear_pointwise
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
    bias = None if layer.bias is None else layer.bias.detach()

    def forward(given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = run(given, weight, bias, then, [], "none")
        return found

    return forward


def _with_gelu(module: nn.Module) -> None:
    """Let a feed-forward layer's first product end in its GELU, where that is the exact one."""
    for linear, function in _FOLLOWED:
        layer, after = getattr(module, linear, None), getattr(module, function, None)
        if _is_plain(layer) and getattr(after, "act", None) is nn.functional.gelu:
            vars(layer)["forward"] = _product(layer, "gelu")
            setattr(module, function, nn.Identity())


@functools.cache
def keep_memory() -> None:
    """Let glibc keep up to 256 MiB of freed memory, and large arrays in it."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


@functools.cache
def _is_amd() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "AuthenticAMD" in info.read_text(errors="replace")
