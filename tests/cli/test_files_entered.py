"""One plain evaluation runs functions of few files of the harness."""

import subprocess
import sys

from support import ROOT

SCRIPT = ROOT / "scripts" / "files_entered.py"
MOST = 42
NEEDLESS = (
    "cli/record_options.py",
    "datasets/beir.py",
    "encoders/",
    "interop/",
    "stats.py",
    "user_code.py",
    "weights.py",
)


def test_a_plain_evaluation_enters_few_files_and_none_of_what_it_has_no_need_of(tmp_path):
    printed = subprocess.check_output([sys.executable, str(SCRIPT)], cwd=tmp_path, text=True)
    *lines, total = printed.splitlines()
    files = [line.split()[1] for line in lines]
    assert total == f"{len(files)} files"
    assert {"retrievers/bm25.py", "search/postings.py", "evaluation/evaluate.py", "store/folder.py"} <= {*files}
    assert len(files) <= MOST, f"merge modules that belong together, or avoid a call; entered: {', '.join(files)}"
    assert [name for name in files if name.startswith(NEEDLESS)] == []
