"""A table as pure data; writers.py prints it in a terminal, in Markdown or in LaTeX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Mark = Literal["best", "tied", "front"]
"""Best of its column, not significantly below the best, on the Pareto front of quality and its column's cost."""

GAP = "-"
"""The text of a cell without a value."""


class Marked(NamedTuple):
    """A cell's text and its mark, which each writer shows in its own way."""

    text: str
    mark: Mark


@dataclass(frozen=True)
class Table:
    """Texts that are not escaped yet: a title, headings, rows of cells, and notes below them.

    A table without headings is only a title with notes.
    """

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str | Marked]] = ()
    notes: Sequence[str] = ()
    legend: Mapping[Mark, str] = field(default_factory=dict)
    """The meanings of the marks in this table."""
    align: str = ""
    """`l` or `r` for each column; by default the first is left-aligned and the others, numbers, right-aligned."""

    @property
    def alignment(self) -> str:
        """`l` or `r` for each column."""
        return self.align or f"l{'r' * (len(self.headings) - 1)}"[: len(self.headings)]
