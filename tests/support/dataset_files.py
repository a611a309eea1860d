"""Write small datasets to files in every format, and read them or their errors."""

import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.datasets import folder, judgements, texts
from harness.errors import ConfigError, DataError
from harness.types import Corpus, Dataset

FILES = ("corpus", "queries", "qrels")
COLUMNS = {"id": "_id", "title": "title", "text": "text"}
QUERY_COLUMNS = {"id": "_id", "text": "text"}
QRELS_COLUMNS = {"query": "query-id", "document": "corpus-id", "grade": "score"}
DOCUMENTS = [
    {"_id": "d1", "title": "Green", "text": "a green bottle"},
    {"_id": "d2", "title": "", "text": "a red bottle"},
    {"_id": "d3", "title": "Empty", "text": ""},
]
QUERIES = [{"_id": "q1", "text": "green"}, {"_id": "q2", "text": "red"}]
HEADER = "query-id\tcorpus-id\tscore\n"
JUDGED = f"{HEADER}q1\td1\t1\nq2\td2\t2\n"
FORMATS = ["jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "tsv.gz", "parquet"]


def write_jsonl(path: Path, items: Iterable[Any]) -> Path:
    """Write one JSON value a line and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(item)}\n" for item in items), encoding="utf-8")
    return path


def write_dataset(
    folder_path: Path,
    documents: Iterable[Any] = DOCUMENTS,
    queries: Iterable[Any] = QUERIES,
    judged: str = JUDGED,
    split: str = "test",
) -> Path:
    """Write a dataset in BEIR's layout and return its folder."""
    write_jsonl(folder_path / "corpus.jsonl", documents)
    write_jsonl(folder_path / "queries.jsonl", queries)
    (folder_path / "qrels").mkdir(exist_ok=True)
    (folder_path / "qrels" / f"{split}.tsv").write_bytes(judged.encode())
    return folder_path


def load_folder(folder_path: Path, **settings: Any) -> Dataset:
    """Load a folder as `dataset=folder` does; `settings` replace those of its config."""
    columns = {"columns": COLUMNS, "query_columns": QUERY_COLUMNS, "qrels_columns": QRELS_COLUMNS}
    return folder.load(str(folder_path), **{**columns, **settings})


def read_corpus(path: Path, columns: Mapping[str, str | None] = COLUMNS) -> Corpus:
    """Read a corpus file."""
    return texts.read(Corpus, path, columns)


def corpus_error(path: Path, columns: Mapping[str, str | None] = COLUMNS) -> str:
    """Return the error of reading a corpus file."""
    with pytest.raises((DataError, ConfigError)) as error:
        read_corpus(path, columns)
    return str(error.value)


def judgements_error(path: Path, content: str) -> str:
    """Write a file of judgements and return the error of reading it."""
    path.write_text(content)
    with pytest.raises((DataError, ConfigError)) as error:
        judgements.read(path)
    return str(error.value)


def load_error(folder_path: Path, **settings: Any) -> str:
    """Return the error of loading a folder."""
    with pytest.raises((DataError, ConfigError)) as error:
        load_folder(folder_path, **settings)
    return str(error.value)


def _write_separated(path: Path, items: list[dict[str, Any]], separator: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, items[0].keys(), delimiter=separator)
        table.writeheader()
        table.writerows(items)
    return path


def write_rows(path: Path, items: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the path's suffixes and return the path."""
    inner = path.with_suffix("") if path.suffix == ".gz" else path
    if inner.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(items), inner)
    elif inner.suffix == ".jsonl":
        write_jsonl(inner, items)
    else:
        _write_separated(inner, items, "\t" if inner.suffix == ".tsv" else ",")
    if path != inner:
        path.write_bytes(gzip.compress(inner.read_bytes()))
        inner.unlink()
    return path
