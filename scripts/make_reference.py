"""Generate pages of the documentation: command line, configs, record, Python API, and the demo leaderboard's page.

mkdocs runs this file while it builds (`make docs`), so that the pages cannot differ from the code.

    python scripts/make_reference.py FOLDER     # write the pages as markdown files
"""

import argparse
import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "scripts"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

CONF = ROOT / "conf"
RECORD_SOURCES = ("harness/types/record.py", "harness/types/phases.py")
PYTHON_SECTIONS = {
    "Evaluate": ("evaluate", "Results", "open_results", "compare", "score", "TimingPlan", "EvaluationCallback"),
    "Data": ("load_dataset", "Dataset", "Corpus", "Queries", "Qrels", "Run"),
    "Retrievers": ("load_retriever", "Retriever", "BM25", "Dense", "Splade", "ColBERT", "Hybrid", "Rerank"),
}


def pages() -> dict[str, str]:
    """Return the markdown of each page by its path below docs/."""
    return {
        "reference/cli.md": command_line(),
        "reference/configs.md": configs(),
        "reference/record.md": record(),
        "reference/python.md": python_api(),
    }


def command_line() -> str:
    """Return the help of every command, 100 columns wide."""
    with mock.patch.dict(os.environ, {"COLUMNS": "100"}):  # the width that argparse reads
        return _command_line()


def _command_line() -> str:
    from harness.cli.read import parser

    top = parser()
    lines = [
        "# Command line",
        "",
        "Results go to stdout, progress and warnings to stderr. Exit codes: 0 success, 1 a regression or a failed "
        "evaluation, 2 an unknown name, key or value, 3 not enough data to decide.",
        "",
        "`harness run`, `train` and `synthesize` take Hydra's overrides; [Configs](configs.md) lists their keys.",
        "",
        *_fenced(top.format_help(), "text"),
    ]
    for name, command in _subcommands(top):
        lines += [f"## harness {name}", "", *_fenced(command.format_help(), "text")]
    return "\n".join(lines)


def configs() -> str:
    """Return every config file, by group."""
    lines = [
        "# Configs",
        "",
        "The files of `conf/`. A key is set as `key=value` after the command; an option of a group as `group=option`.",
        "",
    ]
    for group, files in _config_groups().items():
        lines += [f"## {group or 'commands'}", ""]
        for path in files:
            name = path.relative_to(CONF / group if group else CONF).with_suffix("").as_posix()
            lines += [f"### {name}", "", *_fenced(path.read_text(encoding="utf-8"), "yaml")]
    return "\n".join(lines)


def record() -> str:
    """Return a table of the fields of each class of a record, with the docstrings below the fields."""
    lines = [
        "# Record",
        "",
        "One evaluation is stored as one JSON file, `results/records/<dataset>/<retriever>/<time>-<id>.json`. "
        "Files of older versions are read as the newest version. A computed field is written too, and ignored when "
        "it is read.",
        "",
    ]
    nodes = [node for source in RECORD_SOURCES for node in ast.parse((ROOT / source).read_text(encoding="utf-8")).body]
    for node in sorted(nodes, key=lambda node: getattr(node, "name", "") != "Record"):  # the record itself first
        if isinstance(node, ast.ClassDef) and (rows := list(_fields(node))):
            lines += [f"## {node.name}", "", ast.get_docstring(node) or "", ""]
            lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
            lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
            lines.append("")
    return "\n".join(lines)


def python_api() -> str:
    """Return the directives by which mkdocstrings documents the public names of the package."""
    import harness

    lines = ["# Python API", "", "Everything here is imported from `harness`; `import harness` loads no model.", ""]
    for section, names in PYTHON_SECTIONS.items():
        lines += [f"## {section}", ""]
        for name in names:
            lines += [f"::: {harness._HOMES[name]}.{name}", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Write the pages below a folder."""
    parser = argparse.ArgumentParser(description="Write the generated reference pages.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    for path, text in pages().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _build() -> None:
    """Add the pages to the site that mkdocs is building."""
    import make_screenshot
    import mkdocs_gen_files

    for path, text in pages().items():
        with mkdocs_gen_files.open(path, "w") as file:
            file.write(text)
    with mkdocs_gen_files.open("leaderboard.html", "w") as file:
        file.write(make_screenshot.render_page())


def _fenced(text: str, language: str) -> list[str]:
    return [f"```{language}", text.rstrip("\n"), "```", ""]


def _subcommands(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield f"{prefix}{name}", command
                yield from _subcommands(command, f"{prefix}{name} ")


def _config_groups() -> dict[str, list[Path]]:
    """Return the config files by group, the files of the commands first."""
    groups: dict[str, list[Path]] = {"": []}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.relative_to(CONF).parts[0] if path.parent != CONF else ""
        groups.setdefault(group, []).append(path)
    return groups


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and docstring of the public fields and computed fields of a class."""
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name, annotation = statement.target.id, ast.unparse(statement.annotation)
            default = f"`{ast.unparse(statement.value)}`" if statement.value else "required"
            if not name.startswith("_"):
                yield f"`{name}`", f"`{annotation}`", default, _text(after)
        elif isinstance(statement, ast.FunctionDef) and "computed_field" in map(ast.unparse, statement.decorator_list):
            annotation = ast.unparse(statement.returns) if statement.returns else ""
            text = (ast.get_docstring(statement) or "").split("\n\n")[0]
            yield f"`{statement.name}`", f"`{annotation}`", "computed", " ".join(text.split())


def _escaped(text: str) -> str:
    """Return a table cell with its pipes escaped, except in code, where markdown takes them as they are."""
    return "`".join(part if in_code % 2 else part.replace("|", "\\|") for in_code, part in enumerate(text.split("`")))


def _text(statement: ast.stmt | None) -> str:
    """Return the docstring below a field."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


if __name__ == "__main__":
    main()
elif __name__ == "<run_path>":  # as mkdocs runs it
    _build()
