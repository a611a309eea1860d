"""Explanation: why a document has the score that a retriever gives it for a query."""

from dataclasses import dataclass, field

Cell = str | int | float | None


@dataclass(frozen=True)
class Explanation:
    """A sentence, a small table, and those of the parts for a retriever that is made of others."""

    said: str
    columns: tuple[str, ...] = ()
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    parts: dict[str, "Explanation"] = field(default_factory=dict)
