"""Tests of the measurements of the machine: kernels, run delay and peak memory."""

import subprocess
import sys

import pytest

from harness import machine

MEASURE, RUN_DELAY = machine.reference_kernels, machine.run_delay
"""The functions themselves, which the other tests run without."""


def test_kernels_have_the_least_cpu_and_the_median_wall_seconds(monkeypatch):
    times = iter([(3.0, 4.0), (1.0, 9.0), (2.0, 5.0)])
    monkeypatch.setattr(machine, "_kernels", lambda: {"loop": lambda: None})
    monkeypatch.setattr(machine, "_time", lambda kernel: next(times))
    assert MEASURE(3) == machine.KernelTimes({"loop": 1.0}, {"loop": 5.0})


def test_the_run_delay_is_read_from_the_scheduler(monkeypatch, tmp_path):
    file = tmp_path / "schedstat"
    monkeypatch.setattr(machine, "_SCHEDSTAT", file)
    assert RUN_DELAY() is None, "another system"
    file.write_text("120000000 2500000000 17\n")
    assert RUN_DELAY() == 2.5
    file.write_text("\n")
    assert RUN_DELAY() is None


CHILD = "from harness.machine import peak_memory; print(peak_memory())"
PARENT = f"""
import subprocess, sys
memory = bytearray(600_000_000)
memory[::4096] = b"x" * len(memory[::4096])
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is a figure of Linux")
def test_peak_memory_does_not_include_the_peak_of_the_parent():
    process = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True)
    assert 10e6 < int(process.stdout) < 400e6


def test_peak_memory_without_proc_comes_from_the_resource_usage(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_STATUS", tmp_path / "missing")
    assert machine.peak_memory() > 10e6
