"""Benchmarks of an evaluation against mteb.evaluate, each in a separate process: wall seconds and peak memory.

Run by `make bench`, or alone: pytest tests/benchmarks/test_mteb_processes.py --benchmark-enable (an hour)
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
from support.mteb_tasks import dataset_rows, write_repository

from harness import weights
from harness.config import build
from harness.errors import WeightsError

CHILD = Path(__file__).with_name("mteb_child.py")
PUBLISHED = {("minilm", "SciFact"): 0.64508}


def weights_of(retriever):
    encoder = build.composed([f"retriever={retriever}"])["retriever"].get("encoder")
    if encoder is None:
        return []
    try:
        return [str(weights.find(encoder["model"], build.construct(encoder["package"], "package")).path)]
    except WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.mark.slow
@pytest.mark.benchmark(group="whole process")
@pytest.mark.parametrize(
    ("retriever", "task", "details"),
    [
        ("bm25_mteb", "NFCorpus", "baseline-bm25s"),
        ("splade_tiny", "NFCorpus", "SparseEncoder of the same weights"),
        ("minilm", "SciFact", "SentenceTransformer of the same weights"),
    ],
)
def test_evaluation_process_against_mteb(
    versus, measuring, benchmark, real_dataset, tmp_path, retriever, task, details
):
    if not measuring:
        pytest.skip("only with --benchmark-enable: it takes minutes")
    dataset = real_dataset(task.lower())
    folder = write_repository(tmp_path / task, dataset_rows(dataset))
    runs = {"harness": [], "mteb": []}

    def run(side):
        command = [sys.executable, str(CHILD), side, retriever, task, str(folder), *weights_of(retriever)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        runs[side].append(json.loads(done.stdout.splitlines()[-1]))
        return runs[side][-1]["ndcg@10"]

    size = f"{task}: {len(dataset.corpus):,} documents, {len(dataset.queries):,} queries"
    ndcg, peer_ndcg = versus(
        lambda: run("harness"), lambda: run("mteb"), 5, package="mteb", details=details, size=size, warm=False
    )
    peaks = {side: median(result["peak_mb"] for result in side_runs) for side, side_runs in runs.items()}
    benchmark.extra_info.update(ours_mb=peaks["harness"], peer_mb=peaks["mteb"], runs=runs)
    assert abs(ndcg - peer_ndcg) < (0.003 if retriever == "bm25_mteb" else 0.0005)
    if published := PUBLISHED.get((retriever, task)):
        assert abs(ndcg - published) <= 0.001
