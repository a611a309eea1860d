"""Model FLOPs utilisation (MFU): an encoder's FLOP/s relative to a measured GEMM peak of its device.

A linear layer takes 2 operations per weight and token, attention 4 x hidden size per pair of tokens and layer (Kaplan
et al., 2020). Embeddings and heads that see a text once are left out; a layer that is run several times counts once.
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

MIN_TEXTS = 128
"""Minimum number of texts for which the MFU is measured and batches are prefetched."""
_GEMM_SIZE = {"cpu": 1024, "mps": 4096, "cuda": 8192}
_REPEATS = 5


def weights_per_token(model: Any) -> tuple[int, int]:
    """Return the number of weights that each token is multiplied with, and layers x hidden size, for attention."""
    sizes: dict[int, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "pooler" not in name and "classifier" not in name:
            sizes[id(module)] = module.weight.numel()
    config = getattr(model, "config", None)
    layers, hidden = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    return sum(sizes.values()), int(layers * hidden) if layers and hidden else 0


def flops(per_token: tuple[int, int], lengths: NDArray[np.int64]) -> int:
    """Return the number of floating-point operations of the model for several texts, padding excluded.

    Args:
        per_token: The result of `weights_per_token`.
        lengths: Number of tokens of each text, shape [n].
    """
    weights, pairs = per_token
    return int(2 * weights * lengths.sum() + 4 * pairs * (lengths**2).sum())


def count_flops(model: Any, achieved: int, seconds: float) -> None:
    """Add the counters of the MFU: `flops`, and `gemm_flops`, those of a large GEMM in the same time.

    Args:
        model: The model, whose device and precision the GEMM uses.
        achieved: Number of operations; 0 to count nothing.
        seconds: Wall time in which the model computed them.
    """
    if not achieved:
        return
    with instrument.exclude():
        try:
            possible = seconds * gemm_peak(str(model.device), model.dtype)
        except torch.OutOfMemoryError:  # the model fills the device
            return
        instrument.count("flops", achieved)
        instrument.count("gemm_flops", int(possible))


def gemm_peak(device: str, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a large matrix product of precision `dtype` on `device` now; return the best of five."""
    n = _GEMM_SIZE.get(device.partition(":")[0], _GEMM_SIZE["cuda"])
    matrix = torch.ones((n, n), dtype=dtype, device=device)
    packed = device == "cpu" and cpu.onednn_is_faster(dtype)
    multiply = cpu.packed_linear(matrix) if packed else partial(torch.mm, matrix, out=torch.empty_like(matrix))
    return 2 * n**3 / min(_seconds(multiply, matrix) for _ in range(_REPEATS))


def _seconds(multiply: cpu.Linear, matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    multiply(matrix)
    if matrix.is_cuda:
        torch.cuda.synchronize(matrix.device)
    elif matrix.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start
