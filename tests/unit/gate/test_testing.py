"""Tests of `assert_no_regression` and of what test runners show of its failures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.gate import shifted, store_evaluations

from harness.errors import UndecidedError
from harness.testing import assert_no_regression

SUMMARY = r"Worse than the baseline: b/x ndcg@10\. Adjusted over 1 test\."
SUITE = """
import unittest

from harness.testing import assert_no_regression


class GateTest(unittest.TestCase):
    def test_gate(self):
        assert_no_regression(baseline={baseline!r})


def test_gate():
    assert_no_regression(baseline={baseline!r})
"""


def run_suite(*command, baseline=None):
    """Run a test suite that calls the gate and return what it prints."""
    Path("test_suite.py").write_text(SUITE.format(baseline=baseline))
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode
    return done.stdout + done.stderr


def test_a_regression_raises_the_lines_of_the_gate(accepted_results):
    assert_no_regression()
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.02)}, 5)
    with pytest.raises(AssertionError, match=rf"^{SUMMARY}\nFAIL b/x ndcg@10 "):
        assert_no_regression()
    with pytest.raises(UndecidedError, match="there is no baseline"):
        assert_no_regression(baseline="nowhere")


@pytest.mark.slow
def test_pytest_shows_the_message_without_the_frames_of_the_harness(accepted_results):
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.02)}, 5)
    out = run_suite("pytest", "-q", "-p", "no:cacheprovider", "test_suite.py::test_gate")
    assert re.search(
        r"^E +AssertionError: Worse than the baseline: b/x ndcg@10\. Adjusted over 1 test\.\nE +FAIL b/x ndcg@10 ",
        out,
        re.M,
    )
    assert "testing.py" not in out
    missing = run_suite("pytest", "-q", "-p", "no:cacheprovider", "test_suite.py::test_gate", baseline="nowhere")
    assert "there is no baseline in nowhere/" in missing
    assert "testing.py" not in missing


@pytest.mark.slow
def test_unittest_shows_the_message_without_the_frames_of_the_harness(accepted_results):
    store_evaluations(accepted_results, {("b", "x"): shifted(-0.02)}, 5)
    out = run_suite("unittest", "test_suite.GateTest")
    assert "AssertionError: Worse than the baseline: b/x ndcg@10." in out
    assert "testing.py" not in out
