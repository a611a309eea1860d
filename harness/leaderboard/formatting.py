"""Numbers as text; rounding happens only here."""

from harness.leaderboard.model import Difference
from harness.leaderboard.table import GAP

HEADINGS = {"queries_per_s": "queries/s", "docs_per_s": "docs/s", "latency_ms": "p95 ms", "index_mb": "index MB"}


def score(value: float) -> str:
    """Format a metric's mean with four digits."""
    return f"{value:.4f}"


def amount(value: float | None) -> str:
    """Format a speed or a size with three significant digits; None is a gap."""
    if value is None:
        return GAP
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tested(difference: Difference | None) -> list[str]:
    """Return the cells of a difference: the mean, its interval, the adjusted p-value, queries won/tied/lost."""
    if difference is None:
        return [GAP] * 4
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    p = "p<0.0001" if difference.p < 0.00005 else f"p={difference.p:.4f}"
    return [f"{difference.delta:+.4f}", interval, p, f"{difference.won}/{difference.tied}/{difference.lost}"]
