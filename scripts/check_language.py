"""Check that identifiers and docstrings are in plain English. Print one `file:line: message` per finding, then counts.

    python scripts/check_language.py             # harness/ and scripts/
    python scripts/check_language.py tests       # other files or folders

The rules:
    identifier: no variable, parameter, attribute, function or class is named by a word of `BANNED`.
    opening: no docstring begins with "What", "Whether" or "How". Strings below a field or a constant are docstrings.
    arguments: a public function or method of harness/ with two arguments or more (beside `self` and `cls`) has an
        `Args:` section, or names every argument in backquotes. A method that a Protocol documents may leave it to the
        Protocol. The command line, harness/cli/, is not a library and is not checked.
    class: no two classes of harness/ have the same name.

The exit code is 1 if anything is found.
"""

import argparse
import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "harness"
BANNED = frozenset(
    (
        *("found", "own", "said", "told", "asked", "others", "one", "some", "what", "of", "held", "made", "kept"),
        *("his", "hers", "mine", "ours", "theirs"),
    )
)
RULES = ("identifier", "opening", "arguments", "class")

_OPENING = re.compile(r"(What|Whether|How)\b", re.IGNORECASE)
_ARGS = re.compile(r"^\s*Args:\s*$", re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Signatures = frozenset[tuple[str, tuple[str, ...]]]


class Violation(NamedTuple):
    """A place in a file that breaks a rule; `word` is the banned name, the opening, the function or the class."""

    path: Path
    line: int
    rule: str
    word: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def check(paths: Sequence[Path], root: Path = ROOT) -> list[Violation]:
    """Return the findings of all rules in Python files and in folders of them, in order of file and line.

    Args:
        paths: Files, or folders that are searched for `*.py`.
        root: The folder that paths are printed relative to; `root/harness` is the package.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in _python_files(paths)}
    package = {path: tree for path, tree in trees.items() if path.is_relative_to(root / PACKAGE)}
    documented = frozenset(signature for tree in package.values() for signature in _protocol_signatures(tree))
    findings = [
        finding for path, tree in trees.items() for finding in (*_identifiers(path, tree), *_openings(path, tree))
    ]
    for path, tree in package.items():
        if not path.is_relative_to(root / PACKAGE / "cli"):
            findings += _arguments(path, tree, documented)
    findings += _duplicate_classes(package)
    relative = [
        finding._replace(path=finding.path.relative_to(root) if finding.path.is_relative_to(root) else finding.path)
        for finding in findings
    ]
    return sorted(relative)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings and their counts; return the exit code."""
    parser = argparse.ArgumentParser(description="Check that identifiers and docstrings are in plain English.")
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders; without any: harness/ and scripts/")
    parser.add_argument("--count", action="store_true", help="print the counts only")
    options = parser.parse_args(arguments)
    findings = check([path.resolve() for path in options.paths] or [ROOT / PACKAGE, ROOT / "scripts"])
    if not options.count:
        print(*findings, sep="\n", end="\n" if findings else "")
    counts = Counter(finding.rule for finding in findings)
    print(", ".join(f"{rule}: {counts[rule]}" for rule in RULES))
    words = Counter(finding.word for finding in findings if finding.rule == "identifier")
    if words:
        print("identifiers:", ", ".join(f"{word} {n}" for word, n in words.most_common()))
    return 1 if findings else 0


def _python_files(paths: Sequence[Path]) -> list[Path]:
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    return sorted(set(files))


def _identifiers(path: Path, tree: ast.Module) -> Iterator[Violation]:
    for node in ast.walk(tree):
        for name in _names_bound(node):
            word = name.strip("_").lower()
            if word in BANNED:
                message = f"the name {name!r} does not say what the value is; name it after its content"
                yield Violation(path, getattr(node, "lineno", 1), "identifier", word, message)


def _names_bound(node: ast.AST) -> list[str]:
    """Return the names that a syntax node binds. Names that it only reads are reported where they are bound."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)) | ast.alias(asname=str(name)) | ast.alias(name=name):
            return [name]
    return []


def _openings(path: Path, tree: ast.Module) -> Iterator[Violation]:
    for line, text in _docstrings(tree):
        if opening := _OPENING.match(text.strip()):
            message = f'a docstring begins with "{opening[0]}"; begin with a verb ("Return ...") or a noun'
            yield Violation(path, line, "opening", opening[0], message)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those of fields and constants included."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | Function):
            continue
        for before, statement in zip([None, *node.body], node.body, strict=False):
            if (
                (before is None or isinstance(before, ast.Assign | ast.AnnAssign))
                and isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def _arguments(path: Path, tree: ast.Module, documented: Signatures) -> Iterator[Violation]:
    for function, is_method in _public_functions(tree):
        names = _argument_names(function, is_method)
        if len(names) < 2 or (is_method and (function.name, names) in documented):
            continue
        text = ast.get_docstring(function) or ""
        missing = [name for name in names if not re.search(rf"`{re.escape(name)}`", text)]
        if missing and not _ARGS.search(text):
            message = f"the docstring of {function.name}() has no Args: section and does not name `{missing[0]}`"
            yield Violation(path, function.lineno, "arguments", function.name, message)


def _public_functions(tree: ast.Module) -> Iterator[tuple[Function, bool]]:
    """Yield the public functions of a module and the public methods of its public classes, and which are methods."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, Function) and not member.name.startswith("_") and not _is_overload(member):
                    yield member, not _has_decorator(member, "staticmethod")


def _argument_names(function: Function, is_method: bool) -> tuple[str, ...]:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][is_method:]
    names += [argument.arg for argument in arguments.kwonlyargs]
    names += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return tuple(name for name in names if not name.startswith("_"))


def _is_overload(function: Function) -> bool:
    return _has_decorator(function, "overload") or _has_decorator(function, "override")


def _has_decorator(function: Function, name: str) -> bool:
    return any(name in (getattr(item, "id", ""), getattr(item, "attr", "")) for item in function.decorator_list)


def _protocol_signatures(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the name and the argument names of each method of the module's Protocol classes."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases):
            for member in node.body:
                if isinstance(member, Function) and (text := ast.get_docstring(member)):
                    names = _argument_names(member, True)
                    if _ARGS.search(text) or all(f"`{name}`" in text for name in names):
                        yield member.name, names


def _duplicate_classes(trees: dict[Path, ast.Module]) -> Iterator[Violation]:
    places: dict[str, list[tuple[Path, int]]] = defaultdict(list)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append((path, node.lineno))
    for name, defined in places.items():
        for path, line in defined[1:]:
            first = f"{defined[0][0].name}:{defined[0][1]}"
            message = f"class {name} is also defined in {first}; name each class after what it holds"
            yield Violation(path, line, "class", name, message)


if __name__ == "__main__":
    sys.exit(main())
