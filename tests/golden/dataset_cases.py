"""The datasets that have golden digests: one for each loader and each file format, from tests/golden/fixtures."""

import csv
import gzip
import json
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from golden_dataset import DATASET_FOLDER, FIXTURES, Rows, candidates, corpus_rows, qrels_rows, query_rows
from golden_file import Values
from support import mteb_tasks

from harness.config import build
from harness.types import Dataset


def load(option: str, /, **settings: Any) -> Dataset:
    """Load an option of conf/dataset with some of its keys set."""
    config = build.composed(["retriever=bm25", f"dataset={option}"])["dataset"]
    dataset: Dataset = build.construct({**config, **settings}, "dataset")
    return dataset


def digest(dataset: Dataset) -> Values:
    """Return the counts and fingerprints of a dataset."""
    return {
        "name": f"{dataset.name} {dataset.split}",
        "documents": len(dataset.corpus),
        "queries": len(dataset.queries),
        "judgements": sum(len(docs) for docs in dataset.qrels.values()),
        "candidates": sum(map(len, (dataset.candidates or {}).values())),
        "drop_self_hits": dataset.drop_self_hits,
        "first document": dataset.corpus.texts[0][:60],
        "first query": dataset.queries.texts[0],
        "corpus fingerprint": dataset.corpus.fingerprint,
        "queries fingerprint": dataset.queries.fingerprint,
        "fingerprint": dataset.fingerprint,
    }


def beir(_: Path) -> Dataset:
    """A dataset in BEIR's layout in a folder of datasets."""
    return load("xquad/en", name="collection", data_dir=str(FIXTURES), documents=None, queries=None)


def beir_dev_split(_: Path) -> Dataset:
    """Another split, with self hits dropped."""
    settings = {"documents": 78, "queries": {"dev": 3}, "drop_self_hits": True}
    return load("xquad/en", name="collection", split="dev", data_dir=str(FIXTURES), **settings)


def folder_in_beirs_layout(_: Path) -> Dataset:
    return load("folder", path=str(DATASET_FOLDER))


def folder_csv(folder: Path) -> Dataset:
    """CSV files whose columns have other names."""
    names = {"_id": "docno", "title": "headline", "text": "body"}
    _write_csv(folder / "docs.csv", [{names[key]: row[key] for key in names} for row in corpus_rows()])
    _write_csv(folder / "queries.csv", query_rows())
    _write_csv(folder / "qrels.csv", qrels_rows())
    columns = {"id": "docno", "title": "headline", "text": "body"}
    return _folder(folder, "docs.csv", "queries.csv", "qrels.csv", columns=columns)


def folder_tsv(folder: Path) -> Dataset:
    """Tab-separated files, with TREC's qrels."""
    _write_tsv(folder / "docs.tsv", corpus_rows())
    _write_tsv(folder / "queries.tsv", query_rows())
    _write_trec(folder / "qrels.txt", qrels_rows())
    return _folder(folder, "docs.tsv", "queries.tsv", "qrels.txt")


def folder_jsonl(folder: Path) -> Dataset:
    """Compressed files."""
    for name, rows in (("docs", corpus_rows()), ("queries", query_rows()), ("qrels", qrels_rows())):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return _folder(folder, "docs.jsonl.gz", "queries.jsonl.gz", "qrels.jsonl.gz")


def folder_parquet(folder: Path) -> Dataset:
    for name, rows in (("docs", corpus_rows()), ("queries", query_rows()), ("qrels", qrels_rows())):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return _folder(folder, "docs.parquet", "queries.parquet", "qrels.parquet")


def stdlib(_: Path) -> Dataset:
    """The dataset of the standard library, read from a small library instead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysconfig, "get_path", lambda *_: str(FIXTURES / "library"))
        return load("stdlib")


def irds(folder: Path) -> Dataset:
    """A dataset of ir_datasets over local files."""
    with _registered(folder) as name:
        return load("irds", id=name)


def irds_candidates(folder: Path) -> Dataset:
    """The same dataset with its scoreddocs as candidates."""
    with _registered(folder) as name:
        return load("irds", id=name, candidates=True)


def mteb(folder: Path) -> Dataset:
    """A task of mteb from a copy of its repository."""
    return load("mteb", task="SciFact", folder=str(mteb_tasks.write_repository(folder, _mteb_rows())))


def mteb_candidates(folder: Path) -> Dataset:
    """The same task with candidates, from Parquet files."""
    ranked = [{"query-id": query, "corpus-ids": docs} for query, docs in candidates().items()]
    rows = {**_mteb_rows(), "top_ranked": ranked}
    return load("mteb", task="SciFact", folder=str(mteb_tasks.write_repository(folder, rows, kind="parquet")))


def mteb_in_beirs_layout(_: Path) -> Dataset:
    return load("mteb", task="SciFact", folder=str(DATASET_FOLDER))


CASES: dict[str, Callable[[Path], Dataset]] = {
    loader.__name__: loader
    for loader in (
        *(beir, beir_dev_split, folder_in_beirs_layout, folder_csv, folder_tsv, folder_jsonl, folder_parquet),
        *(stdlib, irds, irds_candidates, mteb, mteb_candidates, mteb_in_beirs_layout),
    )
}
"""Loaders by the names of their cases; each takes an empty folder."""
OPTIONS = ("xquad/en", "folder", "stdlib", "irds", "mteb")
"""The options of conf/dataset that the cases load."""


def _mteb_rows() -> dict[str, Rows]:
    return {"corpus": corpus_rows(), "queries": query_rows(), "qrels": qrels_rows()}


def _folder(folder: Path, corpus: str, queries: str, qrels: str, **settings: Any) -> Dataset:
    files = {"corpus": corpus, "queries": queries, "qrels": qrels}
    return load("folder", path=str(folder), name="collection", **files, **settings)


def _write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _write_tsv(path: Path, rows: Rows) -> None:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), "utf-8")


def _write_trec(path: Path, rows: Rows) -> None:
    path.write_text("".join(f"{row['query-id']} 0 {row['corpus-id']} {row['score']}\n" for row in rows), "utf-8")


@contextmanager
def _registered(folder: Path) -> Iterator[str]:
    """Register the dataset with ir_datasets for a while, and yield its id."""
    import ir_datasets
    from ir_datasets.formats import TrecScoredDocs

    name = "local/golden/test"
    docs, queries, qrels, scoreddocs = (folder / part for part in ("docs.tsv", "queries.tsv", "qrels", "run"))
    docs.write_text("".join(f"{row['_id']}\t{row['title']} {row['text']}\n" for row in corpus_rows()), "utf-8")
    queries.write_text("".join(f"{row['_id']}\t{row['text']}\n" for row in query_rows()), "utf-8")
    _write_trec(qrels, qrels_rows())
    pairs = [(query, doc) for query, ranked in candidates().items() for doc in ranked]
    scoreddocs.write_text("".join(f"{query} Q0 {doc} 1 1.0 run\n" for query, doc in pairs), "utf-8")
    whole = ir_datasets.create_dataset(str(docs), str(queries), str(qrels))
    with_candidates = TrecScoredDocs(ir_datasets.util.LocalDownload(str(scoreddocs)))
    ir_datasets.registry.register(name, ir_datasets.datasets.base.Dataset(whole, with_candidates))
    try:
        yield name
    finally:
        del ir_datasets.registry._registered[name]
