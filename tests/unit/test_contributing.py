"""Tests that the contributing guide, the workflows and the release files agree with this repository."""

import re
import shlex
import tomllib

import pytest
import yaml
from support import ROOT

import harness

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SOURCE = next(iter(PROJECT["urls"].values()))


def load(path):
    """Return the content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def words_in_backquotes(text):
    """Return the words of all spans in backquotes."""
    return [word for span in re.findall(r"`([^`\n]+)`", text) for word in span.split()]


def test_the_version_is_the_same_in_every_file():
    released = re.search(r"^## \[(\d[^\]]*)\]", CHANGELOG, re.MULTILINE)
    citation = load(ROOT / "CITATION.cff")
    assert PROJECT["version"] == harness.__version__ == citation["version"]
    assert released is None or released[1] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]


def test_the_changelog_has_the_headings_of_keep_a_changelog():
    headings = re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)
    assert "## [Unreleased]" in CHANGELOG
    assert set(headings) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_path_in_the_guide_exists():
    folders = ("harness/", "conf/", "docs/", "tests/", "scripts/", "results/", ".github/")
    links = re.findall(r"\]\(([^)#:]+)\)", GUIDE)
    named = [
        word for word in words_in_backquotes(GUIDE) if word.startswith(folders) and not re.search("[A-Z]{3}", word)
    ]
    assert len(named) > 25
    assert [name for name in [*named, *links] if not (ROOT / name).exists()] == []


def test_the_guide_lists_every_package():
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "harness").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(harness/\w+)` ", GUIDE, re.MULTILINE)) == packages


def test_the_guide_lists_every_version_constant():
    from harness import versions

    rows = re.findall(r"^\| `([A-Z]+)", GUIDE, re.MULTILINE)
    assert {*rows} - {"HARNESS"} == {name for name in vars(versions) if name.isupper()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_targets_and_files_of_this_repository(path):
    jobs = load(path)["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = [shlex.split(line)[1] for run in runs for line in run.splitlines() if line.startswith("make ")]
    assert {*targets} <= {*TARGETS, ".venv/.installed"}
    assert all("timeout-minutes" in job for job in jobs.values())


def test_make_targets_in_the_guide_exist():
    named = re.findall(r"\bmake ([a-z]+(?: [a-z]+)*)", "\n".join(re.findall(r"`(make [^`]+)`", GUIDE)))
    assert {"lint", "gate"} <= {word for words in named for word in words.split()} <= TARGETS


def test_the_tested_python_versions_are_those_of_the_classifiers():
    tested = load(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert tested == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_only_the_publishing_job_may_request_a_token_for_pypi():
    jobs = load(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["publish"]
    assert "password" not in str(jobs)


def test_issue_forms_have_the_fields_that_github_requires():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = load(path)
        if path.stem != "config":
            assert form["name"]
            assert form["description"]
            assert all(item["attributes"]["label"] for item in form["body"])


def test_all_project_urls_point_to_the_same_repository():
    assert all(url.startswith(SOURCE) for url in PROJECT["urls"].values())


def test_pre_commit_runs_the_tools_of_the_environment():
    tools = [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/python", ".venv/bin/mypy"]
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [hook["entry"].split()[0] for hook in repository["hooks"]] == tools
