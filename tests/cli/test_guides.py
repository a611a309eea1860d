"""The guides' Python runs, their links lead somewhere, and the generated reference covers the code."""

import ast
import re
import shlex
import sys
import tomllib

import pytest
import yaml
from support import ROOT

import harness
from harness.cli.read import parser
from harness.metrics import NAMES
from harness.types import Record

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
RUN = ("get-started.md", "guides/own-dataset.md", "guides/own-retriever.md", "guides/notebook.md")
"""Pages whose Python needs no model and no download: it is run. Of other pages the imports are."""

sys.path.insert(0, str(ROOT / "scripts"))
import make_reference  # noqa: E402


@pytest.fixture(scope="module")
def reference():
    return make_reference.pages()


def python_blocks(page):
    return re.findall(r"```python\n(.*?)\n```", PAGES[page], re.DOTALL)


@pytest.mark.parametrize("page", RUN)
def test_the_python_of_a_page_runs_in_order(page, monkeypatch, capsys):
    monkeypatch.setattr("harness.api.run._timing_plan", lambda timing: None)
    names = {}
    for code in python_blocks(page):
        exec(code, names)
    assert "harness" in names


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN and python_blocks(page)])
def test_the_python_of_other_pages_is_python_and_imports_what_there_is(page):
    for code in python_blocks(page):
        tree = ast.parse(code)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page, "exec"), {})
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "harness":
                assert node.attr in harness.__all__


@pytest.mark.parametrize("page", PAGES)
def test_the_shell_lines_of_a_page_are_commands_that_there_are(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    shell = "".join(re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)).replace("\\\n", " ")
    for line in shell.splitlines():
        command, *words = [word for word in shlex.split(line, comments=True) if not re.match("[A-Z_]+=", word)] or [""]
        assert command in ("", "make", "export", "echo", "harness"), line
        assert command != "make" or words[0] in targets


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
            target = (DOCS / page).parent.joinpath(name).resolve().relative_to(DOCS).as_posix()
            assert target in PAGES or target in reference, link


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
