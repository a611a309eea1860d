"""Start a Ray cluster of two nodes on this machine, run sharded retrievers on it and print the results as JSON.

    python tests/support/distributed_cluster.py FOLDER_OF_MODELS SCRATCH_FOLDER

The program of tests/models/test_distributed.py, which needs the cluster in a process of its own.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer, BertConfig, BertModel

from harness.config import build
from harness.datasets import stdlib
from harness.distributed import Sharded, cluster, sharded
from harness.encoders.dense import DenseEncoder
from harness.encoders.multi_vector import MultiVectorEncoder
from harness.errors import HarnessError
from harness.instrument import recording
from harness.retrievers.bm25 import BM25
from harness.retrievers.colbert import ColBERT
from harness.retrievers.dense import Dense
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Dataset, Queries, Run

K = 20
CONFIG = BertConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)


class FailingBM25(BM25):
    """BM25 that logs each call of `index`, and whose process is killed during a call, once or always.

    Args:
        folder: The folder of the log, `indexed`, with a line "process object documents" for each call.
        failure: "index" or "search" to be killed half way through it, "error" to raise an error, or "never".
        always: Be killed in every call and not only in the first.
    """

    def __init__(self, folder: Path, failure: str = "never", always: bool = False) -> None:
        super().__init__(Tokenizer())
        self.folder, self.failure, self.always = folder, failure, always

    def index(self, corpus: Corpus) -> None:
        with (self.folder / "indexed").open("a") as file:
            file.write(f"{os.getpid()} {id(self)} {len(corpus)}\n")
        if self.failure == "index":
            super().index(corpus[: len(corpus) // 2])
            self.kill_process()
        if self.failure == "error":
            raise HarnessError("this shard is refused")
        super().index(corpus)

    def search(self, queries: Queries, k: int) -> Run:
        if self.failure == "search":
            super().search(queries[: len(queries) // 2], k)
            self.kill_process()
        return super().search(queries, k)

    def kill_process(self) -> None:
        marker = self.folder / f"killed in {self.failure}"
        if self.always or not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def write_tiny_model(models: Path, folder: Path) -> str:
    """Write a dense model of random weights with MiniLM's tokenizer and return its path."""
    torch.manual_seed(0)
    BertModel(CONFIG).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(models / "all-MiniLM-L6-v2").save_pretrained(folder / "bert")
    SentenceTransformer(modules=[Transformer(str(folder / "bert")), Pooling(16)]).save(str(folder / "saved"))
    return str(folder / "saved")


def compare(expected: Run, run: Run, tolerance: float = 1e-6) -> dict[str, Any]:
    """Compare two runs of the same queries.

    Returns:
        score_difference: the greatest relative difference of two scores of the same rank.
        same_order: whether the documents are the same wherever the neighbouring scores differ by more than `tolerance`.
        same_documents: whether all documents are the same.
        compared: the share of hits that `same_order` compares.
    """
    hit = expected.docs >= 0
    difference = float(np.abs(np.where(hit, expected.scores, 0) - np.where(run.docs >= 0, run.scores, 0)).max())
    is_clear = np.ones(hit.shape, bool)
    near = np.abs(np.diff(np.where(hit, expected.scores, -1e9), axis=1)) <= tolerance * np.maximum(
        1, expected.scores[:, 1:]
    )
    is_clear[:, 1:] &= ~near
    is_clear[:, :-1] &= ~near
    is_clear[:, -1] = False  # the next document, which is cut off, may have the same score
    return {
        "score_difference": difference / max(1.0, float(expected.scores[hit].max())),
        "same_order": bool((expected.docs == run.docs)[is_clear | ~hit].all()),
        "same_documents": bool((expected.docs == run.docs).all()),
        "compared": float(is_clear.mean()),
    }


