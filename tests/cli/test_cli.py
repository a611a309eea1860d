"""Tests of the commands `run`, `report`, `list`, `validate` and `env` as a user types them."""

import json
import os
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import pytrec_eval
import torch
from support.command_line import harness, harness_process
from support.datasets import QRELS, write_beir

from harness.config import build
from harness.store import Store
from harness.types import trec

SWEEP = ["-m", "retriever=bm25,bm25_mteb,bm25_anserini"]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Run in a folder with a small dataset in `tiny`; return the arguments that choose it."""
    write_beir(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return ["dataset=folder", "dataset.path=tiny", "timing.latency_queries=2"]


def records():
    """Return the records of the working folder, in the order of their names."""
    return list(Store(Path("results")).records())


def test_run_prints_a_table_on_stdout_and_progress_on_stderr(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.partition("\n\n")[0].splitlines()] == ["ndcg@10", "bm25"]
    assert "bm25 on folder: 4 documents, 3 queries" in err
    (record,) = records()
    assert record.status == "ok"
    assert record.dataset.documents == 4
    assert record.retriever.label == "bm25"
    assert sorted(path.name for path in Path().iterdir()) == ["results", "tiny"], "Hydra writes no folders"


def test_run_may_be_left_out(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "run", "retriever=bm25", *dataset) == 0
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 0
    assert "to measure again, add --refresh" in capsys.readouterr().err
    assert len(records()) == 1


@pytest.mark.slow
def test_sweep_prints_one_table_of_all_its_evaluations(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, *SWEEP, "retriever.k1=0.9,1.2", *dataset) == 0
    out = capsys.readouterr().out
    assert len(records()) == 6
    rows = [line.split("  ")[0] for line in out.partition("\n\n")[0].splitlines()]
    assert rows[0] == "ndcg@10"
    labels = ["bm25", "bm25 [k1=0.9]", "bm25_anserini", "bm25_anserini [k1=1.2]", "bm25_mteb [k1=0.9]"]
    assert sorted(rows[1:]) == [*labels, "bm25_mteb [k1=1.2]"]


def test_quickstart_takes_settings_and_run_needs_a_retriever(monkeypatch, capsys):
    assert harness(monkeypatch, "quickstart", "seed=7", "--cfg", "job") == 0
    assert "seed: 7" in capsys.readouterr().out
    assert harness(monkeypatch, "quickstart", "--cfg", "hydra", "-p", "hydra.sweeper.params") == 0
    quickstart = capsys.readouterr().out
    assert "splade_tiny" in quickstart
    assert harness(monkeypatch, "--cfg", "job") == 2
    assert "add retriever=NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("experiment", "command"), [("mteb", "harness mteb BEIR"), ("finetune", "harness finetuned models/tuned")]
)
def test_experiment_with_its_own_command_names_the_command(monkeypatch, capsys, experiment, command):
    assert harness(monkeypatch, f"experiment={experiment}") == 2
    assert command in capsys.readouterr().err


@pytest.mark.slow
def test_repeated_sweep_runs_only_the_missing_evaluations(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "-m", "retriever=bm25,bm25_mteb", *dataset) == 0
    first = {record.id: record for record in records()}
    capsys.readouterr()
    assert harness(monkeypatch, *SWEEP, *dataset) == 0
    out, err = capsys.readouterr()
    assert err.count("to measure again, add --refresh") == 2
    assert len(out.partition("\n\n")[0].splitlines()) == 4, "the table includes the earlier evaluations"
    assert len(records()) == 3
    assert {record.id: record for record in records() if record.id in first} == first
    assert harness(monkeypatch, "retriever=bm25", "resume=false", *dataset) == 0
    assert len(records()) == 4
    assert harness(monkeypatch, "retriever=bm25", "--refresh", "resume=true", *dataset) == 0
    assert len(records()) == 5


def test_changed_dataset_is_evaluated_again(dataset, monkeypatch):
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 0
    with Path("tiny/corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "d9", "text": "one more"}\n')
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 0
    assert len({record.id for record in records()}) == 2


def test_failed_evaluation_leaves_a_record_and_the_sweep_continues(dataset, monkeypatch, capsys):
    broken = write_beir(Path("broken"))
    (broken / "corpus.jsonl").write_text('{"_id": "d1"}\n')
    folders = ["dataset=folder", "dataset.path=broken,tiny", "timing.latency_queries=2"]
    assert harness(monkeypatch, "-m", "retriever=bm25", *folders) == 1
    out, err = capsys.readouterr()
    failed, good = sorted(records(), key=lambda record: record.status)
    assert failed.status == "failed"
    assert failed.error.startswith("DataError: broken/corpus.jsonl:1: document 'd1' has no text")
    assert failed.metrics == {}
    assert good.status == "ok"
    assert "corpus.jsonl:1" in err
    assert "Traceback" not in err
    assert out.startswith("ndcg@10"), "the successful evaluation is shown"


def test_crashing_retriever_leaves_a_record_with_its_error(dataset, monkeypatch, capsys):
    monkeypatch.setattr("harness.retrievers.bm25.BM25.search", lambda *_: 1 / 0)
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 1
    (record,) = records()
    assert record.error == "ZeroDivisionError: division by zero"
    assert "Traceback" in capsys.readouterr().err, "the author of a retriever sees where it failed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_device_fails_the_evaluation_without_a_traceback(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=minilm", "retriever.encoder.device=cuda", *dataset) == 1
    (record,) = records()
    assert record.error.startswith("ConfigError: encoder.device='cuda'")
    assert record.error.endswith("choose auto or cpu")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_command_in_a_record_repeats_its_evaluation(dataset, monkeypatch):
    assert harness(monkeypatch, "-m", "retriever=bm25", "retriever.k1=0.9,1.5", "metrics=[ndcg@3,map@5]", *dataset) == 0
    first, second = records()
    assert harness(monkeypatch, *shlex.split(first.command)[1:], "resume=false") == 0
    done = harness_process(*shlex.split(second.command)[1:], "resume=false")
    assert done.returncode == 0, done.stderr
    ids = [record.id for record in records()]
    assert len(ids) == 4
    assert ids[:2] == ids[2:]


def test_trec_eval_scores_of_the_exported_run_equal_the_record(dataset, monkeypatch):
    assert harness(monkeypatch, "retriever=bm25", "metrics=[ndcg@10,map@100,recall@100]", *dataset) == 0
    (record,) = records()
    run = trec.read(Path("results") / record.files.run)
    results = {query: dict(zip(*run.hits(row), strict=True)) for row, query in enumerate(run.query_ids)}
    results = {query: {doc: float(score) for doc, score in docs.items()} for query, docs in results.items()}
    peer = pytrec_eval.RelevanceEvaluator(QRELS, {"ndcg_cut.10", "map_cut.100", "recall.100"}).evaluate(results)
    for metric, reference in (("ndcg@10", "ndcg_cut_10"), ("map@100", "map_cut_100"), ("recall@100", "recall_100")):
        assert record.metrics[metric] == pytest.approx(
            sum(row[reference] for row in peer.values()) / len(QRELS), abs=1e-6
        )
    per_query = pq.read_table(Path("results") / record.files.per_query).to_pandas()
    means = per_query.groupby("metric", observed=True)["value"].mean()
    assert means["ndcg@10"] == pytest.approx(record.metrics["ndcg@10"])


@pytest.mark.slow
def test_isolated_evaluation_records_its_peak_memory(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=bm25", "timing.isolate=true", *dataset) == 0
    (record,) = records()
    assert record.timing.peak_memory_bytes > 50e6
    assert capsys.readouterr().out.splitlines()[1].startswith("bm25")
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 0
    assert records()[-1].timing.peak_memory_bytes is None


def test_killed_isolated_evaluation_leaves_a_failed_record(dataset, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(Path().resolve()))
    Path("deadly.py").write_text(
        "import os, signal\n"
        "class Deadly:\n"
        "    def index(self, corpus): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def search(self, queries, k): ...\n"
        "    def nbytes(self): return 0\n"
    )
    monkeypatch.syspath_prepend(".")
    Path("conf/retriever").mkdir(parents=True)
    Path("conf/retriever/deadly.yaml").write_text("_target_: deadly.Deadly\n")
    folder = f"--config-dir={Path('conf').resolve()}"
    assert harness(monkeypatch, folder, "retriever=deadly", "timing.isolate=true", *dataset) == 1
    (record,) = records()
    assert record.status == "failed"
    assert "killed by signal 9" in record.error
    assert "killed by signal 9" in capsys.readouterr().err


def test_config_dir_is_part_of_the_recorded_command(dataset, monkeypatch):
    Path("conf/retriever").mkdir(parents=True)
    Path("conf/retriever/user_bm25.yaml").write_text("defaults: [bm25, _self_]\nk1: 3.0\n")
    folder = Path("conf").resolve()
    assert harness(monkeypatch, f"--config-dir={folder}", "retriever=user_bm25", *dataset) == 0
    (record,) = records()
    assert record.retriever.label == "user_bm25"
    assert f"--config-dir={folder}" in record.command


def test_label_names_a_swapped_retriever_of_a_hybrid(dataset, monkeypatch, tmp_path):
    Path("conf/retriever").mkdir(parents=True)
    parts = "defaults:\n  - /retriever@retrievers.one: bm25\n  - /retriever@retrievers.two: bm25_mteb\n"
    fusion = "fusion: {_target_: harness.retrievers.hybrid.rrf, _partial_: true}\n"
    rest = f"_target_: harness.retrievers.hybrid.Hybrid\n{fusion}"
    Path("conf/retriever/two.yaml").write_text(parts + rest)
    config = f"--config-dir={Path('conf').resolve()}"
    swapped = "retriever@retriever.retrievers.two=bm25_anserini"
    assert harness(monkeypatch, config, "retriever=two", swapped, "+retriever.depth=107", *dataset) == 0
    (record,) = records()
    assert record.retriever.label == "two [retrievers.two=bm25_anserini, depth=107]"


def test_report_prints_the_table_and_writes_the_same_markdown_each_time(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "-m", "retriever=bm25,bm25_mteb", *dataset) == 0
    capsys.readouterr()
    assert harness(monkeypatch, "report") == 0
    assert capsys.readouterr().out.startswith("ndcg@10")
    first = Path("results/leaderboard.md").read_bytes()
    assert harness(monkeypatch, "report") == 0
    assert Path("results/leaderboard.md").read_bytes() == first
    capsys.readouterr()
    assert harness(monkeypatch, "report", "--only", "md", "--metric", "map@100") == 0
    assert capsys.readouterr().out.startswith(
        "| map@100 | tiny | queries/s | docs/s | p95 ms | index MB |\n| --- | ---: |"
    )
    assert harness(monkeypatch, "report", "--json") == 0
    leaderboard = json.loads(capsys.readouterr().out)["ndcg@10"]
    assert {row["label"] for row in leaderboard["rows"]} == {"bm25", "bm25_mteb"}


def test_list_prints_records_retrievers_datasets_and_experiments(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 0
    capsys.readouterr()
    assert harness(monkeypatch, "list", "records") == 0
    assert "bm25 on tiny: ndcg@10" in capsys.readouterr().out
    for kind, name in (("retrievers", "minilm"), ("datasets", "cqadupstack/tex"), ("experiments", "beir")):
        assert harness(monkeypatch, "list", kind, "--json") == 0
        assert name in json.loads(capsys.readouterr().out)
        assert harness(monkeypatch, "list", kind) == 0
        assert name in capsys.readouterr().out


def test_validate_reads_the_dataset_and_writes_no_results(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "validate", *dataset[:2]) == 0
    assert "tiny: 4 documents, 3 queries, 4 judgements" in capsys.readouterr().out
    Path("tiny/queries.jsonl").write_text("")
    assert harness(monkeypatch, "validate", *dataset[:2]) == 1
    assert "tiny/qrels/test.tsv:2: judgements of query 'q1'" in capsys.readouterr().out
    assert not Path("results").exists()


def test_env_prints_the_machine_and_no_secret(monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-seen")
    monkeypatch.setenv("HF_TOKEN", "hf_not_to_be_seen")
    assert harness(monkeypatch, "env", "--json") == 0
    out = capsys.readouterr().out
    environment = json.loads(out)
    assert {"cpu", "cores", "memory_gib", "gpus", "packages", "fingerprint", "python"} <= set(environment)
    assert "seen" not in out


@pytest.mark.parametrize("arguments", [["--help"], ["list", "retrievers"], ["report"], ["env"]])
def test_reading_commands_do_not_import_torch(arguments, tmp_path):
    program = (
        "import sys\nfrom harness import __main__\n"
        f"sys.argv = ['harness', *{arguments!r}]\n"
        "try: __main__.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'hydra', 'numba', 'polars'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_hydra_options_work_and_write_no_results(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "--cfg", "job", "retriever=bm25") == 0
    assert "k1: 1.2" in capsys.readouterr().out
    assert harness(monkeypatch, "--info", "defaults-tree", "retriever=hybrid") == 0
    assert "retriever@retriever.retrievers.dense: minilm" in capsys.readouterr().out
    assert harness(monkeypatch, "run", "--help") == 0
    assert "retriever: " in capsys.readouterr().out
    assert harness(monkeypatch, "--hydra-help") == 0
    assert "--multirun" in capsys.readouterr().out
    assert not Path("results").exists()


def test_shell_completion_offers_groups_and_options():
    for line, completion in (("harness retriever=bm25_m", "retriever=bm25_mteb"), ("harness data", "dataset")):
        done = harness_process("-sc", "query=bash", env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))})
        assert completion in done.stdout.split(), done.stderr
    assert "complete" in harness_process("-sc", "install=bash").stdout


def successful_records():
    return [record for record in records() if record.status == "ok"]


@pytest.mark.slow
def test_sweep_killed_and_repeated_reuses_every_stored_record(dataset, monkeypatch, capsys):
    command = [*SWEEP, "retriever.k1=0.8,0.9", *dataset]
    rng = random.Random(0)
    for number in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while len(list(Path().glob("results/records/*/*/[!.]*.json"))) < number:
            assert process.poll() is None, "it ended before it stored a new record"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))  # a random moment of the next evaluation
        process.kill()
        process.wait()
    before, killed = successful_records(), [record for record in records() if record.status != "ok"]
    assert len(before) >= 1
    assert all(record.error.startswith("ProcessDied") for record in killed)
    assert harness(monkeypatch, *command) == 0
    after = successful_records()
    assert len(after) == 6, "each evaluation once: those stored before a kill are reused"
    assert after[: len(before)] == before
    assert capsys.readouterr().err.count("to measure again, add --refresh") == len(before)
    named = {path for record in (*after, *killed) for path in record.files.paths().values()}
    orphans = {
        path.relative_to("results").as_posix()
        for folder in ("records", "environments")
        for path in Path("results", folder).rglob("*")
        if path.is_file()
    } - named
    assert orphans == set(), "no half-written file"


def test_retriever_can_be_added_to_a_hybrid(dataset, monkeypatch):
    Path("conf/retriever").mkdir(parents=True)
    parts = "defaults:\n  - /retriever@retrievers.one: bm25\n  - /retriever@retrievers.two: bm25_mteb\n"
    fusion = "depth: 100\nfusion: {_target_: harness.retrievers.hybrid.rrf, _partial_: true}\n"
    Path("conf/retriever/two.yaml").write_text(f"{parts}_target_: harness.retrievers.hybrid.Hybrid\n{fusion}")
    config = f"--config-dir={Path('conf').resolve()}"
    assert (
        harness(monkeypatch, config, "retriever=two", "+retriever@retriever.retrievers.three=bm25_anserini", *dataset)
        == 0
    )
    (record,) = records()
    assert record.retriever.label == "two [retrievers.three=bm25_anserini]"
    assert len(record.retriever.config["retrievers"]) == 3


USER_RETRIEVER = """
from harness.types import Run
import numpy as np
class UserRetriever:
    def __init__(self, api_key, order=1): self.order = order
    def index(self, corpus): self.ids = corpus.ids
    def search(self, queries, k):
        docs = np.tile(np.arange(len(self.ids)), (len(queries), 1))
        return Run(queries.ids, self.ids, docs, SIGN * docs.astype(float))
    def nbytes(self): return 1
