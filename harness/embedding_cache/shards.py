"""Shards of the embedding cache: arrays of a few thousand texts as safetensors, with a checksum, cost and machine.

`$HARNESS_CACHE/embeddings/<identity>/<texts>.safetensors`
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from harness.environment import cache_dir, fingerprint
from harness.files import publish, temporary_file
from harness.types import Phase

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
TEMPORARIES = ".*tmp*"
"""Names of temporary files beside shards, which `harness.files` and the safetensors library create."""
_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BOOL": np.bool_},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8},
}


class ArrayLayout(NamedTuple):
    """The dtype and the shape of an array in a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Header(NamedTuple):
    """The metadata of a shard, and its arrays in the order of their bytes."""

    metadata: dict[str, str]
    arrays: dict[str, ArrayLayout]


class CachedArrays(NamedTuple):
    """The arrays of a shard, the cost and date of computing them, and True if a foreign machine computed them."""

    arrays: Arrays
    cost: Phase
    foreign_machine: bool


def folder() -> Path:
    """Return the folder of all shards, with a subfolder for each identity."""
    return cache_dir() / "embeddings"


def path_of(identity: Mapping[str, Any], texts: Sequence[str]) -> Path:
    """Return the path of the shard of `texts`; `identity` is everything else that their arrays depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    name = hashlib.blake2b(_dumped(identity).encode(), digest_size=8).hexdigest()
    return folder() / name / f"{digest.hexdigest()}.safetensors"


def read(path: Path, conditions: str) -> CachedArrays | None:
    """Return a cached shard; None for a miss. Logs a warning if the file is damaged or cannot be read.

    Args:
        path: The result of `path_of`.
        conditions: Settings that change the time but not the arrays, such as threads. A shard of this machine with
            other conditions is a miss, because its cost has to be measured again; a foreign machine's is always a hit.
    """
    try:
        metadata, arrays = read_verified(path)
        cost, foreign = Phase.model_validate_json(metadata["cost"]), metadata["environment"] != fingerprint()
        measured = metadata.get("measured")  # absent from the shards of older versions
        cost = cost.model_copy(update={"cached_since": datetime.fromisoformat(measured) if measured else None})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("cached vectors %s cannot be read and are encoded again: %s", path, error.strerror)
        return None
    except (ValueError, KeyError) as error:
        log.warning("cached vectors %s are damaged and are encoded again: %s", path, error)
        return None
    if not foreign and metadata.get("conditions") != conditions:
        return None  # its cost was measured with other threads, batches or another device
    with suppress(OSError):  # set the time of the last use, by which shards are pruned
        os.utime(path)
    return CachedArrays(arrays, cost, foreign)


def read_verified(path: Path) -> tuple[dict[str, str], Arrays]:
    """Return the metadata and the arrays of a shard, after verifying its checksum.

    The arrays are views of the memory-mapped file; writing to them does not change it.
    Raises `OSError`, and `ValueError` for a damaged file.
    """
    data = np.asarray(np.memmap(path, np.uint8, mode="c"))
    metadata, layouts = read_header(path)
    sizes = {name: math.prod(layout.shape) * layout.dtype.itemsize for name, layout in layouts.items()}
    arrays, begin = {}, data.size - sum(sizes.values())  # the arrays fill the end of the file without gaps
    for name, (dtype, shape) in layouts.items():
        arrays[name] = data[begin : begin + sizes[name]].view(dtype).reshape(shape)
        begin += sizes[name]
    if metadata.pop("checksum", None) != _checksum(arrays, metadata):
        raise ValueError("its checksum is wrong")
    return metadata, arrays


def read_header(path: Path) -> Header:
    """Return the header of a shard. Raises `OSError`, and `ValueError` for a malformed one."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            arrays = {
                name: ArrayLayout(np.dtype(_DTYPES[array.get_dtype()]), tuple(array.get_shape()))
                for name, array in slices.items()
            }
            return Header(file.metadata() or {}, arrays)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    except KeyError as error:
        raise ValueError(f"an array has the dtype {error}; choices: {', '.join(_DTYPES)}") from None


def write(
    path: Path,
    identity: Mapping[str, Any],
    arrays: Arrays,
    cost: Phase,
    conditions: str,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write a shard atomically; log a warning if that fails.

    Args:
        path: The result of `path_of`.
        identity: Everything that the arrays depend on besides the texts.
        arrays: The arrays by name.
        cost: Time and counters of computing them.
        conditions: Settings under which the time was measured.
        about: Names shown in listings of the cache, not part of the key.
    """
    arrays = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    metadata = {
        "identity": _dumped(identity),
        "environment": fingerprint(),
        "conditions": conditions,
        "cost": cost.model_dump_json(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"about": json.dumps(dict(about), sort_keys=True)} if about else {}),
    }
    metadata["checksum"] = _checksum(arrays, metadata)
    try:
        with temporary_file(path.parent, TEMPORARIES) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(arrays, temporary, metadata)
            temporary.chmod(mode)  # safetensors creates files that only the owner can read
            publish(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        log.warning("vectors cannot be cached in %s: %s", path.parent, reason)


def _dumped(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True, default=str)


def _checksum(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
