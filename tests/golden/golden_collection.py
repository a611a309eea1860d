"""The small collection behind the golden values, as rows: English, some German and CJK, empty and equal texts."""

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
COLLECTION = FIXTURES / "collection"
RUN = COLLECTION / "run.trec"
"""Another system's run: ties, a document that is not in the corpus, and queries without hits."""
Rows = list[dict[str, Any]]


def corpus_rows() -> Rows:
    return _jsonl("corpus.jsonl")


def query_rows() -> Rows:
    return _jsonl("queries.jsonl")


def qrels_rows() -> Rows:
    lines = (COLLECTION / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    fields = (line.split("\t") for line in lines)
    return [{"query-id": query, "corpus-id": doc, "score": int(grade)} for query, doc, grade in fields]


def qrels() -> dict[str, dict[str, int]]:
    """Return the grades by query and document."""
    grades: dict[str, dict[str, int]] = {}
    for row in qrels_rows():
        grades.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    return grades


def candidates() -> dict[str, list[str]]:
    """Return for each query one document and what the run ranks for it, where the corpus has that."""
    known = {row["_id"] for row in corpus_rows()}
    ranked = {row["_id"]: ["long"] for row in query_rows()}
    for line in RUN.read_text(encoding="utf-8").splitlines():
        query, _, doc, *_ = line.split()
        if doc in known and doc not in ranked[query]:
            ranked[query].append(doc)
    return ranked


def _jsonl(name: str) -> Rows:
    return [json.loads(line) for line in (COLLECTION / name).read_text(encoding="utf-8").splitlines()]
