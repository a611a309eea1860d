"""Corpus and Queries from files. A large file is turned once into an Arrow file that is mapped into memory."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from harness.datasets.rows import Row, rows
from harness.environment import cache_dir
from harness.errors import DataError
from harness.files import publish, temporary_file
from harness.instrument import stage
from harness.types import Fingerprint, StringColumn, Texts
from harness.types.texts import join_title

_FORMAT = 1  # of the Arrow files; a new one makes them all anew
_LARGE = 4 << 20
_HELD = 64 << 20  # bytes of texts that come in a stream and stay in memory
_SCHEMA = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])

Some = TypeVar("Some", bound=Texts)
Columns = Mapping[str, str | None]


def read(kind: type[Some], path: Path, columns: Columns) -> Some:
    """Corpus or Queries from a file of rows.

    `columns` names the columns of `id`, `text` and, where there is one, `title`; title and text are joined by a space.
    Raises `DataError` naming file and line for a missing or repeated id and a missing text.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size < _LARGE:
        pairs = [pair for _, *pair in _pairs(path, columns, kind.noun)]
        _refuse_twice(path, columns, kind.noun, pa.array([key for key, _ in pairs], pa.large_string()))
        return kind([key for key, _ in pairs], [text for _, text in pairs])
    return _mapped(kind, path, columns)


def gathered(kind: type[Some], pairs: Iterable[tuple[str, str]]) -> Some:
    """Corpus or Queries from a stream of ids and texts, held in Arrow a part at a time.

    A large one lies in a file without a name, mapped into memory and gone with it.
    """
    parts: list[pa.RecordBatch] = []
    batches = _batches(iter(pairs))
    table = None
    for part in batches:
        parts.append(part)
        if sum(one.nbytes for one in parts) > _HELD:
            table = _in_a_file(chain(parts, batches))
    if table is None:
        table = pa.Table.from_batches(parts, _SCHEMA)
    return kind(table.column("id"), table.column("text"))


def _batches(rows: Iterator[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    while part := list(islice(rows, 16384)):
        yield pa.record_batch([[key for key, _ in part], [text for _, text in part]], schema=_SCHEMA)


def _in_a_file(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    folder = cache_dir() / "texts"
    with temporary_file(folder) as path:
        with pa.ipc.new_file(str(path), _SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def titles(path: Path, columns: Columns) -> Callable[[], StringColumn] | None:
    """What reads the titles alone of a file that `read` has read, when they are asked for; None without a column."""
    column = columns.get("title")
    return None if column is None else partial(_titles, path, column)


def _titles(path: Path, column: str) -> StringColumn:
    return StringColumn(row.get(column) or "" for _, row in rows(path))


def _mapped(kind: type[Some], path: Path, columns: Columns) -> Some:
    state = path.stat()
    identity = [_FORMAT, str(path.resolve()), state.st_size, state.st_mtime_ns, dict(columns), kind.noun]
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=12).hexdigest()
    folder = cache_dir() / "texts"
    found = next(folder.glob(f"{key}-*.arrow"), None)
    if found is None:
        found = _convert(kind, path, columns, folder, key)
    return kind.open(found, fingerprint=found.stem.partition("-")[2])


def _convert(kind: type[Some], path: Path, columns: Columns, folder: Path, key: str) -> Path:
    fingerprint = Fingerprint()
    with temporary_file(folder) as temporary:
        with stage(f"read {path.name}", total=None) as step, pa.ipc.new_file(str(temporary), _SCHEMA) as writer:
            pairs = _pairs(path, columns, kind.noun)
            while part := list(islice(pairs, 16384)):
                ids, texts = [key for _, key, _ in part], [text for _, _, text in part]
                fingerprint.add(ids, texts)
                writer.write_batch(pa.record_batch([ids, texts], schema=_SCHEMA))
                step(len(part))
        mapped = pa.ipc.open_file(pa.memory_map(str(temporary))).read_all()
        _refuse_twice(path, columns, kind.noun, mapped.column("id"))
        return publish(temporary, folder / f"{key}-{fingerprint}.arrow")


def _pairs(path: Path, columns: Columns, noun: str) -> Iterator[tuple[int, str, str]]:
    id_column, text_column, title_column = columns["id"], columns["text"], columns.get("title")
    for number, row in rows(path):
        key = row.get(id_column) if id_column else None
        if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
            raise DataError(f"{path}:{number}: {noun} has no id: {_said(row, id_column)}")
        text = row.get(text_column) if text_column else None
        if not isinstance(text, str):
            raise DataError(f"{path}:{number}: {noun} {key!r} has no text: {_said(row, text_column)}")
        title = row.get(title_column) if title_column else None
        if title is not None and not isinstance(title, str):
            raise DataError(f"{path}:{number}: {noun} {key!r} has a title that is no text: {title!r}")
        joined = join_title(title, text)
        try:
            f"{key}{joined}".encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}:{number}: {noun} {key!r} has half a surrogate pair: {error.reason}; mend it"
            ) from None
        yield number, str(key), joined


def _said(row: Row, column: str | None) -> str:
    if column in row:
        return f"column {column!r} holds {row[column]!r}"
    return f"column {column!r} is not among {', '.join(map(repr, row)) or 'no columns'}; name it in the config"


def _refuse_twice(path: Path, columns: Columns, noun: str, ids: pa.Array | pa.ChunkedArray) -> None:
    if len(ids.unique()) == len(ids):
        return
    seen: dict[str, int] = {}
    for number, key, _ in _pairs(path, columns, noun):
        if key in seen:
            raise DataError(f"{path}:{number}: {noun} id {key!r} is on line {seen[key]} already: ids must be unique")
        seen[key] = number
