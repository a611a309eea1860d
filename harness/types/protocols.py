"""Protocols of retrievers, and the base class of everything that a config constructs.

Every retriever has the three methods of `Retriever`. A capability is asked for with `isinstance`, which looks whether
the methods are there.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.types.run import Run
from harness.types.texts import Corpus, Queries

Value = str | int | float | None
"""A value in a table of an explanation."""
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Explanation:
    """A sentence, a small table, and those of the parts for a retriever that is made of others."""

    summary: str
    columns: tuple[str, ...] = ()
    rows: list[tuple[Value, ...]] = field(default_factory=list)
    parts: dict[str, "Explanation"] = field(default_factory=dict)


@runtime_checkable
class Retriever(Protocol):
    """Protocol for retrievers. A retriever never sees dataset names, splits or relevance judgements."""

    def index(self, corpus: Corpus) -> None:
        """Make the corpus searchable, replacing what was indexed before."""
        ...

    def search(self, queries: Queries, k: int) -> Run:
        """Return the k best documents of each query, fewer where fewer match."""
        ...

    def nbytes(self) -> int:
        """Return the bytes of the index as it is held to be searched."""
        ...


@runtime_checkable
class CandidateScorer(Protocol):
    """Capability: score given documents. Rerankers, and datasets that bring their own candidates, need it."""

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores [queries, candidates] of document indices `docs` of that shape, padded with -1.

        A padded place, and a document that the retriever does not score, is -inf.
        """
        ...


@runtime_checkable
class Explainer(Protocol):
    """Capability: explain why documents rank where they do; used only after `index`."""

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Return one explanation for each document index in `docs`; `query` holds one query."""
        ...


@runtime_checkable
class Precomputed(Protocol):
    """Capability: rankings that may have been made elsewhere, so that time spent here is not their cost."""

    @property
    def is_precomputed(self) -> bool:
        """True where the rankings were made elsewhere."""
        ...


@runtime_checkable
class ExternallyIndexed(Protocol):
    """Capability: an index that lies elsewhere and holds the whole corpus, whatever part of it `index` is given."""

    @property
    def is_externally_indexed(self) -> bool:
        """True where the index lies elsewhere."""
        ...


@runtime_checkable
class Shardable(Protocol):
    """Capability: rankings of a corpus's shards that merge, by score, into the ranking of the whole corpus."""

    @property
    def is_shardable(self) -> bool:
        """True where the rankings of shards merge with this retriever's settings."""
        ...


@runtime_checkable
class TaskPrompted(Protocol):
    """Capability: prompts and a language that follow the mteb task of a dataset."""

    def for_task(
        self, task: str, subset: str | None = None, split: str | None = None, language: str | None = None
    ) -> Retriever:
        """Return a retriever for a task, NAME or NAME:SUBSET:SPLIT; itself where it was made for one."""
        ...


class MergeableStatistics(Protocol):
    """Statistics of one shard that add up to those of the corpus."""

    def merged(self, following: "list[Self]") -> Self:
        """Return the statistics of this shard and of those that follow it."""
        ...


@runtime_checkable
class StatisticsSharing(Protocol):
    """Capability of a `Shardable` whose scores depend on statistics of the whole corpus, such as BM25's idf."""

    def corpus_statistics(self, corpus: Corpus) -> Any:
        """Return what a shard adds to the statistics of the corpus, as `MergeableStatistics`."""
        ...

    def use_statistics(self, statistics: Any) -> None:
        """Score what is indexed from now on as a part of the corpus with these statistics."""
        ...


def is_precomputed(retriever: object) -> bool:
    """Return whether a retriever's rankings were made elsewhere."""
    return isinstance(retriever, Precomputed) and bool(retriever.is_precomputed)


def is_shardable(retriever: object) -> bool:
    """Return whether a retriever's rankings of shards merge into that of the whole corpus."""
    return isinstance(retriever, Shardable) and bool(retriever.is_shardable)


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


def parameters(target: Any) -> dict[str, inspect.Parameter] | None:
    """Return the parameters of a function, or of a class's constructor with those that `**kwargs` hands to its bases.

    None where keyword arguments are taken that no base names.
    """
    is_class = inspect.isclass(target)
    makers = [vars(base).get("__init__") for base in target.__mro__[:-1]] if is_class else [target]
    makers = [maker for maker in makers if maker is not None]
    collected: dict[str, inspect.Parameter] = {}
    for maker in makers:
        declared = _declared(maker)[1 if is_class else 0 :]
        collected |= {each.name: each for each in declared if each.kind not in _VARIABLE and each.name not in collected}
        if not any(each.kind is each.VAR_KEYWORD for each in declared):
            return collected
    return None if makers else {}


def _declared(function: Any) -> list[inspect.Parameter]:
    """Return a function's parameters, their types evaluated where all of them can be."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # a type that is imported for a type checker alone, or whatever a user's annotation holds
        signature = inspect.signature(function)
    return list(signature.parameters.values())


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
    return any(parameter.default is parameter.empty for parameter in (parameters(cls) or {}).values())


@cache
def _defaults(cls: type) -> dict[str, Any]:
    known = parameters(cls) or {}
    return {name: each.default for name, each in known.items() if each.default is not each.empty}


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
