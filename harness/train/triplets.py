"""Training triplets in a file: an anchor, a text that answers it, texts that do not. As `datasets` loads them.

Columns anchor, positive, negative_1 ... negative_n, one row after another, as parquet or jsonl (also .jsonl.gz).
"""

import gzip
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness import files
from harness.datasets.rows import rows
from harness.errors import ConfigError, DataError

log = logging.getLogger(__name__)

WRITTEN = (".parquet", ".jsonl", ".jsonl.gz")
_NEGATIVE = re.compile(r"negative(?:_[1-9]\d*)?")


@dataclass(frozen=True)
class Triplets:
    """Row by row an anchor, its positive and its negatives, the same number n >= 0 in each row."""

    anchors: list[str]
    positives: list[str]
    negatives: list[list[str]]

    def __len__(self) -> int:
        return len(self.anchors)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content, 32 hex digits; the order of the rows counts."""
        digest = hashlib.blake2b(digest_size=16)
        for row in zip(self.anchors, self.positives, self.negatives, strict=True):
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()


def read(path: Path) -> Triplets:
    """A file of triplets; `negative` alone is a column too, and none is needed.

    Raises `DataError` naming file, row and column.
    """
    found = Triplets([], [], [])
    columns: list[str] = []
    for number, row in rows(path):
        columns = columns or _columns(path, number, row)
        anchor, positive, *negatives = [_text(path, number, row, column) for column in columns]
        if more := sorted(filter(_NEGATIVE.fullmatch, row.keys() - set(columns))):
            raise DataError(f"{path}:{number}: column {more[0]!r} is not in the first row; give each row the same ones")
        found.anchors.append(anchor)
        found.positives.append(positive)
        found.negatives.append(negatives)
    return found


def write(path: Path, triplets: Triplets) -> None:
    """Write a file by its suffix, whole or not at all. Raises `ConfigError` for another suffix, `StoreError`."""
    check_suffix(path)
    files.write_atomic(path, encoded(triplets, path))


def encoded(triplets: Triplets, path: Path) -> bytes:
    """The content of a file of this name."""
    width = len(triplets.negatives[0]) if triplets.negatives else 0
    columns = {"anchor": triplets.anchors, "positive": triplets.positives}
    columns |= {f"negative_{at + 1}": [row[at] for row in triplets.negatives] for at in range(width)}
    table = pa.table({name: pa.array(texts, pa.large_string()) for name, texts in columns.items()})
    if path.name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()
    return gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines


def check_suffix(path: Path) -> None:
    """Raises `ConfigError` for a name that no triplets are written under."""
    if not path.name.endswith(WRITTEN):
        raise ConfigError(f"output={str(path)!r}: choices of its suffix: {', '.join(WRITTEN)}")


def _columns(path: Path, number: int, row: Mapping[str, Any]) -> list[str]:
    """The columns to read, by the first row."""
    for column in ("anchor", "positive"):
        if column not in row:
            raise DataError(
                f"{path}:{number}: no column {column!r} among {', '.join(map(repr, row)) or 'none'}; triplets have "
                "anchor, positive and, where there are negatives, negative_1, negative_2, ...: rename yours"
            )
    negatives = sorted(filter(_NEGATIVE.fullmatch, row), key=lambda name: int(name.partition("_")[2] or 0))
    columns = ["anchor", "positive", *negatives]
    if others := [name for name in row if name not in columns]:
        log.warning("%s: not read: %s; triplets have anchor, positive, negative_1, ...", path, ", ".join(others))
    return columns


def _text(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    text = row.get(column)
    if not isinstance(text, str):
        raise DataError(f"{path}:{number}: column {column!r} holds {text!r}, not a text; mend or remove the row")
    return text
