"""Published results in mteb's format, brought in as figures that were not measured here."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.interop.mteb import names, registry
from harness.interop.mteb.registry import quiet
from harness.types.scores import PublishedFigures

_FAMILIES = {"dense": "dense", "sparse": "splade", "late-interaction": "colbert"}
_OTHER_FILES = {"model_meta.json"}


@dataclass(frozen=True)
class Imported:
    """Figures, the tasks that were left out since they do not rank texts, and files that are no results."""

    figures: list[PublishedFigures]
    left: list[str]
    unreadable: list[str]


def read(folder: Path) -> Imported:
    """Every result below a folder: a cache of mteb's, a copy of its results, or one model's own folder.

    Results of experiments, which mteb keeps apart, are left there. Raises `DataError` where there is none.
    """
    known = registry.every_task()
    from mteb.results import TaskResult

    figures: list[PublishedFigures] = []
    left, unreadable = set(), []
    for path in _results(folder):
        try:
            with quiet():
                result = TaskResult.from_disk(path)
        except Exception as error:  # old formats and other people's files fail in many ways
            unreadable.append(f"{path}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        if result.task_name in known:
            figures += _figures(result, known[result.task_name], *_model(path))
        else:
            left.add(result.task_name)
    if not figures:
        said = f"; no results are in {unreadable[0]}" if unreadable else ""
        raise DataError(
            f"no results of tasks that rank texts in {folder}: give a folder that mteb wrote, results/ or "
            f"<model>/<revision>/ in it{said}"
        )
    return Imported(figures, sorted(left), unreadable)


def _results(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}; give one with results in mteb's format")
    for path in sorted(folder.rglob("*.json")):
        other = path.name in _OTHER_FILES or path.name.endswith("_predictions.json")
        if not other and "experiments" not in path.relative_to(folder).parts:
            yield path


def _model(path: Path) -> tuple[str, str]:
    """Name and revision of the model that a result is of: what lies beside it says so, else its folders' names."""
    meta = path.parent / "model_meta.json"
    if meta.is_file():
        told = json.loads(meta.read_text(encoding="utf-8"))
        if told.get("name"):
            return str(told["name"]), str(told.get("revision") or path.parent.name)
    return path.parent.parent.name.replace("__", "/"), path.parent.name


def _figures(result: Any, task: Any, model: str, revision: str) -> Iterator[PublishedFigures]:
    """A figure for each subset of each split that the task is evaluated on."""
    about = task.metadata
    for split in about.eval_splits:
        for scores in result.scores.get(split, []):
            subset = scores["hf_subset"]
            own = [
                name if len(about.eval_splits) == 1 else f"{name}/{split}"
                for name in names.datasets_of(about.name, subset)
            ]
            yield PublishedFigures(
                model=model,
                revision=revision,
                family=_family(model),
                datasets=own,
                dataset_revision=str(result.dataset_revision),
                metrics={names.ours(name): float(value) for name, value in scores.items() if _is_score(name, value)},
                source=f"MTEB results, {model}@{revision[:8]}, {result.task_name} at revision "
                f"{str(result.dataset_revision)[:8]}, mteb {result.mteb_version}",
            )


def _family(model: str) -> str:
    from mteb.models.model_implementations import MODEL_REGISTRY

    about = MODEL_REGISTRY.get(model)
    kinds = about.model_type if about else []
    return _FAMILIES.get(kinds[0], "") if len(kinds) == 1 else ""


def _is_score(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return number and not name.lower().startswith("nauc") and name != "main_score"
