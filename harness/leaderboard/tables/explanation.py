"""The tables of an explanation: each document, and why it stands at its rank."""

from collections.abc import Iterator
from typing import Any

from harness.leaderboard.table import GAP, Table
from harness.types import Explanation

_SHOWN = 20
_TEXT_LENGTH = 240


def tables(answer: Any) -> list[Table]:
    """Return the query, then for each document its rank, the beginning of its text, and the tables that explain it."""
    none = [] if answer.documents else ["no document matches the query"]
    found = [Table(f"{answer.retriever} on {answer.dataset}: {answer.query}", notes=none)]
    for document in answer.documents:
        rank = f"not among the first {answer.looked_at:,}" if document.rank is None else f"rank {document.rank}"
        score = "" if document.score is None else f", score {document.score:.4f}"
        text = " ".join(document.text[:_TEXT_LENGTH].split()) + ("..." if len(document.text) > _TEXT_LENGTH else "")
        found += [Table(f"{document.doc}: {rank}{score}", notes=[text]), *_reasons(document.why)]
    return found


def _reasons(why: Explanation, part: str = "") -> Iterator[Table]:
    """Yield an explanation's table and those of its parts, whose titles begin with the part's name."""
    rows = [[_text(value) for value in row] for row in why.rows[:_SHOWN]]
    yield Table(
        f"{part}: {why.said}" if part else why.said,
        why.columns if rows else (),
        rows,
        [f"and {len(why.rows) - _SHOWN} more; --json has all"] if len(why.rows) > _SHOWN else [],
        align="".join("l" if isinstance(value, str) else "r" for value in why.rows[0]) if rows else "",
    )
    for name, inner in why.parts.items():
        yield from _reasons(inner, f"{part}/{name}" if part else name)


def _text(value: object) -> str:
    if value is None:
        return GAP
    return f"{value:.4f}" if isinstance(value, float) else str(value)
