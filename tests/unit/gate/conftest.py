"""Results folders for tests of the commands `gate` and `accept`."""

from pathlib import Path

import pytest
from support.command_line import harness
from support.gate import BASE, store_evaluations


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Return the results folder, with two evaluations, of a new working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    store_evaluations(Path("results"), {("a", "x"): BASE, ("b", "x"): BASE})
    return Path("results")


@pytest.fixture
def accepted_results(results, monkeypatch, capsys):
    """Return the results folder after both evaluations were accepted as the baseline."""
    assert harness(monkeypatch, "accept", "--reason", "first") == 0
    capsys.readouterr()
    return results
