"""The embedding cache: what an encoder made of texts, on disk under everything that it depends on.

A shard holds the vectors of a few thousand texts as safetensors with a checksum, and what they cost and where. Whoever
reads it pays that price again on the clock. `$HARNESS_CACHE/embeddings/<identity>/<texts>.safetensors`
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness import clock
from harness.environment import cache_dir, code_hash, fingerprint, threads
from harness.types import Phase, Strings

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
SHARD = 4096
_LEAST = 128  # fewer texts, a warm-up's or a batch of queries, are not worth a file
Use = Literal["reuse", "renew", "off"]
_use: ContextVar[Use] = ContextVar("use", default="reuse")


@contextmanager
def using(use: Use) -> Iterator[None]:
    """Reuse shards that are there, renew them all, or leave the cache alone meanwhile."""
    token = _use.set(use)
    try:
        yield
    finally:
        _use.reset(token)


def encoded(
    texts: Strings,
    identity: Mapping[str, Any],
    compute: Callable[[list[str]], Arrays],
    keep: bool,
    *,
    shard: int = SHARD,
    paid: bool = False,
    conditions: Mapping[str, Any] | None = None,
) -> Iterator[Arrays]:
    """The arrays of every `shard` of `texts`, in order: read where `keep` and they are there, else computed.

    `identity` says all that the arrays depend on beside the texts. A shard that is damaged is named and made anew.
    `conditions` change the price alone: device, batch size; with others, or another number of threads, this machine
    encodes anew. What is `paid` for is kept however little it is, and whatever the conditions.
    """
    keep = keep and _use.get() != "off"
    said = "" if paid else json.dumps({"threads": threads(), **(conditions or {})}, sort_keys=True)
    for start in range(0, len(texts), shard):
        block = texts[start : start + shard].arrow.to_pylist()
        path = _path(identity, block) if keep and (paid or len(block) >= _LEAST) else None
        found = None
        if path and _use.get() == "reuse":
            with clock.unbilled():
                found = _read(path, said)
        if found:
            arrays, cost, elsewhere = found
            clock.bill(cost, "encode", earlier=True, elsewhere=elsewhere)
        else:
            with clock.recording() as seen:
                arrays = compute(block)
            clock.bill(seen.phase(), "encode", earlier=False)
            if path:
                with clock.unbilled():
                    _write(path, identity, arrays, seen.phase(), said)
        yield arrays


def _path(identity: Mapping[str, Any], texts: Sequence[str]) -> Path:
    said = json.dumps({"code": _code(), **identity}, sort_keys=True, default=str)
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    folder = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return cache_dir() / "embeddings" / folder / f"{digest.hexdigest()}.safetensors"


def foreign(encoder: type) -> dict[str, str]:
    """What a user's own class adds to an identity: its name and the hash of its sources; nothing for one of ours."""
    known = {"harness", *sys.stdlib_module_names}
    modules = {base.__module__ for base in encoder.__mro__ if base.__module__.partition(".")[0] not in known}
    return {"class": f"{encoder.__module__}.{encoder.__qualname__}", "source": code_hash(modules)} if modules else {}


@functools.cache
def _code() -> str:
    """Hash of what else makes the vectors: our encoders' sources and the libraries' versions."""
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for package in ("transformers", "sentence-transformers"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()


def _read(path: Path, conditions: str) -> tuple[Arrays, Phase, bool] | None:
    """Arrays, their price and whether it was paid elsewhere; None where this machine must encode."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            said = dict(file.metadata())
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
        if said.pop("checksum") != _checksum(arrays, said):
            raise ValueError("its checksum is wrong")
        here = said["environment"] == fingerprint()
        if here and said["conditions"] != conditions:
            return None  # the price of other threads, batches or another device: measured anew
        return arrays, Phase.model_validate_json(said["cost"]), not here
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        log.warning("cached vectors %s are damaged and are encoded again: %s", path, error)
        return None


def _write(path: Path, identity: Mapping[str, Any], arrays: Arrays, cost: Phase, conditions: str) -> None:
    from safetensors.numpy import save

    said = {
        "identity": json.dumps(identity, sort_keys=True, default=str),
        "environment": fingerprint(),
        "conditions": conditions,
        "cost": cost.model_dump_json(),
    }
    said["checksum"] = _checksum(arrays, said)
    scratch: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
            scratch = Path(file.name)
            file.write(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, said))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        log.warning("vectors cannot be cached in %s: %s", path.parent, error.strerror)
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)


def _checksum(arrays: Arrays, said: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(json.dumps(sorted(said.items())).encode(), digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
