"""Read Corpus and Queries from files; a large file is converted once to an Arrow file, which is memory-mapped."""

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

_FORMAT = 1  # version of the Arrow files; after a change they are written again
_LARGE = 4 << 20  # bytes from which a file is converted
_MAX_IN_MEMORY = 64 << 20  # bytes of streamed texts that stay in memory
_SCHEMA = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])

T = TypeVar("T", bound=Texts)
Columns = Mapping[str, str | None]


def read(kind: type[T], path: Path, columns: Columns) -> T:
    """Read Corpus or Queries from a file of rows.

    Args:
        kind: `Corpus` or `Queries`.
        path: A jsonl, csv, tsv or parquet file.
        columns: Columns by role: ``id``, ``text`` and, optionally, ``title``; title and text are joined by a space.

    Raises:
        DataError: An id is missing or repeated, or a text is missing; the message names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size < _LARGE:
        pairs = [pair for _, *pair in _pairs(path, columns, kind.noun)]
        _check_unique(path, columns, kind.noun, pa.array([key for key, _ in pairs], pa.large_string()))
        return kind([key for key, _ in pairs], [text for _, text in pairs])
    return _read_mapped(kind, path, columns)


def from_stream(kind: type[T], pairs: Iterable[tuple[str, str]]) -> T:
    """Collect Corpus or Queries from a stream.

    Args:
        kind: `Corpus` or `Queries`.
        pairs: Ids and texts. Above 64 MiB they are memory-mapped from an unlinked temporary file, whose space is freed
            together with the result.
    """
    parts: list[pa.RecordBatch] = []
    batches = _batches(iter(pairs))
    table = None
    for part in batches:
        parts.append(part)
        if sum(batch.nbytes for batch in parts) > _MAX_IN_MEMORY:
            table = _write_to_file(chain(parts, batches))
    if table is None:
        table = pa.Table.from_batches(parts, _SCHEMA)
    return kind(table.column("id"), table.column("text"))


def _batches(rows: Iterator[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    while part := list(islice(rows, 16384)):
        yield pa.record_batch([[key for key, _ in part], [text for _, text in part]], schema=_SCHEMA)


def _write_to_file(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    folder = cache_dir() / "texts"
    with temporary_file(folder) as path:
        with pa.ipc.new_file(str(path), _SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def title_loader(path: Path, columns: Columns) -> Callable[[], StringColumn] | None:
    """Return a function that reads the titles in the file `path`, in the order of `read`.

    Args:
        path: A jsonl, csv, tsv or parquet file.
        columns: Columns by role; without a ``title`` the result is None.
    """
    column = columns.get("title")
    return None if column is None else partial(_titles, path, column)


def _titles(path: Path, column: str) -> StringColumn:
    return StringColumn(row.get(column) or "" for _, row in rows(path))


def _read_mapped(kind: type[T], path: Path, columns: Columns) -> T:
    state = path.stat()
    identity = [_FORMAT, str(path.resolve()), state.st_size, state.st_mtime_ns, dict(columns), kind.noun]
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=12).hexdigest()
    folder = cache_dir() / "texts"
    arrow_file = next(folder.glob(f"{key}-*.arrow"), None)
    if arrow_file is None:
        arrow_file = _convert(kind, path, columns, folder, key)
    return kind.open(arrow_file, fingerprint=arrow_file.stem.partition("-")[2])


def _convert(kind: type[T], path: Path, columns: Columns, folder: Path, key: str) -> Path:
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
        _check_unique(path, columns, kind.noun, mapped.column("id"))
        return publish(temporary, folder / f"{key}-{fingerprint}.arrow")


def _pairs(path: Path, columns: Columns, noun: str) -> Iterator[tuple[int, str, str]]:
    id_column, text_column, title_column = columns["id"], columns["text"], columns.get("title")
    for number, row in rows(path):
        key = row.get(id_column) if id_column else None
        if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
            raise DataError(f"{path}:{number}: {noun} has no id: {_describe_column(row, id_column)}")
        text = row.get(text_column) if text_column else None
        if not isinstance(text, str):
            raise DataError(f"{path}:{number}: {noun} {key!r} has no text: {_describe_column(row, text_column)}")
        title = row.get(title_column) if title_column else None
        if title is not None and not isinstance(title, str):
            raise DataError(f"{path}:{number}: {noun} {key!r} has a title that is not text: {title!r}")
        joined = join_title(title, text)
        try:
            f"{key}{joined}".encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}:{number}: {noun} {key!r} has half a surrogate pair: {error.reason}; correct it"
            ) from None
        yield number, str(key), joined


def _describe_column(row: Row, column: str | None) -> str:
    if column in row:
        return f"column {column!r} has {row[column]!r}"
    return f"column {column!r} is not among {', '.join(map(repr, row)) or 'no columns'}; set it in the config"


def _check_unique(path: Path, columns: Columns, noun: str, ids: pa.Array | pa.ChunkedArray) -> None:
    if len(ids.unique()) == len(ids):
        return
    seen: dict[str, int] = {}
    for number, key, _ in _pairs(path, columns, noun):
        if key in seen:
            raise DataError(f"{path}:{number}: {noun} id {key!r} is on line {seen[key]} already: ids must be unique")
        seen[key] = number
