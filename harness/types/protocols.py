"""Protocols of retrievers, and the base class of everything that a config constructs.

Every retriever has the three methods of `Retriever`. A capability is tested with `isinstance`, which checks that its
methods exist.
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
"""A value in the table of an explanation."""
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Explanation:
    """Explanation of a hit: a sentence, a small table and, for a composed retriever, the explanations of its parts."""

    summary: str
    columns: tuple[str, ...] = ()
    rows: list[tuple[Value, ...]] = field(default_factory=list)
    parts: dict[str, "Explanation"] = field(default_factory=dict)


@runtime_checkable
class Retriever(Protocol):
    """Protocol for retrievers. A retriever never sees dataset names, splits or relevance judgements."""

    def index(self, corpus: Corpus) -> None:
        """Index the corpus, replacing the previous index."""
        ...

    def search(self, queries: Queries, k: int) -> Run:
        """Return the best documents of each query.

        Args:
            queries: The queries, by id.
            k: Maximum number of hits per query; a query has fewer if fewer documents match.
        """
        ...

    def nbytes(self) -> int:
        """Return the size of the index in bytes, as used for searching."""
        ...


@runtime_checkable
class CandidateScorer(Protocol):
    """Capability: score given documents. It is needed for reranking and for datasets with candidates."""

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores [queries, candidates]; -inf for padding and for documents that the retriever does not score.

        Args:
            queries: The queries, by id.
            docs: Indices of candidates in the indexed corpus, shape [queries, candidates], padded with -1.
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
    """Capability: rankings that may be precomputed, such as those of a run file; their time is not measured."""

    @property
    def is_precomputed(self) -> bool:
        """True if the rankings were computed elsewhere."""
        ...


@runtime_checkable
class ExternallyIndexed(Protocol):
    """Capability: an existing index of the whole corpus, whatever part of the corpus is passed to `index`."""

    @property
    def is_externally_indexed(self) -> bool:
        """True if the index exists already, outside this object."""
        ...


@runtime_checkable
class Shardable(Protocol):
    """Capability: rankings of a corpus's shards that merge, by score, into the ranking of the whole corpus."""

    @property
    def is_shardable(self) -> bool:
        """True if the rankings of shards merge with this retriever's settings."""
        ...


@runtime_checkable
class TaskPrompted(Protocol):
    """Capability: prompts and a language that follow the mteb task of a dataset."""

    def for_task(
        self, task: str, subset: str | None = None, split: str | None = None, language: str | None = None
    ) -> Retriever:
        """Return a retriever with the prompts of an mteb task; this one if it has a task already.

        Args:
            task: mteb's name of the task, or NAME:SUBSET:SPLIT.
            subset: Subset of the task; None for the only one, or that of the language.
            split: Split of the task; None for the only one that mteb evaluates on.
            language: Language of the subset, such as `deu`.
        """
        ...


class MergeableStatistics(Protocol):
    """Statistics of one shard that can be merged to those of the corpus."""

    def merged(self, following: "list[Self]") -> Self:
        """Return the merged statistics of this shard and of the shards that follow it."""
        ...


@runtime_checkable
class StatisticsSharing(Protocol):
    """Capability of a `Shardable` whose scores depend on statistics of the whole corpus, such as BM25's idf."""

    def corpus_statistics(self, corpus: Corpus) -> Any:
        """Return the statistics of a shard, as `MergeableStatistics`."""
        ...

    def use_statistics(self, statistics: Any) -> None:
        """Score documents that are indexed from now on with the statistics of the whole corpus."""
        ...


def is_precomputed(retriever: object) -> bool:
    """Return True if a retriever's rankings were computed elsewhere."""
    return isinstance(retriever, Precomputed) and bool(retriever.is_precomputed)


def is_shardable(retriever: object) -> bool:
    """Return True if a retriever's rankings of shards merge into the ranking of the whole corpus."""
    return isinstance(retriever, Shardable) and bool(retriever.is_shardable)


class Component:
    """Base class that remembers the arguments of its constructor, defaults included.

    The identity of an evaluation is computed from these arguments, so that a config and a constructor call have the
    same identity, whatever the object has loaded or indexed.
    """

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Store the arguments in the new object. A copy or an unpickled object gets them with its state."""
        component = super().__new__(cls)
        if args or kwargs or not _required(cls):  # type: ignore[arg-type]
            component._arguments = _bind_arguments(cls, args, kwargs)
        return component

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to set an argument that a class of the harness keeps in a private attribute: it would have no effect.

        Raises:
            AttributeError: `name` is such an argument.
        """
        is_private = f"_{name}" in self.__dict__ and name not in self.__dict__ and not hasattr(type(self), name)
        if is_private and type(self).__module__.startswith("harness.") and name in self.arguments:
            cls = type(self).__name__
            raise AttributeError(
                f"{name} of {cls} cannot be changed; construct another one: {cls}({name}={value!r}, ...)"
            )
        super().__setattr__(name, value)

    def complete(self, **arguments: Any) -> None:
        """Replace arguments in short form, such as a model's name or None, by the components that they stand for."""
        self._arguments = {**self._arguments, **arguments}

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Values of the constructor's parameters by name, defaults included."""
        return self._arguments


def parameters(target: Any) -> dict[str, inspect.Parameter] | None:
    """Return the parameters of a function, or of a class's constructor and of the bases that get its `**kwargs`.

    None if arbitrary keyword arguments are accepted, which no base class declares.
    """
    is_class = inspect.isclass(target)
    functions = [vars(base).get("__init__") for base in target.__mro__[:-1]] if is_class else [target]
    functions = [function for function in functions if function is not None]
    collected: dict[str, inspect.Parameter] = {}
    for function in functions:
        declared = _declared(function)[1 if is_class else 0 :]
        collected |= {each.name: each for each in declared if each.kind not in _VARIABLE and each.name not in collected}
        if not any(each.kind is each.VAR_KEYWORD for each in declared):
            return collected
    return None if functions else {}


def _declared(function: Any) -> list[inspect.Parameter]:
    """Return a function's parameters; their types are evaluated if all of them can be."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # a type imported for type checkers only, or any other error in a user's annotation
        signature = inspect.signature(function)
    return list(signature.parameters.values())


def _bind_arguments(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
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
    """Return True if the constructor has a parameter without a default."""
    return any(parameter.default is parameter.empty for parameter in (parameters(cls) or {}).values())


@cache
def _defaults(cls: type) -> dict[str, Any]:
    known = parameters(cls) or {}
    return {name: each.default for name, each in known.items() if each.default is not each.empty}


def float_parameters(function: Any) -> set[str]:
    """Return the names of a function's or a constructor's parameters that are annotated as float or float | None."""
    try:
        known = parameters(function) if inspect.isclass(function) else inspect.signature(function).parameters
    except (TypeError, ValueError):  # functions in C may have no signature
        return set()
    return {name for name, each in (known or {}).items() if _is_float(each.annotation)}


def _is_float(annotation: Any) -> bool:
    words = set(re.findall(r"\w+", inspect.formatannotation(annotation)))
    return "float" in words and words <= {"float", "None", "Optional", "Union", "typing"}
