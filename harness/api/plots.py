"""Plots of results, as matplotlib figures."""

import io
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.api.results import Results

_LOWER_IS_BETTER = ("latency", "index", "peak")


def pareto(results: "Results", x: str) -> "Figure":
    """Plot the metric's mean over the common datasets against a timing or size; a line joins the Pareto front.

    Args:
        results: The results; their `metric` is plotted.
        x: A numeric column of ``to_pandas()``.

    Raises:
        ConfigError: There is no such column, no row has both values, or matplotlib is missing.
    """
    frame = results.to_pandas()
    numeric = [name for name in frame.select_dtypes("number") if name not in results.metrics]
    if x not in numeric:
        raise ConfigError(f"x={x!r} is not a numeric column; choices: {', '.join(numeric)}")
    common = results.leaderboard.common
    means = frame[frame["dataset"].isin(common)].groupby("retriever", sort=False)[[x, results.metric]].mean().dropna()
    if means.empty:
        raise ConfigError(f"no row has both {results.metric} and {x}; evaluate with timing='default'")
    figure, axes = _figure()
    better = -1 if x.startswith(_LOWER_IS_BETTER) else 1
    front, best = [], float("-inf")
    for label in (better * means[x]).sort_values(ascending=False, kind="stable").index:
        if means.loc[label, results.metric] > best:
            best = means.loc[label, results.metric]
            front.append(label)
    axes.plot(means.loc[front, x], means.loc[front, results.metric], color="0.6", linewidth=1, zorder=1)
    axes.scatter(means[x], means[results.metric], zorder=2)
    for label, row in means.iterrows():
        axes.annotate(str(label), (row[x], row[results.metric]), xytext=(5, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(f"{results.metric}, mean over {', '.join(common)}")
    axes.margins(x=0.2, y=0.15)
    return figure


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
