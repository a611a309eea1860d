"""Vectors from a server, held to what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """Vectors [texts, dimensions] and the tokens that they cost."""

    vectors: NDArray[np.float32]
    tokens: int


def checked(found: Sequence[Any], n: int) -> NDArray[np.float32]:
    """The vectors of an answer [n, dimensions]. Raises `ValueError` saying what came where that is something else."""
    if len(found) != n:
        raise ValueError(f"{len(found)} vectors for {n} texts")
    widths = sorted({len(vector) for vector in found})
    if len(widths) != 1 or not widths[0]:
        raise ValueError(f"vectors of {' and '.join(map(str, widths))} dimensions")
    with np.errstate(over="ignore"):
        vectors = np.asarray(found, np.float64).astype(np.float32)  # a null becomes NaN
    if not np.isfinite(vectors).all():
        raise ValueError("a vector with a value that is not finite")
    return vectors
