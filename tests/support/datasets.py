"""A small collection in BEIR's layout, for tests that need files."""

import json
from pathlib import Path

DOCUMENTS = {
    "d1": ("Cats", "Cats purr when they are content."),
    "d2": ("Dogs", "Dogs bark at strangers and at the moon."),
    "d3": ("", "The moon orbits the earth once a month."),
    "d4": ("Bread", "Bread is baked from flour, water and salt."),
}
QUERIES = {"q1": "why do cats purr", "q2": "what orbits the earth", "q3": "how is bread baked"}
JUDGED = {"q1": {"d1": 2}, "q2": {"d3": 1, "d2": 0}, "q3": {"d4": 1}}


def write_beir(folder: Path) -> Path:
    """Write the collection into `folder`; gives it back."""
    (folder / "qrels").mkdir(parents=True)
    documents = ({"_id": key, "title": title, "text": text} for key, (title, text) in DOCUMENTS.items())
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    queries = ({"_id": key, "text": text} for key, text in QUERIES.items())
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    lines = [f"{query}\t{doc}\t{grade}\n" for query, docs in JUDGED.items() for doc, grade in docs.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return folder
