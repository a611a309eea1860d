"""Where the vectors of a whole corpus are put: on the device, in memory, or in a file that memory pages come from."""

import tempfile

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from harness.environment import cache_dir

_SHARE = 0.6  # of the memory that is free


def empty(shape: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Room for vectors [n, dimensions] on the device; where they would fill it, in host memory; else in a file.

    The file has no name and is gone with the tensor; the system keeps in memory what of it is searched.
    """
    nbytes = shape[0] * shape[1] * dtype.itemsize
    if device.type == "cuda" and nbytes > _SHARE * torch.cuda.mem_get_info(device)[0]:
        device = torch.device("cpu")
    if device.type != "cpu" or nbytes <= _SHARE * psutil.virtual_memory().available:
        return torch.empty(shape, dtype=dtype, device=device)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        file.truncate(nbytes)
        mapped = np.memmap(file, np.uint8, "r+", shape=(nbytes,))
    return torch.from_numpy(mapped).view(dtype).view(shape)


def spans(starts: NDArray[np.int64], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """The places of several runs of numbers, one after another: starts[0], starts[0] + 1, ... starts[1], ..."""
    ends = np.cumsum(counts, dtype=np.int64)
    places: NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)
    return places
