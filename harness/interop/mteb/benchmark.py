"""A benchmark of mteb: the cells of its tasks, and its own aggregates of what was measured."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.interop.mteb import registry, results
from harness.interop.mteb.registry import Place, quiet
from harness.types import Record


@dataclass(frozen=True)
class Aggregate:
    """One retriever's aggregates by mteb's name for them, such as `Mean(Task)`; and the tasks that it lacks."""

    label: str
    scores: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def cells(name: str) -> list[Place]:
    """Every split and subset of every ranking task of a benchmark. Raises `ConfigError` for an unknown one."""
    return [place for own in registry.benchmark(name).tasks for place in registry.places(own)]


def aggregates(name: str, records: Iterable[Record]) -> list[Aggregate]:
    """What the benchmark makes of the records, best first; a retriever that lacks a task has none.

    mteb's rank is among the retrievers that lack none.
    """
    from mteb.results import BenchmarkResults, ModelResult

    own = registry.benchmark(name)
    wanted = {place for one in own.tasks for place in registry.places(one)}
    whole, found = {}, []
    for model in results.of(records).models:
        missing = sorted({place.task for place in wanted - model.places.keys()})
        if not missing:
            whole[f"{model.name}@{model.revision}"] = model
        elif wanted & model.places.keys():
            found.append(Aggregate(model.record.retriever.label, missing=missing))
    held = [
        ModelResult(model_name=key, model_revision=model.revision, task_results=model.results)
        for key, model in whole.items()
    ]
    with quiet():
        told = own.get_score(BenchmarkResults(model_results=held)) if held else {}
    for key, scores in told.items():
        numbers = {name: float(value) for name, value in scores.items() if value is not None}
        found.append(Aggregate(whole[key].record.retriever.label, numbers))
    return sorted(found, key=lambda one: (-next(iter(one.scores.values()), -1.0), one.label))
