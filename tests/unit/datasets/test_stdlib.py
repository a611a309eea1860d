"""Tests of the built-in dataset, which is made from the standard library of Python."""

import os
import subprocess
import sys

import pytest

from harness.datasets import stdlib
from harness.types import Dataset


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Load the built-in dataset, which is made from the standard library."""
    return stdlib.load()


@pytest.mark.slow
def test_stdlib_is_the_same_in_another_process(dataset: Dataset):
    code = "from harness.datasets import stdlib; print(stdlib.load().fingerprint)"
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
    )
    assert done.stdout.strip() == dataset.fingerprint, done.stderr


def test_stdlib_has_its_documented_size(dataset: Dataset):
    assert 1500 <= len(dataset.corpus) <= 2500
    assert len(dataset.queries) == len(dataset.qrels) == 500


def test_hardly_any_stdlib_query_is_contained_in_a_relevant_document(dataset: Dataset):
    documents = dict(zip(dataset.corpus.ids, dataset.corpus.texts, strict=True))
    queries = zip(dataset.queries.ids, dataset.queries.texts, strict=True)
    repeated = [doc for query, text in queries for doc in dataset.qrels[query] if text in documents[doc]]
    assert len(repeated) <= 3, repeated  # 1 in Python 3.11: the description of statistics.correlation repeats it


def test_equal_summaries_are_one_query_with_several_relevant_documents(dataset: Dataset):
    wordings = [" ".join(text.lower().split()) for text in dataset.queries.texts]
    assert len(set(wordings)) == len(wordings)
    assert sum(len(docs) > 1 for docs in dataset.qrels.values()) >= 3
    assert set(dataset.qrels) == set(dataset.queries.ids)


def test_every_stdlib_judgement_is_of_a_document_of_the_corpus(dataset: Dataset):
    ids = set(dataset.corpus.ids)
    assert all(doc in ids and grade == 1 for docs in dataset.qrels.values() for doc, grade in docs.items())


def test_stdlib_excludes_tests_idle_and_installed_packages(dataset: Dataset):
    names = {component for name in dataset.corpus.ids for component in name.split(".")}
    assert not names & {"test", "tests", "idlelib", "site-packages", "turtledemo", "lib2to3", "numpy", "pip"}
    top_level = {name.partition(".")[0] for name in dataset.corpus.ids}
    assert top_level <= sys.stdlib_module_names | {"_aix_support"}
