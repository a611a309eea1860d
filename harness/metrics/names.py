"""Names of metrics: `parse` reads those of the harness, trec_eval, ir_measures and mteb, and returns a `Metric`.

The name of the harness is `measure@cutoff(parameter=value)`: `ndcg@10`, `map@100(rel=2)`, `rbp(p=0.5)`. Records have
this name, in whichever spelling the metric was requested.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from harness.errors import ConfigError
from harness.metrics import external

Parameters = tuple[tuple[str, Any], ...]
"""Names and values of a metric's parameters, sorted by name."""


@dataclass(frozen=True)
class Metric:
    """A measure, its cutoff and its parameters; `str(metric)` is the name that `parse` reads."""

    name: str
    k: int | None = None
    """Number of first documents that are scored; None: all that were retrieved."""
    parameters: Parameters = ()
    """Parameters that differ from their defaults."""

    def __str__(self) -> str:
        name = self.name if self.k is None else f"{self.name}@{self.k}"
        return f"{name}({','.join(f'{key}={value}' for key, value in self.parameters)})" if self.parameters else name

    def parameter(self, name: str) -> Any:
        """Return the value of the parameter `name` of a measure of the harness, by default its default."""
        return dict(self.parameters).get(name, _DEFAULTS[name])


class Rules(NamedTuple):
    """The cutoff and the parameters that a measure of the harness takes."""

    cutoff: Literal["required", "optional", "none"]
    """With `optional`, the measure without a cutoff scores all retrieved documents."""
    parameters: tuple[str, ...] = ()


_DEFAULTS: dict[str, Any] = {"rel": 1, "p": 0.8, "dcg": "log2"}
"""Defaults of the parameters of the harness's measures: relevance level, persistence, gain and discount."""
MEASURES: dict[str, Rules] = {
    "ndcg": Rules("optional", ("dcg",)),
    "map": Rules("optional", ("rel",)),
    "recall": Rules("optional", ("rel",)),
    "precision": Rules("required", ("rel",)),
    "mrr": Rules("optional", ("rel",)),
    "hit": Rules("required", ("rel",)),
    "judged": Rules("optional"),
    "recall_cap": Rules("required", ("rel",)),
    "err": Rules("optional"),
    "rbp": Rules("optional", ("p", "rel")),
    "rprec": Rules("none", ("rel",)),
}
"""Measures that the harness computes itself."""
NAMES = [name if rules.cutoff == "none" else f"{name}@k" for name, rules in MEASURES.items()]
SPELLINGS: dict[str, str] = {
    # trec_eval
    **{"recip_rank": "mrr", "p": "precision", "success": "hit", "set_recall": "recall", "set_p": "setp"},
    **{"ndcg_cut": "ndcg", "map_cut": "map", "set_f": "setf", "set_map": "setap", "set_relative_p": "setrelp"},
    **{"iprec_at_recall": "iprec", "num_q": "numq", "num_ret": "numret", "num_rel": "numrel"},
    **{"num_rel_ret": "numrelret"},
    # ir_measures
    **{"ap": "map", "r": "recall", "rr": "mrr", "setr": "recall"},
    **{"α_dcg": "alpha_dcg", "α_ndcg": "alpha_ndcg"},  # noqa: RUF001  # ir_measures has the Greek letter too
    # mteb, BEIR and ranx
    **{"hit_rate": "hit", "r_cap": "recall_cap", "capped_recall": "recall_cap", "r-precision": "rprec"},
}
"""Other names of the measures, in lower case."""
_SYNTAX = re.compile(r"(?P<name>[^\W\d][\w.-]*)(?P<before>\([^()]*\))?(?:@(?P<k>\d[\d.]*))?(?P<after>\([^()]*\))?")
_JOINED_CUTOFF = re.compile(r"(.+?)(?:_at|_cut)?[_.](\d+(?:\.\d+)?)")
_PARAMETER = re.compile(r"\s*(\w+)\s*=\s*(\{[^{}]*\}|[^,{}]*?)\s*(?:,|$)")
_JOINED_PARAMETER = {"setf": "beta"}
"""Measures whose number in trec_eval's name, such as `set_F_0.5`, is a parameter."""


