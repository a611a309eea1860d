"""Tests of the names of metrics: the spellings of other tools, parameters, and measures that the harness lacks."""

import re
import sys

import ir_measures
import pytest
from support import ROOT
from support.errors import mentions

from harness.errors import ConfigError
from harness.metrics import Metric, external, override, parse, scores
from harness.metrics.names import MEASURES, SPELLINGS

PAGE = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
DOCUMENTED = [
    (name, spelling)
    for name, spellings in re.findall(r"^- `([^`]+)`: (.+)$", PAGE, re.MULTILINE)
    for spelling in re.findall(r"`([^`]+)`", spellings)
]


@pytest.mark.parametrize(("name", "spelling"), DOCUMENTED)
def test_every_documented_spelling_is_read_as_the_name_of_the_harness(name: str, spelling: str) -> None:
    assert str(parse(spelling)) == name
    assert parse(name) == parse(spelling)


def test_the_page_documents_the_spelling_of_every_measure() -> None:
    documented = {parse(name).name for name, _ in DOCUMENTED}
    external_only = {parse(EXAMPLES.get(name, name)).name for name in external.MEASURES if name not in NEEDS_CWL}
    assert documented == {*MEASURES, *external_only}
    lower = {re.split(r"[@(]", spelling.lower())[0] for _, spelling in DOCUMENTED}
    bases = {re.sub(r"(_at)?[_.][\d.]+$", "", spelling) for spelling in lower}
    assert {*SPELLINGS} - {"α_dcg", "α_ndcg"} <= lower | bases  # noqa: RUF001  # they need subtopics


def test_every_measure_of_the_harness_has_a_kernel() -> None:
    assert list(scores._KERNELS) == list(MEASURES)


EXAMPLES = {"iprec": "IPrec@0.1"}
NEEDS_CWL = ("bpm", "sdcg", "inst", "insq", "nerr8", "nerr9", "nerr10", "nerr11")
"""Measures that ir_measures computes with cwl-eval only."""


@pytest.mark.parametrize("name", sorted(ir_measures.measures.registry))
def test_every_measure_of_ir_measures_is_known(name: str) -> None:
    required = [key for key, info in ir_measures.measures.registry[name].SUPPORTED_PARAMS.items() if info.required]
    values = {"cutoff": "10", "recall": "0.1", "max_rel": "3"}
    at = "".join(f"@{values[key]}" for key in required if key in ("cutoff", "recall"))
    inner = ",".join(f"{key}={values[key]}" for key in required if key == "max_rel")
    text = f"{name}({inner}){at}" if inner else f"{name}{at}"
    if name.lower() in NEEDS_CWL:
        with pytest.raises(ConfigError, match=re.escape("pip install ir-measures[cwl_eval]")):
            parse(text)
    elif name.lower() in external.SUBTOPICS or SPELLINGS.get(name.lower()) in external.SUBTOPICS:
        with pytest.raises(ConfigError, match="subtopics"):
            parse(text)
    else:
        assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("map@100(rel=2)", Metric("map", 100, (("rel", 2),))),
        ("AP(rel=2)@100", Metric("map", 100, (("rel", 2),))),
        ("MAP@100( rel = 2 )", Metric("map", 100, (("rel", 2),))),
        ("map@100(rel=1)", Metric("map", 100)),
        ("nDCG(dcg='log2')@10", Metric("ndcg", 10)),
        ("nDCG(dcg='exp-log2')@10", Metric("ndcg", 10, (("dcg", "exp-log2"),))),
        ("RBP(p=0.5, rel=2)@20", Metric("rbp", 20, (("p", 0.5), ("rel", 2)))),
        ("Bpref(rel=1)", Metric("bpref")),
        ("SetF(beta=2)", Metric("setf", None, (("beta", 2.0),))),
        ("nDCG(judged_only=true)@5", Metric("ndcg", 5, (("judged_only", True),))),
        ("nDCG(gains={0: 0, 1: 1, 3: 7})@5", Metric("ndcg", 5, (("gains", "{0:0,1:1,3:7}"),))),
    ],
)
def test_parameters_are_read_and_defaults_are_left_out(text: str, metric: Metric) -> None:
    assert parse(text) == metric
    assert parse(str(metric)) == metric
    assert hash(metric)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("map@10(rel=0)", ("rel=0", "at least 1")),
        ("map@10(rel=two)", ("rel=two", "at least 1")),
        ("map@10(level=2)", ("no parameter 'level'", "it has rel")),
        ("judged@10(rel=2)", ("no parameter 'rel'", "it has none")),
        ("ndcg@10(rel=2)", ("no parameter 'rel'", "it has dcg")),
        ("ndcg@10(dcg=square)", ("dcg=square", "log2 or exp-log2")),
        ("rbp@10(p=1)", ("p=1", "between 0 and 1")),
        ("map(rel)@10", ("(rel)", "such as (rel=2)")),
        ("bpref(p=1)", ("no parameter 'p'", "parameters of bpref: optional: rel")),
        ("bpref(rel=high)", ("rel=high", "of type int")),
        ("IPrec", ("'IPrec'", "needs recall", "required: recall")),
        ("SetF(beta=nan)", ("beta=nan", "of type float")),
        ("accuracy@0", ("'accuracy@0'", "at least 1")),
        ("nDCG(dcg='exp-log2', judged_only=True)@10", ("no package computes", "leave one out")),
        ("alpha_nDCG@10", ("'alpha_nDCG@10'", "subtopics", "ndcg@10")),
    ],
)
def test_the_error_about_an_invalid_parameter_names_the_valid_ones(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=mentions(*parts)):
        parse(text)


@pytest.mark.parametrize("text", ["bpref", "nDCG(judged_only=True)@10", "IPrec@0.1"])
def test_without_ir_measures_the_error_has_the_command_that_installs_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(ConfigError, match=mentions(text, "pip install 'retrieval-harness[measures]'")):
        parse(text)
    assert str(parse("ndcg@10(dcg=exp-log2)")) == "ndcg@10(dcg=exp-log2)"


def test_names_with_parentheses_are_quoted_in_an_override() -> None:
    assert override(["ndcg@10", "map@100(rel=2)"]) == "metrics=[ndcg@10,'map@100(rel=2)']"
