"""Benchmark of the gate on CPU time under load: twenty runs of an unchanged and of a slower retriever.

The gate must raise no false alarm and must detect every slowdown.

python -m pytest tests/benchmarks/test_gate_load.py --benchmark-enable -s
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from support import ROOT

RETRIEVER = """
from harness.retrievers.bm25 import BM25


class UserBM25(BM25):
    def search(self, queries, k):
        for _ in range({times}):
            run = super().search(queries, k)
        return run
"""


def keep_busy(seed: int) -> None:
    """Multiply matrices, gather rows and parse JSON forever, on one thread."""
    threadpoolctl.threadpool_limits(1)
    rng = np.random.default_rng(seed)
    matrix, table = rng.random((500, 500), np.float32), rng.random(1 << 23, np.float32)
    while True:
        matrix @ matrix
        table[rng.integers(0, len(table), 1 << 18)].sum()
        json.loads(json.dumps({str(number): number for number in range(20_000)}))


@contextmanager
def background_load(processes: int) -> Iterator[None]:
    started = [multiprocessing.get_context("spawn").Process(target=keep_busy, args=(n,)) for n in range(processes)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()


class Project:
    """A project with a user-defined retriever and a gate."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "conf" / "retriever").mkdir(parents=True)
        preset = (ROOT / "conf" / "retriever" / "bm25.yaml").read_text()
        preset = preset.replace("harness.retrievers.bm25.BM25", "user_bm25.UserBM25")
        (top / "conf" / "retriever" / "user.yaml").write_text(preset)
        self.environment = {**os.environ, "PYTHONPATH": str(top)}

    def harness(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        return subprocess.run(command, cwd=self.top, capture_output=True, text=True, env=self.environment)

    def measure(self, times: int) -> None:
        """Evaluate the retriever, with `times` searches for each, without reusing a record."""
        shutil.rmtree(self.top / "results", ignore_errors=True)
        (self.top / "user_bm25.py").write_text(RETRIEVER.format(times=times))
        plan = ["timing=cpu1", "timing.latency_queries=0", "resume=false"]
        overrides = [f"--config-dir={self.top / 'conf'}", "retriever=user", "dataset=xquad/en", *plan]
        done = self.harness(*overrides)
        assert done.returncode == 0, done.stderr

    def gate(self) -> tuple[str, int]:
        """Return the verdict on CPU seconds per query, `pass` or `fail`, and the number of repeated measurements."""
        done = self.harness("gate", "--baseline", "accepted")
        (line,) = [line for line in done.stdout.splitlines() if " cpu/query " in line]
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return line.split()[0].lower(), done.stderr.count("measured again to be sure")


@pytest.mark.slow
def test_the_speed_gate_under_load(measuring, data, tmp_path, benchmark, capsys):
    if not measuring:
        pytest.skip("only with --benchmark-enable: it runs up to eighty evaluations under load")
    project = Project(tmp_path)
    project.measure(20)
    assert project.harness("accept", "--reason", "baseline", "--baseline", "accepted").returncode == 0
    verdicts: dict[str, list[tuple[str, int]]] = {"unchanged": [], "slower": []}

    def rounds() -> None:
        with background_load(4):
            for number in range(20):
                for name, times in (("unchanged", 20), ("slower", 30)):
                    project.measure(times)
                    verdicts[name].append(project.gate())
                    with capsys.disabled():
                        print(
                            f"{number + 1}: {name}: {verdicts[name][-1][0]}, measured again {verdicts[name][-1][1]}",
                            flush=True,
                        )

    benchmark.pedantic(rounds, rounds=1)
    alarms, detected = (sum(verdict == "fail" for verdict, _ in verdicts[name]) for name in ("unchanged", "slower"))
    with capsys.disabled():
        print(f"\nunder load: {alarms} of 20 false alarms, {detected} of 20 slowdowns detected")
    assert (alarms, detected) == (0, 20)
