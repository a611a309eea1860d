"""Code as texts: which modules are the user's, and a function's byte code."""

import hashlib
import sys
import types
from typing import Any

from harness import user_code


def is_users(module: str) -> bool:
    """Return True for a module of the user's, a notebook's or an interpreter's included."""
    return user_code.is_users(module) or _is_interactive(module)


def names(code: types.CodeType) -> list[str]:
    """Return the names that a function's code and the functions inside it look up."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [*code.co_names, *(name for each in inner for name in names(each))]


def byte_code(code: types.CodeType) -> str:
    """Return the hash of a function's byte code, constants and names."""
    digest = hashlib.blake2b(code.co_code, digest_size=8)
    for const in code.co_consts:
        digest.update(_constant(const).encode())
    digest.update(repr(code.co_names).encode())
    return digest.hexdigest()


def _constant(const: Any) -> str:
    if isinstance(const, types.CodeType):
        return byte_code(const)
    return repr(sorted(map(repr, const)) if isinstance(const, frozenset) else const)


def _is_interactive(module: str) -> bool:
    """Return True for a module that has no source file: a notebook's or an interpreter's."""
    return module == "__main__" and not getattr(sys.modules.get(module), "__file__", None)
