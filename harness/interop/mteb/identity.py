"""What makes a retriever the one that it is, as a hash: mteb files results by a model's name and revision alone."""

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from harness.encoders.model import Model

_LOADED = {"_model", "_devices", "_room", "_found"}
"""What an encoder adds to its settings once its weights are loaded."""


def identity(retriever: Any) -> str:
    """Hash of a retriever's class, settings and weights, 16 hex digits; of one that cannot be told, never the same."""
    told = json.dumps(_told(retriever, ()), sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


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
    return _object(value, above)


def _object(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray):
        return hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).hexdigest()
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    if not hasattr(value, "__dict__") or isinstance(value, torch.nn.Module):
        return uuid4().hex
    held = dict(vars(value))
    if isinstance(value, Model):
        held = {key: inner for key, inner in held.items() if key not in _LOADED} | {"weights": value.find().identity}
    return [f"{type(value).__module__}.{type(value).__qualname__}", _told(held, above)]
