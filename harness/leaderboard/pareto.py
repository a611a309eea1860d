"""The Pareto front of quality against queries/s as a picture, SVG or PNG; needs matplotlib (extra `plot`)."""

import hashlib
import io
import json
from itertools import pairwise
from math import hypot
from typing import Any

from harness.errors import ConfigError
from harness.leaderboard import Board, Row

_AXIS = "queries_per_s"


def render(board: Board, form: str) -> bytes:
    """`svg` or `png`; the same board gives the same bytes with the same matplotlib. Raises `ConfigError` without it."""
    figure = drawn(board)
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "harness", "svg.fonttype": "path"}):
        metadata = {"Description": digest(board), **({"Date": None} if form == "svg" else {"Software": None})}
        figure.savefig(out, format=form, dpi=200, metadata=metadata)
    return out.getvalue()


def drawn(board: Board) -> Any:
    """The matplotlib figure. Raises `ConfigError` without matplotlib, or when no row has a mean and a speed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("pictures need matplotlib: pip install 'retrieval-harness[plot]'") from None
    rows = [row for row in board.rows if row.mean is not None and row.queries_per_s]
    environments = sorted({row.environment or "" for row in rows})
    if not rows:
        raise ConfigError("no row has both a mean and queries/s; see the board: harness report")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, environment in enumerate(environments):
        _draw(axes, [row for row in rows if (row.environment or "") == environment], number, environment)
    axes.set_xscale("log")
    axes.set_xlabel("queries/s")
    axes.set_ylabel(f"{board.metric}, mean over {', '.join(board.common)}", wrap=True)
    axes.grid(True, alpha=0.25)
    axes.margins(x=0.18, y=0.12)
    if len(environments) > 1:
        axes.legend(title="environment")
    _label(figure, axes, rows)
    return figure


def digest(board: Board) -> str:
    """Hash of what a picture shows, written into it; 32 hex digits."""
    shown = [(row.label, row.mean, row.queries_per_s, row.environment, sorted(row.front)) for row in board.rows]
    return hashlib.blake2b(json.dumps([board.metric, board.common, shown]).encode(), digest_size=16).hexdigest()


def _draw(axes: Any, rows: list[Row], number: int, environment: str) -> None:
    """One environment's points, and the line through its front."""
    color, marker = f"C{number}", "osD^vP*X"[number % 8]
    x, y = [row.queries_per_s for row in rows], [row.mean for row in rows]
    axes.scatter(x, y, color=color, marker=marker, label=environment[:8] or "several", zorder=3)
    for front in _fronts(rows):
        line = [row.queries_per_s for row in front], [row.mean for row in front]
        axes.plot(*line, color=color, linewidth=1, linestyle="--")


def _label(figure: Any, axes: Any, rows: list[Row]) -> None:
    """Names beside their points, each at the nearest place where it covers no other name and no other point.

    One that finds none stands below the picture.
    """
    from matplotlib.transforms import Bbox

    figure.canvas.draw()
    dots = {row.label: axes.transData.transform((row.queries_per_s, row.mean)) for row in rows}
    boxes = {label: Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for label, (x, y) in dots.items()}
    names: list[Any] = [box for line in _fronts(rows) for box in _along([dots[row.label] for row in line])]
    left: list[str] = []
    for row in sorted(rows, key=lambda row: (-(row.mean or 0), row.label)):
        others = [*names, *(box for label, box in boxes.items() if label != row.label)]
        box = next((box for place in _PLACES if (box := _placed(axes, row, place, others)) is not None), None)
        if box is None:
            left.append(row.label.replace("$", r"\$"))
        else:
            names.append(box)
    if left:
        axes.set_title(f"without room for a name: {', '.join(left)}", fontsize=7, loc="left", wrap=True)


def _fronts(rows: list[Row]) -> list[list[Row]]:
    """The rows of each environment's front, from the slowest."""
    front = sorted((row for row in rows if _AXIS in row.front), key=lambda row: row.queries_per_s or 0)
    return [[row for row in front if row.environment == name] for name in {row.environment for row in front}]


def _along(corners: list[Any]) -> list[Any]:
    """Small boxes along a line, which names keep clear of."""
    from matplotlib.transforms import Bbox

    boxes = []
    for (x, y), (to_x, to_y) in pairwise(corners):
        count = max(1, int(hypot(to_x - x, to_y - y) / 6))
        at = [(x + (to_x - x) * n / count, y + (to_y - y) * n / count) for n in range(2, count - 1)]
        boxes += [Bbox.from_extents(own_x - 2, own_y - 2, own_x + 2, own_y + 2) for own_x, own_y in at]
    return boxes


_PLACES = [
    (right * (7 + distance), up * (6 + distance) - 3)
    for distance in range(0, 48, 6)
    for up in (0, 1, -1)
    for right in (1, -1)
]
"""Where a name may stand, in points from its point, the nearest first."""


def _placed(axes: Any, row: Row, place: tuple[int, int], others: list[Any]) -> Any | None:
    """The box of the name when it fits at a place, drawn with a line to its point from afar; None when it does not."""
    far = {"arrowstyle": "-", "linewidth": 0.8, "color": "0.5", "shrinkA": 0} if abs(place[0]) > 12 else None
    text = axes.annotate(
        row.label.replace("$", r"\$"),
        (row.queries_per_s, row.mean),
        place,
        textcoords="offset points",
        ha="left" if place[0] > 0 else "right",
        fontsize=8,
        fontweight="bold" if _AXIS in row.front else "normal",
        arrowprops=far,
    )
    frame = axes.get_window_extent()
    text.update_positions(axes.figure.canvas.get_renderer())
    box = _extent(text).padded(1)
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    if inside and not any(box.overlaps(other) for other in others):
        return box
    text.remove()
    return None


def _extent(text: Any) -> Any:
    """The box of the name alone, without its line."""
    from matplotlib.text import Text

    return Text.get_window_extent(text)
