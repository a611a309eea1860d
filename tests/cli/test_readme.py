"""The README says what the commands say."""

import re
import shlex
from operator import attrgetter
from types import SimpleNamespace

import bench_blocks
import growth_report
import pytest
import yaml
from readme_blocks import README, block, generated
from support.mteb_tasks import evaluate_with_mteb

from harness.cli import read
from harness.commands import JOBS
from harness.config import build
from harness.config.conf import CONF, options_of
from harness.gate.baseline import read as read_baseline
from harness.interop.mteb import task_of
from harness.metrics import parse
from harness.store import Store
from harness.types import Corpus, Dataset, Qrels, Queries

DOCS = README.parent / "docs"
PUBLISHED = README.parent / "tests" / "models" / "test_published.py"
TEXT = README.read_text(encoding="utf-8")
MAKEFILE = (README.parent / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["retrievers", "help"])
def test_a_generated_block_is_what_its_command_prints(name):
    assert block(name, TEXT) == generated()[name], "write it anew: python scripts/readme_blocks.py"


def test_the_quickstarts_table_has_the_scores_of_the_committed_records():
    """The scores depend on Python's own version, which the block names by the collection's fingerprint."""
    shown = block("quickstart", TEXT)
    held = [record for record in Store(README.parent / "results" / "board").latest() if record.dataset.name == "stdlib"]
    found = {own.retriever.label: own.metrics["ndcg@10"] for own in held if own.dataset.fingerprint in shown}
    for name in quickstarts_retrievers():
        assert re.search(rf"^{name} +{found[name]:.4f}[ *=]", shown, re.MULTILINE), f"{name}: {found[name]:.4f}"


def test_the_committed_board_and_the_baseline_tell_the_same_of_what_both_have():
    """The gate holds the baseline against the code as it is, and with it the board and the quickstart's table."""
    key = attrgetter("retriever.label", "dataset.label", "dataset.fingerprint", "k")
    shown = {key(own): own.metrics for own in Store(README.parent / "results" / "board").latest()}
    held = {key(own): own.metrics for own in read_baseline(README.parent / "results" / "baseline").records}
    assert len(shown.keys() & held.keys()) >= 12
    for one in shown.keys() & held.keys():
        assert shown[one]["ndcg@10"] == pytest.approx(held[one]["ndcg@10"], abs=5e-5), one


