"""Tests that importing the package, reading records, reporting and gating work without modules that Windows lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import ROOT

from harness import files, machine

RESULTS = ROOT / "results"
WITHOUT_POSIX = """
import sys, psutil  # imported first: its Linux version needs `resource`
sys.modules.update(dict.fromkeys(("fcntl", "resource")))
"""
RUN_COMMAND = "from harness.cli.read import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def results(tmp_path):
    """Return a results folder with the committed baseline and its records."""
    shutil.copytree(RESULTS / "baseline", tmp_path / "baseline")
    for name in ("records", "per_query"):
        shutil.copytree(RESULTS / "baseline" / name, tmp_path / name)
    return tmp_path


def run_without_posix(code, *arguments):
    """Run code in a new process that cannot import the modules which only POSIX has."""
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_POSIX + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_records_are_read_without_posix_modules(results):
    code = "import harness; frame = harness.open_results(sys.argv[1]).to_pandas(); print(len(frame))"
    process = run_without_posix(code, results)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) > 10


def test_the_evaluation_modules_are_imported_without_posix_modules():
    process = run_without_posix("import harness.instrument, harness.evaluation.evaluate, harness.retrievers.bm25")
    assert process.returncode == 0, process.stderr


def test_peak_memory_on_windows_comes_from_psutil(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=7)))
    assert machine.peak_memory() == 7


def test_on_windows_only_the_written_file_is_synced(monkeypatch, tmp_path):
    """On Windows folders cannot be opened, and files that were opened for reading cannot be synced."""
    opened = []
    open_file = os.open
    monkeypatch.setattr("os.open", lambda path, flags: opened.append((Path(path), flags)) or open_file(path, flags))
    monkeypatch.setattr("sys.platform", "win32")
    files.write_atomic(tmp_path / "record.json", b"{}")
    assert (tmp_path / "record.json").read_bytes() == b"{}"
    ((path, flags),) = opened
    assert path.parent == tmp_path
    assert flags == os.O_RDWR


@pytest.mark.slow
def test_report_runs_without_posix_modules(results):
    process = run_without_posix(RUN_COMMAND, "report", "--results", results)
    assert process.returncode == 0, process.stderr
    assert (results / "leaderboard.html").is_file()


def test_the_gate_runs_without_posix_modules(results):
    """The gate's exit code and output are the same with and without the POSIX modules."""
    process = run_without_posix(RUN_COMMAND, "gate", "--results", results)
    with_posix = subprocess.run(
        [sys.executable, "-m", "harness", "gate", "--results", str(results)], capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (with_posix.returncode, with_posix.stdout), process.stderr
    assert process.returncode in (0, 1, 3)
