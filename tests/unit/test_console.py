"""Tests of output whose reader closes it early, and of output that cannot be written."""

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from junitparser import JUnitXml
from support.command_line import harness
from support.gate import BASE, shifted, store_evaluations

from harness.console import TolerantStream, tolerant_output
from harness.errors import OutputError


@pytest.fixture
def results(tmp_path, monkeypatch, capsys):
    """Return the results folder of a new working folder, with a regression from its baseline."""
    monkeypatch.chdir(tmp_path)
    values = {(f"retriever{number}", "x"): BASE for number in range(3)}
    store_evaluations(Path("results"), values)
    assert harness(monkeypatch, "accept", "--reason", "first") == 0
    store_evaluations(Path("results"), {key: shifted(-0.02) for key in values}, 5)
    return Path("results")


def run_closed(*arguments, lines=0):
    """Run `harness ARGUMENTS | head -LINES`, which closes the pipe; return the exit code and stderr."""
    command = [sys.executable, "-m", "harness", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    return process.wait(timeout=60), error


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 1])
def test_a_closed_pipe_changes_neither_the_exit_code_nor_the_files_of_the_gate(results, lines):
    code, error = run_closed("gate", "--junit", "gate.xml", "--summary", "summary.md", "--annotations", lines=lines)
    assert (code, error) == (1, "")
    assert JUnitXml.fromfile("gate.xml").failures == 3
    assert "retriever1 on x" in Path("summary.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("report",),
        ("compare", "retriever0", "retriever1"),
        ("recommend",),
        ("list", "records"),
        ("list", "retrievers"),
        ("--help",),
        ("run", "--help"),
    ],
)
def test_a_closed_pipe_is_no_failure(results, arguments):
    code, error = run_closed(*arguments)
    assert code == 0
    assert "Traceback" not in error
    assert "BrokenPipe" not in error
    if arguments == ("report",):
        assert (results / "leaderboard.md").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file of Linux that is always full")
@pytest.mark.parametrize("arguments", [("gate", "--junit", "gate.xml"), ("list", "records"), ("report",)])
def test_a_full_disk_is_named_in_one_line(results, arguments):
    command = [sys.executable, "-m", "harness", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("wrote ")]
    assert errors == ["error: stdout cannot be written: No space left on device"]
    assert Path("gate.xml").exists() == (arguments[0] == "gate")


class Failing(io.StringIO):
    """A stream that fails with an error number after some writes."""

    def __init__(self, number, writes=1):
        super().__init__()
        self.number, self.remaining = number, writes

    def write(self, text):
        if not self.remaining:
            raise OSError(self.number, os.strerror(self.number))
        self.remaining -= 1
        return super().write(text)


def test_output_after_a_closed_pipe_is_discarded():
    inner = Failing(errno.EPIPE)
    stream = TolerantStream(inner, "stdout")
    stream.writelines(["read\n", "unread\n", "unread\n"])
    stream.flush()
    assert inner.getvalue() == "read\n"
    assert stream.encoding == inner.encoding


def test_any_other_error_is_raised_once_and_names_the_stream():
    stream = TolerantStream(Failing(errno.ENOSPC, writes=0), "stdout")
    with pytest.raises(OutputError, match=re.escape("stdout cannot be written: No space left on device")):
        stream.write("text")
    assert stream.write("text") == 4


def test_the_streams_are_restored_and_the_exit_code_is_that_of_a_usage_error(monkeypatch, capsys):
    stream = Failing(errno.ENOSPC, writes=0)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as stop, tolerant_output():
        print("text")
    assert stop.value.code == 2
    assert sys.stdout is stream
    assert capsys.readouterr().err == "error: stdout cannot be written: No space left on device\n"
