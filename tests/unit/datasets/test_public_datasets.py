"""Tests of the public datasets that are downloaded: published counts, and the cache."""

from pathlib import Path

import pytest
from support.dataset_files import write_dataset

from harness.config import build
from harness.datasets import beir
from harness.errors import ConfigError, DataError
from harness.types import Dataset


def load_public(name: str, data: Path, *overrides: str) -> Dataset:
    """Load a public dataset from its config."""
    config = build.composed(["retriever=bm25", f"dataset={name}", f"data_dir={data}", *overrides])["dataset"]
    loaded: Dataset = build.construct(config, "dataset")
    return loaded


@pytest.mark.parametrize(
    ("name", "split", "documents", "queries"),
    [
        ("scifact", "test", 5183, 300),
        ("scifact", "train", 5183, 809),
        ("nfcorpus", "test", 3633, 323),
        ("nfcorpus", "dev", 3633, 324),
        ("nfcorpus", "train", 3633, 2590),
    ],
)
def test_public_dataset_has_its_published_counts(
    data: Path, empty_cache: Path, name: str, split: str, documents: int, queries: int
):
    dataset = load_public(name, data, f"dataset.split={split}")
    assert (len(dataset.corpus), len(dataset.queries)) == (documents, queries)
    assert (dataset.name, dataset.split) == (name, split)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.documents=3634", "3633 documents in split 'test', the published nfcorpus has 3634"),
        ("dataset.queries.test=322", "323 queries in split 'test', the published nfcorpus has 322"),
    ],
)
def test_unpublished_counts_are_refused_with_dataset_folder_as_a_remedy(
    data: Path, empty_cache: Path, override: str, message: str
):
    with pytest.raises((DataError, ConfigError)) as error:
        load_public("nfcorpus", data, override)
    assert message in str(error.value)
    assert f"dataset=folder dataset.path={data / 'nfcorpus'}" in str(error.value)


def test_public_dataset_is_read_from_the_cache(tmp_path: Path, empty_cache: Path):
    write_dataset(empty_cache / "datasets" / "tiny")
    dataset = beir.load("tiny", "test", "http://127.0.0.1:9/tiny.zip", "0" * 32, data_dir=str(tmp_path))
    assert len(dataset.corpus) == 3
