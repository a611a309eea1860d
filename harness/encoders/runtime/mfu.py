"""How much of what a device can multiply an encoder uses: its floating-point operations against a measured product's.

A layer's product takes 2 operations a weight and token, attention 4 x hidden size a pair of tokens and layer (Kaplan
et al., 2020, without embeddings and heads that see a text once). Layers that a model runs several times count once.
"""

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from harness import instrument
from harness.encoders.runtime import cpu

WEIGHED = 128
"""Texts from which on work is set against what the device can do, and a thread tokenises ahead."""
_SIDE = {"cpu": 1024, "mps": 4096, "cuda": 8192}
_ROUNDS = 5


def weights_per_token(model: Any) -> tuple[int, int]:
    """Weights that every token is multiplied with, and layers x hidden size, for what a pair of tokens costs."""
    seen: dict[int, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "pooler" not in name and "classifier" not in name:
            seen[id(module)] = module.weight.numel()
    config = getattr(model, "config", None)
    layers, hidden = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    return sum(seen.values()), int(layers * hidden) if layers and hidden else 0


def flops(per_token: tuple[int, int], lengths: NDArray[np.int64]) -> int:
    """Floating-point operations for texts of those many tokens, padding not counted."""
    weights, pairs = per_token
    return int(2 * weights * lengths.sum() + 4 * pairs * (lengths**2).sum())


def weigh(model: Any, done: int, seconds: float) -> None:
    """Count operations that were `done` and those that a large product does in as many seconds, in the record."""
    if not done:
        return
    with instrument.unbilled():
        try:
            possible = seconds * peak(str(model.device), model.dtype)
        except torch.OutOfMemoryError:  # a device that the model fills has no room for the comparison
            return
        instrument.count("flops", done)
        instrument.count("gemm_flops", int(possible))


def peak(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product on a device just now: the best of some."""
    n = _SIDE.get(device.partition(":")[0], _SIDE["cuda"])
    one = torch.ones((n, n), dtype=dtype, device=device)
    quick = device == "cpu" and cpu.quicker(dtype)
    multiply = cpu.product(one) if quick else partial(torch.mm, one, out=torch.empty_like(one))
    return 2 * n**3 / min(_seconds(multiply, one) for _ in range(_ROUNDS))


def _seconds(multiply: cpu.Product, one: torch.Tensor) -> float:
    start = time.perf_counter()
    multiply(one)
    if one.is_cuda:
        torch.cuda.synchronize(one.device)
    elif one.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start
