"""Measures that ir_measures computes, an optional dependency: bpref, infAP, interpolated precision and others.

The run is passed on in the harness's order of hits, by rank, because other tools break ties by other rules.
"""

import ast
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError, RunError
from harness.types import Qrels, Run

Array = NDArray[np.float64]

if TYPE_CHECKING:
    from harness.metrics.names import Metric

MEASURES: dict[str, str] = {
    **{"bpref": "Bpref", "infap": "infAP", "iprec": "IPrec", "setp": "SetP", "setrelp": "SetRelP", "setf": "SetF"},
    **{"setap": "SetAP", "compat": "Compat", "accuracy": "Accuracy", "bpm": "BPM", "sdcg": "SDCG", "inst": "INST"},
    **{"insq": "INSQ", "nerr8": "NERR8", "nerr9": "NERR9", "nerr10": "NERR10", "nerr11": "NERR11"},
    **{"numret": "NumRet", "numrelret": "NumRelRet", "numrel": "NumRel", "numq": "NumQ"},
}
"""Names in ir_measures of the measures that the harness does not compute itself, by their names in lower case."""
COUNTERPARTS: dict[str, str] = {
    **{"ndcg": "nDCG", "map": "AP", "recall": "R", "precision": "P", "mrr": "RR", "hit": "Success", "rprec": "Rprec"},
    **{"judged": "Judged", "err": "ERR", "rbp": "RBP"},
}
"""Names in ir_measures of the harness's own measures, which it computes with `gains` or `judged_only`."""
SUBTOPICS = ("alpha_dcg", "alpha_ndcg", "err_ia", "nerr_ia", "nrbp", "nnrbp", "ap_ia", "map_ia", "p_ia", "strecall")
"""Measures of diversity, which need judgements of the subtopics of a query."""
_INSTALL = "pip install 'retrieval-harness[measures]'"
_ERRORS = (ValueError, ArithmeticError, RuntimeError, AssertionError, LookupError, OSError)


class Resolved(NamedTuple):
    """The fields of a `Metric`."""

    name: str
    k: int | None
    parameters: tuple[tuple[str, Any], ...]


def is_known(name: str) -> bool:
    """Return True for the name in lower case of a measure that only ir_measures has."""
    return name in MEASURES or name in SUBTOPICS


def takes(name: str, parameters: Mapping[str, str]) -> bool:
    """Return True if the measure `name` of the harness needs ir_measures because of one of its `parameters`."""
    return name in COUNTERPARTS and bool({*parameters} & {"gains", "judged_only"})


def resolve(text: str, name: str, at: str | None, parameters: Mapping[str, str]) -> Resolved:
    """Return the canonical name, cutoff and parameters of a measure of ir_measures.

    Args:
        text: The name as the user wrote it, for error messages.
        name: The name in lower case: a key of `MEASURES` or `COUNTERPARTS`, or one of `SUBTOPICS`.
        at: The number after @.
        parameters: Parameters as written.

    Raises:
        ConfigError: ir_measures or a package that it needs is not installed, or a parameter is invalid.
    """
    if name in SUBTOPICS:
        raise ConfigError(
            f"metric {text!r} needs judgements of the subtopics of each query, and qrels here have one grade for each "
            "document; choose a measure without subtopics, such as ndcg@10"
        )
    template = _load(text).measures.registry[(MEASURES | COUNTERPARTS)[name]]
    written = {**parameters, **({} if at is None else {template.AT_PARAM: at})}
    measure = template(**{key: _typed(text, name, template, key, value) for key, value in written.items()})
    required = [key for key, info in template.SUPPORTED_PARAMS.items() if info.required]
    if missing := [key for key in required if key not in measure.params]:
        raise ConfigError(f"metric {text!r} needs {' and '.join(missing)}; {_takes_message(name, template)}")
    try:
        measure.validate_params()
    except AssertionError as error:
        raise ConfigError(f"metric {text!r}: {error}; {_takes_message(name, template)}") from None
    if at is not None and template.AT_PARAM == "cutoff" and measure["cutoff"] < 1:
        raise ConfigError(f"metric {text!r} needs a cutoff of at least 1, such as {name}@10")
    _require_provider(text, measure)
    shown = {key: value for key, value in measure.params.items() if value != measure.SUPPORTED_PARAMS[key].default}
    k = shown.pop("cutoff", None)
    shown = {key: _gains_text(value) if isinstance(value, dict) else value for key, value in shown.items()}
    names = {counterpart: harness_name for harness_name, counterpart in COUNTERPARTS.items()}
    return Resolved(names.get(measure.NAME, measure.NAME.lower()), k, tuple(sorted(shown.items())))


