"""Serialisation for workers: texts, retrievers without their weights, and the driver's process environment."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from harness.errors import ConfigError
from harness.types import StringColumn
from harness.types.texts import Texts

Sent = tuple[pa.Buffer, pa.Buffer]
"""Ids and texts, in separate buffers so that a worker can free the texts and keep the ids."""
T = TypeVar("T", bound=Texts)

_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME")


def pack(texts: Texts) -> Sent:
    """Serialise `texts` to Arrow's stream format; pickling a slice would include its whole parent array."""
    return _stream(texts.ids), _stream(texts.texts)


def _stream(column: StringColumn) -> pa.Buffer:
    table = pa.table({"column": column.arrow})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack(kind: type[T], sent: Sent) -> T:
    """Deserialise the rows in `sent` as a `kind`, `Corpus` or `Queries`, without copying the buffers."""
    ids, texts = (pa.ipc.open_stream(buffer).read_all().column("column") for buffer in sent)
    return kind(ids, texts)


def pickle_retriever(retriever: Any) -> bytes:
    """Pickle an unindexed retriever for this process's workers. Raises `ConfigError` if it cannot be pickled."""
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(retriever))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ConfigError(f"{type(retriever).__name__} cannot be sent to another process: {error}") from error


@dataclass(frozen=True)
class ProcessEnvironment:
    """Working directory and import path of a process, and its environment variables for data, weights and caches."""

    variables: dict[str, str]
    folder: str
    path: list[str]

    def enter(self) -> None:
        """Apply the environment to this process; a working directory that does not exist on this machine is ignored."""
        os.environ.update(self.variables)
        sys.path += [entry for entry in self.path if entry not in sys.path]
        with suppress(OSError):
            os.chdir(self.folder)


def process_environment() -> ProcessEnvironment:
    """Return the environment of this process, without variables that contain an API key."""
    variables = {name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith("HARNESS_")}
    return ProcessEnvironment(variables, str(Path.cwd()), [str(Path(entry).resolve()) for entry in sys.path])


def shard_edges(n: int, shards: int) -> Sequence[int]:
    """Return the boundaries, from 0 to `n`, of contiguous `shards` of `n` documents; sizes differ by at most 1."""
    return [n * shard // shards for shard in range(shards + 1)]
