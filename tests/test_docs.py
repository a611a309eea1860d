"""The README says what the commands say."""

import re
import shlex
import sysconfig

import pytest
import yaml
from readme_blocks import README, block, generated

from harness.cli import build
from harness.cli.conf import conf, options_of
from harness.datasets import stdlib
from harness.metrics import parse, score

PUBLISHED = README.parent / "tests" / "test_published.py"
TEXT = README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["retrievers", "help"])
def test_a_generated_block_is_what_its_command_prints(name):
    assert block(name, TEXT) == generated()[name], "write it anew: python tests/readme_blocks.py"


def test_the_quickstarts_table_has_the_scores_of_this_collection(models):
    """The scores depend on Python's own version, which the block names by the collection's fingerprint."""
    dataset = stdlib.load()
    shown = block("quickstart", TEXT)
    if dataset.fingerprint not in shown:
        pytest.skip(f"the README's table was made with another Python than {sysconfig.get_python_version()}")
    for name in quickstarts_retrievers():
        retriever = build.construct(build.composed([f"retriever={name}"])["retriever"], "retriever")
        retriever.index(dataset.corpus)
        run = retriever.search(dataset.queries, 100)
        value = score(run, dataset.qrels, [parse("ndcg@10")])[1]["ndcg@10"].mean()
        assert re.search(rf"^{name} +{value:.4f} ", shown, re.MULTILINE), f"{name}: {value:.4f}"


def quickstarts_retrievers():
    text = (conf() / "experiment" / "quickstart.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["hydra"]["sweeper"]["params"]["retriever"].split(",")


def test_the_quickstarts_table_has_every_row_of_its_experiment():
    swept = quickstarts_retrievers()
    rows = [line.split()[0] for line in block("quickstart", TEXT).splitlines() if re.match(r"\w+ +0\.\d{4} ", line)]
    assert sorted(rows) == sorted(swept)


def commands():
    """Every harness command line of the README's shell blocks, continued lines joined, comments dropped."""
    shell = "".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in shell.splitlines()]
    return [line for line in lines if line.startswith("harness ")]


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_readme_composes(line):
    words = [word for word in shlex.split(line)[1:] if not word.startswith("-") and word not in ("job", "report")]
    if words[:1] in (["validate"], ["explain"]):
        words = [word for word in words[1:] if not word.startswith(("query=", "doc=", "top="))]
    if "retriever=mine" in words:  # the reader's own
        words.remove("retriever=mine")
    sweeps = [word for word in words if "," in word]
    singles = [word for word in words if word not in sweeps]
    for word in sweeps:
        group, _, values = word.partition("=")
        if values.startswith("["):  # lists, of which each is one value
            singles.append(f"{group}={values.split('],')[0].removesuffix(']')}]")
            continue
        assert set(values.split(",")) <= {name for name, _ in options_of(group)}
    if not any(word.startswith(("retriever=", "experiment=")) for word in singles):
        singles = ["retriever=bm25", *singles]
    assert build.composed(singles)["k"] >= 10


def test_the_metrics_that_the_readme_names_are_known():
    named = re.search(r"\*\*Metrics\*\*: `([^`]+)`", TEXT)[1].split()
    for name in named:
        assert str(parse(name.replace("@k", "@10"))) == name.replace("@k", "@10")


def test_the_published_figures_are_those_of_the_test():
    held = {f"{float(figure):.4f}" for figure in re.findall(r"0\.\d+", PUBLISHED.read_text(encoding="utf-8"))}
    rows = re.findall(r"^\| .*(?:MTEB|Anserini).*$", TEXT, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        assert set(re.findall(r"0\.\d{4}", row)) <= held


def test_the_readme_counts_the_tests_that_there_are(request):
    counts = [int(number) for number in re.findall(r"(\d+) (?:passed|skipped)", block("test", TEXT))]
    if request.config.args != request.config.getini("testpaths"):
        pytest.skip("only a whole run knows how many tests there are")
    assert sum(counts) == request.session.testscollected, "update the block in the README"
