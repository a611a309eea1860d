"""Tests of the gate's exit code when retrieval gets worse: code and configs are edited in a copy and run from it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from generated_blocks import block
from support import ROOT
from support.command_line import harness_process
from support.datasets import write_random_beir

from harness.cli import ab, read, remeasure
from harness.config import build
from harness.datasets import stdlib
from harness.environment import code_hash
from harness.gate.baseline import read as read_baseline
from harness.retrievers import bm25
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Queries, trec

pytestmark = pytest.mark.slow

QUICK_TIMING = ["timing.repeats=1", "timing.latency_queries=0", "timing.warmup_documents=8"]
RRF = ["retriever=hybrid", "dataset=xquad/de"]
MIN_MAX = ["retriever=hybrid", "fusion@retriever.fusion=min_max", "dataset=xquad/en"]
BM25 = ["-m", "retriever=bm25", "dataset=xquad/de,xquad/en"]


class Checkout:
    """A copy of the code and the configs, and the results folder that it writes to."""

    def __init__(self, top, results):
        self.top, self.results = top, results
        for name in ("harness", "conf"):
            shutil.copytree(ROOT / name, top / name)  # with the compiled kernels

    def use_runs(self, runs):
        """Let the hybrid's dense retriever be a run file, so that no evaluation encodes anything."""
        self.edit("conf/retriever/hybrid.yaml", "retrievers.dense: minilm", "retrievers.dense: run_file")
        override = f"retrievers: {{dense: {{path: '{runs}/${{dataset.name}}.trec'}}}}"
        self.edit("conf/retriever/hybrid.yaml", "depth: ", f"{override}\ndepth: ")

    def edit(self, path, before, after):
        """Replace the only occurrence of `before` in a file."""
        text = (self.top / path).read_text()
        assert text.count(before) == 1, f"{path} has {before!r} {text.count(before)} times"
        (self.top / path).write_text(text.replace(before, after))

    def evaluate(self, *overrides):
        """Run `harness run` with this copy of the code."""
        done = self.harness("run", *overrides, *QUICK_TIMING, f"results_dir={self.results}")
        assert done.returncode == 0, done.stderr

    def harness(self, *arguments):
        """Run `harness ARGUMENTS` with this copy of the code."""
        return harness_process(*arguments, cwd=self.top, env={**os.environ, "PYTHONPATH": str(self.top)})


NO_TIMES = "cpu: null\nwall: null\nmemory: null\n"
"""A policy without the rules of time and memory: one repeat of a search is too few for them."""


def gate(tree, *options):
    """Run the gate of a copy of the code, without the rules of time and memory; print its output, return its code."""
    policy = tree.results / "policy.yaml"
    tree.results.mkdir(exist_ok=True)
    policy.write_text(NO_TIMES)
    done = tree.harness("gate", "--results", str(tree.results), "--policy", str(policy), *options)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile BM25's kernels before they are copied; a copy without them compiles them each time."""
    retriever = bm25.BM25(Tokenizer())
    retriever.index(Corpus(["d1"], ["red apples"]))
    retriever.search(Queries(["q1"], ["apples"]), 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, real_dataset):
    """Return a folder of MiniLM's runs on two datasets, named after them."""
    config = build.composed(["retriever=minilm", "retriever.encoder.max_length=64"])["retriever"]
    retriever, folder = build.construct(config, "retriever"), tmp_path_factory.mktemp("runs")
    (folder / "xquad").mkdir()
    for name in ("xquad/de", "xquad/en"):
        dataset = real_dataset(name)
        retriever.index(dataset.corpus)
        trec.write(retriever.search(dataset.queries, 100), folder / f"{name}.trec", "minilm")
    return folder


@pytest.fixture(scope="module")
def baseline_folder(tmp_path_factory, data, runs):
    """Return a baseline that the unchanged code evaluated and `harness accept` wrote."""
    folder = tmp_path_factory.mktemp("base")
    tree = Checkout(folder / "tree", folder / "results")
    tree.use_runs(runs)
    for overrides in (RRF, MIN_MAX, BM25):
        tree.evaluate(*overrides)
    assert read.main(["accept", "--results", str(tree.results), "--reason", "unchanged"]) == 0
    return tree.results / "baseline"