"""


@pytest.fixture
def user_retriever(dataset, monkeypatch):
    """Write a user's retriever in `user.py` whose config takes a key from the environment; return its arguments."""
    monkeypatch.syspath_prepend(str(Path().resolve()))
    monkeypatch.setenv("USER_KEY", "sk-not-to-be-seen")
    Path("user.py").write_text(USER_RETRIEVER.replace("SIGN", "1"))
    Path("cönf dir/retriever").mkdir(parents=True)
    Path("cönf dir/retriever/user.yaml").write_text("_target_: user.UserRetriever\napi_key: ${oc.env:USER_KEY}\n")
    yield [f"--config-dir={Path('cönf dir').resolve()}", "retriever=user", *dataset]
    sys.modules.pop("user", None)


def test_secret_is_in_no_file_and_not_printed(user_retriever, monkeypatch, capsys):
    assert harness(monkeypatch, *user_retriever) == 0
    assert harness(monkeypatch, *user_retriever, "retriever.api_key=sk-not-to-be-seen-either") == 0
    out, err = capsys.readouterr()
    assert len(records()) == 2
    assert records()[0].retriever.config["api_key"] == "${oc.env:USER_KEY}"
    assert "retriever.api_key=***" in records()[1].command
    files = [path for path in Path("results").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert b"not-to-be-seen" not in path.read_bytes(), path
    assert "not-to-be-seen" not in out + err


def test_secret_inside_a_value_is_in_no_file(user_retriever, monkeypatch, capsys):
    for value in ("{api_key: not-to-be-seen}", "{order: {Authorization: Bearer not-to-be-seen}}"):
        assert harness(monkeypatch, *user_retriever, f"+retriever.order={value}") == 0
    assert len(records()) == 2
    assert all("+retriever.order=***" in record.command for record in records())
    leaking = [path for path in Path("results").rglob("*") if path.is_file() and b"not-to-be-seen" in path.read_bytes()]
    assert not leaking
    capsys.readouterr()


def test_validate_and_explain_read_a_user_config(user_retriever, monkeypatch, capsys):
    folder, choice, *_ = user_retriever
    assert harness(monkeypatch, "validate", folder, choice) == 0
    assert capsys.readouterr().out.split() == ["ok", "retriever=user", "UserRetriever"]
    assert harness(monkeypatch, "explain", folder, choice, "dataset=stdlib", "query=a", "top=1") == 2
    assert "UserRetriever cannot explain its ranking" in capsys.readouterr().err
    assert harness(monkeypatch, "validate", "--config-dir=nowhere", choice) == 2
    assert "--config-dir='nowhere' is not a folder" in capsys.readouterr().err


def test_changed_user_code_is_evaluated_again(user_retriever, monkeypatch):
    assert harness(monkeypatch, *user_retriever) == 0
    assert harness(monkeypatch, *user_retriever) == 0
    assert len(records()) == 1
    Path("user.py").write_text(USER_RETRIEVER.replace("SIGN", "-1"))
    sys.modules.pop("user")
    assert harness(monkeypatch, *user_retriever) == 0
    assert len(records()) == 2
    assert len({record.metrics["ndcg@10"] for record in records()}) == 2


def test_same_dataset_under_another_name_is_another_record(dataset, monkeypatch):
    assert harness(monkeypatch, "retriever=bm25", *dataset) == 0
    assert harness(monkeypatch, "retriever=bm25", *dataset, "dataset.name=tiny_copy") == 0
    assert [record.dataset.name for record in records()] == ["tiny", "tiny_copy"]


def test_validate_checks_k_and_metrics(dataset, monkeypatch, capsys):
    assert harness(monkeypatch, "validate", "k=3") == 1
    assert "looks deeper than k=3" in capsys.readouterr().out
    assert harness(monkeypatch, "validate", "experiment=beir") == 0
    assert "k=1000, 5 metrics" in capsys.readouterr().out


def test_depth_of_a_hybrid_follows_k():
    assert build.composed(["retriever=hybrid", "k=1000"])["retriever"]["depth"] == 1000
    assert build.composed(["retriever=hybrid"])["retriever"]["depth"] == 100
