"""The embedded collection, made from the running Python's own standard library: nothing to download.

A document is a documented function, method or class: its qualified name, its signature, and what its docstring says
after the first line, or its source without the docstring. That first line is a query, answered by the definition it
came from; equal first lines are one query with several relevant documents.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.types import Corpus, Dataset, Qrels, Queries

# Tests, vendored packages, and what distributors leave out or put elsewhere.
_LEFT_OUT = {
    "__phello__",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "sitecustomize.py",
    "test",
    "tests",
    "tkinter",
    "turtle.py",
    "turtledemo",
}
_LONGEST_SOURCE = 1000  # characters
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class _Documented:
    name: str
    summary: str
    text: str


def load(documents: int = 1600, queries: int = 500, seed: int = 0, instruction: str | None = None) -> Dataset:
    """A seeded sample of the library's definitions and of their first lines, the same for one Python version."""
    if documents < 1 or queries < 1:
        raise ConfigError(f"dataset.documents={documents} and dataset.queries={queries} must be at least 1")
    path = Path(sysconfig.get_path("stdlib"))
    found = {one.name: one for one in _definitions(path)}
    if not found:
        raise DataError(f"{path}: this Python has no sources of its standard library; try: dataset=scifact")
    chosen = sorted(_sampled(found, documents, seed))
    answers: dict[str, list[str]] = {}
    wording: dict[str, str] = {}
    for name in chosen:
        key = " ".join(found[name].summary.lower().split())
        wording.setdefault(key, found[name].summary)
        answers.setdefault(key, []).append(name)
    asked = sorted(_sampled(wording, queries, seed))
    ids = {key: f"q{number}" for number, key in enumerate(asked)}
    qrels = Qrels({ids[key]: dict.fromkeys(answers[key], 1) for key in asked})
    corpus = Corpus(chosen, [found[name].text for name in chosen])
    asked_for = Queries(ids.values(), [wording[key] for key in asked])
    return Dataset("stdlib", "test", corpus, asked_for, qrels, instruction=instruction).validated(str(path))


def _sampled(names: dict[str, object] | dict[str, "_Documented"] | dict[str, str], n: int, seed: int) -> list[str]:
    """n names, those of lowest seeded hash: a name more or less in the library changes little else."""
    return sorted(names, key=lambda name: hashlib.blake2b(f"{seed} {name}".encode()).digest())[:n]


def _definitions(library: Path) -> Iterator[_Documented]:
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if _LEFT_OUT & set(parts) or any(part.startswith("_sysconfigdata") for part in parts):
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        module = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
        yield from _documented(ast.parse(source), module, source.splitlines())


def _documented(node: ast.AST, prefix: str, lines: list[str]) -> Iterator[_Documented]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition):
            name = f"{prefix}.{child.name}"
            summary, _, rest = (ast.get_docstring(child) or "").strip().partition("\n")
            if len(summary.split()) >= 3:
                said = rest.strip() or _source_without_docstring(child, lines)
                yield _Documented(name, summary.strip(), f"{name} {_signature(child)} {said}".strip())
            if isinstance(child, ast.ClassDef):
                yield from _documented(child, name, lines)
        elif isinstance(child, ast.If | ast.Try):
            yield from _documented(child, prefix, lines)


def _signature(node: _Definition) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){returned}"


def _source_without_docstring(node: _Definition, lines: list[str]) -> str:
    docstring = node.body[0]
    body = lines[docstring.end_lineno or docstring.lineno : node.end_lineno]
    return "\n".join(body).strip()[:_LONGEST_SOURCE]