def families(model: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name and a constructor of each family of retrievers that can be sharded."""
    yield "bm25", lambda: BM25(Tokenizer())
    short = ["retriever=splade_tiny", "retriever.encoder.max_length=32", "retriever.encoder.cache=false"]
    yield "splade", lambda: build.construct(build.composed(short)["retriever"], "retriever")
    yield "dense", lambda: Dense(DenseEncoder(model, device="cpu", cache=False))
    settings: dict[str, Any] = {"projection": "none", "storage_dtype": "float32", "device": "cpu", "cache": False}
    yield "colbert", lambda: ColBERT(MultiVectorEncoder(model, **settings))


def error_of(work: Callable[[], Any]) -> str:
    """Return the type and the message of the error that `work` raises."""
    try:
        work()
    except HarnessError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def run_families(address: str, dataset: Dataset, model: str) -> dict[str, Any]:
    """Index and search each family in one process and in two shards, and compare the runs, counters and sizes."""
    results: dict[str, Any] = {}
    for name, construct in families(model):
        single, distributed = construct(), Sharded(construct(), address=address)
        single.index(dataset.corpus)
        with recording() as indexing:
            distributed.index(dataset.corpus)
        expected = single.search(dataset.queries, K)
        with recording() as searching:
            run = distributed.search(dataset.queries, K)
        results[name] = {
            **compare(expected, run),
            "metadata": {key: value for key, value in indexing.metadata.items() if key in ("shards", "nodes")},
            "texts": indexing.counters[""]["texts"],
            "cpu_s": indexing.cpu_s,
            "stages": sorted(searching.stages),
            "bytes": [single.nbytes(), distributed.nbytes()],
        }
        if name == "dense":
            scores = (each.score(dataset.queries, expected.docs) for each in (single, distributed))
            results["candidate_score_difference"] = float(np.abs(np.subtract(*scores)).max())
    return results


def run_warm_up(retriever: Sharded, address: str, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Index a part of the corpus and then all of it, as an evaluation does, with a retriever that logs to `folder`."""
    retriever.index(dataset.corpus[:64])
    workers = list(cluster.worker_pool(address, 1.0, 0.0).slots)
    retriever.index(dataset.corpus)
    return {
        "indexed": [line.split() for line in (folder / "indexed").read_text().splitlines()],
        "workers_reused": workers == list(cluster.worker_pool(address, 1.0, 0.0).slots),
    }


def run_failures(two_nodes: Cluster, second_node: Any, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Kill workers, remove a node and ask for more than the cluster has."""
    address = two_nodes.address

    def failing(failure: str, always: bool = False) -> Sharded:
        return Sharded(FailingBM25(folder, failure, always), address=address)

    single = BM25(Tokenizer())
    single.index(dataset.corpus)
    expected = single.search(dataset.queries, K)
    five_shards = Sharded(BM25(Tokenizer()), address=address, shards=5)
    five_shards.index(dataset.corpus)
    results: dict[str, Any] = {"five_shards": compare(expected, five_shards.search(dataset.queries, K))}
    for failure in ("index", "search"):
        retriever = failing(failure)
        retriever.index(dataset.corpus)
        comparison = compare(expected, retriever.search(dataset.queries, K))
        results[f"killed_in_{failure}"] = {**comparison, "killed": (folder / f"killed in {failure}").exists()}
    results["worker_error"] = error_of(lambda: failing("error").index(dataset.corpus))
    two_nodes.remove_node(second_node)
    cluster.FREE_TIMEOUT_S = 3.0
    results["node_lost"] = compare(expected, five_shards.search(dataset.queries, K))
    sharded._MAX_LOSSES = 1
    results["always_killed"] = error_of(lambda: failing("index", always=True).index(dataset.corpus))
    too_large = Sharded(BM25(Tokenizer()), address=address, cpus=64)
    results["too_many_cpus"] = error_of(lambda: too_large.index(dataset.corpus))
    results["other_cluster"] = error_of(lambda: Sharded(BM25(Tokenizer())).index(dataset.corpus))
    return results


def main(models: Path, folder: Path, two_nodes: Cluster) -> dict[str, Any]:
    """Run everything on the cluster and return the results by name."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cluster._join(two_nodes.address)  # through the first node, before the second exists, which is removed later
    handler_is_unchanged = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    second_node = two_nodes.add_node(num_cpus=1)
    dataset, address = stdlib.load(documents=400, queries=60), two_nodes.address
    retriever = Sharded(FailingBM25(folder), address=address)  # the workers run as long as one retriever uses them
    return {
        "sigterm_handler_unchanged": handler_is_unchanged,
        **run_warm_up(retriever, address, dataset, folder),
        **run_families(address, dataset, write_tiny_model(models, folder)),
        **run_failures(two_nodes, second_node, dataset, folder),
    }


if __name__ == "__main__":
    two_nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    line = json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), two_nodes))
    ray.shutdown()
    two_nodes.shutdown()
    print(line)
