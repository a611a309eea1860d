"""A dataset made from the standard library of the running Python: nothing to download.

A document is a documented function, method or class: its qualified name, its signature, and its docstring without the
first line or, if that is empty, its source without the docstring. The first line is a query, to which the definition
is relevant; equal first lines are one query with several relevant documents.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.types import Corpus, Dataset, Qrels, Queries

# Tests, vendored packages, and parts that distributors leave out or move.
_EXCLUDED = {
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
_MAX_SOURCE = 1000  # characters
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class _Documented:
    name: str
    summary: str
    text: str


def load(documents: int = 1600, queries: int = 500, seed: int = 0, instruction: str | None = None) -> Dataset:
    """Sample definitions and queries; the sample is the same for one Python version.

    Args:
        documents: Number of definitions.
        queries: Number of queries.
        seed: Seed of the two samples.
        instruction: Instruction for models that take one.

    Raises:
        ConfigError: A number is below 1.
        DataError: This Python has no sources of its library.
    """
    if documents < 1 or queries < 1:
        raise ConfigError(f"dataset.documents={documents} and dataset.queries={queries} must be at least 1")
    path = Path(sysconfig.get_path("stdlib"))
    definitions = {definition.name: definition for definition in _definitions(path)}
    if not definitions:
        raise DataError(f"{path}: this Python has no sources of its standard library; try: dataset=scifact")
    names = sorted(_sample(definitions, documents, seed))
    relevant: dict[str, list[str]] = {}
    wording: dict[str, str] = {}
    for name in names:
        key = " ".join(definitions[name].summary.lower().split())
        wording.setdefault(key, definitions[name].summary)
        relevant.setdefault(key, []).append(name)
    keys = sorted(_sample(wording, queries, seed))
    ids = {key: f"q{number}" for number, key in enumerate(keys)}
    qrels = Qrels({ids[key]: dict.fromkeys(relevant[key], 1) for key in keys})
    corpus = Corpus(names, [definitions[name].text for name in names])
    sampled_queries = Queries(ids.values(), [wording[key] for key in keys])
    return Dataset("stdlib", "test", corpus, sampled_queries, qrels, instruction=instruction).validated(str(path))


def _sample(names: dict[str, object] | dict[str, "_Documented"] | dict[str, str], n: int, seed: int) -> list[str]:
    """Return the n names of lowest seeded hash, so that a new name in the library changes little else."""
    return sorted(names, key=lambda name: hashlib.blake2b(f"{seed} {name}".encode()).digest())[:n]


def _definitions(library: Path) -> Iterator[_Documented]:
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if _EXCLUDED & set(parts) or any(part.startswith("_sysconfigdata") for part in parts):
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
                body = rest.strip() or _source_without_docstring(child, lines)
                yield _Documented(name, summary.strip(), f"{name} {_signature(child)} {body}".strip())
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
    return "\n".join(body).strip()[:_MAX_SOURCE]
