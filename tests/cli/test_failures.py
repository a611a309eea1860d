"""A failed evaluation leaves a failed record, however it fails, and reuse follows what the numbers depend on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from harness.store import Store

OWN = """
import numpy as np
from helper_of_user import SIGN
from harness.types import Run


class Own:
    def index(self, corpus):
        self.corpus = corpus

    def search(self, queries, k):
        scores = np.tile(SIGN * np.arange(len(self.corpus), dtype=np.float32), (len(queries), 1))
        docs = np.tile(np.arange(len(self.corpus), dtype=np.int32), (len(queries), 1))
        return Run(queries.ids, self.corpus.ids, docs, scores).top(k)

    def nbytes(self):
        return 0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a dataset, a retriever of the user's, a module beside it, and a config."""
    data = tmp_path / "data"
    (data / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{n}", "text": f"text {n}"} for n in range(4)]
    (data / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "text 0"}) + "\n")
    (data / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    (tmp_path / "own_of_user.py").write_text(OWN)
    (tmp_path / "helper_of_user.py").write_text("SIGN = 1\n")
    (tmp_path / "conf" / "retriever").mkdir(parents=True)
    (tmp_path / "conf" / "retriever" / "own.yaml").write_text("_target_: own_of_user.Own\n")
    return tmp_path


def measure(project: Path, *words: str, harness: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Evaluate the user's retriever in a process of its own; `harness` is the checkout that is imported."""
    command = [sys.executable, "-P", "-m", "harness", f"--config-dir={project / 'conf'}", "retriever=own"]
    command += ["dataset=folder", f"dataset.path={project / 'data'}", "k=2", "metrics=[ndcg@2]", *words]
    environment = {"PYTHONPATH": f"{harness}:{project}", "PATH": "/usr/bin:/bin", "HOME": str(project)}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def records(project: Path) -> list[tuple[str, str | None, float | None]]:
    held = Store(project / "results").records()
    return [(record.status, record.error, record.metrics.get("ndcg@2")) for record in held]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_of_user\n", "no_such_module_of_user"),
        ("raise ValueError('broken on import')\n", "broken on import"),
        ("import sys\nsys.exit('not today')\n", "not today"),
        (OWN.replace("self.corpus = corpus", "raise SystemExit(3)"), "SystemExit: 3"),
        (OWN.replace("self.corpus = corpus", "import os; os._exit(9)"), "ProcessDied"),
    ],
    ids=["import error", "error on import", "exit on import", "exit in index", "death"],
)
def test_every_failure_leaves_a_failed_record(project, source, error):
    (project / "own_of_user.py").write_text(source)
    assert measure(project).returncode != 0
    ((status, message, _),) = records(project)
    assert status == "failed"
    assert error in message


def test_a_broken_module_beside_the_users_retriever_is_evaluated_anew(project):
    assert measure(project).returncode == 0
    assert measure(project).returncode == 0
    (first,) = records(project)
    (project / "helper_of_user.py").write_text("SIGN = -1\n")
    assert measure(project).returncode == 0
    (_, second) = records(project)
    assert first[2] != second[2]
    (project / "helper_of_user.py").write_text("SIGN = 1 / 0\n")
    assert measure(project).returncode == 1
    assert records(project)[-1][0] == "failed"


def test_a_changed_docstring_of_the_harness_reuses_the_evaluation_and_the_embeddings(project):
    """In a copy of the package: the report's and the cache's code are edited, and nothing is measured or encoded."""
    copy = project / "copy"
    shutil.copytree(ROOT / "harness", copy / "harness")  # with the kernels that are compiled already
    shutil.copytree(ROOT / "conf", copy / "conf")
    from support.models import write_dense

    model = write_dense(project / "model")
    lines = [json.dumps({"_id": f"d{n}", "text": f"text {n}"}) + "\n" for n in range(150)]  # enough for a shard
    (project / "data" / "corpus.jsonl").write_text("".join(lines))
    words = ("retriever=minilm", f"retriever.encoder.model={model}", "retriever.encoder.package=null")
    assert measure(project, *words, harness=copy).returncode == 0
    for edited in ("leaderboard/build.py", "embedding_cache/contents.py", "encoders/dense.py"):
        path = copy / "harness" / edited
        path.write_text(path.read_text().replace('"""', '"""Edited. ', 1))
    again = measure(project, *words, harness=copy)
    assert "measured" in again.stderr
    assert len(records(project)) == 1
    anew = measure(project, *words, "seed=1", "timing.latency_queries=0", harness=copy)
    assert anew.returncode == 0
    newest = list(Store(project / "results").records())[-1]
    assert newest.timing.index.cached_s > 0, "the embeddings came from the cache"
