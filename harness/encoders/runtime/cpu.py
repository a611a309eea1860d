"""A network's linear layers on a CPU by oneDNN, with weights that are laid out once.

torch gives a float32 product to MKL, which lays the weights out anew in every call and has no kernels of its own for
AMD's processors.
"""

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from harness.encoders.runtime import storage

Product = Callable[[torch.Tensor], torch.Tensor]

_SHARE = 0.25  # of the memory that is free: the weights lie in it a second time
_FOLLOWED = (("dense", "intermediate_act_fn"), ("dense", "transform_act_fn"), ("lin1", "activation"))


def ready(model: Any) -> None:
    """Make a model that lies on the CPU and is not trained quick; its numbers change by rounding alone."""
    layers = {id(module): module for module in model.modules() if _is_plain(module)}
    nbytes = sum(layer.weight.nbytes for layer in layers.values())
    if not quicker(model.dtype) or nbytes > _SHARE * storage.free():
        return
    for module in list(model.modules()):
        if type(module).__module__.startswith("transformers."):
            _with_gelu(module)
    for layer in layers.values():
        if not packed(layer):
            vars(layer)["forward"] = _layer(layer)


def quicker(dtype: torch.dtype) -> bool:
    """Whether oneDNN's product is the quicker one here: in float32, where MKL meets another maker's processor."""
    there = torch._C.has_mkl and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return dtype == torch.float32 and bool(there) and _is_amd()


def packed(layer: nn.Module) -> bool:
    """Whether a layer's product is oneDNN's."""
    return isinstance(layer, nn.Linear) and "forward" in vars(layer)


def product(weight: torch.Tensor, bias: torch.Tensor | None = None, then: str = "none") -> Product:
    """What multiplies rows [..., in] with `weight` [out, in], laid out now, and adds `bias`; `then` gelu follows."""
    run = torch.ops.mkldnn._linear_pointwise
    laid = torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(given: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = run(given, laid, bias, then, [], "none")
        return found

    return forward


def _layer(layer: nn.Linear, then: str = "none") -> Product:
    return product(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), then)


def _is_plain(module: object) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and module.weight.dtype == torch.float32


def _with_gelu(module: nn.Module) -> None:
    """Let a feed-forward layer's first product end in its GELU, where that is the exact one."""
    for linear, function in _FOLLOWED:
        layer, after = getattr(module, linear, None), getattr(module, function, None)
        if _is_plain(layer) and getattr(after, "act", None) is nn.functional.gelu:
            vars(layer)["forward"] = _layer(layer, "gelu")
            setattr(module, function, nn.Identity())


@functools.cache
def _is_amd() -> bool:
    info = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and info.exists() and "AuthenticAMD" in info.read_text(errors="replace")
