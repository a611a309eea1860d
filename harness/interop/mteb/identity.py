"""What makes a retriever the one that it is, as a hash: mteb files results by a model's name and revision alone."""

import functools
import hashlib
import inspect
import json
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from harness.encoders.model import Model
from harness.environment import code_hash

_LOADED = {"_model", "_devices", "_splitter", "_weights", "_workers", "n_terms"}
"""What an encoder adds to its settings once its weights are loaded."""
_known: "weakref.WeakKeyDictionary[Any, str]" = weakref.WeakKeyDictionary()


def identity(retriever: Any) -> str:
    """Hash of a retriever's classes, settings and weights, and of our code, 16 hex digits.

    That of an object is taken when it is first asked for: what it indexes later is no setting. What cannot be told
    apart, such as a closure, is never the same as another.
    """
    if retriever not in _known:
        told = json.dumps([code_hash(), _told(retriever, ())], sort_keys=True)
        _known[retriever] = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
    return _known[retriever]


def _told(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {str(key): _told(inner, above) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_told(inner, above) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_told(inner, above), sort_keys=True) for inner in value)
    if isinstance(value, functools.partial):
        return [_told(value.func, above), _told(value.args, above), _told(value.keywords, above)]
    plain = _plain(value)
    return _object(value, above) if plain is None else plain


def _plain(value: Any) -> str | None:
    """What says all of a value that is no collection and no object with settings of its own."""
    if isinstance(value, re.Pattern):
        return f"{value.pattern} {value.flags}"
    if isinstance(value, Path):
        return hashlib.blake2b(value.read_bytes()).hexdigest() if value.is_file() else str(value)
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray):
        return hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).hexdigest()
    if inspect.isclass(value) or (
        inspect.isfunction(value) and value.__closure__ is None and value.__name__.isidentifier()
    ):
        return f"{value.__module__}.{value.__qualname__}"
    return None


def _object(value: Any, above: tuple[int, ...]) -> Any:
    if inspect.isroutine(value) or not hasattr(value, "__dict__") or isinstance(value, torch.nn.Module):
        return uuid4().hex
    state = value.__getstate__()
    held = dict(state) if isinstance(state, Mapping) else dict(vars(value))
    if isinstance(value, Model):
        held = {key: inner for key, inner in held.items() if key not in _LOADED} | {
            "weights": value.resolve_weights().identity
        }
    return [f"{type(value).__module__}.{type(value).__qualname__}", _told(held, above)]
