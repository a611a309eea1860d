"""List and prune the embedding cache. Listing reads only the headers of files."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import files
from harness.embedding_cache import shards
from harness.environment import fingerprint

DAY_S = 86_400.0


@dataclass(frozen=True)
class Shard:
    """A file of the cache; `metadata` is empty if the header cannot be read."""

    path: Path
    nbytes: int
    used: float
    """Time of the last write or read, in seconds since 1970."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    texts: int | None = None

    @property
    def foreign_machine(self) -> bool:
        """True if it was computed on another machine or with other packages."""
        return self.metadata.get("environment") != fingerprint()

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Everything that its vectors depend on besides the texts."""
        return _json_object(self.metadata.get("identity"))

    @cached_property
    def model(self) -> str:
        """The model's name or, if it is unknown, the beginning of its weights' hash."""
        if name := self._about.get("model") or self.identity.get("model"):
            return str(name)
        return f"weights {str(self.identity['weights'])[:12]}" if "weights" in self.identity else "unknown"

    def matches_model(self, text: str) -> bool:
        """Return True if the text is in the model's name or in its weights' hash, ignoring case."""
        names = (self._about.get("model"), self.identity.get("model"), self.identity.get("weights"))
        return any(text.casefold() in str(name).casefold() for name in names if name)

    @cached_property
    def _about(self) -> Mapping[str, Any]:
        return _json_object(self.metadata.get("about"))

    @property
    def encoder(self) -> str:
        """The class or, for a hosted API, the provider of the encoder."""
        return str(self.identity.get("class") or self.identity.get("encoder") or "unknown")

    def is_intact(self) -> bool:
        """Return True if the checksum of the whole file is right."""
        try:
            shards.read_verified(self.path)
        except (OSError, ValueError):
            return False
        return True


def list_shards() -> dict[Path, list[Shard]]:
    """Return the shards of each folder; a folder has one identity."""
    shards_of = {path: list(_read_headers(path)) for path in _folders()}
    return {path: entries for path, entries in shards_of.items() if entries}


def leftovers() -> list[Path]:
    """List the temporary files of killed processes."""
    return [path for folder in _folders() for path in files.leftovers(folder, shards.TEMPORARIES)]


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and folders that become empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in _folders():
        with suppress(OSError):  # it is not empty
            folder.rmdir()


@dataclass(frozen=True)
class Selection:
    """Criteria for pruning the cache. A shard is selected if it meets all criteria that are set.

    Attributes:
        older_than_s: Seconds since the last use.
        model: Text in the model's name or in its weights' hash.
        damaged: The checksum is wrong.
        foreign_machine: Another machine, or other packages, computed it.
        max_bytes: Select no more than is necessary to reduce the whole cache to this size, least recently used first.
    """

    older_than_s: float | None = None
    model: str | None = None
    damaged: bool = False
    foreign_machine: bool = False
    max_bytes: float | None = None

    def select(self, entries: Iterable[Shard], now: float) -> list[Shard]:
        """Return those of `entries` to remove, least recently used first; `now` is in seconds since 1970."""
        by_use = sorted(entries, key=lambda shard: (shard.used, str(shard.path)))
        matching = [shard for shard in by_use if all(test(shard) for test in self._tests(now))]
        if self.max_bytes is None:
            return matching
        excess = sum(shard.nbytes for shard in by_use) - self.max_bytes
        selected = []
        for shard in matching:
            if excess <= 0:
                break
            selected.append(shard)
            excess -= shard.nbytes
        return selected

    def _tests(self, now: float) -> Iterator[Callable[[Shard], bool]]:
        if (age := self.older_than_s) is not None:
            yield lambda shard: now - shard.used > age
        if (text := self.model) is not None:
            yield lambda shard: shard.matches_model(text)
        if self.foreign_machine:
            yield lambda shard: shard.foreign_machine
        if self.damaged:  # last: it reads whole files
            yield lambda shard: not shard.is_intact()


def _folders() -> list[Path]:
    return sorted(path for path in shards.folder().glob("*") if path.is_dir())


def _read_headers(folder: Path) -> Iterator[Shard]:
    for path in sorted(folder.glob("*.safetensors")):
        try:
            state = path.stat()
            try:
                header = shards.read_header(path)
            except ValueError:
                yield Shard(path, state.st_size, state.st_mtime)
            else:
                yield Shard(path, state.st_size, state.st_mtime, header.metadata, _count_texts(header.arrays))
        except OSError:  # removed in the meantime, or not readable by this user
            continue


def _count_texts(arrays: Mapping[str, shards.ArrayLayout]) -> int | None:
    """Return the number of texts: the entries of `counts`, else the rows of `vectors`; None if unknown."""
    layout = arrays.get("counts") or arrays.get("vectors")
    return layout.shape[0] if layout and layout.shape else None


def _json_object(text: str | None) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
