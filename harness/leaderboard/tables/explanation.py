"""Tables of an explanation: each document with the reasons for its rank."""

from collections.abc import Iterator
from typing import Any

from harness.leaderboard.table import GAP, Table
from harness.types import Explanation

_MAX_ROWS = 20
_TEXT_LENGTH = 240


def tables(answer: Any) -> list[Table]:
    """Return a table of the query and, for each document, of its rank, the beginning of its text, and the reasons."""
    notes = [] if answer.documents else ["no document matches the query"]
    result = [Table(f"{answer.retriever} on {answer.dataset}: {answer.query}", notes=notes)]
    for document in answer.documents:
        rank = f"not among the first {answer.looked_at:,}" if document.rank is None else f"rank {document.rank}"
        score = "" if document.score is None else f", score {document.score:.4f}"
        text = " ".join(document.text[:_TEXT_LENGTH].split()) + ("..." if len(document.text) > _TEXT_LENGTH else "")
        result += [Table(f"{document.doc}: {rank}{score}", notes=[text]), *_reasons(document.why)]
    return result


def _reasons(explanation: Explanation, part: str = "") -> Iterator[Table]:
    """Yield an explanation's table and those of its parts, whose titles begin with the part's name."""
    rows = [[_text(value) for value in row] for row in explanation.rows[:_MAX_ROWS]]
    yield Table(
        f"{part}: {explanation.summary}" if part else explanation.summary,
        explanation.columns if rows else (),
        rows,
        [f"and {len(explanation.rows) - _MAX_ROWS} more; --json has all"] if len(explanation.rows) > _MAX_ROWS else [],
        align="".join("l" if isinstance(value, str) else "r" for value in explanation.rows[0]) if rows else "",
    )
    for name, inner in explanation.parts.items():
        yield from _reasons(inner, f"{part}/{name}" if part else name)


def _text(value: object) -> str:
    if value is None:
        return GAP
    return f"{value:.4f}" if isinstance(value, float) else str(value)
