"""The config folder, and the options in it."""

from pathlib import Path

import harness

_PACKAGE = Path(harness.__file__).resolve().parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The config folder: inside an installed package, beside the package in a checkout."""


def options_of(group: str) -> list[tuple[str, str]]:
    """Return the options of a group, those in sub-folders with their path, each with its file's first comment."""
    folder = CONF / group
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")}
    return [(name, _first_comment(path)) for name, path in sorted(paths.items())]


def _first_comment(path: Path) -> str:
    comments = (
        line.removeprefix("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")
    )
    return next((line.partition("   ")[0] for line in comments if not line.startswith("@package")), "")
