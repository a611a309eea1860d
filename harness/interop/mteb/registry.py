"""mteb's registry: tasks that rank texts, the splits of their subsets, and benchmarks."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from harness.errors import ConfigError, did_you_mean

TYPES = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")
"""Types of tasks that rank documents for queries."""
DEFAULT = "default"
"""mteb's name for the subset of a task that has only one."""


@dataclass(frozen=True)
class TaskSplit:
    """One split of one subset of a task: the dataset of one evaluation."""

    task: str
    subset: str
    split: str

    def __str__(self) -> str:
        return f"{self.task}:{self.subset}:{self.split}"


def library() -> Any:
    """Import and return mteb, suppressing the warnings of its import."""
    with quiet():
        import mteb
    return mteb


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, mteb's log, and progress bars of the `datasets` package during the block."""
    import datasets

    log, shows_bars = logging.getLogger("mteb"), not datasets.are_progress_bars_disabled()
    level = log.level
    log.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        if shows_bars:
            datasets.enable_progress_bars()


def task(name: str) -> Any:
    """Return a task that ranks texts. Raises `ConfigError` for one that is unknown or of another type."""
    try:
        with quiet():
            selected = library().get_task(name)
    except KeyError:
        hint = did_you_mean(name, [known.metadata.name for known in tasks()])
        raise ConfigError(f"mteb has no task {name!r}{hint}; see: harness list datasets --mteb") from None
    if not ranks_texts(selected):
        raise ConfigError(
            f"mteb's {name} is of type {selected.metadata.type} over {', '.join(selected.metadata.modalities)}; this "
            f"harness measures {', '.join(TYPES)} over text: harness list datasets --mteb"
        )
    return selected


def ranks_texts(task: Any) -> bool:
    """Return True if a task ranks documents for queries and is of text only."""
    return task.metadata.type in TYPES and task.metadata.modalities == ["text"]


def select(
    name: str, subset: str | None = None, split: str | None = None, language: str | None = None
) -> tuple[Any, TaskSplit]:
    """Return a task, reduced to one split of one subset, and that split.

    Args:
        name: The task's name, or NAME:SUBSET:SPLIT.
        subset: The subset; None: the task's only subset, or the one in `language`.
        split: The split; None: the only one that mteb evaluates on.
        language: Code of the subset's language (ISO 639-3), such as deu.

    Raises:
        ConfigError: The task is unknown, or no subset or split matches, or several do.
    """
    task_name, *rest = name.split(":")
    if len(rest) > 2 or (rest and (subset or split)):
        raise ConfigError(f"dataset.task={name!r}: give NAME, or NAME:SUBSET:SPLIT and no dataset.subset or .split")
    if rest:
        subset, split = [*rest, None][:2]
    selected = task(task_name)
    if selected.is_aggregate:
        parts = [part.metadata.name for part in selected.tasks]
        raise ConfigError(
            f"mteb's {task_name} is the mean over {len(parts)} tasks; measure each: harness -m ... "
            f"dataset.task={','.join(parts)}"
        )
    if language is not None:
        try:
            selected.filter_languages([language])
        except ValueError:
            choices = ", ".join(selected.metadata.languages)
            raise ConfigError(f"dataset.language={language!r}: mteb's {task_name} has {choices}") from None
    subset = _only(task_name, "subset", subset, selected.hf_subsets)
    if subset not in selected.hf_subsets:
        raise ConfigError(f"dataset.subset={subset!r}: mteb's {task_name} has {', '.join(selected.hf_subsets)}")
    split = _only(task_name, "split", split, selected.eval_splits)
    selected.hf_subsets = [subset]
    selected.filter_eval_splits([split])
    return selected, TaskSplit(task_name, subset, split)


def splits(task: Any) -> list[TaskSplit]:
    """Return each split of each subset of a task, or of an aggregate's parts (the forums of CQADupStack)."""
    return [
        TaskSplit(part.metadata.name, subset, split)
        for part in (task.tasks if task.is_aggregate else [task])
        for subset in part.hf_subsets
        for split in part.eval_splits
    ]


def check_split(task: Any, split: str) -> None:
    """Raise `ValueError` if a `task`'s repository lacks a `split`; mteb would load its only split without a warning."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    where = {"path": task.metadata.dataset["path"], "revision": task.metadata.dataset.get("revision")}
    configs = get_dataset_config_names(**where)
    choices = {name for config in configs for name in get_dataset_split_names(config_name=config, **where)}
    if split not in choices:
        raise ValueError(f"no split {split!r} among {', '.join(sorted(map(str, choices)))}")


def tasks(languages: Sequence[str] | None = None, types: Sequence[str] | None = None) -> list[Any]:
    """Return the tasks that rank texts.

    Args:
        languages: Codes of languages (ISO 639-3); None: all.
        types: Some of `TYPES`; None: all.

    Raises:
        ConfigError: A language or a type is unknown.
    """
    if wrong := next((kind for kind in types or () if kind not in TYPES), None):
        raise ConfigError(f"--type={wrong!r}{did_you_mean(wrong, TYPES)}; choices: {', '.join(TYPES)}")
    try:
        return list(_tasks(tuple(languages or ()), tuple(types or TYPES)))
    except (KeyError, ValueError) as error:
        message = str(error.args[0] if error.args else error).partition(",")[0]
        raise ConfigError(f"{message}; --language takes codes of ISO 639-3, such as deu or eng") from None


@cache
def _tasks(languages: tuple[str, ...], types: tuple[str, ...]) -> tuple[Any, ...]:
    """Return mteb's tasks. They are cached, because mteb takes a second to create them."""
    filters = {"task_types": list(types), "modalities": ["text"], "exclusive_modality_filter": True}
    with quiet():
        return tuple(library().get_tasks(languages=list(languages) or None, **filters))


def benchmark(name: str) -> Any:
    """Return a benchmark with only its tasks that rank texts. Raises `ConfigError` if it has none or is unknown."""
    try:
        with quiet():
            ranking = _ranking_part(library().get_benchmark(name))
    except KeyError:
        hint = did_you_mean(name, [known.name for known in library().get_benchmarks()])
        raise ConfigError(f"mteb has no benchmark {name!r}{hint}; see: harness list benchmarks") from None
    if not ranking.tasks:
        raise ConfigError(f"no task of mteb's benchmark {name!r} ranks texts; see: harness list benchmarks")
    return ranking


def benchmarks() -> list[Any]:
    """Return the benchmarks that have tasks that rank texts, each with only those tasks."""
    with quiet():
        return [part for each in library().get_benchmarks() if (part := _ranking_part(each)).tasks]


def benchmark_splits(name: str) -> list[TaskSplit]:
    """Return each split of each task that ranks texts in a benchmark. Raises `ConfigError` if it is unknown."""
    return [task_split for each in benchmark(name).tasks for task_split in splits(each)]


def _ranking_part(benchmark: Any) -> Any:
    return replace(benchmark, tasks=list(filter(ranks_texts, benchmark.tasks)))


def _only(task: str, key: str, value: str | None, choices: Sequence[str]) -> str:
    """Return a value, or the only choice where it is None. Raises `ConfigError` where there are several."""
    if value is None and len(choices) != 1:
        raise ConfigError(f"mteb's {task} has several {key}s; choose one: dataset.{key}={'|'.join(choices)}")
    return value or choices[0]
