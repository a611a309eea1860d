"""Hash the user code of a retriever: its module and every user module that it imports.

The standard library, installed packages and the harness are identified by their versions. Any other module may change
under the same name, so its source is hashed.
"""

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import harness

_INSTALLED = {"site-packages", "dist-packages"}
_STDLIB = tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib"))
_HARNESS = Path(harness.__file__).resolve().parent
_IMPORTERS = {"import_module", "__import__"}


def is_user_module(module: str) -> bool:
    """Return True for a module outside the standard library, site-packages and the harness.

    The module of a notebook or an interpreter, which has no file, is a user module too.
    """
    if module == "__main__" and not getattr(sys.modules.get(module), "__file__", None):
        return True
    return _user_file(module) is not None


def code_hash(modules: Iterable[str]) -> str | None:
    """Return a hash of user modules and of the user modules that they import, 16 hex digits; None without any.

    Imports are followed in the source, including those inside functions and `import_module("name")`, and through
    the objects that a loaded module references. The versions of imported packages are part of the hash.
    """
    files, imports = _closure(modules)
    if not files:
        return None
    digest = hashlib.blake2b(" ".join(_versions(imports)).encode(), digest_size=8)
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def used_names(code: CodeType) -> list[str]:
    """Return the global names and attributes that a function and its inner functions use."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return [*code.co_names, *(name for function_code in inner for name in used_names(function_code))]


def bytecode_hash(code: CodeType) -> str:
    """Return a hash of a function's instructions, constants and names, 16 hex digits."""
    digest = hashlib.blake2b(code.co_code, digest_size=8)
    for const in code.co_consts:
        digest.update(_constant(const).encode())
    digest.update(repr(code.co_names).encode())
    return digest.hexdigest()


def _constant(const: Any) -> str:
    if isinstance(const, CodeType):
        return bytecode_hash(const)
    return repr(sorted(map(repr, const)) if isinstance(const, frozenset) else const)


def _closure(modules: Iterable[str]) -> tuple[dict[str, Path], set[str]]:
    """Return the files of user modules, by name, and the names of the other modules that they import."""
    files: dict[str, Path] = {}
    imports: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in files or name in imports:
            continue
        path = _user_file(name)
        if path is None:
            imports.add(name)
            continue
        files[name] = path
        pending += [*_parents(name), *_referenced_modules(sys.modules.get(name))]
        if path.suffix == ".py":
            pending += _imported_names(path, name)
    return files, imports


def _versions(modules: Iterable[str]) -> list[str]:
    """Return NAME==VERSION of the installed packages of these modules, except the harness."""
    top_levels = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"harness"}
    packages = {package for top_level in top_levels for package in _packages().get(top_level, ())}
    return sorted(f"{package}=={importlib.metadata.version(package)}" for package in packages)


@cache
def _packages() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _parents(name: str) -> list[str]:
    """Return the parent packages of a module, whose ``__init__`` runs before it."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _user_file(name: str) -> Path | None:
    """Return the file of a user module; None for any other module."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None) if module else _origin(name)
    if not origin:
        return None
    path = Path(origin).resolve()
    if not path.is_file() or _INSTALLED & set(path.parts):
        return None
    return None if any(path.is_relative_to(root) for root in (*_STDLIB, _HARNESS)) else path


def _origin(name: str) -> str | None:
    """Return the file that a module would be loaded from, without importing its parent packages."""
    search: Any = None
    spec: importlib.machinery.ModuleSpec | None = None
    for part in (*_parents(name), name):
        try:
            spec = importlib.machinery.PathFinder.find_spec(part, search)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        search = spec.submodule_search_locations
    return spec.origin if spec and spec.has_location else None


def _referenced_modules(module: ModuleType | None) -> Iterator[str]:
    """Yield the modules of a loaded module's objects, to follow imports by computed names."""
    for value in list(vars(module).values()) if module else []:
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name


def _imported_names(path: Path, name: str) -> Iterator[str]:
    """Yield the names that a source file imports, including names that may be submodules."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # the import itself reports the error
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            if base is not None:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _call_name(node.func) in _IMPORTERS and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield target.value if not target.value.startswith(".") else f"{package}{target.value}"


def _absolute(node: ast.ImportFrom, package: str) -> str | None:
    if not node.level:
        return node.module
    try:
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    except (ImportError, ValueError):
        return None


def _call_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