@pytest.fixture
def checkout(tmp_path, baseline_folder, runs):
    """Return a copy of the code to edit, whose results folder has the baseline."""
    tree = Checkout(tmp_path / "tree", tmp_path / "results")
    tree.use_runs(runs)
    tree.results.mkdir()
    shutil.copytree(baseline_folder, tree.results / "baseline")
    return tree


def failing(out):
    """Return the evaluations that the gate prints as failed."""
    return {line.split(" ", 2)[1] for line in out.splitlines() if line.startswith("FAIL ")}


def test_unchanged_code_gives_identical_scores(checkout, capsys):
    checkout.evaluate(*BM25)
    assert gate(checkout, "--retriever", "bm25") == 0
    out = capsys.readouterr().out
    assert out.count("IDENTICAL bm25/") == 6
    assert out.splitlines()[-1].startswith("Nothing got worse: 6 identical, ")


def test_gate_fails_without_stemming(checkout, capsys):
    checkout.edit("conf/retriever/bm25.yaml", "stemmer: language ", "stemmer: null ")
    checkout.evaluate(*BM25)
    assert gate(checkout, "--retriever", "bm25") == 1
    assert "bm25/xquad/de" in failing(capsys.readouterr().out)


def test_gate_fails_with_another_fusion_constant(checkout, capsys):
    checkout.edit("conf/fusion/rrf.yaml", "constant: 60 ", "constant: 1000 ")
    checkout.evaluate(*RRF)
    assert gate(checkout, "--retriever", "hybrid", "--dataset", "xquad/de") == 1
    assert "hybrid/xquad/de" in failing(capsys.readouterr().out)


def test_gate_fails_with_reversed_score_normalisation(checkout, capsys):
    checkout.edit(
        "harness/retrievers/hybrid.py", "1.0, (scores - low) / (high - low))", "1.0, (high - scores) / (high - low))"
    )
    checkout.evaluate(*MIN_MAX)
    assert gate(checkout, "--dataset", "xquad/en", "--retriever", "hybrid") == 1
    assert re.search(r"^FAIL hybrid \[fusion=min_max\]/xquad/en", capsys.readouterr().out, re.MULTILINE)


def test_gate_fails_when_half_the_queries_have_no_hits(checkout, capsys):
    line = "k = min(k, len(self._doc_ids))"
    checkout.edit("harness/retrievers/bm25.py", line, f"{line}; queries = queries[: len(queries) // 2 or 1]")
    checkout.evaluate(*BM25)
    assert gate(checkout, "--retriever", "bm25") == 1
    assert failing(capsys.readouterr().out) >= {"bm25/xquad/de", "bm25/xquad/en", "bm25/macro"}


