"""Files of training triplets: an anchor, a positive and negatives in each row, loadable with `datasets`.

Columns are anchor, positive, negative_1 ... negative_n; formats are Parquet and JSON Lines (also .jsonl.gz).
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

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
_NEGATIVE = re.compile(r"negative(?:_[1-9]\d*)?")


@dataclass(frozen=True)
class Triplets:
    """Anchors, positives and negatives by row; each row has the same number n >= 0 of negatives."""

    anchors: list[str]
    positives: list[str]
    negatives: list[list[str]]

    def __len__(self) -> int:
        return len(self.anchors)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the rows in order, 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        for row in zip(self.anchors, self.positives, self.negatives, strict=True):
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()


def read(path: Path) -> Triplets:
    """Read a file of triplets; a single column `negative` is accepted, and negatives are optional.

    Raises `DataError` naming file, row and column.
    """
    content = Triplets([], [], [])
    columns: list[str] = []
    for number, row in rows(path):
        columns = columns or _columns(path, number, row)
        anchor, positive, *negatives = [_text(path, number, row, column) for column in columns]
        if extra := sorted(filter(_NEGATIVE.fullmatch, row.keys() - set(columns))):
            raise DataError(
                f"{path}:{number}: column {extra[0]!r} is not in the first row; give every row the same columns"
            )
        content.anchors.append(anchor)
        content.positives.append(positive)
        content.negatives.append(negatives)
    return content


def write(path: Path, triplets: Triplets) -> None:
    """Write `triplets` to `path` atomically, in the format of its suffix. Raises `ConfigError` if that is unknown."""
    check_suffix(path)
    files.write_atomic(path, encode(triplets, path))


def encode(triplets: Triplets, path: Path) -> bytes:
    """Return `triplets` as the content of a file, in the format of the suffix of `path`."""
    width = len(triplets.negatives[0]) if triplets.negatives else 0
    columns = {"anchor": triplets.anchors, "positive": triplets.positives}
    columns |= {f"negative_{index + 1}": [row[index] for row in triplets.negatives] for index in range(width)}
    table = pa.table({name: pa.array(texts, pa.large_string()) for name, texts in columns.items()})
    if path.name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()
    return gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines


def check_suffix(path: Path) -> None:
    """Raise `ConfigError` for an unknown suffix."""
    if not path.name.endswith(SUFFIXES):
        raise ConfigError(f"output={str(path)!r} has an unknown suffix; choices: {', '.join(SUFFIXES)}")


def _columns(path: Path, number: int, row: Mapping[str, Any]) -> list[str]:
    """Return the columns to read, from the first row."""
    for column in ("anchor", "positive"):
        if column not in row:
            raise DataError(
                f"{path}:{number}: no column {column!r} among {', '.join(map(repr, row)) or 'none'}; triplets have "
                "anchor, positive and, where there are negatives, negative_1, negative_2, ...: rename yours"
            )
    negatives = sorted(filter(_NEGATIVE.fullmatch, row), key=lambda name: int(name.partition("_")[2] or 0))
    columns = ["anchor", "positive", *negatives]
    if ignored := [name for name in row if name not in columns]:
        log.warning(
            "%s: ignored columns: %s; triplets have anchor, positive, negative_1, ...", path, ", ".join(ignored)
        )
    return columns


def _text(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    text = row.get(column)
    if not isinstance(text, str):
        raise DataError(
            f"{path}:{number}: column {column!r} has {text!r}, which is not a string; fix or remove the row"
        )
    return text
