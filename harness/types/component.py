"""Component: base class of retrievers, encoders and indexes that remembers its constructor's arguments."""

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Component:
    """Base class that remembers the arguments of its constructor, defaults included.

    The arguments say which retriever an object is, whatever it has loaded or indexed since: the identity of an
    evaluation is taken from them, so that a config and a constructor call give the same one.
    """

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments beside the new object. A copy or an unpickled object gets them with its state."""
        component = super().__new__(cls)
        if args or kwargs or not _required(cls):  # type: ignore[arg-type]
            component._arguments = arguments(cls, args, kwargs)
        return component

    def complete(self, **arguments: Any) -> None:
        """Note the components that stand for short forms of arguments, such as a model's name, or for a default."""
        self._arguments = {**self._arguments, **arguments}

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Values of the constructor's parameters by name, defaults included."""
        return self._arguments


def parameters(cls: type) -> dict[str, inspect.Parameter] | None:
    """Return the parameters of a class's constructor, with those that ``**kwargs`` hands on to its bases.

    None where a constructor takes keyword arguments that no base names.
    """
    collected: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__[:-1]:
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        own = list(inspect.signature(constructor).parameters.values())[1:]
        collected |= {one.name: one for one in own if one.kind not in _VARIABLE and one.name not in collected}
        if not any(one.kind is one.VAR_KEYWORD for one in own):
            return collected
    return None if collected else {}


def arguments(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a constructor's parameters for one call, defaults included.

    Raises:
        TypeError: The call does not fit the constructor's signature.
    """
    bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
    values = dict(list(bound.arguments.items())[1:])
    for name, parameter in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
        if parameter.kind is parameter.VAR_KEYWORD:
            values |= values.pop(name, {})
    return {**_defaults(cls), **values}


@cache
def _required(cls: type) -> bool:
    """Return whether the constructor has a parameter without a default."""
    return any(one.default is one.empty for one in (parameters(cls) or {}).values())


@cache
def _defaults(cls: type) -> dict[str, Any]:
    known = parameters(cls) or {}
    return {name: one.default for name, one in known.items() if one.default is not one.empty}


def float_parameters(function: Any) -> set[str]:
    """Return the names of a function's or a constructor's parameters that are annotated as float or float | None."""
    try:
        known = parameters(function) if inspect.isclass(function) else inspect.signature(function).parameters
    except (TypeError, ValueError):  # it is written in C
        return set()
    return {name for name, each in (known or {}).items() if _is_float(each.annotation)}


def _is_float(annotation: Any) -> bool:
    words = set(re.findall(r"\w+", inspect.formatannotation(annotation)))
    return "float" in words and words <= {"float", "None", "Optional", "Union", "typing"}
