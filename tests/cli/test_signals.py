"""How a measuring process ends early: by SIGTERM, and with the process that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.datasets import write_beir

from harness.store import Store

SLOW = """
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
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.Popen[str]]:
    """Starts a sweep of a cell that is quick and one that takes a minute, and waits until it is at the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write_beir(Path("made"))
    Path("slow_of_mine.py").write_text(SLOW)
    Path("conf/retriever").mkdir(parents=True)
    Path("conf/retriever/slow.yaml").write_text("_target_: slow_of_mine.Slow\nwait_s: 60\n")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "harness", f"--config-dir={tmp_path / 'conf'}", *arguments]
        command += ["dataset=folder", "dataset.path=made", "retriever=slow", "timing.latency_queries=1", "k=10"]
        command += ["timing.warmup_documents=0", "metrics=[ndcg@10]"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        until(Path("begun").exists)
        return process

    return start


def until(true: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_sigterm_is_a_ctrl_c_and_what_was_measured_is_kept(begun):
    process = begun("-m", "retriever.wait_s=0,60")
    until(lambda: len(list(Path("results").rglob("records/**/*.json"))) == 1)
    (kept,) = Path("results").rglob("records/**/*.json")
    until(lambda: Path("begun").stat().st_mtime_ns > kept.stat().st_mtime_ns)  # the second cell indexes
    process.terminate()
    said = process.communicate(timeout=20)[1]
    assert said.endswith("interrupted; what was measured is kept; repeat the command to continue\n")
    assert process.returncode == 143
    (record,) = Store(Path("results")).records()
    assert record.status == "ok"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_cell_in_its_own_process_ends_with_the_process_that_started_it(begun, sent, code):
    process = begun("timing.isolate=true")
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(sent)
    child.wait(timeout=20)
    process.communicate(timeout=20)
    assert process.returncode == code
    left = [record.error.partition(":")[0] for record in Store(Path("results")).records()]
    assert left == (["ProcessDied"] if sent == signal.SIGKILL else []), "an interruption is no failure"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process of its parent's death")
def test_a_cell_whose_starter_died_before_it_had_begun_ends_at_once():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for parent, said in ((os.getpid(), "alive\n"), (gone.pid, "")):
        code = f"from harness.signals import end_with; end_with({parent}); print('alive')"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert done.stdout == said


AGAIN = """
import signal
from harness.cli.job import Terminated, terminable
before = signal.getsignal(signal.SIGTERM)
try:
    with terminable():
        signal.raise_signal(signal.SIGTERM)
except Terminated:
    print(signal.getsignal(signal.SIGTERM) is before)
"""


def test_what_a_signal_did_before_it_does_again_afterwards():
    assert subprocess.check_output([sys.executable, "-c", AGAIN], text=True) == "True\n"
