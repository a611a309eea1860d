"""Tests of how an evaluation ends early: on SIGTERM, and with the process that started it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.command_line import wait_until
from support.datasets import write_beir

from harness.store import Store

USER_RETRIEVER = """
import pathlib, time
import numpy as np
from harness.types import Run
class Slow:
    def __init__(self, wait_s): self.wait_s = wait_s
    def index(self, corpus):
        self.ids = corpus.ids
        pathlib.Path("begun").touch()
        time.sleep(self.wait_s)
    def search(self, queries, k):
        docs = np.tile(np.arange(len(self.ids)), (len(queries), 1))
        return Run(queries.ids, self.ids, docs, -docs.astype(float))
    def nbytes(self): return 1
"""


@pytest.fixture
def start_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts an evaluation, or a sweep, and waits until the retriever indexes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write_beir(Path("tiny"))
    Path("slow_retriever.py").write_text(USER_RETRIEVER)
    Path("conf/retriever").mkdir(parents=True)
    Path("conf/retriever/slow.yaml").write_text("_target_: slow_retriever.Slow\nwait_s: 600\n")

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness", f"--config-dir={tmp_path / 'conf'}", *arguments]
        command += ["dataset=folder", "dataset.path=tiny", "retriever=slow", "timing.latency_queries=1", "k=10"]
        command += ["timing.warmup_documents=0", "metrics=[ndcg@10]"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_until(Path("begun").exists)
        return process

    return start


@pytest.mark.slow
def test_sigterm_keeps_the_finished_evaluations(start_evaluation):
    process = start_evaluation("-m", "retriever.wait_s=0,600")
    wait_until(lambda: len(list(Path("results").rglob("records/**/*.json"))) == 1)
    (stored,) = Path("results").rglob("records/**/*.json")
    wait_until(lambda: Path("begun").stat().st_mtime_ns > stored.stat().st_mtime_ns)  # the second evaluation indexes
    process.terminate()
    error = process.communicate(timeout=120)[1]
    assert "interrupted" in error
    assert error.endswith("repeat the command to continue\n")
    assert process.returncode == 143
    (record,) = Store(Path("results")).records()
    assert record.status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_isolated_evaluation_ends_with_its_parent_process(start_evaluation, sent, exit_code):
    process = start_evaluation("timing.isolate=true")
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(sent)
    child.wait(timeout=120)
    process.communicate(timeout=120)
    assert process.returncode == exit_code
    errors = [record.error.partition(":")[0] for record in Store(Path("results")).records()]
    assert errors == (["ProcessDied"] if sent == signal.SIGKILL else []), "an interruption is not a failure"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a process of its parent's death")
def test_process_whose_parent_is_dead_ends_at_once():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for parent, output in ((os.getpid(), "alive\n"), (dead.pid, "")):
        code = f"from harness.signals import end_with; end_with({parent}); print('alive')"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert done.stdout == output


RESTORE = """
import signal
from harness.cli.job import Terminated, terminable
before = signal.getsignal(signal.SIGTERM)
try:
    with terminable():
        signal.raise_signal(signal.SIGTERM)
except Terminated:
    print(signal.getsignal(signal.SIGTERM) is before)
"""


def test_signal_handler_is_restored():
    assert subprocess.check_output([sys.executable, "-c", RESTORE], text=True) == "True\n"
