"""A Comparison in its forms: terminal, markdown, and what JSON holds."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.leaderboard import Difference
from harness.leaderboard.compare import Changed, Comparison
from harness.leaderboard.slices import Slice
from harness.leaderboard.tables import figures, markdown, terminal
from harness.leaderboard.tables.json import plain

_SHOWN = 5
_TEXT = 90
_ID = 20
_CONFIG = "config"
_HEADINGS = ("A", "B", "B - A", "95 %", "p (Holm)", "won/tied/lost", "d", "can tell")


def render_terminal(found: Comparison, width: int = 120, color: bool = False) -> str:
    """Per dataset and over all, then the queries that changed most, the slices and the config's differences."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False)
    console.print(Text(f"A {found.a}   B {found.b}   {found.board.metric}", style="bold"))
    console.print(terminal.table(["", *_HEADINGS], _rows(found)))
    for note in _notes(found):
        console.print(note, style="dim", markup=False)
    if found.changed:
        console.print(Text("\nqueries that changed most", style="bold"))
    for one in found.changed:
        console.print(Text(_title(one)))
        for name, ranked in (("A", one.a_ranked), ("B", one.b_ranked)):
            console.print(Text(f"    {name}: {_ranking(ranked)}", style="dim"), soft_wrap=True)
    for title, headings, rows in _sections(found):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(terminal.table(headings, rows, texts=title == _CONFIG))
    return terminal.plain(out.getvalue())


def render_markdown(found: Comparison) -> str:
    """The same as markdown; the same comparison gives the same bytes."""
    said = [f"A: {markdown.escaped(found.a)}, B: {markdown.escaped(found.b)}, {found.board.metric}\n"]
    said.append(markdown.table(["dataset", *_HEADINGS], _rows(found)))
    said += [f"{markdown.escaped(note)}\n" for note in _notes(found)]
    for title, headings, rows in _sections(found):
        said += [f"**{markdown.escaped(title)}**\n", markdown.table(headings, rows)]
    if found.changed:
        rows = [
            [one.dataset, one.query_id, one.text or "", f"{one.a:.4f}", f"{one.b:.4f}", *_both(one)]
            for one in found.changed
        ]
        headings = ["dataset", "query", "text", "A", "B", "A ranked", "B ranked"]
        said += ["**queries that changed most**\n", markdown.table(headings, rows)]
    return "\n".join(said)


def as_plain(found: Comparison) -> dict[str, Any]:
    """Lists, dicts, strings and numbers, not rounded."""
    return {
        "a": found.a,
        "b": found.b,
        "board": plain(found.board),
        "differences": {
            name: None if (one := found.difference(name)) is None else asdict(one) for name in found.board.common
        },
        "overall": None if found.overall is None else asdict(found.overall),
        "changed": [asdict(one) for one in found.changed],
        "slices": [asdict(one) for one in found.slices],
        "config": found.config,
        "unpaired": found.unpaired,
    }


def _rows(found: Comparison) -> list[list[str]]:
    rows = {row.label: row for row in found.board.rows}
    told = []
    for name in figures.shown(found.board):
        a, b = (figures.at(rows[label], name) for label in (found.a, found.b))
        one = found.overall if name is None else found.difference(name)
        if a is None or b is None:
            continue
        can = None if name is None else found.board.detectable.get(name)
        told.append(
            [
                "mean" if name is None else name,
                f"{a.value:.4f}",
                f"{b.value:.4f}",
                *_told(one),
                "-" if can is None else f"{can:.3f}",
            ]
        )
    return told


def _told(one: Difference | None) -> list[str]:
    if one is None:
        return ["-"] * 5
    return [
        f"{one.delta:+.4f}",
        f"{one.low:+.4f} to {one.high:+.4f}",
        figures.p_value(one.p),
        f"{one.won}/{one.tied}/{one.lost}",
        "-" if one.effect is None else f"{one.effect:+.2f}",
    ]


def _notes(found: Comparison) -> list[str]:
    said = [
        "Won: queries where B scores higher. Can tell: the smallest true difference that one test alone finds in "
        "80 % of repeats, before Holm's correction.",
    ]
    if found.unpaired:
        said.append(f"Not tested, per-query scores are missing or of other queries: {', '.join(found.unpaired)}.")
    return said


def _sections(found: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    sections = [
        (f"{one.dataset} by {one.by}", ["", "queries", "A", "B", "B - A"], _bins(found, one)) for one in found.slices
    ]
    if found.config:
        rows = [[key, a, b] for key, (a, b) in found.config.items()]
        sections.append((_CONFIG, ["", "A", "B"], rows))
    return sections


def _bins(found: Comparison, one: Slice) -> list[list[str]]:
    return [
        [
            own.name,
            str(own.queries),
            *(f"{own.means[label]:.4f}" for label in (found.a, found.b)),
            f"{own.means[found.b] - own.means[found.a]:+.4f}",
        ]
        for own in one.bins
    ]


def _title(one: Changed) -> str:
    text = "" if one.text is None else f": {one.text if len(one.text) <= _TEXT else one.text[: _TEXT - 1] + '…'}"
    return f"{one.b - one.a:+.4f}  {one.a:.4f} -> {one.b:.4f}  {one.dataset} {one.query_id}{text}"


def _both(one: Changed) -> list[str]:
    return [_ranking(one.a_ranked), _ranking(one.b_ranked)]


def _ranking(ranked: Sequence[tuple[str, int | None]] | None) -> str:
    """The first documents, each with its grade in brackets, `?` where it is not judged."""
    if ranked is None:
        return "the ranking is not kept"
    shown = [
        f"{doc if len(doc) <= _ID else doc[: _ID - 1] + '…'} ({'?' if grade is None else grade})"
        for doc, grade in ranked[:_SHOWN]
    ]
    return " ".join(shown) if shown else "nothing"
