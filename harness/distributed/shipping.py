"""What goes over the wire: texts without their neighbours in memory, a retriever without its weights, surroundings."""

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
"""Ids and texts, apart so that an actor can let go of the texts and keep the ids."""
T = TypeVar("T", bound=Texts)

_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME")


def packed(texts: Texts) -> Sent:
    """Rows as Arrow's stream format has them; pickled, a slice takes the whole of what it was cut from along."""
    return _stream(texts.ids), _stream(texts.texts)


def _stream(column: StringColumn) -> pa.Buffer:
    table = pa.table({"column": column.arrow})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpacked(kind: type[T], sent: Sent) -> T:
    """The rows again, over the memory that they came in."""
    ids, texts = (pa.ipc.open_stream(buffer).read_all().column("column") for buffer in sent)
    return kind(ids, texts)


def recipe(retriever: Any) -> bytes:
    """A retriever as it was built, to be unpickled by an actor of this process. Raises `ConfigError`."""
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(retriever))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ConfigError(f"{type(retriever).__name__} cannot be sent to another process: {error}") from error


@dataclass(frozen=True)
class Surroundings:
    """Of a process: the variables that say where data, weights and caches lie, its folder, where it imports from."""

    variables: dict[str, str]
    folder: str
    path: list[str]

    def enter(self) -> None:
        """Have this process surrounded so; on another machine the folder may not be there."""
        os.environ.update(self.variables)
        sys.path += [entry for entry in self.path if entry not in sys.path]
        with suppress(OSError):
            os.chdir(self.folder)


def surroundings() -> Surroundings:
    """Those of this process; no variable that holds a key."""
    named = {name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith("HARNESS_")}
    return Surroundings(named, str(Path.cwd()), [str(Path(entry).resolve()) for entry in sys.path])


def edges(n: int, parts: int) -> Sequence[int]:
    """Where n rows are cut into so many contiguous parts of like size, ends included."""
    return [n * part // parts for part in range(parts + 1)]
