"""Small datasets: in memory, written as files in BEIR's layout, or made of another Dataset."""

import itertools
import json
import random
import string
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.types import Corpus, Dataset, Qrels, Queries

DOCUMENTS = {
    "d1": ("Cats", "Cats purr when they are content."),
    "d2": ("Dogs", "Dogs bark at strangers and at the moon."),
    "d3": ("", "The moon orbits the earth once a month."),
    "d4": ("Bread", "Bread is baked from flour, water and salt."),
}
"""Titles and texts of the documents that `write_beir` writes, by id."""
QUERIES = {"q1": "why do cats purr", "q2": "what orbits the earth", "q3": "how is bread baked"}
QRELS = {"q1": {"d1": 2}, "q2": {"d3": 1, "d2": 0}, "q3": {"d4": 1}}

PET_TEXTS = {
    "d0": "the cat sat on the mat",
    "d1": "dogs chase cats in the garden",
    "d2": "bread is baked in an oven",
    "d3": "the moon circles the earth",
    "d4": "a garden with roses",
}
"""The documents of `pets_dataset`."""

N_CIPHER_DOCUMENTS, N_CIPHER_TRAINING_QUERIES = 120, 80
_CIPHER = dict(zip(string.ascii_lowercase[:10], string.digits, strict=True))


def pets_dataset() -> Dataset:
    """Return a dataset of five documents and three queries."""
    queries = Queries(["q0", "q1", "q2"], ["cats", "baking bread in an oven", "roses in the garden"])
    qrels = Qrels({"q0": {"d1": 2, "d0": 1}, "q1": {"d2": 1}, "q2": {"d4": 1, "d1": 0}})
    return Dataset("pets", "test", Corpus(list(PET_TEXTS), list(PET_TEXTS.values())), queries, qrels)


def fruit_dataset() -> Dataset:
    """Return a dataset of three documents and one query."""
    corpus = Corpus(["a", "b", "c"], ["apples and pears", "pears", "plums"])
    return Dataset("fruit", "test", corpus, Queries(["q"], ["pears"]), Qrels({"q": {"b": 1}}))


def write_beir(folder: Path) -> Path:
    """Write the dataset above in BEIR's layout, with the split "test", into `folder`, and return `folder`."""
    (folder / "qrels").mkdir(parents=True)
    _write_jsonl(
        folder / "corpus.jsonl",
        ({"_id": key, "title": title, "text": text} for key, (title, text) in DOCUMENTS.items()),
    )
    _write_jsonl(folder / "queries.jsonl", ({"_id": key, "text": text} for key, text in QUERIES.items()))
    _write_qrels(folder, "test", ((query, doc, grade) for query, docs in QRELS.items() for doc, grade in docs.items()))
    return folder


def write_random_beir(folder: Path, n_documents: int, n_queries: int) -> None:
    """Write a dataset in BEIR's layout of short texts that are drawn from forty words, so that they share words."""
    rng = random.Random(n_documents)
    words = [f"word{number}" for number in range(40)]
    (folder / "qrels").mkdir(parents=True)
    for name, n, length in (("corpus", n_documents, 9), ("queries", n_queries, 3)):
        rows = ({"_id": f"{name[0]}{number}", "text": " ".join(rng.choices(words, k=length))} for number in range(n))
        _write_jsonl(folder / f"{name}.jsonl", rows)
    judgements = [(f"q{number}", f"c{rng.randrange(n_documents)}", 1) for number in range(n_queries) for _ in range(4)]
    _write_qrels(folder, "test", judgements)


def write_cipher(folder: Path) -> Path:
    """Write a dataset that a tiny model learns, in BEIR's layout, into `folder`, and return `folder`.

    Documents are letters, and a query is the digits that stand for the letters of its relevant document. The split
    "train" has 80 queries and "test" the other 40.
    """
    rng = random.Random(0)
    documents = rng.sample(list(itertools.combinations(_CIPHER, 4)), N_CIPHER_DOCUMENTS)
    (folder / "qrels").mkdir(parents=True)
    _write_jsonl(
        folder / "corpus.jsonl",
        ({"_id": f"d{number}", "title": "", "text": " ".join(letters)} for number, letters in enumerate(documents)),
    )
    _write_jsonl(
        folder / "queries.jsonl",
        (
            {"_id": f"q{number}", "text": " ".join(_CIPHER[letter] for letter in letters)}
            for number, letters in enumerate(documents)
        ),
    )
    for split, numbers in (
        ("train", range(N_CIPHER_TRAINING_QUERIES)),
        ("test", range(N_CIPHER_TRAINING_QUERIES, N_CIPHER_DOCUMENTS)),
    ):
        _write_qrels(folder, split, ((f"q{number}", f"d{number}", 1) for number in numbers))
    return folder


def with_random_candidates(dataset: Dataset, n: int = 6, seed: int = 0) -> Dataset:
    """Return the dataset as a reranking dataset.

    The candidates of a query are its relevant documents and `n` random ones, most of which no first stage would return.
    """
    rng = np.random.default_rng(seed)
    ids = list(dataset.corpus.ids)
    candidates = {}
    for query in dataset.queries.ids:
        drawn = [ids[row] for row in rng.permutation(len(ids))[:n]]
        candidates[query] = list(dict.fromkeys([*drawn, *dataset.qrels[query]]))
    return replace(dataset, candidates=candidates)


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_qrels(folder: Path, split: str, judgements: Iterable[tuple[str, str, int]]) -> None:
    lines = "".join(f"{query}\t{doc}\t{grade}\n" for query, doc, grade in judgements)
    (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
