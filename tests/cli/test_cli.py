"""The commands as a user types them."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import pytrec_eval
import torch
from support.datasets import QRELS, write_beir

from harness import __main__
from harness.store import Store
from harness.types import trec

SWEEP = ["-m", "retriever=bm25,bm25_mteb,bm25_anserini"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a small collection in `made`."""
    write_beir(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return ["dataset=folder", "dataset.path=made", "timing.latency_queries=2"]


def harness(monkeypatch, *arguments):
    """Run the command in this process; gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    return stop.value.code


def in_own_process(*arguments, **changed):
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **changed})


def records():
    return list(Store(Path("results")).records())


def test_one_cell_ends_in_a_table_on_stdout_with_progress_on_stderr(here, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=bm25", *here) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.partition("\n\n")[0].splitlines()] == ["ndcg@10", "bm25"]
    assert "bm25 on folder: 4 documents, 3 queries" in err
    (record,) = records()
    assert record.status == "ok"
    assert record.dataset.documents == 4
    assert record.retriever.label == "bm25"
    assert sorted(path.name for path in Path().iterdir()) == ["made", "results"], "Hydra leaves no folders of its own"


def test_run_is_the_same_as_no_command(here, monkeypatch, capsys):
    assert harness(monkeypatch, "run", "retriever=bm25", *here) == 0
    assert harness(monkeypatch, "retriever=bm25", *here) == 0
    assert "to measure again, add resume=false" in capsys.readouterr().err
    assert len(records()) == 1


def test_a_sweep_ends_in_one_table_of_all_its_cells(here, monkeypatch, capsys):
    assert harness(monkeypatch, *SWEEP, "retriever.k1=0.9,1.2", *here) == 0
    out = capsys.readouterr().out
    assert len(records()) == 6
    rows = [line.split("  ")[0] for line in out.partition("\n\n")[0].splitlines()]
    assert rows[0] == "ndcg@10"
    labels = ["bm25", "bm25 [k1=0.9]", "bm25_anserini", "bm25_anserini [k1=1.2]", "bm25_mteb [k1=0.9]"]
    assert sorted(rows[1:]) == [*labels, "bm25_mteb [k1=1.2]"]


def test_harness_alone_is_the_quickstart_and_the_command_takes_settings(monkeypatch, capsys):
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
def test_an_experiment_that_is_a_command_says_so(monkeypatch, capsys, experiment, command):
    assert harness(monkeypatch, f"experiment={experiment}") == 2
    assert command in capsys.readouterr().err


def test_an_experiment_given_again_measures_only_what_is_missing(here, monkeypatch, capsys):
    assert harness(monkeypatch, "-m", "retriever=bm25,bm25_mteb", *here) == 0
    first = {record.id: record for record in records()}
    capsys.readouterr()
    assert harness(monkeypatch, *SWEEP, *here) == 0
    out, err = capsys.readouterr()
    assert err.count("to measure again, add resume=false") == 2
    assert len(out.partition("\n\n")[0].splitlines()) == 4, "the table has the cells that were measured before too"
    assert len(records()) == 3
    assert {cell: record for cell, record in ((r.id, r) for r in records()) if cell in first} == first
    assert harness(monkeypatch, "retriever=bm25", "resume=false", *here) == 0
    assert len(records()) == 4


def test_a_changed_collection_is_measured_again(here, monkeypatch):
    assert harness(monkeypatch, "retriever=bm25", *here) == 0
    with Path("made/corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "d9", "text": "one more"}\n')
    assert harness(monkeypatch, "retriever=bm25", *here) == 0
    assert len({record.id for record in records()}) == 2


def test_a_failed_cell_leaves_a_record_and_the_sweep_goes_on(here, monkeypatch, capsys):
    broken = write_beir(Path("broken"))
    (broken / "corpus.jsonl").write_text('{"_id": "d1"}\n')
    folders = ["dataset=folder", "dataset.path=broken,made", "timing.latency_queries=2"]
    assert harness(monkeypatch, "-m", "retriever=bm25", *folders) == 1
    out, err = capsys.readouterr()
    failed, good = sorted(records(), key=lambda record: record.status)
    assert failed.status == "failed"
    assert failed.error.startswith("DataError: broken/corpus.jsonl:1: document 'd1' has no text")
    assert failed.metrics == {}
    assert good.status == "ok"
    assert "corpus.jsonl:1" in err
    assert "Traceback" not in err
    assert out.startswith("ndcg@10"), "what was measured is shown all the same"


def test_a_retriever_that_crashes_leaves_a_record_with_its_error(here, monkeypatch, capsys):
    monkeypatch.setattr("harness.retrievers.bm25.BM25.search", lambda *_: 1 / 0)
    assert harness(monkeypatch, "retriever=bm25", *here) == 1
    (record,) = records()
    assert record.error == "ZeroDivisionError: division by zero"
    assert "Traceback" in capsys.readouterr().err, "whoever writes a retriever sees where it failed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that the test does without")
def test_a_device_that_is_not_there_is_a_failed_cell_without_a_traceback(here, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=minilm", "retriever.encoder.device=cuda", *here) == 1
    (record,) = records()
    assert record.error == "ConfigError: encoder.device='cuda': torch finds no CUDA GPU here; choose auto or cpu"
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_in_a_record_measures_its_cell_again(here, monkeypatch):
    assert harness(monkeypatch, "-m", "retriever=bm25", "retriever.k1=0.9,1.5", "metrics=[ndcg@3,map@5]", *here) == 0
    first, second = records()
    assert harness(monkeypatch, *_words(first.command)[1:], "resume=false") == 0
    done = subprocess.run(
        [sys.executable, "-m", *_words(second.command), "resume=false"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    cells = [record.id for record in records()]
    assert len(cells) == 4
    assert cells[:2] == cells[2:]


def _words(command):
    import shlex

    return shlex.split(command)


def test_an_exported_run_scored_by_trec_evals_code_gives_the_records_numbers(here, monkeypatch):
    assert harness(monkeypatch, "retriever=bm25", "metrics=[ndcg@10,map@100,recall@100]", *here) == 0
    (record,) = records()
    run = trec.read(Path("results") / record.files.run)
    results = {query: dict(zip(*run.hits(row), strict=True)) for row, query in enumerate(run.query_ids)}
    results = {query: {doc: float(score) for doc, score in docs.items()} for query, docs in results.items()}
    peer = pytrec_eval.RelevanceEvaluator(QRELS, {"ndcg_cut.10", "map_cut.100", "recall.100"}).evaluate(results)
    for ours, theirs in (("ndcg@10", "ndcg_cut_10"), ("map@100", "map_cut_100"), ("recall@100", "recall_100")):
        assert record.metrics[ours] == pytest.approx(sum(row[theirs] for row in peer.values()) / len(QRELS), abs=1e-6)
    per_query = pq.read_table(Path("results") / record.files.per_query).to_pandas()
    means = per_query.groupby("metric", observed=True)["value"].mean()
    assert means["ndcg@10"] == pytest.approx(record.metrics["ndcg@10"])


def test_a_cell_in_its_own_process_says_how_much_memory_it_took(here, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=bm25", "timing.isolate=true", *here) == 0
    (record,) = records()
    assert record.timing.peak_memory_bytes > 50e6
    assert capsys.readouterr().out.splitlines()[1].startswith("bm25")
    assert harness(monkeypatch, "retriever=bm25", *here) == 0
    assert records()[-1].timing.peak_memory_bytes is None


def test_a_cell_whose_process_is_killed_leaves_a_record(here, monkeypatch, capsys):
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
    assert harness(monkeypatch, folder, "retriever=deadly", "timing.isolate=true", *here) == 1
    (record,) = records()
    assert record.status == "failed"
    assert "killed by signal 9" in record.error
    assert "killed by signal 9" in capsys.readouterr().err


def test_a_users_own_config_folder_is_named_in_the_command(here, monkeypatch):
    Path("conf/retriever").mkdir(parents=True)
    Path("conf/retriever/mine.yaml").write_text("defaults: [bm25, _self_]\nk1: 3.0\n")
    folder = Path("conf").resolve()
    assert harness(monkeypatch, f"--config-dir={folder}", "retriever=mine", *here) == 0
    (record,) = records()
    assert record.retriever.label == "mine"
    assert f"--config-dir={folder}" in record.command


def test_a_part_swapped_by_name_is_what_the_label_says(here, monkeypatch, tmp_path):
    Path("conf/retriever").mkdir(parents=True)
    parts = "defaults:\n  - /retriever@retrievers.one: bm25\n  - /retriever@retrievers.two: bm25_mteb\n"
    fusion = "fusion: {_target_: harness.retrievers.hybrid.rrf, _partial_: true}\n"
    rest = f"_target_: harness.retrievers.hybrid.Hybrid\n{fusion}"
    Path("conf/retriever/two.yaml").write_text(parts + rest)
    config = f"--config-dir={Path('conf').resolve()}"
    swapped = "retriever@retriever.retrievers.two=bm25_anserini"
    assert harness(monkeypatch, config, "retriever=two", swapped, "+retriever.depth=107", *here) == 0
    (record,) = records()
    assert record.retriever.label == "two [retrievers.two=bm25_anserini, depth=107]"


def test_report_prints_the_table_and_writes_the_same_markdown_each_time(here, monkeypatch, capsys):
    assert harness(monkeypatch, "-m", "retriever=bm25,bm25_mteb", *here) == 0
    capsys.readouterr()
    assert harness(monkeypatch, "report") == 0
    assert capsys.readouterr().out.startswith("ndcg@10")
    first = Path("results/leaderboard.md").read_bytes()
    assert harness(monkeypatch, "report") == 0
    assert Path("results/leaderboard.md").read_bytes() == first
    capsys.readouterr()
    assert harness(monkeypatch, "report", "--only", "md", "--metric", "map@100") == 0
    assert capsys.readouterr().out.startswith(
        "| map@100 | made | queries/s | docs/s | p95 ms | index MB |\n| --- | ---: |"
    )
    assert harness(monkeypatch, "report", "--json") == 0
    board = json.loads(capsys.readouterr().out)["ndcg@10"]
    assert {row["label"] for row in board["rows"]} == {"bm25", "bm25_mteb"}


def test_list_names_what_there_is(here, monkeypatch, capsys):
    assert harness(monkeypatch, "retriever=bm25", *here) == 0
    capsys.readouterr()
    assert harness(monkeypatch, "list", "records") == 0
    assert "bm25 on made: ndcg@10" in capsys.readouterr().out
    for what, known in (("retrievers", "minilm"), ("datasets", "cqadupstack/tex"), ("experiments", "beir")):
        assert harness(monkeypatch, "list", what, "--json") == 0
        assert known in json.loads(capsys.readouterr().out)
        assert harness(monkeypatch, "list", what) == 0
        assert known in capsys.readouterr().out


def test_validate_reads_a_collection_before_anything_is_measured(here, monkeypatch, capsys):
    assert harness(monkeypatch, "validate", *here[:2]) == 0
    assert "made: 4 documents, 3 queries, 4 judgements" in capsys.readouterr().out
    Path("made/queries.jsonl").write_text("")
    assert harness(monkeypatch, "validate", *here[:2]) == 1
    assert "made/qrels/test.tsv:2: judgements of query 'q1'" in capsys.readouterr().out
    assert not Path("results").exists()


def test_env_tells_the_machine_and_no_secret(monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-seen")
    monkeypatch.setenv("HF_TOKEN", "hf_not_to_be_seen")
    assert harness(monkeypatch, "env", "--json") == 0
    out = capsys.readouterr().out
    told = json.loads(out)
    assert {"cpu", "cores", "memory_gib", "gpus", "packages", "fingerprint", "python"} <= set(told)
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


def test_hydras_own_surface_is_whole(here, monkeypatch, capsys):
    assert harness(monkeypatch, "--cfg", "job", "retriever=bm25") == 0
    assert "k1: 1.2" in capsys.readouterr().out
    assert harness(monkeypatch, "--info", "defaults-tree", "retriever=hybrid") == 0
    assert "retriever@retriever.retrievers.dense: minilm" in capsys.readouterr().out
    assert harness(monkeypatch, "run", "--help") == 0
    assert "retriever: " in capsys.readouterr().out
    assert harness(monkeypatch, "--hydra-help") == 0
    assert "--multirun" in capsys.readouterr().out
    assert not Path("results").exists()


def test_the_shell_completes_groups_and_options():
    for line, expected in (("harness retriever=bm25_m", "retriever=bm25_mteb"), ("harness data", "dataset")):
        done = in_own_process("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
        assert expected in done.stdout.split(), done.stderr
    assert "complete" in in_own_process("-sc", "install=bash").stdout


def ok_records():
    return [record for record in records() if record.status == "ok"]


def test_kill_9_loses_nothing_that_was_measured(here, monkeypatch, capsys):
    command = [*SWEEP, "retriever.k1=0.8,0.9", *here]
    rng = random.Random(0)
    for number in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while len(list(Path().glob("results/records/*/*/[!.]*.json"))) < number:
            assert process.poll() is None, "it ended before it measured anything new"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))  # somewhere in what follows the record
        process.kill()
        process.wait()
    before, killed = ok_records(), [record for record in records() if record.status != "ok"]
    assert len(before) >= 1
    assert all(record.error.startswith("ProcessDied") for record in killed)
    assert harness(monkeypatch, *command) == 0
    after = ok_records()
    assert len(after) == 6, "every cell once: those measured before a kill are not measured again"
    assert after[: len(before)] == before
    assert capsys.readouterr().err.count("to measure again, add resume=false") == len(before)
    known = {path for record in (*after, *killed) for path in record.files.paths().values()}
    orphans = {
        path.relative_to("results").as_posix()
        for folder in ("records", "environments")
        for path in Path("results", folder).rglob("*")
        if path.is_file()
    } - known
    assert orphans == set(), "no half-written file"


def test_a_part_can_be_added_to_a_hybrid(here, monkeypatch):
    Path("conf/retriever").mkdir(parents=True)
    parts = "defaults:\n  - /retriever@retrievers.one: bm25\n  - /retriever@retrievers.two: bm25_mteb\n"
    fusion = "depth: 100\nfusion: {_target_: harness.retrievers.hybrid.rrf, _partial_: true}\n"
    Path("conf/retriever/two.yaml").write_text(f"{parts}_target_: harness.retrievers.hybrid.Hybrid\n{fusion}")
    config = f"--config-dir={Path('conf').resolve()}"
    assert (
        harness(monkeypatch, config, "retriever=two", "+retriever@retriever.retrievers.three=bm25_anserini", *here) == 0
    )
    (record,) = records()
    assert record.retriever.label == "two [retrievers.three=bm25_anserini]"
    assert len(record.retriever.config["retrievers"]) == 3


OWN = """
from harness.types import Run
import numpy as np
class Own:
    def __init__(self, api_key, order=1): self.order = order
    def index(self, corpus): self.ids = corpus.ids
    def search(self, queries, k):
        docs = np.tile(np.arange(len(self.ids)), (len(queries), 1))
        return Run(queries.ids, self.ids, docs, SIGN * docs.astype(float))
    def nbytes(self): return 1
"""


@pytest.fixture
def own_retriever(here, monkeypatch):
    """A retriever of the user's own in `own.py`, whose config takes a key from the environment."""
    monkeypatch.syspath_prepend(str(Path().resolve()))
    monkeypatch.setenv("OWN_KEY", "sk-not-to-be-seen")
    Path("own.py").write_text(OWN.replace("SIGN", "1"))
    Path("cönf dir/retriever").mkdir(parents=True)
    Path("cönf dir/retriever/own.yaml").write_text("_target_: own.Own\napi_key: ${oc.env:OWN_KEY}\n")
    yield [f"--config-dir={Path('cönf dir').resolve()}", "retriever=own", *here]
    sys.modules.pop("own", None)


def test_a_secret_is_in_no_file(own_retriever, monkeypatch, capsys):
    assert harness(monkeypatch, *own_retriever) == 0
    assert harness(monkeypatch, *own_retriever, "retriever.api_key=sk-not-to-be-seen-either") == 0
    out, err = capsys.readouterr()
    assert len(records()) == 2
    assert records()[0].retriever.config["api_key"] == "${oc.env:OWN_KEY}"
    assert "retriever.api_key=***" in records()[1].command
    files = [path for path in Path("results").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert b"not-to-be-seen" not in path.read_bytes(), path
    assert "not-to-be-seen" not in out + err


def test_a_secret_inside_a_value_is_in_no_file(own_retriever, monkeypatch, capsys):
    for inside in ("{api_key: not-to-be-seen}", "{order: {Authorization: Bearer not-to-be-seen}}"):
        assert harness(monkeypatch, *own_retriever, f"+retriever.order={inside}") == 0
    assert len(records()) == 2
    assert all("+retriever.order=***" in record.command for record in records())
    found = [path for path in Path("results").rglob("*") if path.is_file() and b"not-to-be-seen" in path.read_bytes()]
    assert not found
    capsys.readouterr()


def test_a_config_of_ones_own_is_explained_and_validated(own_retriever, monkeypatch, capsys):
    folder, choice, *_ = own_retriever
    assert harness(monkeypatch, "validate", folder, choice) == 0
    assert capsys.readouterr().out.split() == ["ok", "retriever=own", "Own"]
    assert harness(monkeypatch, "explain", folder, choice, "dataset=stdlib", "query=a", "top=1") == 2
    assert "Own cannot explain its ranking" in capsys.readouterr().err
    assert harness(monkeypatch, "validate", "--config-dir=nowhere", choice) == 2
    assert "--config-dir='nowhere' is not a folder" in capsys.readouterr().err


def test_a_retriever_whose_code_has_changed_is_measured_again(own_retriever, monkeypatch):
    assert harness(monkeypatch, *own_retriever) == 0
    assert harness(monkeypatch, *own_retriever) == 0
    assert len(records()) == 1
    Path("own.py").write_text(OWN.replace("SIGN", "-1"))
    sys.modules.pop("own")
    assert harness(monkeypatch, *own_retriever) == 0
    assert len(records()) == 2
    assert len({record.metrics["ndcg@10"] for record in records()}) == 2


def test_the_same_content_under_another_name_is_another_record(here, monkeypatch):
    assert harness(monkeypatch, "retriever=bm25", *here) == 0
    assert harness(monkeypatch, "retriever=bm25", *here, "dataset.name=mine") == 0
    assert [record.dataset.name for record in records()] == ["made", "mine"]


def test_validate_checks_settings_too(here, monkeypatch, capsys):
    assert harness(monkeypatch, "validate", "k=3") == 1
    assert "looks deeper than k=3" in capsys.readouterr().out
    assert harness(monkeypatch, "validate", "experiment=beir") == 0
    assert "k=1000, 5 metrics" in capsys.readouterr().out


def test_a_hybrid_is_as_deep_as_what_is_asked_for(here, monkeypatch):
    from harness.config import build

    assert build.composed(["retriever=hybrid", "k=1000"])["retriever"]["depth"] == 1000
    assert build.composed(["retriever=hybrid"])["retriever"]["depth"] == 100
