"""A shard on disk: a few thousand texts' arrays as safetensors, with a checksum, their cost and where it was paid.

`$HARNESS_CACHE/embeddings/<identity>/<texts>.safetensors`
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import files
from harness.embedding_cache import tensors
from harness.environment import cache_dir, fingerprint
from harness.types import Phase

log = logging.getLogger(__name__)

Arrays = tensors.Arrays


def folder() -> Path:
    """Where all shards lie, in a folder for each identity."""
    return cache_dir() / "embeddings"


def path_of(identity: Mapping[str, Any], texts: Sequence[str]) -> Path:
    """Where the arrays of these texts lie, made with this identity."""
    said = json.dumps(identity, sort_keys=True, default=str)
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    name = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return folder() / name / f"{digest.hexdigest()}.safetensors"


def read(path: Path, conditions: str) -> tuple[Arrays, Phase, bool] | None:
    """Arrays, their price and whether it was paid elsewhere; None where this machine must encode.

    The arrays are views of the mapped file. A file that is damaged is named in a warning.
    """
    try:
        said, arrays = verified(path)
        cost, elsewhere = Phase.model_validate_json(said["cost"]), said["environment"] != fingerprint()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("cached vectors %s cannot be read and are encoded again: %s", path, error.strerror)
        return None
    except (ValueError, KeyError) as error:
        log.warning("cached vectors %s are damaged and are encoded again: %s", path, error)
        return None
    if not elsewhere and said.get("conditions") != conditions:
        return None  # the price of other threads, batches or another device: measured anew
    with suppress(OSError):  # when it was last of use, for whoever has to choose what to prune
        os.utime(path)
    return arrays, cost, elsewhere


def verified(path: Path) -> tuple[dict[str, str], Arrays]:
    """What a shard says of itself and its arrays. Raises `OSError`, and `ValueError` for one that is damaged."""
    said, arrays = tensors.mapped(path)
    if said.pop("checksum", None) != _checksum(arrays, said):
        raise ValueError("its checksum is wrong")
    return said, arrays


def write(
    path: Path,
    identity: Mapping[str, Any],
    arrays: Arrays,
    cost: Phase,
    conditions: str,
    about: Mapping[str, str] | None = None,
) -> None:
    """Keep a shard; where that cannot be, say so and go on. `about`: names for people, no part of the key."""
    said = {
        "identity": json.dumps(identity, sort_keys=True, default=str),
        "environment": fingerprint(),
        "conditions": conditions,
        "cost": cost.model_dump_json(),
        **({"about": json.dumps(dict(about), sort_keys=True)} if about else {}),
    }
    said["checksum"] = _checksum(arrays, said)
    try:
        files.put(path, tensors.packed(arrays, said))
    except OSError as error:
        log.warning("vectors cannot be cached in %s: %s", path.parent, error.strerror)
    except ValueError as error:
        log.warning("vectors cannot be cached in %s: %s", path.parent, error)


def _checksum(arrays: Arrays, said: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(sorted(said.items())).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(tensors.bytes_of(array))
    return digest.hexdigest()
