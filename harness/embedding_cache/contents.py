"""What the embedding cache holds, read from its files' headers, and which of it to remove."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import files
from harness.embedding_cache import shards, tensors
from harness.environment import fingerprint

DAY_S = 86_400.0


@dataclass(frozen=True)
class Shard:
    """One file: what its header says, nothing where that cannot be read."""

    path: Path
    nbytes: int
    used: float
    """When it was written or read last, seconds since 1970."""
    said: Mapping[str, str] = field(default_factory=dict)
    texts: int | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether another machine, or other packages, made it."""
        return self.said.get("environment") != fingerprint()

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """All that its vectors depend on beside the texts."""
        return _object(self.said.get("identity"))

    @cached_property
    def model(self) -> str:
        """The model's name, else the beginning of its weights' hash."""
        if named := _object(self.said.get("about")).get("model") or self.identity.get("model"):
            return str(named)
        return f"weights {str(self.identity['weights'])[:12]}" if "weights" in self.identity else "unknown"

    def named(self, text: str) -> bool:
        """Whether the text is in the model's name or its weights' hash, in whatever case."""
        names = (_object(self.said.get("about")).get("model"), self.identity.get("model"), self.identity.get("weights"))
        return any(text.casefold() in str(name).casefold() for name in names if name)

    @property
    def encoder(self) -> str:
        """The class or the provider that made it."""
        return str(self.identity.get("class") or self.identity.get("encoder") or "unknown")

    def intact(self) -> bool:
        """Whether the whole file is what its checksum says."""
        try:
            shards.verified(self.path)
        except (OSError, ValueError):
            return False
        return True


def contents() -> dict[Path, list[Shard]]:
    """The shards of each folder; one folder has one identity."""
    root = shards.folder()
    if not root.is_dir():
        return {}
    found = ((folder, list(_shards(folder))) for folder in sorted(root.iterdir()) if folder.is_dir())
    return {folder: own for folder, own in found if own}


def stale() -> list[Path]:
    """What processes that were killed left behind, this version's and older ones'."""
    older = [path for path in shards.folder().glob("*/.writing-*") if time.time() - _used(path) > DAY_S]
    folders = [path for path in shards.folder().glob("*") if path.is_dir()]
    return [*older, *(path for folder in folders for path in files.abandoned(folder))]


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and the folders that have nothing left."""
    paths = list(paths)
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths} | {path for path in shards.folder().glob("*") if path.is_dir()}:
        with suppress(OSError):  # there is something in it
            folder.rmdir()


@dataclass(frozen=True)
class Choice:
    """Which shards to remove: those to which all that is given applies.

    `most_bytes`: of them, those unused for longest, until no more than this is left in all.
    """

    older_than_s: float | None = None
    model: str | None = None
    damaged: bool = False
    elsewhere: bool = False
    most_bytes: float | None = None

    def of(self, held: Iterable[Shard], now: float) -> list[Shard]:
        """The shards to remove, those unused for longest first."""
        everything = sorted(held, key=lambda shard: (shard.used, str(shard.path)))
        chosen = [shard for shard in everything if all(test(shard) for test in self._tests(now))]
        if self.most_bytes is None:
            return chosen
        left = sum(shard.nbytes for shard in everything)
        kept = []
        for shard in chosen:
            if left <= self.most_bytes:
                break
            kept.append(shard)
            left -= shard.nbytes
        return kept

    def _tests(self, now: float) -> Iterator[Callable[[Shard], bool]]:
        if (age := self.older_than_s) is not None:
            yield lambda shard: now - shard.used > age
        if (text := self.model) is not None:
            yield lambda shard: shard.named(text)
        if self.elsewhere:
            yield lambda shard: shard.elsewhere
        if self.damaged:  # last: it reads whole files
            yield lambda shard: not shard.intact()


def _shards(folder: Path) -> Iterator[Shard]:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                told = os.fstat(file.fileno())
                try:
                    plan = tensors.layout(file)
                except ValueError:
                    yield Shard(path, told.st_size, told.st_mtime)
                else:
                    yield Shard(path, told.st_size, told.st_mtime, plan.said, _texts(plan.places))
        except OSError:  # removed meanwhile, or not ours to read
            continue


def _texts(places: Mapping[str, tensors.Place]) -> int | None:
    """How many texts there are arrays of: what has several rows a text says how many in `counts`."""
    one = places.get("counts") or places.get("vectors")
    return one.shape[0] if one and one.shape else None


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _object(text: str | None) -> Mapping[str, Any]:
    try:
        told = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
