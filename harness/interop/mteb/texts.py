"""Convert corpora and queries to and from mteb's rows; texts are joined as mteb joins them for its models."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.types import Dataset, Texts
from harness.types.texts import join_title

_SPACE = re.compile(r"\s")
_ROWS = 8192


def has_spaces(data: Mapping[str, Any]) -> bool:
    """Return True if an id of a document or a query has white space, which a TREC run file cannot contain."""
    return any(_SPACE.search(str(key)) for part in ("corpus", "queries") for key in data[part]["id"])


def quote(key: str) -> str:
    """Return an id with white space and `%` percent-encoded."""
    return _SPACE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), key.replace("%", "%25"))


def documents(rows: Any) -> Iterator[tuple[str, str]]:
    """Yield ids and texts of documents; title and text are joined by a space."""
    for row in _rows(rows, ("id", "title", "text")):
        yield str(row["id"]), join_title(row.get("title"), row["text"] or "")


def queries(rows: Any) -> Iterator[tuple[str, str]]:
    """Yield ids and texts of queries.

    An instruction follows a single text, and precedes the turns of a conversation.
    """
    for row in _rows(rows, ("id", "text", "instruction")):
        text, instruction = row["text"], row.get("instruction")
        if not isinstance(text, str):
            turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
            yield str(row["id"]), " ".join([*([instruction] if instruction else []), "; ".join(turns)])
        else:
            yield str(row["id"]), text if instruction is None else f"{text} {instruction}"


def _rows(rows: Any, names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Yield rows as dicts of those named columns that exist; they are read in batches."""
    columns = [name for name in names if name in rows.column_names]
    if "text" not in columns:
        raise ValueError(f"no column 'text' among {', '.join(rows.column_names)}")
    for batch in rows.select_columns(columns).iter(_ROWS):
        yield from (
            dict(zip(columns, values, strict=True)) for values in zip(*(batch[c] for c in columns), strict=True)
        )


def to_rows(texts: Texts) -> Any:
    """Return ids and texts as mteb's rows."""
    from datasets import Dataset as Rows

    return Rows.from_dict({"id": list(texts.ids), "text": list(texts.texts)})


def to_split(dataset: Dataset) -> dict[str, Any]:
    """Return a dataset as the data of one split of an mteb task."""
    return {
        "corpus": to_rows(dataset.corpus),
        "queries": to_rows(dataset.queries),
        "relevant_docs": {query: dict(dataset.qrels[query]) for query in dataset.queries if query in dataset.qrels},
        "top_ranked": None if dataset.candidates is None else {q: list(d) for q, d in dataset.candidates.items()},
    }
