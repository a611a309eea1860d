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
    """What the benchmark makes of the records, best first; a retriever that lacks a task has none."""
    from mteb.results import BenchmarkResults, ModelResult

    own = registry.benchmark(name)
    found = []
    for model in results.of(records).models:
        there = {result.task_name for result in model.results}
        wanted = {place for one in own.tasks for place in registry.places(one)}
        missing = sorted({place.task for place in wanted - model.places.keys()})
        if len(missing) == len({place.task for place in wanted}):
            continue
        scores = {}
        if not missing and there >= {one.metadata.name for one in own.tasks}:
            result = ModelResult(model_name=model.name, model_revision=model.revision, task_results=model.results)
            with quiet():
                ((_, told),) = own.get_score(BenchmarkResults(model_results=[result])).items()
            scores = {key: float(value) for key, value in told.items() if value is not None}
        found.append(Aggregate(model.record.retriever.label, scores, missing))
    return sorted(found, key=lambda one: (-next(iter(one.scores.values()), -1.0), one.label))
