"""Blocks of random signs and weights of queries, the same on every machine and in every version of NumPy."""

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["signs", "weights"]

_BLOCK_SIZE = 2_000_000
"""Random numbers drawn at a time: 16 MB."""
_CACHE_LIMIT = 12_000_000
"""Largest number of weights (draws x queries) that is cached between calls: 24 MB."""
_WEIGHTS, _SIGNS = 1, 2
"""Seeds of the kinds of random numbers."""


def blocks(kind: Kind, draws: int, n: int, stratum: int) -> Iterable[NDArray[np.int16]]:
    """Return blocks of query weights, each [draws in the block, n]; those of small datasets are cached.

    Args:
        kind: `signs`: -1 or 1 for each query. `weights`: whole numbers that are exponentially distributed.
        draws: Number of rows of all blocks.
        n: Number of queries.
        stratum: Number of the random stream; equal numbers give equal blocks.
    """
    draw = _cached_blocks if draws * n <= _CACHE_LIMIT else _draw_blocks
    return draw(kind, draws, n, stratum)


@lru_cache(maxsize=16)
def _cached_blocks(kind: Kind, draws: int, n: int, stratum: int) -> list[NDArray[np.int16]]:
    return list(_draw_blocks(kind, draws, n, stratum))


def _draw_blocks(kind: Kind, draws: int, n: int, stratum: int) -> Iterator[NDArray[np.int16]]:
    if kind == "weights":
        for rows, bits in _random_bits(draws, -(-n // 4), _WEIGHTS + 16 * stratum):
            yield np.ascontiguousarray(_to_weights(bits, rows)[:, :n])
    else:
        for rows, bits in _random_bits(draws, n, _SIGNS + 16 * stratum):
            yield _to_signs(bits, rows, n)


def _to_weights(bits: NDArray[np.uint64], rows: int) -> NDArray[np.int16]:
    """Return exponentially distributed weights; divided by their sum, they are uniform on the simplex."""
    weights: NDArray[np.int16] = _exponentials()[bits.astype("<u8", copy=False).view("<u2")]
    return weights.reshape(rows, -1)


@cache
def _exponentials() -> NDArray[np.int16]:
    """Return the exponential distribution's quantiles [65,536] as whole numbers, which are equal on all processors."""
    quantiles = (np.arange(1 << 16) + 0.5) / (1 << 16)
    return np.round(-np.log(quantiles) * 2048).astype(np.int16)


def _to_signs(bits: NDArray[np.uint64], rows: int, n: int) -> NDArray[np.int16]:
    """Return -1 or 1 for each query."""
    return ((bits >> np.uint64(63)).astype(np.int16) * 2 - 1).reshape(rows, n)


def _random_bits(draws: int, n: int, seed: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield raw words of a bit generator; unlike `integers`, NumPy keeps their stream from version to version."""
    generator = np.random.PCG64(seed)
    block = max(1, _BLOCK_SIZE // n)
    for begin in range(0, draws, block):
        rows = min(block, draws - begin)
        yield rows, np.asarray(generator.random_raw(rows * n))
