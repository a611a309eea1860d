"""Plots of results, as matplotlib figures."""

import io
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.leaderboard import AXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from harness.api.results import Results
    from harness.leaderboard import Row

_AXES = {"latency_p95_ms" if axis == "latency_ms" else axis: axis for axis in AXES}
"""Costs of the leaderboard, by the name of their column in ``to_pandas()``."""


def pareto(results: "Results", x: str) -> "Figure":
    """Plot the leaderboard's means against a cost.

    A line joins the rows on the leaderboard's Pareto front, one for each environment and number of threads.

    Args:
        results: The results; their `metric` is plotted.
        x: A cost: ``"queries_per_s"``, ``"docs_per_s"``, ``"latency_p95_ms"`` or ``"index_mb"``.

    Raises:
        ConfigError: There is no such cost, no row has both values, or matplotlib is missing.
    """
    if x not in _AXES:
        raise ConfigError(f"x={x!r} is not a cost; choices: {', '.join(_AXES)}")
    leaderboard, axis = results.leaderboard, _AXES[x]
    rows = [row for row in leaderboard.rows if row.mean is not None and getattr(row, axis) is not None]
    if not rows:
        raise ConfigError(f"no row has both {leaderboard.metric} and {x}; evaluate with timing='default'")
    figure, axes = _figure()
    settings = list(dict.fromkeys((row.environment, row.threads) for row in rows))
    for number, setting in enumerate(settings):
        selected = [row for row in rows if (row.environment, row.threads) == setting]
        _draw_setting(axes, selected, axis, f"C{number}")
    axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(f"{leaderboard.metric}, mean over {', '.join(leaderboard.common)}")
    axes.margins(x=0.2, y=0.15)
    if len(settings) > 1:
        axes.legend(title="environment, threads")
    return figure


def _draw_setting(axes: Any, rows: "Sequence[Row]", axis: str, color: str) -> None:
    """Draw rows of one environment and number of threads, and a line through their Pareto front."""
    front = sorted((row for row in rows if axis in row.front), key=lambda row: float(getattr(row, axis)))
    if front:
        axes.plot(*_points(front, axis), color=color, linewidth=1, alpha=0.6, zorder=1)
    environment, threads = rows[0].environment or "several", rows[0].threads or "several"
    axes.scatter(*_points(rows, axis), color=color, zorder=2, label=f"{environment[:8]}, {threads}")
    for row in rows:
        axes.annotate(row.label, (getattr(row, axis), row.mean), xytext=(5, 4), textcoords="offset points")


def _points(rows: "Sequence[Row]", axis: str) -> tuple[list[float], list[float | None]]:
    """Return the costs and the means of rows."""
    return [getattr(row, axis) for row in rows], [row.mean for row in rows]


def differences(results: "Results", a: str, b: str, metric: str) -> "Figure":
    """Plot the per-query differences b - a, sorted, with their mean.

    Args:
        results: The results.
        a: The row to compare with.
        b: The other row.
        metric: The metric.

    Raises:
        ConfigError: The rows share no query with this metric, or matplotlib is missing.
    """
    values = results.paired(a, b, metric)["difference"].sort_values(ascending=False).to_numpy()
    if not len(values):
        raise ConfigError(f"{a!r} and {b!r} share no query with {metric}")
    figure, axes = _figure()
    axes.bar(range(len(values)), values, width=1.0, color=["C0" if value >= 0 else "C3" for value in values])
    mean = float(values.mean())
    axes.axhline(mean, color="0.3", linestyle="--", linewidth=1, label=f"mean {mean:+.4f}")
    axes.set_xlabel(f"queries, {int((values > 0).sum())} better, {int((values < 0).sum())} worse")
    axes.set_ylabel(f"{metric}: {b} - {a}")
    axes.legend()
    return figure


def _figure() -> "tuple[Figure, Any]":
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'retrieval-harness[plot]'") from None

    class NotebookFigure(Figure):
        """A figure that notebooks display without a matplotlib backend."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=100)
            return buffer.getvalue()

    figure = NotebookFigure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(True, alpha=0.25)
    return figure, axes
