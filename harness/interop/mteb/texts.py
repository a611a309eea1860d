"""Rows of mteb's data as our texts, and ours as its rows.

A document is its title and text joined by a space; a query its text, then its instruction; a conversation its turns,
with the instruction before them: as mteb's models read them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.types import Dataset

_SPACE = re.compile(r"\s")
_ROWS = 8192


def spaced(data: Mapping[str, Any]) -> bool:
    """Whether a document's or a query's id has white space, which a TREC run file cannot hold."""
    return any(_SPACE.search(str(key)) for part in ("corpus", "queries") for key in data[part]["id"])


def quoted(key: str) -> str:
    """An id with its white space as a web address writes it."""
    return _SPACE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), key.replace("%", "%25"))


def documents(rows: Any) -> Iterator[tuple[str, str]]:
    """Ids and texts of a corpus of mteb's."""
    for row in _rows(rows, ("id", "title", "text")):
        yield str(row["id"]), f"{row.get('title') or ''} {row['text'] or ''}".strip()


def queries(rows: Any) -> Iterator[tuple[str, str]]:
    """Ids and texts of mteb's queries."""
    for row in _rows(rows, ("id", "text", "instruction")):
        yield str(row["id"]), _asked(row["text"], row.get("instruction"))


def _rows(rows: Any, wanted: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    columns = [name for name in wanted if name in rows.column_names]
    if "text" not in columns:
        raise ValueError(f"no column 'text' among {', '.join(rows.column_names)}")
    chosen = rows.select_columns(columns)
    for first in range(0, len(chosen), _ROWS):
        part = chosen[first : first + _ROWS]
        yield from (dict(zip(columns, values, strict=True)) for values in zip(*(part[c] for c in columns), strict=True))


def _asked(text: Any, instruction: str | None) -> str:
    if isinstance(text, str):
        return text if instruction is None else f"{text} {instruction}"
    turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
    return " ".join([*([instruction] if instruction else []), "; ".join(turns)])


def split_of(dataset: Dataset) -> dict[str, Any]:
    """A Dataset as the data of a split of an mteb task."""
    from datasets import Dataset as Rows

    corpus, asked = dataset.corpus, dataset.queries
    known = set(asked.ids)
    return {
        "corpus": Rows.from_dict({"id": list(corpus.ids), "text": list(corpus.texts), "title": [""] * len(corpus)}),
        "queries": Rows.from_dict({"id": list(asked.ids), "text": list(asked.texts)}),
        "relevant_docs": {query: dict(docs) for query, docs in dataset.qrels.items() if query in known},
        "top_ranked": None if dataset.candidates is None else {q: list(d) for q, d in dataset.candidates.items()},
    }
