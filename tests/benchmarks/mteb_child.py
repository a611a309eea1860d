"""Run one evaluation with the harness or with mteb, and print wall seconds, peak memory and nDCG@10 as JSON.

    python tests/benchmarks/mteb_child.py harness minilm SciFact FOLDER MODEL_FOLDER
    python tests/benchmarks/mteb_child.py mteb minilm SciFact FOLDER MODEL_FOLDER

Both load the task from the same folder, encode, search and score it; the harness with the repeats, latencies and record
of an ordinary evaluation. The seconds include starting Python and importing the packages.
"""

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
start = time.perf_counter()


def evaluate_with_harness(retriever: str, task: str, folder: str, model: str = "") -> float:
    from pathlib import Path

    from harness.cli import run
    from harness.store import Store

    with tempfile.TemporaryDirectory() as results:
        overrides = [f"retriever={retriever}", "dataset=mteb", f"dataset.task={task}", f"dataset.folder={folder}"]
        if model:
            encoder = {"model": model, "package": "null", "cache": "false"}  # no cached embeddings
            overrides += [f"retriever.encoder.{key}={value}" for key, value in encoder.items()]
        assert run.main([*overrides, "k=1000", f"results_dir={results}"]) == 0
        (record,) = Store(Path(results)).records()
        return record.metrics["ndcg@10"]


def evaluate_with_mteb(retriever: str, task: str, folder: str, model: str = "") -> float:
    import mteb

    from harness.interop.mteb import task_of  # reads the folder as mteb's loader does

    if not model:
        peer = mteb.get_model("mteb/baseline-bm25s")
    else:
        import sentence_transformers

        kind = "SparseEncoder" if retriever.startswith("splade") else "SentenceTransformer"
        peer = getattr(sentence_transformers, kind)(model, device="cpu")
    settings = {"cache": None, "show_progress_bar": False, "overwrite_strategy": "always"}
    result = mteb.evaluate(peer, task_of(task, folder), **settings)
    return float(result.task_results[0].get_score())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    side, *arguments = sys.argv[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        score = {"harness": evaluate_with_harness, "mteb": evaluate_with_mteb}[side](*arguments)
    print(
        json.dumps(
            {
                "ndcg@10": score,
                "wall_s": time.perf_counter() - start,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )
