"""Write tables for a terminal, in Markdown and in LaTeX; the same tables give the same bytes.

Every writer removes control characters and escapes its format's markup.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from harness.leaderboard.table import GAP, Mark, Marked, Table

Marks = Mapping[Mark, tuple[str, str]]
"""By mark, the template of a marked text and the mark's name in the legend."""

_TERMINAL: Marks = {"best": ("{}*", "*"), "tied": ("{}=", "="), "front": ("{}^", "^")}
_MARKDOWN: Marks = {**_TERMINAL, "best": ("**{}**", "Bold:")}
_LATEX: Marks = {
    "best": (r"\textbf{{{}}}", "Bold:"),
    "tied": (r"\underline{{{}}}", "underlined:"),
    "front": (r"{}\textasciicircum{{}}", "^"),
}
_LABEL_WIDTH = 40
"""Maximum width of the first column, in terminal columns, when a table of numbers is split."""

_CONTROLS = {
    **dict.fromkeys([*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]),
    **dict.fromkeys(map(ord, "\t\n\r"), " "),
}
# an underscore inside a word is not markup
_MARKDOWN_MARKUP = re.compile(r"[\\`*\[\]~$|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LATEX_ESCAPES = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def terminal(tables: Iterable[Table], width: int = 120, color: bool = False) -> str:
    """Write tables for a terminal; a table of numbers that is too wide is split, so that no number is broken.

    Args:
        tables: Written in this order, with an empty line between two tables.
        width: Number of terminal columns.
        color: Use terminal styles: titles, headings and the best of each column bold, notes dim.
    """
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, highlight=False)
    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(Text(printable(table.title), style="bold"))
        for grid_number, grid in enumerate(_grids(table, width) if table.headings else ()):
            if grid_number:
                console.print()
            console.print(grid)
        notes = _notes(table, _TERMINAL)
        if notes and table.headings:
            console.print()
        for note in notes:
            console.print(Text(printable(note), style="dim"))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def markdown(tables: Iterable[Table]) -> str:
    """Write tables in GitHub's Markdown."""
    return "\n".join(part for table in tables for part in _markdown_parts(table))


def latex(tables: Iterable[Table]) -> str:
    r"""Write `table` environments, which need \usepackage{booktabs}; title and notes become the caption."""
    return "\n".join(map(_latex_environment, tables))


def printable(text: str) -> str:
    """Remove control and Unicode direction characters; a line break becomes a space."""
    return text.translate(_CONTROLS)


def escape_markdown(text: str) -> str:
    """Return Markdown that shows a text unchanged, on one line."""
    escaped = _MARKDOWN_MARKUP.sub(r"\\\g<0>", printable(text))
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").split())


def escape_latex(text: str) -> str:
    """Return LaTeX that prints a text unchanged."""
    return printable(text).translate(_LATEX_ESCAPES)


def _format(text: str | Marked, marks: Marks, escape: Callable[[str], str]) -> str:
    if isinstance(text, str):
        return escape(text)
    note = f" ({escape(text.note)})" if text.note else ""
    return f"{marks[text.mark][0].format(escape(text.text))}{note}"


def _notes(table: Table, marks: Marks) -> list[str]:
    """Return the legend, with the marks of the output format, and the table's notes."""
    legend = "; ".join(f"{marks[mark][1]} {meaning}" for mark, meaning in table.legend.items())
    return [*([f"{legend}."] if legend else []), *table.notes]


def _grids(table: Table, width: int) -> Iterator[Grid]:
    rows = [[_format(text, _TERMINAL, printable) for text in row] for row in table.rows]
    for columns in _column_groups(table, rows, width):
        grid = Grid(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            heading, is_number = Text(printable(table.headings[column])), table.alignment[column] == "r"
            grid.add_column(heading, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
        for row, texts in zip(table.rows, rows, strict=True):
            grid.add_row(*(Text(texts[column], style=_style(row[column])) for column in columns))
        yield grid


def _style(text: str | Marked) -> str:
    return "bold" if isinstance(text, Marked) and text.mark == "best" else ""


def _column_groups(table: Table, rows: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yield the column numbers of each grid.

    If all columns but the first are numbers, a table that is too wide becomes several grids, each with the first
    column.
    """
    texts, columns = [table.headings, *rows], list(range(len(table.headings)))
    widths = [max(cell_len(row[column]) for row in texts) + 2 for column in columns]
    space = width - min(widths[0] - 2, _LABEL_WIDTH)
    group = columns[:1]
    for column in columns[1:]:
        if len(group) > 1 and "l" not in table.alignment[1:] and sum(widths[i] for i in [*group[1:], column]) > space:
            yield group
            group = columns[:1]
        group.append(column)
    yield group


def _markdown_parts(table: Table) -> Iterator[str]:
    if table.title:
        yield f"**{escape_markdown(table.title)}**\n"
    if table.headings:
        rule = ["---" if side == "l" else "---:" for side in table.alignment]
        rows = [[_format(text, _MARKDOWN, escape_markdown) for text in row] for row in table.rows]
        lines = [list(map(escape_markdown, table.headings)), rule, *rows]
        yield "".join(f"| {' | '.join(line)} |\n" for line in lines)
    for note in _notes(table, _MARKDOWN):
        yield f"{escape_markdown(note)}\n"


def _latex_environment(table: Table) -> str:
    rows = [["--" if text == GAP else _format(text, _LATEX, escape_latex) for text in row] for row in table.rows]
    title = [f"{table.title.rstrip('.')}."] if table.title else []
    caption = " ".join(map(escape_latex, [*title, *_notes(table, _LATEX)]))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{{table.alignment}}}",
        r"\toprule",
        rf"{' & '.join(map(escape_latex, table.headings))} \\",
        r"\midrule",
        *(rf"{' & '.join(row)} \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{caption}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
