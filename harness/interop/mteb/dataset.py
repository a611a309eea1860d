"""A task of mteb as a Dataset: `dataset=mteb dataset.task=SciFact`.

The data come through mteb's own loader at the revision that the task is pinned to, or from a local folder: a copy of
the task's repository, which has its README.md, or BEIR's layout.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.datasets.folder import read as read_layout
from harness.datasets.texts import gathered
from harness.environment import cache_dir
from harness.errors import ConfigError, DataError
from harness.instrument import stage
from harness.interop.mteb import names, registry, texts
from harness.interop.mteb.registry import Place
from harness.types import Corpus, Dataset, Qrels, Queries, Run

log = logging.getLogger(__name__)


def load(
    task: str,
    subset: str | None = None,
    split: str | None = None,
    language: str | None = None,
    folder: str | None = None,
    benchmark: str | None = None,
    instruction: str | None = None,
) -> Dataset:
    """A split of a subset of mteb's task; `task` is its name, or NAME:SUBSET:SPLIT in one.

    In a `benchmark`, several subsets and splits of a task, and the parts of an aggregate, are one dataset together.
    Raises `ConfigError` where the choice is none or several, `DataError` where the data cannot be had.
    """
    own, place = registry.chosen(task, subset, split, language)
    group, parts = _group(place, benchmark)
    about = _about(own, place)
    local = _folder(folder, place.task)
    if local is not None and not (local / "README.md").is_file():
        found = _in_beirs_layout(own, place, local)
    else:
        found = _assembled(own, place, _data(own, place, local), local)
    return _named(found, own, place, group, parts, about | (_where(found) if local else {}), instruction)


def task_of(name: str, folder: str | None = None, dataset: Dataset | None = None) -> Any:
    """An mteb task with its data loaded, to be handed to `mteb.evaluate`: from the hub, a local folder, or a Dataset.

    `name` is the task's, or NAME:SUBSET:SPLIT. Raises as `load` does.
    """
    own, place = registry.chosen(name)
    local = _folder(folder, place.task)
    if dataset is None and local is not None and not (local / "README.md").is_file():
        dataset = _in_beirs_layout(own, place, local)
    data = _data(own, place, local) if dataset is None else texts.split_of(dataset)
    own.dataset, own.data_loaded = {place.subset: {place.split: data}}, True
    return own


def _group(place: Place, benchmark: str | None) -> tuple[str | None, int]:
    """What a place is a part of in a benchmark, and of how many parts."""
    if benchmark is None:
        return None, 1
    for own in registry.benchmark(benchmark).tasks:
        inside = registry.places(own)
        if place in inside:
            return (own.metadata.name, len(inside)) if len(inside) > 1 else (None, 1)
    raise ConfigError(f"{place} is no part of mteb's benchmark {benchmark!r}; leave dataset.benchmark out")


def _folder(said: str | None, task: str) -> Path | None:
    """The local folder of a task's data, or of many tasks' by their names."""
    if said is None:
        return None
    folder = Path(os.path.expanduser(said))  # noqa: PTH111  # leaves a user whom nobody knows
    if not said or not folder.is_dir():
        raise ConfigError(f"no folder {said!r}; dataset.folder names a copy of the task's data, or is null for the hub")
    own = folder / task
    return (own if own.is_dir() else folder).resolve()


def _data(own: Any, place: Place, folder: Path | None) -> Mapping[str, Any]:
    """mteb's own data of a place. Raises `DataError`."""
    if folder is not None:
        own.metadata = own.metadata.model_copy(update={"dataset": {**own.metadata.dataset, "path": str(folder)}})
    where = folder or f"{own.metadata.dataset['path']} at revision {own.metadata.revision}"
    try:
        with stage(f"load {place.task}"), registry.quiet(), _without_bars(), _cached_apart(folder):
            if place.split not in own.metadata.eval_splits:
                registry.refuse_unknown_split(own, place)
            own.load_data()
            own.convert_v1_dataset_format_to_v2(None)
        whole = own.dataset.get(place.subset, own.dataset)  # as mteb's evaluation has it
        data: Mapping[str, Any] = whole[place.split]
    except Exception as error:  # the loaders of 500 tasks fail in many ways
        said, usual = " ".join(str(error).split())[:300], own.metadata.eval_splits
        hint = (
            "where the hub is out of reach, name a copy of the task's repository, or a folder of such copies by the "
            "tasks' names: dataset.folder=FOLDER"
        )
        if place.split not in usual:
            hint = f"mteb evaluates it on {', '.join(usual)}: dataset.split={usual[0]}"
        raise DataError(
            f"mteb's {place} cannot be loaded from {where}: {type(error).__name__}: {said}; {hint}"
        ) from error
    return data


