"""Where the vectors of a whole corpus are put: on the device, in memory, or in a file that memory pages come from."""

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

_SHARE = 0.6  # of the memory that is free
_CGROUP = Path("/sys/fs/cgroup")


def empty(shape: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Room for vectors [n, dimensions] on the device; where they would fill it, in host memory; else in a file.

    The file has no name and is gone with the tensor; the system keeps in memory what of it is searched.
    """
    nbytes = shape[0] * shape[1] * dtype.itemsize
    if device.type == "cuda" and nbytes > _SHARE * torch.cuda.mem_get_info(device)[0]:
        device = torch.device("cpu")
    if device.type != "cpu" or nbytes <= _SHARE * free():
        return torch.empty(shape, dtype=dtype, device=device)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        _fill(file.fileno(), nbytes)
        mapped = np.memmap(file, np.uint8, "r+", shape=(nbytes,))
    return torch.from_numpy(mapped).view(dtype).view(shape)


def free() -> int:
    """Bytes of memory that this process may still take: the machine's, or less where a container has less."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no Linux, no limit ("max")
        most, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, most - used)
    return free


def _fill(handle: int, nbytes: int) -> None:
    """Take the disk's room now: a page that finds none later would end the process. Raises `RunError`."""
    if not hasattr(os, "posix_fallocate"):
        os.truncate(handle, nbytes)
        return
    try:
        os.posix_fallocate(handle, 0, nbytes)
    except OSError as error:
        raise RunError(
            f"the vectors take {nbytes / 1e9:.1f} GB, which neither memory nor {cache_dir()} has ({error.strerror}); "
            "set HARNESS_CACHE to a folder on a larger disk, or keep fewer dimensions"
        ) from None


def spans(starts: NDArray[np.int64], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """The places of several runs of numbers, one after another: starts[0], starts[0] + 1, ... starts[1], ..."""
    ends = np.cumsum(counts, dtype=np.int64)
    places: NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)
    return places
