"""Tests of the documentation: its commands and Python run, its links lead somewhere, the reference is complete."""

import os
import re
import shlex
import tomllib
from types import SimpleNamespace

import make_reference
import pytest
import yaml
from generated_blocks import README
from support import ROOT
from support.mteb_tasks import evaluate_with_mteb

import harness
from harness.cli.read import parser
from harness.commands import JOBS
from harness.config import build
from harness.config.conf import options_of
from harness.interop.mteb import task_of
from harness.metrics import NAMES
from harness.types import Corpus, Dataset, Qrels, Queries, Record

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
WITH_README = {"README.md": README.read_text(encoding="utf-8"), **PAGES}
SELF_CONTAINED = ("get-started.md", "guides/own-dataset.md", "guides/own-retriever.md", "guides/notebook.md")
"""Pages whose Python needs no model and no download."""
READING = {"report", "compare", "recommend", "gate", "accept", "cache", "list", "export", "import"}
"""Commands that take no overrides."""
EXPERIMENTS = {"quickstart": "quickstart", "mteb": "mteb", "finetuned": "finetune"}
"""Commands that are sweeps, by the experiment that they run."""


@pytest.fixture(scope="module")
def reference():
    return make_reference.pages()


def test_the_reference_pages_leave_the_width_of_the_terminal(reference):
    assert os.environ["COLUMNS"] == "120"


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)\n```", WITH_README[page], re.DOTALL)


def shell_lines(page: str) -> list[str]:
    """Return the lines of a page's shell blocks, with continued lines joined."""
    return "".join(re.findall(r"```sh\n(.*?)```", WITH_README[page], re.DOTALL)).replace("\\\n", " ").splitlines()


def commands(page: str) -> list[str]:
    """Return the harness command lines of a page, without comments and environment variables."""
    lines = [re.sub(r"^[A-Z_]+=\S+ ", "", line.split("  #")[0].strip()) for line in shell_lines(page)]
    return [line for line in lines if line.startswith("harness ")]


COMMANDS = [pytest.param(line, id=f"{page}: {line}") for page in WITH_README for line in commands(page)]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line):
    """Commands that read are parsed; of the others the config is composed, for one value of each sweep."""
    words = shlex.split(line)[1:]
    if words[0] in READING:
        assert callable(parser().parse_args(words).command)
        return
    command = words.pop(0) if words[0] in JOBS else "run"
    if command in EXPERIMENTS:
        words = [f"experiment={EXPERIMENTS[command]}", *(word for word in words if "=" in word)]
        command = "run"
    words = [word for word in words if not word.startswith(("-", "tuned=")) and word != "job"]
    if words[:1] in (["validate"], ["explain"]):
        words = [word for word in words[1:] if not word.startswith(("query=", "doc=", "top="))]
    if "retriever=mine" in words:  # a config that the reader writes
        words.remove("retriever=mine")
    overrides = [_one_value(word) if "," in word else word for word in words]
    if command == "run" and not any(word.startswith(("retriever=", "experiment=")) for word in overrides):
        overrides = ["retriever=bm25", *overrides]
    assert build.composed(overrides, name=command)["k"] >= 10


def _one_value(sweep: str) -> str:
    """Return an override with the first value of a sweep; every value of a config group must exist."""
    group, _, values = sweep.partition("=")
    if values.startswith("["):  # each value is a list
        return f"{group}={values.split('],')[0].removesuffix(']')}]"
    names = values.split(",")
    assert set(names) <= {name for name, _ in options_of(group)}
    return f"{group}={names[0]}"


@pytest.mark.parametrize("page", PAGES)
def test_the_shell_lines_of_a_page_are_commands_that_there_are(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in shell_lines(page):
        command, *words = [word for word in shlex.split(line, comments=True) if not re.match("[A-Z_]+=", word)] or [""]
        assert command in ("", "make", "export", "mkdir", "echo", "harness"), line
        assert command != "make" or words[0] in targets


def test_every_page_with_python_has_a_test_that_runs_it():
    tested = {*SELF_CONTAINED, "python.md", "guides/mteb-and-beir.md", "guides/ci-gate.md", "README.md"}
    assert {page for page in WITH_README if python_blocks(page)} == tested


@pytest.mark.parametrize("page", SELF_CONTAINED)
def test_the_python_of_a_page_runs_in_order(page, monkeypatch, capsys):
    monkeypatch.setattr("harness.api.run._timing_plan", lambda timing: None)
    names = {}
    for code in python_blocks(page):
        exec(code, names)
    assert "harness" in names


def test_the_python_of_the_api_page_runs(monkeypatch, tmp_path, capsys):
    """With a small dataset and BM25 in place of the download and the model, and stand-ins for logging services."""
    monkeypatch.chdir(tmp_path)
    results, opened, own_data, training, wandb, mlflow = python_blocks("python.md")
    names = {}
    exec(results.replace('"scifact"', '"stdlib documents=60"').replace('"minilm"', '"bm25 k1=0.9"'), names)
    assert names["results"].labels == ["bm25", "bm25 [k1=0.9]"]
    assert (tmp_path / "leaderboard.csv").is_file()
    harness.evaluate("bm25", names["data"], results_dir="results", timing=None)
    exec(opened, names)
    exec(own_data, names)
    trainers = []
    names |= {"SentenceTransformerTrainer": lambda *arguments, **options: trainers.append(options)}
    exec(training, names | dict.fromkeys(("model", "args", "rows", "loss")))
    assert isinstance(trainers[0]["callbacks"][0], harness.EvaluationCallback)
    logged = []
    log = SimpleNamespace(init=lambda **options: None, log=logged.append, Table=lambda dataframe: len(dataframe))
    exec(wandb, names | {"wandb": log})
    exec(mlflow, names | {"mlflow": SimpleNamespace(log_metric=lambda *figure: logged.append(figure)), "re": re})
    score = harness.open_results("results").to_pandas()["ndcg@10"][0]
    assert logged == [{"leaderboard": 1}, ("bm25.stdlib _documents_60_.ndcg", score)]


def test_the_mteb_example_runs():
    """The page's lines as they stand, over a task that is trainers here."""
    *imports, line = python_blocks("guides/mteb-and-beir.md")[0].splitlines()
    corpus, queries = Corpus(["d1", "d2"], ["a fox", "a dog"]), Queries(["q1"], ["fox"])
    task = task_of("SciFact", dataset=Dataset("trainers", "test", corpus, queries, Qrels({"q1": {"d1": 1}})))
    names = {}
    exec("\n".join(imports), names)
    stand_in = SimpleNamespace(evaluate=evaluate_with_mteb, get_task=lambda name: task)
    assert eval(line, names | {"mteb": stand_in}).get_score() == 1.0


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_beir_example_runs(data):
    """The page's lines, over a folder of the test data; BEIR's loader leaves its qrels file open."""
    code = python_blocks("guides/mteb-and-beir.md")[1]
    names = {}
    exec(code.replace("data/cranfield", str(data / "cranfield")), names)
    assert names["ndcg"]["NDCG@10"] > 0.3


def test_the_example_of_a_test_suite_calls_the_gate(monkeypatch):
    """`assert_no_regression` has tests of its own; here it is called as the page shows."""
    calls = []
    monkeypatch.setattr("harness.testing.assert_no_regression", lambda *overrides: calls.append(overrides))
    (code,) = python_blocks("guides/ci-gate.md")
    exec(code, {})
    assert calls == [("retriever=bm25", "dataset=stdlib")]
    assert build.composed(list(calls[0]))["k"]


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = "\n".join(PAGES.values())
    named = set(re.findall(r"retrieval-harness\[(.+?)\]", text)) | set(re.findall(r"extra `([\w-]+)`", text))
    assert len(named) > 5
    assert named <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_page_leads_to_one(page, reference):
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if not re.match("https?:", link) and (name := link.partition("#")[0]):
            path = (DOCS / page).parent.joinpath(name).resolve()
            target = path.relative_to(DOCS).as_posix()
            assert path.is_file() or target in reference or target == "leaderboard.html", link


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)\s]+)\)", WITH_README["README.md"])
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_navigation_has_every_page(reference):
    class Loader(yaml.SafeLoader):
        """Reads the configuration without resolving the functions that it names."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    assert sorted(pages_of(config["nav"])) == sorted({*PAGES, *reference})


def pages_of(navigation):
    """Yield the pages of a navigation at any depth."""
    for entry in navigation:
        (value,) = entry.values()
        yield from [value] if isinstance(value, str) else pages_of(value)


def test_the_reference_has_every_command(reference):
    for name, _ in make_reference._subcommands(parser()):
        assert f"## harness {name}\n" in reference["reference/cli.md"]


def test_the_reference_has_every_config(reference):
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert path.read_text(encoding="utf-8").strip() in reference["reference/configs.md"]


def test_the_reference_has_every_field_of_a_record(reference):
    text = reference["reference/record.md"]
    section = text.split("\n## ")[1]
    assert section.startswith("Record\n")
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(Record.model_fields)
    assert "| `docs_per_s` " in text


def test_the_reference_has_every_public_name(reference):
    directives = re.findall(r"^::: (\S+)$", reference["reference/python.md"], re.MULTILINE)
    assert {name.rpartition(".")[2] for name in directives} == {*harness.__all__} - {"__version__"}


def test_the_metrics_page_has_every_metric():
    assert re.findall(r"^\| `([^`]+)` ", PAGES["reference/metrics.md"], re.MULTILINE) == NAMES