@contextmanager
def _cached_apart(folder: Path | None) -> Iterator[None]:
    """Keep what the library datasets makes of a local folder by the state of its files.

    Its own cache goes by the folder's name, and gives what a file held before it was changed.
    """
    import datasets

    if folder is None:
        yield
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    home = cache_dir() / "mteb" / _hash(str(folder))
    current = home / _hash(json.dumps(state))
    for outdated in home.glob("*"):
        if outdated != current:
            shutil.rmtree(outdated, ignore_errors=True)
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = current
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@contextmanager
def _without_bars() -> Iterator[None]:
    import datasets

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _assembled(own: Any, place: Place, data: Mapping[str, Any], folder: Path | None) -> Dataset:
    spell = texts.quoted if texts.spaced(data) else str
    judged = {spell(q): {spell(d): int(g) for d, g in docs.items()} for q, docs in _judged(data).items()}
    candidates = data.get("top_ranked")
    found = Dataset(
        _name(own, place),
        place.split,
        gathered(Corpus, ((spell(key), text) for key, text in texts.documents(data["corpus"]))),
        gathered(Queries, ((spell(key), text) for key, text in texts.queries(data["queries"]))),
        Qrels(judged),
        drop_self_hits=bool(own.ignore_identical_ids),
    ).validated(f"mteb's {place}")
    if candidates is not None:
        listed = {spell(q): list(dict.fromkeys(map(spell, docs))) for q, docs in candidates.items()}
        found = found.with_candidates(listed)
    silent = len(judged) - len(found.queries)
    return replace(
        found,
        metadata={
            **({"ids": "quoted as in a web address"} if spell is texts.quoted else {}),
            **({"queries_without_relevant": silent} if silent else {}),  # which mteb counts as 0
        },
        extra_metrics=_extra_metrics(own, place, judged, folder),
    )


def _judged(data: Mapping[str, Any]) -> Mapping[str, Mapping[str, int]]:
    """Judgements of the queries that mteb scores: those with any."""
    asked = set(data["queries"]["id"])
    return {query: docs for query, docs in data["relevant_docs"].items() if docs and query in asked}


def _in_beirs_layout(own: Any, place: Place, folder: Path) -> Dataset:
    if own.metadata.type != "Retrieval" or _has_extra_metrics(own):
        raise ConfigError(
            f"{folder} is in BEIR's layout, which has no candidates, instructions or measures of a task's own, and "
            f"mteb's {place.task} is of type {own.metadata.type}; name a copy of its repository, with its README.md"
        )
    return read_layout(folder, _name(own, place), place.split, drop_self_hits=bool(own.ignore_identical_ids))


def _named(
    found: Dataset,
    own: Any,
    place: Place,
    group: str | None,
    parts: int,
    metadata: Mapping[str, Any],
    instruction: str | None,
) -> Dataset:
    judged = Qrels({query: found.qrels[query] for query in found.queries.ids})  # mteb's loader gives them in no order
    return replace(
        found,
        qrels=judged,
        group=group,
        parts=parts,
        metadata={key: value for key, value in (dict(found.metadata) | dict(metadata)).items() if value is not None},
        instruction=instruction or names.instruction(own.metadata),
    )


def _name(own: Any, place: Place) -> str:
    """The task's name, with the subset and the split where it has others."""
    about = own.metadata
    subset = [] if place.subset == registry.DEFAULT else [place.subset]
    split = [] if about.eval_splits == [place.split] else [place.split]
    return "/".join([place.task, *subset, *split])


def _about(own: Any, place: Place) -> dict[str, Any]:
    """What mteb says of a task."""
    about = own.metadata
    return {
        "source": "mteb",
        "task": place.task,
        "subset": place.subset,
        "split": place.split,
        "type": about.type,
        "path": about.dataset["path"],
        "revision": about.revision,
        "main_score": names.ours(about.main_score),
        "languages": list(about.hf_subsets_to_langscripts[place.subset]),
        "licence": about.license,
        "reference": about.reference,
        "citation": about.bibtex_citation,
    }


def _where(found: Dataset) -> dict[str, Any]:
    """Of data from a folder, whose revision nobody vouches for: its content stands for it."""
    return {"path": "a local folder", "revision": f"local-{found.fingerprint[:12]}"}


def _extra_metrics(
    own: Any, place: Place, judged: Mapping[str, Mapping[str, int]], folder: Path | None
) -> Callable[[Run], Mapping[str, float]] | None:
    """The task's own measures (p-MRR, robustness@10, ...), as mteb computes them; None where it has none."""
    if not _has_extra_metrics(own):
        return None
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    def scores(run: Run) -> dict[str, float]:
        results = run.to_dict()
        asked = {query: docs for query, docs in judged.items() if query in results}
        try:
            with registry.quiet(), _without_bars(), _cached_apart(folder):
                by_query = calculate_retrieval_scores(results, asked, own.k_values).all_scores
                found = own.task_specific_scores(by_query, asked, results, hf_split=place.split, hf_subset=place.subset)
        except Exception as error:  # some fetch more data only now: what was measured is not lost for it
            log.warning("mteb's own measures of %s cannot be had: %s: %s", place, type(error).__name__, error)
            return {}
        return {names.ours(name): float(value) for name, value in found.items() if _is_number(value)}

    return scores


def _has_extra_metrics(own: Any) -> bool:
    from mteb.abstasks import AbsTaskRetrieval

    return type(own).task_specific_scores is not AbsTaskRetrieval.task_specific_scores


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")
