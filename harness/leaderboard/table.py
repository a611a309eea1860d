"""A table as pure data, and the formatting of its numbers, which are rounded only here.

writers.py writes tables for a terminal, in Markdown and in LaTeX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from harness.leaderboard.model import Difference, Row

Mark = Literal["best", "tied", "front"]
"""Best of its column; tied with the best; on the Pareto front of quality and its column's cost."""

GAP = "-"
"""Text in place of a missing value."""

HEADINGS = {"queries_per_s": "queries/s", "docs_per_s": "docs/s", "latency_ms": "p95 ms", "index_mb": "index MB"}
"""Headings of the cost columns, by axis."""


class Marked(NamedTuple):
    """A text with a mark, which each writer formats differently."""

    text: str
    mark: Mark
    note: str = ""
    """Text behind the marked one."""


@dataclass(frozen=True)
class Table:
    """A title, headings, rows and notes as unescaped texts.

    A table without headings is only a title with notes.
    """

    title: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str | Marked]] = ()
    notes: Sequence[str] = ()
    legend: Mapping[Mark, str] = field(default_factory=dict)
    """Meanings of the marks in this table."""
    align: str = ""
    """`l` or `r` for each column; by default the first is left-aligned and the others, numbers, right-aligned."""

    @property
    def alignment(self) -> str:
        """`l` or `r` for each column."""
        return self.align or f"l{'r' * (len(self.headings) - 1)}"[: len(self.headings)]


def format_score(value: float) -> str:
    """Format a metric's mean with four digits."""
    return f"{value:.4f}"


def format_share(share: float | None) -> str:
    """Format a share as a whole percentage; None is an empty text."""
    return "" if share is None else f"{100 * share:.0f} %"


def format_amount(value: float | None) -> str:
    """Format a speed or a size with three significant digits; None is a gap."""
    if value is None:
        return GAP
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_cost(row: Row, axis: str) -> str:
    """Format the cost `axis` of a `row`, after `~` if it was measured while the machine was busy."""
    return f"{'~' if axis in row.busy else ''}{format_amount(getattr(row, axis))}"


def format_difference(difference: Difference | None) -> list[str]:
    """Return four texts: the mean, its simultaneous interval, the adjusted p-value, queries won/tied/lost."""
    if difference is None:
        return [GAP] * 4
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    p = "p<0.0001" if difference.p < 0.00005 else f"p={difference.p:.4f}"
    return [f"{difference.delta:+.4f}", interval, p, f"{difference.won}/{difference.tied}/{difference.lost}"]
