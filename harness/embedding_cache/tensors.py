"""Arrays in a safetensors file: mapped into memory as they lie, and every byte of the header checked before.

https://huggingface.co/docs/safetensors: eight bytes with the header's length, the header as JSON, the arrays.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
_DTYPES: dict[str, np.dtype[Any]] = {
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BOOL": np.dtype("?")},
    **{"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1")},
    **{"U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1")},
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MOST = 1 << 20  # bytes of a header: ours have one or two thousand
_ALIGNED = 64


class Place(NamedTuple):
    """An array of a file: its bytes are [begin, end) of what follows the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


class Layout(NamedTuple):
    """What a file's header says: texts by key, arrays by name, and the byte at which the arrays begin."""

    said: dict[str, str]
    places: dict[str, Place]
    begin: int


def layout(file: BinaryIO) -> Layout:
    """Read and check the header of an open file. Raises `ValueError` for one that does not describe the file."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MOST):
        raise ValueError("it is cut short, or is no safetensors file")
    try:
        told = json.loads(file.read(length).decode())
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(told, dict):
        raise ValueError("its header is no object")
    said = told.pop("__metadata__", {})
    if not isinstance(said, dict) or not all(isinstance(text, str) for text in said.values()):
        raise ValueError("its metadata are no texts")
    places = {name: _place(one) for name, one in told.items()}
    end = 0
    for place in sorted(places.values(), key=lambda place: (place.begin, place.end)):
        if place.begin != end:
            raise ValueError("its arrays overlap or leave a gap")
        end = place.end
    if 8 + length + end != size:
        raise ValueError(f"it has {size} bytes, its header says {8 + length + end}")
    return Layout(said, places, 8 + length)


def _place(told: Any) -> Place:
    if not isinstance(told, dict) or set(told) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("its header has more or less than an array's dtype, shape and data_offsets")
    kind, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    dtype = _DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise ValueError(f"its header names the dtype {kind!r:.40}")
    if not _sizes(shape) or not _sizes(offsets) or len(shape) > 8 or len(offsets) != 2:
        raise ValueError("its header has a shape or an offset that is no size")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("its header has an array whose shape is not that of its bytes")
    return Place(dtype, tuple(shape), begin, end)


def _sizes(told: Any) -> bool:
    return isinstance(told, list) and all(type(size) is int and 0 <= size < 1 << 48 for size in told)


def mapped(path: Path) -> tuple[dict[str, str], Arrays]:
    """A file's texts and its arrays, views of the mapped file that may be written to without changing it.

    Raises `OSError`, and `ValueError` for a malformed file.
    """
    with path.open("rb") as file:
        plan = layout(file)
        data = np.asarray(np.memmap(file, np.uint8, mode="c"))[plan.begin :]
    arrays = {
        name: data[place.begin : place.end].view(place.dtype).reshape(place.shape)
        for name, place in plan.places.items()
    }
    return plan.said, arrays


def packed(arrays: Mapping[str, NDArray[Any]], said: Mapping[str, str]) -> list[bytes | memoryview]:
    """The pieces of a file, not copied where they lie in C order; the arrays come aligned.

    Raises `ValueError` for a dtype that the format lacks and for a header that would not be read.
    """
    header: dict[str, Any] = {"__metadata__": dict(said)}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)):
        array = arrays[name]
        kind = _NAMES.get(array.dtype)
        if kind is None:
            raise ValueError(f"array {name!r} is of {array.dtype}; known: {', '.join(map(str, _NAMES))}")
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        pieces.append(bytes_of(array))
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNED)
    if len(text) > _MOST:
        raise ValueError(f"its header would have {len(text)} bytes; at most {_MOST}")
    return [len(text).to_bytes(8, "little"), text, *pieces]


def bytes_of(array: NDArray[Any]) -> memoryview:
    """The array's bytes in C order, without a copy where they lie so."""
    return np.asarray(array, order="C").reshape(-1).view(np.uint8).data
