"""Tests of the committed results: small, and measured by code that is committed."""

import subprocess

import pytest
from support import ROOT

from harness.gate import baseline
from harness.store import Store

RESULTS = ROOT / "results"
MAX_BYTES = 1_000_000


def git(*arguments: str) -> str:
    """Return what git prints; skip the test outside a repository with its history."""
    process = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if process.returncode:
        pytest.skip(f"git {arguments[0]}: {process.stderr.strip()}")
    return process.stdout.strip()


def test_the_demo_leaderboard_is_small():
    paths = git("ls-files", "results/demo").splitlines()
    assert paths
    assert sum((ROOT / path).stat().st_size for path in paths) <= MAX_BYTES


def test_every_committed_record_was_measured_by_a_commit_of_this_repository():
    """A revision with "+" had changes that were not committed."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone has no history")
    records = [*Store(RESULTS / "demo").records(), *baseline.read(RESULTS / "baseline").records]
    assert len(records) >= 36
    for revision in {record.revision for record in records}:
        assert revision is not None
        assert not revision.endswith("+"), f"{revision} had uncommitted changes"
        process = subprocess.run(
            ["git", "merge-base", "--is-ancestor", revision, "HEAD"], cwd=ROOT, capture_output=True
        )
        assert process.returncode == 0, f"{revision} is no commit that HEAD comes from"
