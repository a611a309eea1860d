"""Small results that outlast the large arrays around them, laid close together."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_FIRST, _MOST = 1 << 20, 16 << 20  # bytes
_ALIGNED = 64


class Slab:
    """Takes copies of what the batches give, so that they do not lie between the networks' own arrays.

    There each would keep the memory around it from being one piece again, and the next batch would take new memory.
    """

    def __init__(self) -> None:
        self._left, self._next = np.empty(0, np.uint8), _FIRST

    def keep(self, found: Any) -> Any:
        """A copy of an array, of a tensor on the CPU, or of a tuple of them; anything else as it is."""
        if isinstance(found, tuple):
            return tuple(self.keep(part) for part in found)
        if torch.is_tensor(found) and found.device.type == "cpu":
            return torch.from_numpy(self._copied(found.numpy()))
        return self._copied(found) if isinstance(found, np.ndarray) else found

    def _copied(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.nbytes > len(self._left):
            self._left = np.empty(max(self._next, array.nbytes), np.uint8)
            self._next = min(2 * self._next, _MOST)
        own: NDArray[Any] = self._left[: array.nbytes].view(array.dtype).reshape(array.shape)
        own[...] = array
        self._left = self._left[-(-array.nbytes // _ALIGNED) * _ALIGNED :]
        return own
