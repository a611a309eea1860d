"""The leaderboard as one page that needs nothing else: no network, no server, and no script to be read.

`render(boards, scores, tables)`: the first board is the table that the page opens with; the script switches to others.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import stats
from harness.leaderboard import AXES, Board, Cell, Row
from harness.leaderboard.model import Scores
from harness.leaderboard.page.data import Layout, embedded
from harness.leaderboard.page.notes import detectable, notes, warnings
from harness.leaderboard.page.queries import kept, remembered, sliced
from harness.leaderboard.published import Beside
from harness.leaderboard.slices import Tables
from harness.leaderboard.table import HEADINGS, amount, score

_FOLDER = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_BYTES = 480_000
"""What a page takes where that can be had by keeping fewer queries."""
_SCRIPTS = ("page.js", "page_table.js", "page_plot.js", "page_detail.js")


@dataclass(frozen=True)
class Shown:
    """A figure in the table: what is seen, what its mark says, and what stands below it with a mark of its own."""

    text: str
    kind: str = ""
    mark: str = ""
    said: str = ""
    below: str = ""
    below_mark: str = ""
    below_said: str = ""


def render(
    boards: Mapping[str, Board], scores: Scores, tables: Tables, published: Sequence[Beside] | None = None
) -> str:
    """The page; the same boards and scores give the same bytes. `tables` gives queries and rankings or None.

    `published` are figures to be shown beside those of the first board.
    """
    layout, read = Layout(boards), remembered(tables)
    data = embedded(layout, scores) | {"slices": sliced(layout, scores, read), "details": {}}
    spare = _BYTES - len(_page(layout, data, published).encode())
    return _page(layout, data | {"details": kept(layout, scores, read, spare)}, published)


def render_table(board: Board) -> str:
    """Return a leaderboard as a table with its marks and legend, for a notebook. It holds no script."""
    layout = Layout({board.metric: board})
    return _TEMPLATES.get_template("notebook.html.jinja").render(
        board=board,
        headings=_headings(layout),
        rows=[(row.label, _texts(layout, row)) for row in layout.rows(board)],
        warnings=warnings(layout),
    )


def _page(layout: Layout, data: Mapping[str, Any], published: Sequence[Beside] | None) -> str:
    style, script = _file("page.css"), _script()
    metrics, differences = detectable(layout)
    return _TEMPLATES.get_template("page.html.jinja").render(
        board=layout.first,
        headings=_headings(layout),
        rows=[(row.label, _texts(layout, row)) for row in layout.rows(layout.first)],
        warnings=warnings(layout),
        notes=notes(layout),
        published=published,
        detectable={"metrics": metrics, "rows": differences},
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704  (our own files)
        script=Markup(script),  # noqa: S704
        data=Markup(_json(data)),  # noqa: S704  (escaped by _json)
    )


def _headings(layout: Layout) -> list[tuple[str, str, str]]:
    """Key, name and kind of each column behind the retrievers'."""
    means = [("@mean", "mean", "score")] if layout.means else []
    scores = [(name, name, "score") for name in layout.datasets]
    return [("@family", "family", "text"), *means, *scores, *((f"@{axis}", HEADINGS[axis], "cost") for axis in AXES)]


def _texts(layout: Layout, row: Row) -> list[Shown]:
    base = layout.first.baseline == row.label
    scores = [_score(row.cells.get(name), name in row.failed, base) for name in layout.datasets]
    mean = [_score(row.overall, False, base)] if layout.means else []
    family = Shown(layout.families[layout.places[row.label]], "text")
    return [family, *mean, *scores, *(_cost(row, axis) for axis in AXES)]


def _score(cell: Cell | None, failed: bool, base: bool) -> Shown:
    if cell is None:
        return Shown("failed", "failed") if failed else Shown("\N{EN DASH}", "gap", said="not measured")
    mark, said = ("*", "best") if cell.best else ("=", "not significantly below the best") if cell.close else ("", "")
    below = ("baseline", "", "") if base else _below(cell)
    return Shown(score(cell.value), "best" if cell.best else "", mark, said, *below)


def _below(cell: Cell) -> tuple[str, str, str]:
    """The difference to the baseline, its mark and what that says; or the interval."""
    if (versus := cell.versus) is None:
        return ("{:.3f}\N{EN DASH}{:.3f}".format(*cell.interval) if cell.interval else "", "", "")
    mark, told = "", "not significantly different"
    if versus.p < stats.ALPHA:
        mark, told = ("▲", "significantly above") if versus.delta > 0 else ("▼", "significantly below")
        told += " the baseline"
    return f"{versus.delta:+.4f}".replace("-", "\N{MINUS SIGN}"), mark, f"to the baseline, {told}"


def _cost(row: Row, axis: str) -> Shown:
    value = getattr(row, axis)
    if value is None:
        return Shown("\N{EN DASH}", "cost gap", said="not measured")
    front = axis in row.front
    return Shown(amount(value), "cost", "◆" if front else "", "on the Pareto front" if front else "")


def _script() -> str:
    """The script's files as one, apart from the page's other names."""
    return "\n(() => {\n" + "\n".join(_file(name) for name in _SCRIPTS) + "start();\n})();\n"


def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is fetched and only our own style and script are obeyed."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the element which it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
