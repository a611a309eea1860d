"""Storage of a corpus's embeddings: on the device, in host memory, or memory-mapped from a file."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from harness.environment import cache_dir
from harness.errors import RunError

_MEMORY_SHARE = 0.6  # of free memory that the embeddings may take
_CGROUP = Path("/sys/fs/cgroup")


def allocate(shape: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Allocate uninitialised embeddings [n, dimensions].

    Embeddings that are too large for the device are stored in host memory, and those too large for that in a
    memory-mapped temporary file, which is deleted with the tensor.

    Args:
        shape: Number of rows and dimensions.
        device: The preferred device.
        dtype: Precision of the embeddings.

    Raises:
        RunError: If the disk is too small for the file.
    """
    nbytes = shape[0] * shape[1] * dtype.itemsize
    if device.type == "cuda" and nbytes > _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        device = torch.device("cpu")
    if device.type != "cpu" or nbytes <= _MEMORY_SHARE * free_memory():
        return torch.empty(shape, dtype=dtype, device=device)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        _reserve(file.fileno(), nbytes)
        mapped = np.memmap(file, np.uint8, "r+", shape=(nbytes,))
    return torch.from_numpy(mapped).view(dtype).view(shape)


def free_memory() -> int:
    """Return the bytes of memory that this process may still allocate, within the limit of its container."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # not Linux, or no limit ("max")
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    return free


def _reserve(handle: int, nbytes: int) -> None:
    """Reserve disk space, because writing to a mapped page on a full disk kills the process. Raises `RunError`."""
    if not hasattr(os, "posix_fallocate"):
        os.truncate(handle, nbytes)
        return
    try:
        os.posix_fallocate(handle, 0, nbytes)
    except OSError as error:
        raise RunError(
            f"the embeddings take {nbytes / 1e9:.1f} GB, more than the free memory and the disk of {cache_dir()} have "
            f"({error.strerror}); set HARNESS_CACHE to a folder on a larger disk, or keep fewer dimensions"
        ) from None


def concatenated_ranges(starts: NDArray[np.int64], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Concatenate n ranges of integers: `counts[i]` consecutive ones from `starts[i]` on.

    Args:
        starts: First integer of each range, shape [n].
        counts: Length of each range, shape [n].
    """
    ends = np.cumsum(counts, dtype=np.int64)
    total = ends[-1] if len(ends) else 0
    indices: NDArray[np.int64] = np.arange(total) + np.repeat(starts - ends + counts, counts)
    return indices