def score(run: Run, qrels: Qrels, queries: Sequence[str], metrics: "Sequence[Metric]") -> dict[str, Array]:
    """Return the scores [queries] of each metric by its name; a query without hits scores 0.

    Args:
        run: Ranked documents.
        qrels: Relevance judgements.
        queries: Ids of the queries with a relevant document.
        metrics: Metrics that `resolve` returned.

    Raises:
        RunError: ir_measures cannot compute a metric for this run.
    """
    rows = {query: row for row, query in enumerate(queries)}
    grades = {query: dict(qrels[query]) for query in queries}
    ranked = {query: _by_rank(run, position) for position, query in enumerate(run.query_ids) if query in rows}
    ranked = {query: hits for query, hits in ranked.items() if hits}
    scores = {str(metric): np.zeros(len(queries)) for metric in metrics}
    for metric in metrics if ranked else ():
        module = _load(str(metric))
        measure = module.measures.registry[(MEASURES | COUNTERPARTS)[metric.name]]
        values = dict(metric.parameters) | ({} if metric.k is None else {"cutoff": metric.k})
        values |= {"gains": ast.literal_eval(values["gains"])} if "gains" in values else {}
        try:  # one measure at a time: computed together, some take the settings of others
            for score in module.iter_calc([measure(**values)], grades, ranked):
                if score.query_id in ranked:
                    scores[str(metric)][rows[score.query_id]] = score.value
        except _ERRORS as error:
            raise RunError(f"ir_measures cannot compute {metric} for this run: {error}") from error
        if not np.isfinite(scores[str(metric)]).all():
            raise RunError(f"ir_measures returned a score of {metric} that is not finite")
    return scores


def _gains_text(gains: Mapping[int, int]) -> str:
    return "{" + ",".join(f"{grade}:{gain}" for grade, gain in sorted(gains.items())) + "}"


def _by_rank(run: Run, position: int) -> dict[str, float]:
    """Return the hits of a query with scores that fall with the rank and are above 0."""
    docs = run.hits(position)[0]
    return {doc: float(len(docs) - rank) for rank, doc in enumerate(docs)}


def _load(text: str) -> ModuleType:
    try:
        import ir_measures
    except ImportError:
        raise ConfigError(f"metric {text!r} is computed by ir_measures, which is not installed: {_INSTALL}") from None
    return ir_measures


def _typed(text: str, name: str, template: Any, key: str, value: str) -> Any:
    """Return a parameter's text as a value of the parameter's type."""
    if key not in template.SUPPORTED_PARAMS:
        raise ConfigError(f"metric {text!r}: {name} has no parameter {key!r}; {_takes_message(name, template)}")
    kind = template.SUPPORTED_PARAMS[key].dtype
    try:
        if kind is str:
            return value
        converted = ast.literal_eval(value.capitalize() if kind is bool else value)
        converted = float(converted) if kind is float and type(converted) is int else converted
    except (ValueError, SyntaxError):
        converted = None
    if type(converted) is not kind or (kind is float and not math.isfinite(converted)):
        raise ConfigError(f"metric {text!r}: {key}={value} must be of type {kind.__name__}")
    return converted


def _takes_message(name: str, template: Any) -> str:
    """Return a sentence about the parameters of a measure, those that are required first."""
    parameters = template.SUPPORTED_PARAMS.items()
    required = [key for key, info in parameters if info.required]
    optional = [key for key, info in parameters if not info.required]
    parts = [f"{kind}: {', '.join(keys)}" for kind, keys in (("required", required), ("optional", optional)) if keys]
    return f"parameters of {name}: {'; '.join(parts) or 'none'}"


def _require_provider(text: str, measure: Any) -> None:
    """Raise `ConfigError` unless a package that computes the measure is installed."""
    providers = [provider for provider in _load(text).DefaultPipeline.providers if provider.supports(measure)]
    if not providers:
        raise ConfigError(f"metric {text!r}: no package computes {measure} with these parameters; leave one out")
    if not any(provider.is_available() for provider in providers):
        instructions = [line for provider in providers if (line := provider.install_instructions())]
        raise ConfigError(f"metric {text!r} needs another package: {' or: '.join(instructions)}")