def parse(text: str) -> Metric:
    """Read the name of a metric.

    Args:
        text: A name such as `ndcg@10`, `map@100(rel=2)` or `rprec`, in any case, or its name in trec_eval
            (`ndcg_cut_10`), ir_measures (`AP(rel=2)@100`) or mteb (`ndcg_at_10`).

    Raises:
        ConfigError: The measure is unknown; the message names the choices. Its cutoff or a parameter is invalid, or it
            needs ir_measures, which is not installed.
    """
    match = _SYNTAX.fullmatch(text.strip())
    if match is None:
        raise _unknown(text)
    name, k = match["name"].lower(), match["k"]
    parameters = {**_parameters(text, match["before"]), **_parameters(text, match["after"])}
    if k is None and not external.is_known(name) and (joined := _JOINED_CUTOFF.fullmatch(name)):
        name, k = joined.groups()
    name = SPELLINGS.get(name, name)
    if k is not None and (parameter := _JOINED_PARAMETER.get(name)) and "@" not in text:
        parameters, k = {**parameters, parameter: k}, None
    if (rules := MEASURES.get(name)) is None:
        if not external.is_known(name):
            raise _unknown(text)
    elif parameters.keys() <= {*rules.parameters} or not external.takes(name, parameters):
        return Metric(name, _cutoff(text, name, k, rules), _checked(text, name, parameters, rules))
    return Metric(*external.resolve(text, name, k, parameters))


def override(metrics: Sequence[str]) -> str:
    """Return the command-line override that requests metrics: `metrics=[ndcg@10,'map@100(rel=2)']`."""
    return f"metrics=[{','.join(repr(name) if '(' in name else name for name in metrics)}]"


def _parameters(text: str, inner: str | None) -> dict[str, str]:
    """Return the parameters between two parentheses, by name in lower case, as written."""
    if inner is None:
        return {}
    pairs = _PARAMETER.findall(inner[1:-1])
    if not pairs or _PARAMETER.sub("", inner[1:-1]).strip():
        raise ConfigError(f"metric {text!r}: {inner} must be parameters with their values, such as (rel=2)")
    return {key: value.strip("'\"") for key, value in pairs}


def _cutoff(text: str, name: str, k: str | None, rules: Rules) -> int | None:
    if rules.cutoff == "none" and k is not None:
        raise ConfigError(f"metric {text!r} takes no cutoff: write {name}")
    if k is not None and not k.isdigit():
        raise _unknown(text)
    if (k is None and rules.cutoff == "required") or (k is not None and int(k) < 1):
        raise ConfigError(f"metric {text!r} needs a cutoff of at least 1, such as {name}@10")
    return None if k is None else int(k)


def _checked(text: str, name: str, parameters: Mapping[str, str], rules: Rules) -> Parameters:
    """Return a measure's parameters as values, without those that have their default."""
    values: dict[str, Any] = {}
    for key, value in parameters.items():
        if key not in rules.parameters:
            known = f"it has {', '.join(rules.parameters)}" if rules.parameters else "it has none"
            raise ConfigError(f"metric {text!r}: {name} has no parameter {key!r}; {known}")
        if key == "rel" and value.isdigit() and int(value) >= 1:
            values[key] = int(value)
        elif key == "p" and re.fullmatch(r"0?\.\d+", value) and float(value) > 0:
            values[key] = float(value)
        elif key == "dcg" and value in ("log2", "exp-log2"):
            values[key] = value
        else:
            raise ConfigError(f"metric {text!r}: {key}={value} must be {_VALUES[key]}")
    return tuple(sorted((key, value) for key, value in values.items() if value != _DEFAULTS[key]))


_VALUES = {
    "rel": "the lowest grade that counts as relevant, at least 1",
    "p": "a number between 0 and 1, both excluded",
    "dcg": "log2 or exp-log2",
}


def _unknown(text: str) -> ConfigError:
    name = re.split(r"[@(]", text.strip().lower())[0]
    near = difflib.get_close_matches(name, [*MEASURES, *external.MEASURES], n=1)
    has_cutoff = f"{near[0]}@k" in NAMES if near else False
    hint = f"; did you mean {near[0]}{'@10' if has_cutoff else ''}?" if near else ""
    choices = f"{', '.join(NAMES)}; through ir_measures: {', '.join(external.MEASURES)}"
    return ConfigError(f"unknown metric {text!r}; choices: {choices}{hint}")


def is_coverage(metric: str) -> bool:
    """Return True for the share of judged documents, which says nothing about quality."""
    return metric.startswith("judged")
