"""List the harness's files that one plain evaluation enters, in order of first entry, and count them.

    python scripts/files_entered.py

Makes a folder of 200 documents in BEIR's layout and runs `harness retriever=bm25 dataset=folder` on it in a new process
under `sys.setprofile`, threads included. A file is entered when a function in it runs. The body of a module or of a
class is no function, nor is a comprehension, which belongs to the code around it. The last line is the number of files.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType

DOCUMENTS = 200
QUERIES = 20
ROOT = Path(__file__).resolve().parent.parent
_COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}


def write_folder(folder: Path, documents: int = DOCUMENTS, queries: int = QUERIES) -> None:
    """Write a test collection in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": f"d{i}", "title": f"report {i}", "text": f"measurement {i} of subject{i % queries} and topic{i % 7}"}
        for i in range(documents)
    ]
    questions = [{"_id": f"q{i}", "text": f"subject{i} topic{i % 7}"} for i in range(queries)]
    _write_lines(folder / "corpus.jsonl", [json.dumps(row) for row in corpus])
    _write_lines(folder / "queries.jsonl", [json.dumps(row) for row in questions])
    judgements = [f"q{i % queries}\td{i}\t1" for i in range(documents)]
    _write_lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *judgements])


def files_entered(scratch: Path) -> list[str]:
    """Evaluate BM25 on a folder of documents in a new process; return the files it entered, relative to `harness/`.

    Args:
        scratch: An empty folder for the documents and the results.

    Raises:
        subprocess.CalledProcessError: The evaluation failed; its message is on stderr.
    """
    write_folder(scratch / "documents")
    listing = scratch / "files.json"
    arguments = [
        *("retriever=bm25", "dataset=folder", f"dataset.path={scratch / 'documents'}"),
        f"results_dir={scratch / 'results'}",
    ]
    command = [sys.executable, __file__, "--profiled", str(listing), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=scratch)
    return [str(name) for name in json.loads(listing.read_text())]


def profile(listing: Path, arguments: Sequence[str]) -> None:
    """Run the `harness` command in this process and write the files that it entered to `listing`, as JSON."""
    package = f"{ROOT / 'harness'}/"
    entered: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(package) and _is_function(frame.f_code):
            entered.setdefault(name.removeprefix(package))

    sys.path.insert(0, str(ROOT))
    sys.argv = ["harness", *arguments]
    threading.setprofile(note)
    sys.setprofile(note)
    from harness.__main__ import main

    try:
        main()
    finally:
        sys.setprofile(None)
        listing.write_text(json.dumps(list(entered)))


def main() -> None:
    """Print the files with their packages, and the number of files."""
    if sys.argv[1:2] == ["--profiled"]:
        profile(Path(sys.argv[2]), sys.argv[3:])
        return
    with tempfile.TemporaryDirectory() as scratch:
        files = files_entered(Path(scratch))
    for name in files:
        print(f"{name.partition('/')[0] if '/' in name else 'harness':<16} {name}")
    print(f"{len(files)} files")


def _is_function(code: CodeType) -> bool:
    return bool(code.co_flags & CO_OPTIMIZED) and code.co_name not in _COMPREHENSIONS


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
