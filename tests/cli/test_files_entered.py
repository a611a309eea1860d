"""Test of the number of files of the harness whose functions a plain evaluation runs."""

import subprocess
import sys

import pytest
from support import ROOT

SCRIPT = ROOT / "scripts" / "files_entered.py"
MAX_FILES = 50
UNUSED = (
    "cli/record_options.py",
    "datasets/beir.py",
    "encoders/",
    "interop/",
    "stats.py",
    "user_code.py",
    "weights.py",
)


@pytest.mark.slow
def test_plain_evaluation_runs_functions_of_few_files(tmp_path):
    printed = subprocess.check_output([sys.executable, str(SCRIPT)], cwd=tmp_path, text=True)
    *lines, summary = printed.splitlines()
    files = [line.split()[1] for line in lines]
    assert summary == f"{len(files)} files"
    assert {"retrievers/bm25.py", "search/postings.py", "evaluation/evaluate.py", "store/folder.py"} <= {*files}
    assert len(files) <= MAX_FILES, f"merge modules that belong together, or avoid a call; entered: {', '.join(files)}"
    assert [name for name in files if name.startswith(UNUSED)] == []
