"""Plot the Pareto front of quality against queries/s as SVG or PNG; needs matplotlib (extra `plot`)."""

import hashlib
import io
import json
from itertools import pairwise
from math import hypot
from typing import Any

from harness.errors import ConfigError
from harness.leaderboard import Leaderboard, Row

_AXIS = "queries_per_s"


def render(leaderboard: Leaderboard, form: str) -> bytes:
    """Return the plot as a picture; the same leaderboard gives the same bytes with the same matplotlib.

    Args:
        leaderboard: The leaderboard.
        form: `svg` or `png`.

    Raises:
        ConfigError: matplotlib is missing, or no row has a mean and queries/s.
    """
    figure = draw_figure(leaderboard)
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "harness", "svg.fonttype": "path"}):
        metadata = {"Description": digest(leaderboard), **({"Date": None} if form == "svg" else {"Software": None})}
        figure.savefig(out, format=form, dpi=200, metadata=metadata)
    return out.getvalue()


def draw_figure(leaderboard: Leaderboard) -> Any:
    """Return the matplotlib figure. Raises `ConfigError` without matplotlib or where no row has mean and queries/s."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("pictures need matplotlib: pip install 'retrieval-harness[plot]'") from None
    rows = [row for row in leaderboard.rows if row.mean is not None and row.queries_per_s]
    environments = sorted({row.environment or "" for row in rows})
    if not rows:
        raise ConfigError("no row has both a mean and queries/s; see the leaderboard: harness report")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, environment in enumerate(environments):
        _draw_environment(axes, [row for row in rows if (row.environment or "") == environment], number, environment)
    axes.set_xscale("log")
    axes.set_xlabel("queries/s")
    axes.set_ylabel(f"{leaderboard.metric}, mean over {', '.join(leaderboard.common)}", wrap=True)
    axes.grid(True, alpha=0.25)
    axes.margins(x=0.18, y=0.12)
    if len(environments) > 1:
        axes.legend(title="environment")
    _label(figure, axes, rows)
    return figure


def digest(leaderboard: Leaderboard) -> str:
    """Return the hash of the plotted data, 32 hex digits; it is written into the picture's metadata."""
    shown = [(row.label, row.mean, row.queries_per_s, row.environment, sorted(row.front)) for row in leaderboard.rows]
    return hashlib.blake2b(
        json.dumps([leaderboard.metric, leaderboard.common, shown]).encode(), digest_size=16
    ).hexdigest()


def _draw_environment(axes: Any, rows: list[Row], number: int, environment: str) -> None:
    """Draw the points of one environment and the line through its front."""
    color, marker = f"C{number}", "osD^vP*X"[number % 8]
    x, y = [row.queries_per_s for row in rows], [row.mean for row in rows]
    axes.scatter(x, y, color=color, marker=marker, label=environment[:8] or "several", zorder=3)
    for front in _fronts(rows):
        line = [row.queries_per_s for row in front], [row.mean for row in front]
        axes.plot(*line, color=color, linewidth=1, linestyle="--")


def _label(figure: Any, axes: Any, rows: list[Row]) -> None:
    """Write each row's name at the position nearest to its point where it overlaps no other name and no other point.

    Names without such a position are listed in the title.
    """
    from matplotlib.transforms import Bbox

    figure.canvas.draw()
    dots = {row.label: axes.transData.transform((row.queries_per_s, row.mean)) for row in rows}
    boxes = {label: Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for label, (x, y) in dots.items()}
    occupied: list[Any] = [box for line in _fronts(rows) for box in _boxes_along([dots[row.label] for row in line])]
    unplaced: list[str] = []
    for row in sorted(rows, key=lambda row: (-(row.mean or 0), row.label)):
        obstacles = [*occupied, *(box for label, box in boxes.items() if label != row.label)]
        placed = (_place_name(axes, row, offset, obstacles) for offset in _OFFSETS)
        box = next((box for box in placed if box is not None), None)
        if box is None:
            unplaced.append(row.label.replace("$", r"\$"))
        else:
            occupied.append(box)
    if unplaced:
        axes.set_title(f"names that do not fit: {', '.join(unplaced)}", fontsize=7, loc="left", wrap=True)


def _fronts(rows: list[Row]) -> list[list[Row]]:
    """Return the rows of each environment's front, by increasing queries/s."""
    front = sorted((row for row in rows if _AXIS in row.front), key=lambda row: row.queries_per_s or 0)
    return [[row for row in front if row.environment == name] for name in {row.environment for row in front}]


def _boxes_along(corners: list[Any]) -> list[Any]:
    """Return small boxes along a line, so that names do not overlap it."""
    from matplotlib.transforms import Bbox

    boxes = []
    for (x, y), (to_x, to_y) in pairwise(corners):
        count = max(1, int(hypot(to_x - x, to_y - y) / 6))
        centers = [(x + (to_x - x) * n / count, y + (to_y - y) * n / count) for n in range(2, count - 1)]
        boxes += [Bbox.from_extents(cx - 2, cy - 2, cx + 2, cy + 2) for cx, cy in centers]
    return boxes


_OFFSETS = [
    (right * (7 + distance), up * (6 + distance) - 3)
    for distance in range(0, 48, 6)
    for up in (0, 1, -1)
    for right in (1, -1)
]
"""Positions of a name relative to its point, in typographic points, the nearest first."""


def _place_name(axes: Any, row: Row, offset: tuple[int, int], obstacles: list[Any]) -> Any | None:
    """Write a name, with a line to its point where it is far; return its box, or None where it does not fit."""
    is_far = abs(offset[0]) > 12
    text = axes.annotate(
        row.label.replace("$", r"\$"),
        (row.queries_per_s, row.mean),
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        fontsize=8,
        fontweight="bold" if _AXIS in row.front else "normal",
        arrowprops={"arrowstyle": "-", "linewidth": 0.8, "color": "0.5", "shrinkA": 0} if is_far else None,
    )
    frame = axes.get_window_extent()
    text.update_positions(axes.figure.canvas.get_renderer())
    box = _extent(text).padded(1)
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    if inside and not any(box.overlaps(obstacle) for obstacle in obstacles):
        return box
    text.remove()
    return None


def _extent(text: Any) -> Any:
    """Return the box of a name without its line."""
    from matplotlib.text import Text

    return Text.get_window_extent(text)
