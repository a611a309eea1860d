"""Fixtures of the public API's tests: a dataset in memory and as a folder, and results of two retrievers on it."""

import json
from pathlib import Path

import pytest
from support.datasets import pets_dataset

import harness
from harness.types import Dataset


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Return a dataset of five documents and three queries."""
    return pets_dataset()


@pytest.fixture(scope="module")
def two_results(data: Dataset) -> harness.Results:
    """Return the results of BM25, as `terms`, and of BM25 without term weights, as `worse`."""
    return harness.evaluate({"terms": "bm25", "worse": "bm25 k1=0.0 b=0.0"}, data, baseline="terms")


@pytest.fixture
def folder(data: Dataset, tmp_path: Path) -> Path:
    """Write `data` as a folder in BEIR's layout and return it."""
    path = tmp_path / "pets"
    (path / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", data.corpus), ("queries", data.queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in zip(texts.ids, texts.texts, strict=True)]
        (path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    lines = [f"{query}\t{doc}\t{grade}" for query, docs in data.qrels.items() for doc, grade in docs.items()]
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    return path
