"""Convert everything that `evaluate` accepts as a retriever to retrievers with a description."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.evaluation import values
from harness.types import Retriever, RetrieverInfo, Run
from harness.types.protocols import Component, parameters

_RUN_SUFFIXES = (".trec", ".run", ".txt", ".res", ".gz")
_PROTOCOL = ("index", "search", "nbytes")
_ACCEPTED = (
    "a config's name ('bm25 k1=0.9'), a retriever object, a function (queries, k) -> hits, a SentenceTransformer, "
    "SparseEncoder, MultiVectorEncoder or CrossEncoder, a model of mteb or beir, a Run, or the path of a run file"
)


@dataclass(frozen=True)
class RetrieverDescription:
    """A retriever's description and constructor, or the name of a config that is composed for each dataset."""

    name: str
    construct: Callable[[], Retriever] | None = None
    """Returns the retriever that the user gave, or a new one with the user's model, whose index is freed after use."""
    info: RetrieverInfo | None = None
    """None for a config until it is composed for a dataset."""
    row: str | None = None
    """The row's name if the user gave one."""


def describe_all(retrievers: Any, names: Mapping[Any, str] | None) -> list[RetrieverDescription]:
    """Return descriptions of the retrievers in `evaluate`'s first argument, with distinct names.

    Args:
        retrievers: One retriever, a sequence of them, or ``{name: retriever}``.
        names: Row names by position in the sequence, or by the name of a config.

    Raises:
        ConfigError: A value is not a retriever, or two retrievers have the same name.
    """
    if isinstance(retrievers, Mapping) and not isinstance(retrievers, Run):
        descriptions = [_with_name(describe(value), name) for name, value in retrievers.items()]
    else:
        is_sequence = isinstance(retrievers, Sequence) and not isinstance(retrievers, str | Run)
        values = list(retrievers) if is_sequence else [retrievers]
        keys = {position: value if isinstance(value, str) else position for position, value in enumerate(values)}
        if unknown := [key for key in names or {} if key not in {*keys, *keys.values()}]:
            raise ConfigError(f"names={{{unknown[0]!r}: ...}} is not a retriever; choices: {list(keys.values())}")
        descriptions = [
            _with_name(describe(value), (names or {}).get(position, (names or {}).get(keys[position])))
            for position, value in enumerate(values)
        ]
    if not descriptions:
        raise ConfigError(f"no retriever is given; give {_ACCEPTED}")
    refuse_duplicates([description.row or description.name for description in descriptions])
    return descriptions


def refuse_duplicates(labels: Sequence[str]) -> None:
    """Raise `ConfigError` if two retrievers have the same label."""
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"{labels.count(label)} retrievers are called {label!r}; name them: evaluate({{'first': ..., "
                "'second': ...}, data)"
            )


def describe(value: Any) -> RetrieverDescription:
    """Return the description of one retriever. Raises `ConfigError` if the value is not a retriever."""
    if isinstance(value, str) and not _is_run_file(value):
        return RetrieverDescription(value)
    retriever, name = _retriever(value)
    info = values.infos.get(retriever) or info_of(retriever, name)
    is_retriever = retriever is value
    return RetrieverDescription(info.label, lambda: value if is_retriever else _retriever(value)[0], info)


def info_of(retriever: Any, name: str | None = None) -> RetrieverInfo:
    """Return the description of a retriever object.

    Args:
        retriever: The retriever.
        name: The name in the table; None: the class's name and the arguments that differ from their defaults.
    """
    config = config_of(retriever)
    differences = {} if name else dict(_differences(retriever, ""))
    return RetrieverInfo(name=name or type(retriever).__name__, differences=differences, config=config)


def config_of(value: Any) -> Any:
    """Return a config that constructs a component again, as far as its arguments can be represented in YAML."""
    if isinstance(value, Component):
        target = f"{type(value).__module__}.{type(value).__qualname__}"
        return {"_target_": target, **{name: config_of(inner) for name, inner in value.arguments.items()}}
    if isinstance(value, Mapping):
        return {str(name): config_of(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [config_of(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}"}


def _differences(value: Any, prefix: str) -> list[tuple[str, Any]]:
    """Return the arguments, by dotted name, that differ from the constructor's defaults."""
    changed: list[tuple[str, Any]] = []
    known = parameters(type(value)) or {} if isinstance(value, Component) else {}
    for name, argument in value.arguments.items() if isinstance(value, Component) else ():
        key = f"{prefix}{name}"
        if isinstance(argument, Component):
            changed += _differences(argument, f"{key}.")
        elif isinstance(argument, str | int | float | bool) and (name not in known or known[name].default != argument):
            changed.append((key, argument))
    return changed


def _with_name(described: RetrieverDescription, name: str | None) -> RetrieverDescription:
    info = described.info.model_copy(update={"row": name}) if described.info and name else described.info
    return replace(described, info=info, row=name)


def _is_run_file(text: str) -> bool:
    return text.endswith(_RUN_SUFFIXES) and Path(text).expanduser().is_file()


def _retriever(value: Any) -> tuple[Any, str | None]:
    """Return an object as a retriever, and a name for it."""
    if isinstance(value, str | PathLike):
        from harness.retrievers.run_file import RunFile

        return RunFile(str(value)), Path(value).name.partition(".")[0]
    if isinstance(value, Run):
        from harness.retrievers.run_file import FixedRun

        return FixedRun(value), "run"
    if all(callable(getattr(value, name, None)) for name in _PROTOCOL):
        return value, None
    for adapt in (_sentence_transformers, _mteb, _beir):
        if (adapted := adapt(value)) is not None:
            return adapted
    if callable(value) and not inspect.isclass(value):
        from harness.retrievers.function import Function

        return Function(value), getattr(value, "__name__", type(value).__name__)
    raise ConfigError(f"{value!r} is not a retriever ({type(value).__name__}); give {_ACCEPTED}")


def _sentence_transformers(model: Any) -> tuple[Any, str] | None:
    kinds = {kind.__name__ for kind in type(model).__mro__ if kind.__module__.startswith("sentence_transformers.")}
    if not kinds & {"SentenceTransformer", "SparseEncoder", "MultiVectorEncoder", "CrossEncoder"}:
        return None
    from harness.retrievers import in_memory

    return in_memory.wrap_model(model), in_memory.model_name(model)


def _mteb(model: Any) -> tuple[Any, str | None] | None:
    if not hasattr(model, "mteb_model_meta"):
        return None
    from harness.interop.mteb import MtebRetriever

    return MtebRetriever(model), model.mteb_model_meta.name


def _beir(model: Any) -> tuple[Any, str | None] | None:
    if not any(kind.__module__.startswith("beir.") for kind in type(model).__mro__):
        return None
    from harness.interop.beir import BeirRetriever

    return BeirRetriever(model), type(model).__name__
