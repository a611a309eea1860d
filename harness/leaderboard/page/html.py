"""The leaderboard as one self-contained page: it needs no network and no server, and is readable without its script.

`render(leaderboards, scores, tables)`: the page opens with the table of the first leaderboard; the script switches to
the others.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import stats
from harness.leaderboard import AXES, EvaluationSummary, Leaderboard, Row
from harness.leaderboard.model import Scores
from harness.leaderboard.page.data import PageLayout, page_data
from harness.leaderboard.page.notes import detectable, notes, warnings
from harness.leaderboard.page.queries import cache_tables, select_queries, slices_data
from harness.leaderboard.published import PublishedRow
from harness.leaderboard.slices import Tables
from harness.leaderboard.table import HEADINGS, format_cost, format_score, format_share

_FOLDER = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_MAX_BYTES = 480_000
"""Size of the page above which it has fewer queries."""
_SCRIPTS = ("page.js", "page_table.js", "page_plot.js", "page_detail.js")


class Heading(NamedTuple):
    """A column's key, name and kind."""

    key: str
    name: str
    kind: str


class Below(NamedTuple):
    """A small text below a figure, its mark, and the mark's meaning for screen readers."""

    text: str = ""
    mark: str = ""
    meaning: str = ""


_NOTHING_BELOW = Below()


@dataclass(frozen=True)
class Figure:
    """A figure of the table: text, class of its element, mark, and the mark's meaning for screen readers."""

    text: str
    kind: str = ""
    mark: str = ""
    meaning: str = ""
    below: Below = _NOTHING_BELOW
    share: str = ""
    """For the best of a column, the share of resamples in which it is the best."""


def render(
    leaderboards: Mapping[str, Leaderboard],
    scores: Scores,
    tables: Tables,
    published: Sequence[PublishedRow] | None = None,
) -> str:
    """Return the page; the same leaderboards and scores give the same bytes.

    Args:
        leaderboards: Leaderboards by metric.
        scores: Per-query scores by the path that a record names.
        tables: Function that reads a record's queries or rankings, or returns None.
        published: Published scores to show next to those of the first leaderboard.
    """
    layout, read = PageLayout(leaderboards), cache_tables(tables)
    data = page_data(layout) | {"slices": slices_data(layout, scores, read), "details": {}}
    spare = _MAX_BYTES - len(_page(layout, data, published).encode())
    return _page(layout, data | {"details": select_queries(layout, scores, read, spare)}, published)


def render_table(leaderboard: Leaderboard) -> str:
    """Return a leaderboard as a table with its marks and legend, without a script, for a notebook."""
    layout = PageLayout({leaderboard.metric: leaderboard})
    return _TEMPLATES.get_template("notebook.html.jinja").render(
        leaderboard=leaderboard,
        headings=_headings(layout),
        rows=[(row.label, _figures(layout, row)) for row in layout.rows(leaderboard)],
        warnings=warnings(layout),
    )


def _page(layout: PageLayout, data: Mapping[str, Any], published: Sequence[PublishedRow] | None) -> str:
    style, script = _read("page.css"), _script()
    metrics, effects = detectable(layout)
    return _TEMPLATES.get_template("page.html.jinja").render(
        leaderboard=layout.first,
        headings=_headings(layout),
        rows=[(row.label, _figures(layout, row)) for row in layout.rows(layout.first)],
        warnings=warnings(layout),
        notes=notes(layout),
        published=published,
        detectable={"metrics": metrics, "rows": effects},
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704  (our own files)
        script=Markup(script),  # noqa: S704
        data=Markup(_json(data)),  # noqa: S704  (escaped by _json)
    )


def _headings(layout: PageLayout) -> list[Heading]:
    """Return the headings of the columns after the retrievers'."""
    means = [Heading("@mean", "mean", "score")] if layout.has_means else []
    scores = [Heading(name, name, "score") for name in layout.datasets]
    costs = [Heading(f"@{axis}", HEADINGS[axis], "cost") for axis in AXES]
    return [Heading("@family", "family", "text"), *means, *scores, *costs]


def _figures(layout: PageLayout, row: Row) -> list[Figure]:
    is_baseline = layout.first.baseline == row.label
    scores = [_score(row.evaluations.get(name), name in row.failed, is_baseline) for name in layout.datasets]
    mean = [_score(row.overall, False, is_baseline)] if layout.has_means else []
    family = Figure(layout.families[layout.row_index[row.label]], "text")
    return [family, *mean, *scores, *(_cost(row, axis) for axis in AXES)]


def _score(evaluation: EvaluationSummary | None, failed: bool, is_baseline: bool) -> Figure:
    if evaluation is None:
        return Figure("failed", "failed") if failed else Figure("\N{EN DASH}", "gap", meaning="not measured")
    mark, meaning = "", ""
    if evaluation.best:
        mark, meaning = "*", "best"
    elif evaluation.tied_with_best:
        mark, meaning = "=", "tied with the best"
    below = Below("baseline") if is_baseline else _below(evaluation)
    share = format_share(evaluation.best_share) if evaluation.best else ""
    return Figure(format_score(evaluation.value), "best" if evaluation.best else "", mark, meaning, below, share)


def _below(evaluation: EvaluationSummary) -> Below:
    """Return the difference to the baseline, or the confidence interval where there is no baseline."""
    if (versus := evaluation.versus) is None:
        return Below("{:.3f}\N{EN DASH}{:.3f}".format(*evaluation.interval) if evaluation.interval else "")
    mark, meaning = "", "not significantly different"
    if versus.p < stats.ALPHA:
        mark, meaning = ("▲", "significantly above") if versus.delta > 0 else ("▼", "significantly below")
        meaning += " the baseline"
    text = f"{versus.delta:+.4f}".replace("-", "\N{MINUS SIGN}")
    return Below(text, mark, f"difference to the baseline, {meaning}")


def _cost(row: Row, axis: str) -> Figure:
    value = getattr(row, axis)
    if value is None:
        return Figure("\N{EN DASH}", "cost gap", meaning="not measured")
    meanings = ["on the Pareto front"] if axis in row.front else []
    meanings += ["measured on a busy machine"] if axis in row.busy else []
    return Figure(format_cost(row, axis), "cost", "◆" if axis in row.front else "", ", ".join(meanings))


def _script() -> str:
    """Return the script's files as one function, so that they define no global names."""
    return "\n(() => {\n" + "\n".join(_read(name) for name in _SCRIPTS) + "start();\n})();\n"


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return a content security policy that allows no requests and only our own style and script."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the element that contains it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
