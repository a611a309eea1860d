"""The small dataset behind the golden values, as rows: English, some German and CJK, empty and equal texts.

Its folder and its stored name are "collection".
"""

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
DATASET_FOLDER = FIXTURES / "collection"
RUN = DATASET_FOLDER / "run.trec"
"""A run of another system, with ties, a document that is not in the corpus, and queries without hits."""
Rows = list[dict[str, Any]]


def corpus_rows() -> Rows:
    return _jsonl("corpus.jsonl")


def query_rows() -> Rows:
    return _jsonl("queries.jsonl")


def qrels_rows() -> Rows:
    lines = (DATASET_FOLDER / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    fields = (line.split("\t") for line in lines)
    return [{"query-id": query, "corpus-id": doc, "score": int(grade)} for query, doc, grade in fields]


def qrels() -> dict[str, dict[str, int]]:
    """Return the grades by query and document."""
    grades: dict[str, dict[str, int]] = {}
    for row in qrels_rows():
        grades.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    return grades


def candidates() -> dict[str, list[str]]:
    """Return candidates by query: the document "long" and the documents of the run that the corpus has."""
    doc_ids = {row["_id"] for row in corpus_rows()}
    ranked = {row["_id"]: ["long"] for row in query_rows()}
    for line in RUN.read_text(encoding="utf-8").splitlines():
        query, _, doc, *_ = line.split()
        if doc in doc_ids and doc not in ranked[query]:
            ranked[query].append(doc)
    return ranked


def _jsonl(name: str) -> Rows:
    return [json.loads(line) for line in (DATASET_FOLDER / name).read_text(encoding="utf-8").splitlines()]
