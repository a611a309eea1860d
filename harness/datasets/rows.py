"""Rows of a jsonl, csv, tsv or parquet file, each with its line number; text files may be gzipped."""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import DataError
from harness.types.trec import open_text

Row = dict[str, Any]
UNREADABLE = (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowInvalid)
FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")


def format_of(path: Path) -> str:
    """Return a file's format by its suffix: one of FORMATS. Raises `DataError`."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        raise DataError(
            f"{path}: unknown format {suffix or path.name!r}; choices: {', '.join(FORMATS)}; all but .parquet also .gz"
        )
    return suffix


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield line numbers, from 1, and rows by column name. Raises `DataError` naming file and line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    form = format_of(path)
    try:
        if form == ".parquet":
            yield from _parquet(path)
        elif form == ".jsonl":
            yield from _jsonl(path)
        else:
            yield from _separated(path, "\t" if form == ".tsv" else ",")
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for the file `path`, which could not be read because of the exception `error`."""
    if isinstance(error, UnicodeDecodeError):
        return DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8")
    return DataError(f"{path}: damaged or incomplete ({error}); download or write it again")


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    for batch in pq.ParquetFile(path).iter_batches(8192):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not JSON ({error.msg} at column {error.colno}): {line.strip()[:60]!r}; "
                    "each line must be one JSON object"
                ) from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: not a JSON object: {line.strip()[:60]!r}")
            yield number, row


def _separated(path: Path, separator: str) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # documents are longer than csv's default of 128 KiB
    with open_text(path, newline="") as lines:
        table = csv.DictReader(lines, delimiter=separator, strict=True, **_quoting(separator))
        try:
            for row in table:
                if None in row or None in row.values():
                    columns = ", ".join(table.fieldnames or [])
                    raise DataError(f"{path}:{table.line_num}: {_width(row)} fields where the header has {columns}")
                yield table.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}:{table.reader.line_num}: {error}; quote fields as in RFC 4180") from None


def _quoting(separator: str) -> dict[str, Any]:
    """Return csv's quoting: none in tab-separated files."""
    return {"quoting": csv.QUOTE_NONE} if separator == "\t" else {}


def _width(row: dict[Any, Any]) -> int:
    return sum(value is not None for key, value in row.items() if key is not None) + len(row.get(None) or [])
