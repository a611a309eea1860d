"""Importing the package, reading records, reporting and gating need nothing that Windows lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import ROOT

from harness import files, instrument

RESULTS = ROOT / "results"
WITHOUT_POSIX = """
import sys, psutil  # whose module for Linux needs `resource`; on Windows it has another
sys.modules.update(dict.fromkeys(("fcntl", "resource")))
"""
RUN_COMMAND = "from harness.cli.read import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def results(tmp_path):
    """A results folder with the records of the baseline, and the baseline."""
    shutil.copytree(RESULTS / "baseline", tmp_path / "baseline")
    for name in ("records", "per_query"):
        shutil.copytree(RESULTS / "baseline" / name, tmp_path / name)
    return tmp_path


def run(code, *arguments):
    """Run code in a new process without the modules that only POSIX has."""
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_POSIX + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_package_is_imported_and_records_are_read(results):
    code = "import harness; frame = harness.open_results(sys.argv[1]).to_pandas(); print(len(frame))"
    ended = run(code, results)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 10


def test_instrumentation_is_imported():
    ended = run("import harness.instrument, harness.evaluation.evaluate, harness.retrievers.bm25")
    assert ended.returncode == 0, ended.stderr


def test_peak_memory_is_asked_of_psutil(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=7)))
    assert instrument.peak_memory() == 7


def test_only_files_that_can_be_written_are_synced(monkeypatch, tmp_path):
    """Windows opens no folder, and syncs no file that was opened for reading."""
    opened = []
    open_file = os.open
    monkeypatch.setattr("os.open", lambda path, flags: opened.append((Path(path), flags)) or open_file(path, flags))
    monkeypatch.setattr("sys.platform", "win32")
    files.write_atomic(tmp_path / "record.json", b"{}")
    assert (tmp_path / "record.json").read_bytes() == b"{}"
    ((path, flags),) = opened
    assert path.parent == tmp_path
    assert flags == os.O_RDWR


def test_a_report_is_written(results):
    ended = run(RUN_COMMAND, "report", "--results", results)
    assert ended.returncode == 0, ended.stderr
    assert (results / "leaderboard.html").is_file()


def test_the_gate_decides(results):
    """The records are the baseline's: nothing got worse."""
    ended = run(RUN_COMMAND, "gate", "--results", results)
    with_posix = subprocess.run(
        [sys.executable, "-m", "harness", "gate", "--results", str(results)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (with_posix.returncode, with_posix.stdout), ended.stderr
    assert ended.returncode in (0, 1, 3)