def test_gate_is_undecided_on_changed_datasets_and_missing_evaluations(checkout, data, capsys):
    dataset = checkout.top / "edited"
    shutil.copytree(data / "xquad" / "de", dataset)
    for path in dataset.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder = ["retriever=bm25", "dataset=folder", f"dataset.path={dataset}"]
    checkout.evaluate(*folder)
    selection = ("--retriever", "bm25", "--dataset", "edited")
    results = str(checkout.results)
    assert read.main(["accept", "--results", results, "--reason", "new dataset", "--dataset", "edited"]) == 0
    assert gate(checkout, *selection) == 0
    qrels = dataset / "qrels" / "test.tsv"
    lines = qrels.read_text().splitlines(keepends=True)
    qrels.write_text("".join(lines[: len(lines) // 2]))
    checkout.evaluate(*folder)
    assert gate(checkout, *selection) == 3
    qrels.write_text("".join(lines))
    corpus = dataset / "corpus.jsonl"
    first, *rest = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join([json.dumps({**json.loads(first), "text": "something else"}) + "\n", *rest]))
    checkout.evaluate(*folder)
    assert gate(checkout, *selection) == 3
    assert gate(checkout, *selection, "--lenient") == 0
    capsys.readouterr()
    assert gate(checkout, "--retriever", "bm25") == 3
    assert "UNDECIDED bm25/xquad/de - it was not measured" in capsys.readouterr().out


def assert_no_regression(tree, *overrides, **options):
    """Call `assert_no_regression` with a copy of the code, and return what Python prints; "" if nothing failed."""
    policy = tree.results / "policy.yaml"
    policy.write_text(NO_TIMES)
    options = {"results": str(tree.results), "policy": str(policy), **options}
    code = f"from harness.testing import assert_no_regression\nassert_no_regression(*{overrides!r}, **{options!r})"
    environment = {**os.environ, "PYTHONPATH": str(tree.top)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tree.top, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not done.stderr), done.stderr
    return done.stderr


def test_assert_no_regression_raises_with_the_lines_of_the_gate(checkout):
    overrides = ["retriever=bm25", "dataset=xquad/de", *QUICK_TIMING]
    assert assert_no_regression(checkout, *overrides) == ""
    checkout.edit("conf/retriever/bm25.yaml", "stemmer: language ", "stemmer: null ")
    error = assert_no_regression(checkout, *overrides)
    assert "AssertionError: Worse than the baseline: bm25/xquad/de ndcg@10" in error
    assert re.search(r"^FAIL bm25/xquad/de ndcg@10 ", error, re.MULTILINE)
    assert "AssertionError: harness -m retriever=nobody failed:" in assert_no_regression(checkout, "retriever=nobody")


def test_assert_no_regression_gates_only_its_own_evaluations(checkout, data):
    folder = ["dataset=folder", f"dataset.path={data / 'xquad' / 'en'}", "dataset.name=xquad_copy", *QUICK_TIMING]
    checkout.evaluate("retriever=bm25", *folder)
    results = str(checkout.results)
    assert read.main(["accept", "--results", results, "--reason", "new dataset", "--dataset", "xquad_copy"]) == 0
    shutil.move(checkout.results / "records" / "xquad_copy", checkout.top / "away")
    assert "AssertionError: Cannot be decided" in assert_no_regression(checkout)
    assert assert_no_regression(checkout, "retriever=choice(bm25)", *folder) == ""


def gate_without_stemming(tree, baseline):
    """Evaluate BM25 without stemming and return the gate's exit code against the committed baseline."""
    tree.edit("conf/retriever/bm25.yaml", "stemmer: language ", "stemmer: null ")
    tree.evaluate("-m", "retriever=bm25", "dataset=stdlib,xquad/en,xquad/de")
    return gate(tree, "--retriever", "bm25", "--baseline", str(baseline))


def test_the_guide_shows_the_output_of_the_gate(tmp_path, data, capsys):
    shown = block("gate", (ROOT / "docs" / "guides" / "ci-gate.md").read_text(encoding="utf-8"))
    baseline = ROOT / "results" / "baseline"
    fingerprints = {record.dataset.fingerprint for record in read_baseline(baseline).records}
    if stdlib.load().fingerprint not in fingerprints:
        pytest.skip("the committed baseline was made with another Python, whose standard library is another dataset")
    assert gate_without_stemming(Checkout(tmp_path / "tree", tmp_path / "results"), baseline) == 1
    output = capsys.readouterr().out
    expected = f"```text\n$ harness gate --retriever bm25 --policy quality.yaml\n{output}```\n"
    assert shown == expected, f"replace it by:\n{expected}"


# ---- a user's retriever that becomes slower

USER_RETRIEVER = """
from harness.retrievers.bm25 import BM25

TIMES = {times}


class RepeatedBM25(BM25):
    def search(self, queries, k):
        for _ in range(TIMES):
            run = super().search(queries, k)
        return run
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Run in a user's project whose retriever repeats each search twenty times."""
    top = tmp_path / "project"
    (top / "conf" / "retriever").mkdir(parents=True)
    preset = (ROOT / "conf" / "retriever" / "bm25.yaml").read_text()
    preset = preset.replace("harness.retrievers.bm25.BM25", "repeated.RepeatedBM25")
    (top / "conf" / "retriever" / "repeated.yaml").write_text(preset)
    (top / "repeated.py").write_text(USER_RETRIEVER.format(times=20))
    monkeypatch.setenv("PYTHONPATH", f"{top}{os.pathsep}{ROOT}")
    monkeypatch.chdir(top)
    write_random_beir(top / "numbered", 300, 100)
    return top


def test_memory_above_its_limit_is_measured_again(tmp_path, monkeypatch, capsys):
    baseline = ROOT / "results" / "baseline"
    for folder in ("records", "per_query"):
        shutil.copytree(baseline / folder, tmp_path / folder)
    (path,) = (tmp_path / "records" / "stdlib" / "bm25").iterdir()
    record = json.loads(path.read_text())
    record["timing"]["peak_memory_bytes"] *= 2
    record["code"] = code_hash(record["retriever"]["config"])
    path.write_text(json.dumps(record))
    repeated = []

    def repeat(record):
        repeated.append(record.retriever.label)
        return record.model_copy(update={"timing": record.timing.model_copy(update={"peak_memory_bytes": peaks.pop()})})

    monkeypatch.setattr(remeasure, "repeat", repeat)
    arguments = ["--retriever", "bm25", "--dataset", "stdlib", "--results", str(tmp_path), "--baseline", str(baseline)]
    peaks = [record["timing"]["peak_memory_bytes"] // 2, record["timing"]["peak_memory_bytes"]]
    assert read.main(["gate", *arguments]) == 0
    assert repeated == ["bm25", "bm25"]
    assert "(x1.00, limit x1.20, least of 3 measurements)" in capsys.readouterr().out
    peaks = [record["timing"]["peak_memory_bytes"]] * 2
    assert read.main(["gate", *arguments]) == 1


DATASET = ["dataset=folder", "dataset.path=numbered"]


def test_retriever_of_half_the_speed_fails_after_two_more_measurements(project):
    arguments = [
        f"--config-dir={project / 'conf'}",
        "retriever=repeated",
        *DATASET,
        "timing=cpu1",
        "timing.latency_queries=0",
    ]
    assert harness_process(*arguments).returncode == 0
    assert harness_process("accept", "--reason", "unchanged").returncode == 0
    (project / "repeated.py").write_text(USER_RETRIEVER.format(times=40))
    assert harness_process(*arguments).returncode == 0
    done = harness_process("gate")
    assert done.returncode == 1, done.stdout
    assert "IDENTICAL repeated/numbered" in done.stdout
    assert re.search(
        r"^FAIL repeated/numbered.* cpu/query \S+ -> \S+ "
        r"\(x[1-9]\d*\.\d\d, limit x1\.[234]\d, least of 3 measurements\)$",
        done.stdout,
        re.MULTILINE,
    ), done.stdout + done.stderr
    assert done.stderr.count("above its limit, measured again to be sure") == 2


def test_paths_and_not_config_names_are_moved_to_the_other_worktree(tmp_path, monkeypatch):
    top, other = tmp_path / "top", tmp_path / "other"
    for tree in (top, other):
        for name in ("scifact", "bm25", "models"):
            (tree / name).mkdir(parents=True)
    monkeypatch.chdir(top)
    for argument in (
        "dataset=scifact",
        "retriever=bm25",
        "+retriever@retriever.retrievers.three=bm25",
        "timing.repeats=1",
    ):
        assert ab._translate_argument(argument, top, other) == argument
    assert (
        ab._translate_argument("retriever.encoder.model=models", top, other)
        == f"retriever.encoder.model={other / 'models'}"
    )


def test_ab_times_two_revisions_in_turn(project):
    arguments = [f"--config-dir={project / 'conf'}", "retriever=repeated", *DATASET, *QUICK_TIMING, "timing.repeats=3"]
    for git_arguments in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "base"],
    ):
        subprocess.run(["git", *git_arguments], check=True)
    (project / "repeated.py").write_text(USER_RETRIEVER.format(times=60))
    assert harness_process(*arguments).returncode == 0
    done = harness_process("gate", "--ab", "HEAD")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(
        r"^FAIL repeated/numbered.* wall/query .* \(x[1-9]\d*\.\d\d, limit x1\.25\)$", done.stdout, re.MULTILINE
    )
    assert [line.split()[0] for line in done.stderr.splitlines() if re.match(r"(before|after) \d/2:", line)] == [
        *("before", "after"),
        *("before", "after"),
    ]
    assert not list(Path(".git/worktrees").glob("*")), "the worktree is removed"
    refused = harness_process("gate", "--ab", "nowhere")
    assert refused.returncode == 2
    assert "'nowhere' cannot be checked out" in refused.stderr