def quickstarts_retrievers():
    text = (CONF / "experiment" / "quickstart.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["hydra"]["sweeper"]["params"]["retriever"].split(",")


def test_the_quickstarts_table_has_every_row_of_its_experiment():
    swept = quickstarts_retrievers()
    rows = [line.split()[0] for line in block("quickstart", TEXT).splitlines() if re.match(r"\w+ +0\.\d{4} ", line)]
    assert sorted(rows) == sorted(swept)


def commands(text):
    """Return the harness command lines of a page's shell blocks, continued lines joined, comments and keys dropped."""
    shell = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [re.sub(r"^[A-Z_]+=\S+ ", "", line.split("  #")[0].strip()) for line in shell.splitlines()]
    return [line for line in lines if line.startswith("harness ")]


READING = {"report", "compare", "recommend", "gate", "accept", "cache", "list", "export", "import"}
"""Commands that take no overrides."""


EXPERIMENTS = {"quickstart": "quickstart", "mteb": "mteb", "finetuned": "finetune"}
"""Commands that are sweeps of an experiment."""


PAGES = {
    path.relative_to(README.parent).as_posix(): path.read_text("utf-8")
    for path in (README, *sorted(DOCS.rglob("*.md")))
}
COMMANDS = [pytest.param(line, id=f"{page}: {line}") for page, text in PAGES.items() for line in commands(text)]
MTEB_GUIDE = PAGES["docs/guides/mteb-and-beir.md"]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_composes(line):
    if (given := shlex.split(line)[1:])[0] in READING:
        assert callable(read.parser().parse_args(given).command)
        return
    command = given.pop(0) if given[0] in JOBS else "run"
    if command in EXPERIMENTS:
        given = [f"experiment={EXPERIMENTS[command]}", *(word for word in given if "=" in word)]
        command = "run"
    words = [word for word in given if not word.startswith(("-", "tuned=")) and word != "job"]
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
    if command == "run" and not any(word.startswith(("retriever=", "experiment=")) for word in singles):
        singles = ["retriever=bm25", *singles]
    assert build.composed(singles, name=command)["k"] >= 10


def test_the_python_example_runs(monkeypatch, capsys):
    """The README's lines, with BM25 alone in place of a model."""
    (code,) = re.findall(r"```python\n(import harness\n.*?)\n```", TEXT, re.DOTALL)
    monkeypatch.setattr("harness.api.run._timing_plan", lambda timing: None)
    names = {}
    exec(code.replace('"minilm"', '"bm25 k1=0.9"').replace('"scifact"', '"stdlib documents=60"'), names)
    assert names["results"].labels == ["bm25", "bm25 [k1=0.9]"]


@pytest.mark.parametrize("text", [TEXT, MTEB_GUIDE], ids=["README", "guide"])
def test_the_adapters_example_is_what_mteb_takes(text):
    """The lines of the page as they stand, over a task that is made here."""
    (code,) = re.findall(r"```python\n(import mteb\n.*?)\n```", text, re.DOTALL)
    *imports, line = code.splitlines()
    corpus, queries = Corpus(["d1", "d2"], ["a fox", "a dog"]), Queries(["q1"], ["fox"])
    task = task_of("SciFact", dataset=Dataset("made", "test", corpus, queries, Qrels({"q1": {"d1": 1}})))
    named = {}
    exec("\n".join(imports), named)
    fake = SimpleNamespace(evaluate=evaluate_with_mteb, get_task=lambda name: task)
    assert eval(line, named | {"mteb": fake}).get_score() == 1.0


@pytest.mark.parametrize("text", [TEXT, MTEB_GUIDE], ids=["README", "guide"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_beir_example_runs(data, text):
    """The page's lines, over a folder of the test data; BEIR's loader leaves its qrels file open."""
    (code,) = re.findall(r"```python\n(from beir\..*?)\n```", text, re.DOTALL)
    names = {}
    exec(code.replace("data/cranfield", str(data / "cranfield")), names)
    assert names["ndcg"]["NDCG@10"] > 0.3


def test_the_workflow_runs_commands_that_there_are():
    flow = yaml.safe_load((README.parent / ".github" / "workflows" / "retrieval.yml").read_text(encoding="utf-8"))
    runs = [step["run"] for step in flow["jobs"]["gate"]["steps"] if "run" in step]
    (measure,) = [shlex.split(run)[1:] for run in runs if "experiment=" in run]
    assert build.composed(measure[:1])["k"]
    (gated,) = [shlex.split(run)[1:] for run in runs if " gate " in run]
    assert read.parser().parse_args(gated).annotations
    assert any(run == "make .venv/.installed PYTHON=python" for run in runs)
    assert "$(VENV)/.installed" in MAKEFILE


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


def test_the_committed_board_is_what_its_records_give(monkeypatch, capsys):
    monkeypatch.chdir(README.parent)
    (words,) = re.findall(r"^\t\$\(BIN\)/harness (report .*--readme README.md)$", MAKEFILE, re.MULTILINE)
    assert read.main([*words.split(), "--check"]) == 0, capsys.readouterr().err


def test_the_readme_counts_the_tests_that_there_are(request):
    """To a twentieth: a change that adds a test need not touch the README, one that adds a room does."""
    counts = [int(number) for number in re.findall(r"(\d+) (?:passed|skipped)", block("test", TEXT))]
    if request.config.args != request.config.getini("testpaths"):
        pytest.skip("only a whole run knows how many tests there are")
    assert sum(counts) == pytest.approx(request.session.testscollected, rel=0.05), "update the block in the README"


@pytest.mark.parametrize("name", ["bench", "growth"])
def test_the_tables_of_speed_are_what_the_committed_measurements_give(name):
    assert block(name, TEXT) == bench_blocks.blocks()[name], "write it anew: python scripts/bench_blocks.py"


def test_every_row_of_speed_is_a_benchmark_that_there_is():
    rows = bench_blocks.read(bench_blocks.RATIOS)["rows"]
    assert len(rows) >= 10
    for row in rows:
        path, _, name = row["test"].partition("::")
        assert path.startswith("tests/benchmarks/")
        assert f"def {name.partition('[')[0]}(" in (README.parent / path).read_text(encoding="utf-8"), row["test"]
        assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])


def test_the_plot_of_growth_has_a_line_for_each_term():
    drawn = bench_blocks.PLOT.read_text(encoding="utf-8")
    held = bench_blocks.read(bench_blocks.GROWTH)
    for term in growth_report.TERMS:
        assert f"{term} ({growth_report.series(held, term)[2]:.2f})" in drawn, (
            "draw it anew: python scripts/bench_blocks.py"
        )
