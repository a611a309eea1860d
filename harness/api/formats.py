"""Format results as text, files and notebook tables."""

import shutil
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.files import write_atomic

if TYPE_CHECKING:
    from harness.api.results import Results

_FORMATS = {"csv": ".csv", "md": ".md", "latex": ".tex", "html": ".html"}


def terminal(results: "Results") -> str:
    """Return the leaderboard as terminal text without colours."""
    from harness.leaderboard import writers
    from harness.leaderboard.tables.leaderboard import tables

    width = shutil.get_terminal_size((120, 24)).columns
    return writers.terminal(tables(results.leaderboard), width).rstrip("\n")


def save(results: "Results", path: str | PathLike[str], folder: Path) -> Path:
    """Write the leaderboard to a file and return the file's path.

    Args:
        results: The results.
        path: A file that ends in .csv, .md, .tex or .html; or ``csv``, ``md``, ``latex`` or ``html`` for a file in
            `folder`.
        folder: Folder of ``leaderboard.<suffix>`` if `path` names only a format.

    Raises:
        ConfigError: The format is unknown.
    """
    target = folder / f"leaderboard{_FORMATS[str(path)]}" if str(path) in _FORMATS else Path(path).expanduser()
    if target.suffix not in _FORMATS.values():
        raise ConfigError(
            f"{str(path)!r} is not a known format; give a file that ends in {', '.join(_FORMATS.values())}, or one of "
            f"{', '.join(_FORMATS)}"
        )
    write_atomic(target, _render(results, target.suffix).encode())
    return target


def _render(results: "Results", suffix: str) -> str:
    from harness.leaderboard import frame, writers
    from harness.leaderboard.page import html as page
    from harness.leaderboard.tables.leaderboard import tables

    if suffix in (".md", ".tex"):
        write = writers.markdown if suffix == ".md" else writers.latex
        return write(tables(results.leaderboard))
    leaderboards = results.leaderboards()
    return (
        frame.to_csv(frame.to_frame(leaderboards))
        if suffix == ".csv"
        else page.render(leaderboards, results.scores, results.table)
    )


def html(results: "Results") -> str:
    """Return the leaderboard as an HTML table with its marks and legend, for a notebook."""
    from harness.leaderboard.page import html as page

    return page.render_table(results.leaderboard)
