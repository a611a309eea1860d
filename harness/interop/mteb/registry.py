"""mteb's registry: a task by its name, a subset and a split of it, a benchmark, and what there is to choose from."""

import difflib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from harness.errors import ConfigError

TYPES = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")
"""Types of tasks that rank documents for queries."""
DEFAULT = "default"
"""What mteb calls the subset of a task that has no others."""


@dataclass(frozen=True)
class Place:
    """One split of one subset of a task: what one cell is measured on."""

    task: str
    subset: str
    split: str

    def __str__(self) -> str:
        return f"{self.task}:{self.subset}:{self.split}"


def library() -> Any:
    """Import mteb, without the warnings of its import."""
    with quiet():
        import mteb
    return mteb


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that mteb and its libraries give of themselves, and that mteb writes to its log."""
    log = logging.getLogger("mteb")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def task(name: str) -> Any:
    """A task that ranks texts. Raises `ConfigError` for one that is unknown or of another kind."""
    mteb = library()
    try:
        with quiet():
            found = mteb.get_task(name)
    except KeyError:
        known = [own.metadata.name for own in tasks()]
        raise ConfigError(f"mteb has no task {name!r}{_hint(name, known)}; see: harness list datasets --mteb") from None
    about = found.metadata
    if not ranks_texts(found):
        raise ConfigError(
            f"mteb's {name} is of type {about.type} over {', '.join(about.modalities)}; this harness measures "
            f"{', '.join(TYPES)} over text: harness list datasets --mteb"
        )
    return found


def chosen(
    name: str, subset: str | None = None, split: str | None = None, language: str | None = None
) -> tuple[Any, Place]:
    """A task, by NAME or NAME:SUBSET:SPLIT, that has nothing but one split of one subset; and what that is called.

    Raises `ConfigError` where the choice is none or several.
    """
    called, *inner = name.split(":")
    if len(inner) > 2 or (inner and (subset or split)):
        raise ConfigError(f"dataset.task={name!r}: give NAME, or NAME:SUBSET:SPLIT and no dataset.subset or .split")
    if inner:
        subset, split = [*inner, None][:2]
    own = task(called)
    found = place(own, subset, split, language)
    own.hf_subsets = [found.subset]
    own.filter_eval_splits([found.split])
    return own, found


def tasks(languages: Sequence[str] | None = None, types: Sequence[str] | None = None) -> list[Any]:
    """Every task that ranks texts, of these languages (ISO 639-3) and types. Raises `ConfigError` for an unknown."""
    if wrong := next((kind for kind in types or () if kind not in TYPES), None):
        raise ConfigError(f"--type={wrong!r}{_hint(wrong, TYPES)}; choices: {', '.join(TYPES)}")
    try:
        return list(_tasks(tuple(languages or ()), tuple(types or TYPES)))
    except (KeyError, ValueError) as error:
        said = str(error.args[0] if error.args else error).partition(",")[0]
        raise ConfigError(f"{said}; --language takes codes of ISO 639-3, such as deu or eng") from None


@cache
def _tasks(languages: tuple[str, ...], types: tuple[str, ...]) -> tuple[Any, ...]:
    """mteb makes every task anew, which takes a second."""
    with quiet():
        found = library().get_tasks(languages=list(languages) or None, task_types=list(types))
    return tuple(filter(ranks_texts, found))


@cache
def every_task() -> dict[str, Any]:
    """Every task that ranks texts by its name, those too that are private, superseded or in beta."""
    mteb = library()
    with quiet():
        found = mteb.get_tasks(exclude_superseded=False, exclude_private=False, exclude_beta=False)
    return {own.metadata.name: own for own in found if ranks_texts(own)}


def ranks_texts(own: Any) -> bool:
    """Whether a task is one that this harness measures."""
    return own.metadata.type in TYPES and own.metadata.modalities == ["text"]


def benchmark(name: str) -> Any:
    """A benchmark with those of its tasks that rank texts. Raises `ConfigError` where it is unknown or has none."""
    mteb = library()
    try:
        with quiet():
            found = mteb.get_benchmark(name)
    except KeyError:
        known = [own.name for own in mteb.get_benchmarks()]
        raise ConfigError(f"mteb has no benchmark {name!r}{_hint(name, known)}; see: harness list benchmarks") from None
    if not ranking(found):
        raise ConfigError(f"no task of mteb's benchmark {name!r} ranks texts; see: harness list benchmarks")
    return replace(found, tasks=ranking(found))


def ranking(found: Any) -> list[Any]:
    """Those of a benchmark's tasks that rank texts."""
    return list(filter(ranks_texts, found.tasks))


def benchmarks() -> list[Any]:
    """Every benchmark with a task that ranks texts."""
    with quiet():
        found = library().get_benchmarks()
    return [own for own in found if ranking(own)]


def parts(own: Any) -> list[Any]:
    """The task itself, or those that an aggregate is made of (CQADupStack's forums)."""
    return list(own.tasks) if own.is_aggregate else [own]


def places(own: Any) -> list[Place]:
    """What a task is measured on: each of its splits and subsets, and those of an aggregate's parts."""
    return [
        Place(part.metadata.name, subset, split)
        for part in parts(own)
        for subset in part.hf_subsets
        for split in part.eval_splits
    ]


def place(own: Any, subset: str | None, split: str | None, language: str | None) -> Place:
    """One subset and split of a task. Raises `ConfigError` naming the choices where they are none or several."""
    name = own.metadata.name
    if own.is_aggregate:
        inner = [part.metadata.name for part in own.tasks]
        raise ConfigError(
            f"mteb's {name} is the mean over {len(inner)} tasks; measure each: harness -m ... "
            f"dataset.task={','.join(inner)}"
        )
    spoken = own.metadata.hf_subsets_to_langscripts
    there = [
        key
        for key in own.metadata.hf_subsets
        if language is None or language in {code for own in spoken[key] for code in (own, own.partition("-")[0])}
    ]
    if language is not None and not there:
        codes = sorted({code.partition("-")[0] for langs in spoken.values() for code in langs})
        raise ConfigError(f"dataset.language={language!r}: mteb's {name} has {', '.join(codes)}")
    return Place(name, _one(name, "subset", subset, there), _one(name, "split", split, own.metadata.eval_splits))


def refuse_unknown_split(own: Any, place: Place) -> None:
    """mteb's loader takes the only split that there is in the place of one that is not there. Raises `ValueError`."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    where = {"path": own.metadata.dataset["path"], "revision": own.metadata.dataset.get("revision")}
    there = {
        split
        for name in get_dataset_config_names(**where)
        for split in get_dataset_split_names(config_name=name, **where)
    }
    if place.split not in there:
        raise ValueError(f"no split {place.split!r} among {', '.join(sorted(map(str, there)))}")


def _one(task: str, key: str, chosen: str | None, there: Sequence[str]) -> str:
    if chosen is None and len(there) == 1:
        return there[0]
    if chosen is None:
        raise ConfigError(f"mteb's {task} has several {key}s; choose one: dataset.{key}={'|'.join(there)}")
    if chosen not in there and key == "subset":
        raise ConfigError(f"dataset.{key}={chosen!r}: mteb's {task} has {', '.join(there)}")
    return chosen


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1) or [one for one in known if one.lower() == name.lower()]
    return f"; did you mean {near[0]!r}?" if near else ""
