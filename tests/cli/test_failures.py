"""Tests of failed evaluations, which leave a failed record, and of when a user's retriever is evaluated again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.dataset_files import HEADER, write_dataset, write_jsonl
from support.models import write_dense

from harness.store import Store

USER_RETRIEVER = """
import numpy as np
from user_helper import SIGN
from harness.types import Run


class UserRetriever:
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
    """Write a folder with a dataset, a user's retriever, a module that it imports, and its config."""
    documents = [{"_id": f"d{n}", "text": f"text {n}"} for n in range(4)]
    write_dataset(tmp_path / "data", documents, [{"_id": "q", "text": "text 0"}], f"{HEADER}q\td0\t1\n")
    (tmp_path / "user_retriever.py").write_text(USER_RETRIEVER)
    (tmp_path / "user_helper.py").write_text("SIGN = 1\n")
    (tmp_path / "conf" / "retriever").mkdir(parents=True)
    (tmp_path / "conf" / "retriever" / "user.yaml").write_text("_target_: user_retriever.UserRetriever\n")
    return tmp_path


def evaluate(project: Path, *overrides: str, harness: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Evaluate the user's retriever in a process of its own; `harness` is the checkout that is imported."""
    command = [sys.executable, "-P", "-m", "harness", f"--config-dir={project / 'conf'}", "retriever=user"]
    command += ["dataset=folder", f"dataset.path={project / 'data'}", "k=2", "metrics=[ndcg@2]", *overrides]
    environment = {"PYTHONPATH": f"{harness}:{project}", "PATH": "/usr/bin:/bin", "HOME": str(project)}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def records(project: Path) -> list[tuple[str, str | None, float | None]]:
    """Return the status, the error and nDCG@2 of each record."""
    stored = Store(project / "results").records()
    return [(record.status, record.error, record.metrics.get("ndcg@2")) for record in stored]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module\n", "no_such_module"),
        ("raise ValueError('broken on import')\n", "broken on import"),
        ("import sys\nsys.exit('not today')\n", "not today"),
        (USER_RETRIEVER.replace("self.corpus = corpus", "raise SystemExit(3)"), "SystemExit: 3"),
        (USER_RETRIEVER.replace("self.corpus = corpus", "import os; os._exit(9)"), "ProcessDied"),
    ],
    ids=["import error", "error on import", "exit on import", "exit in index", "process death"],
)
def test_every_failure_leaves_a_failed_record(project, source, error):
    (project / "user_retriever.py").write_text(source)
    assert evaluate(project).returncode != 0
    ((status, message, _),) = records(project)
    assert status == "failed"
    assert error in message


@pytest.mark.slow
def test_changed_module_of_a_user_retriever_is_evaluated_again(project):
    assert evaluate(project).returncode == 0
    assert evaluate(project).returncode == 0
    (first,) = records(project)
    (project / "user_helper.py").write_text("SIGN = -1\n")
    assert evaluate(project).returncode == 0
    (_, second) = records(project)
    assert first[2] != second[2]
    (project / "user_helper.py").write_text("SIGN = 1 / 0\n")
    assert evaluate(project).returncode == 1
    assert records(project)[-1][0] == "failed"


@pytest.mark.slow
def test_changed_docstring_of_the_harness_reuses_records_and_embeddings(project):
    """Edit a copy of the package; the stored record is reused and, for another seed, the cached embeddings."""
    copy = project / "copy"
    shutil.copytree(ROOT / "harness", copy / "harness")  # with the compiled kernels
    shutil.copytree(ROOT / "conf", copy / "conf")
    model = write_dense(project / "model")
    documents = [{"_id": f"d{n}", "text": f"text {n}"} for n in range(150)]  # enough for one shard
    write_jsonl(project / "data" / "corpus.jsonl", documents)
    overrides = ("retriever=minilm", f"retriever.encoder.model={model}", "retriever.encoder.package=null")
    assert evaluate(project, *overrides, harness=copy).returncode == 0
    for file in ("leaderboard/build.py", "embedding_cache/contents.py", "encoders/dense.py"):
        path = copy / "harness" / file
        path.write_text(path.read_text().replace('"""', '"""Edited. ', 1))
    reused = evaluate(project, *overrides, harness=copy)
    assert "measured" in reused.stderr
    assert len(records(project)) == 1
    other_seed = evaluate(project, *overrides, "seed=1", "timing.latency_queries=0", harness=copy)
    assert other_seed.returncode == 0
    newest = list(Store(project / "results").records())[-1]
    assert newest.timing.index.cached_s > 0, "the embeddings are read from the cache"
