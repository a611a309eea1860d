"""An explanation on the terminal."""

import io
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.types import Explanation

_SHOWN = 20
_TEXT = 240


def render(answer: Any, width: int = 120, color: bool = False) -> str:
    """Each document with its place, the beginning of its text, and why it stands there."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False)
    console.print(Text(f"{answer.retriever} on {answer.dataset}: {answer.query}", style="bold"))
    if not answer.documents:
        console.print("no document matches the query")
    for one in answer.documents:
        place = f"not among the first {answer.looked_at:,}" if one.rank is None else f"rank {one.rank}"
        score = "" if one.score is None else f", score {one.score:.4f}"
        console.print()
        console.print(Text(f"{one.doc}: {place}{score}", style="bold"))
        console.print(Text(" ".join(one.text[:_TEXT].split()) + ("..." if len(one.text) > _TEXT else ""), style="dim"))
        _why(console, one.why, 0)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _why(console: Console, why: Explanation, depth: int) -> None:
    console.print(Padding(Text(why.said), (0, 0, 0, 2 * depth)))
    if why.rows:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for place, column in enumerate(why.columns):
            table.add_column(
                column, justify="left" if isinstance(why.rows[0][place], str) else "right", overflow="fold"
            )
        for row in why.rows[:_SHOWN]:
            table.add_row(*(Text(_cell(value)) for value in row))
        console.print(Padding(table, (0, 0, 0, 2 * depth + 2)))
        if len(why.rows) > _SHOWN:
            console.print(Padding(Text(f"and {len(why.rows) - _SHOWN} more; --json has all"), (0, 0, 0, 2 * depth + 2)))
    for name, inner in why.parts.items():
        console.print(Padding(Text(f"{name}:", style="bold"), (0, 0, 0, 2 * depth + 2)))
        _why(console, inner, depth + 2)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
