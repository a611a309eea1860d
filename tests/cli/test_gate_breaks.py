"""Break each thing in turn and see the gate's exit code: code and configs are edited in a copy and run from there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from readme_blocks import README, block
from support import ROOT
from support.datasets import write_random_beir

from harness.cli import ab, read, remeasure
from harness.config import build
from harness.datasets import stdlib
from harness.gate.baseline import read as read_baseline
from harness.retrievers import bm25
from harness.testing import assert_no_regression
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Queries, trec

QUICK = ["timing.repeats=1", "timing.latency_queries=0", "timing.warmup_documents=8"]
RRF = ["retriever=hybrid", "dataset=xquad/de"]
MIN_MAX = ["retriever=hybrid", "fusion@retriever.fusion=min_max", "dataset=xquad/en"]
BM25 = ["-m", "retriever=bm25", "dataset=xquad/de,xquad/en"]


class Tree:
    """A copy of the code and the configs, and results that are measured by it."""

    def __init__(self, top, results):
        self.top, self.results = top, results
        for name in ("harness", "conf"):
            shutil.copytree(ROOT / name, top / name)  # with the kernels that are compiled already

    def fuse(self, runs):
        """Let the hybrid's dense part be a run file, so that no measurement encodes anything."""
        self.edit("conf/retriever/hybrid.yaml", "retrievers.dense: minilm", "retrievers.dense: run_file")
        part = f"retrievers: {{dense: {{path: '{runs}/${{dataset.name}}.trec'}}}}"
        self.edit("conf/retriever/hybrid.yaml", "depth: ", f"{part}\ndepth: ")

    def edit(self, path, before, after):
        text = (self.top / path).read_text()
        assert text.count(before) == 1, f"{path} has {before!r} {text.count(before)} times"
        (self.top / path).write_text(text.replace(before, after))

    def measure(self, *overrides):
        command = [sys.executable, "-m", "harness", "run", *overrides, *QUICK, f"results_dir={self.results}"]
        environment = {**os.environ, "PYTHONPATH": str(self.top)}
        done = subprocess.run(command, cwd=self.top, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def gate(results, *options):
    """The gate's exit code, without CPU seconds, which one repeat of a search does not tell."""
    policy = results / "policy.yaml"
    results.mkdir(exist_ok=True)
    policy.write_text("cpu: null\nmemory: null\n")
    return read.main(["gate", "--results", str(results), "--policy", str(policy), *options])


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile BM25's kernels where they are copied from; a copy without them compiles them each time."""
    retriever = bm25.BM25(Tokenizer())
    retriever.index(Corpus(["d1"], ["red apples"]))
    retriever.search(Queries(["q1"], ["apples"]), 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, real_dataset):
    """MiniLM's runs of two collections, by their names."""
    config = build.composed(["retriever=minilm", "retriever.encoder.max_length=64"])["retriever"]
    retriever, folder = build.construct(config, "retriever"), tmp_path_factory.mktemp("runs")
    (folder / "xquad").mkdir()
    for name in ("xquad/de", "xquad/en"):
        dataset = real_dataset(name)
        retriever.index(dataset.corpus)
        trec.write(retriever.search(dataset.queries, 100), folder / f"{name}.trec", "minilm")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory, data, runs):
    """Measured by the code as it is, and accepted."""
    folder = tmp_path_factory.mktemp("base")
    tree = Tree(folder / "tree", folder / "results")
    tree.fuse(runs)
    for cells in (RRF, MIN_MAX, BM25):
        tree.measure(*cells)
    assert read.main(["accept", "--results", str(tree.results), "--reason", "as it is"]) == 0
    return tree.results / "baseline"


@pytest.fixture
def changed(tmp_path, base, runs):
    tree = Tree(tmp_path / "tree", tmp_path / "results")
    tree.fuse(runs)
    tree.results.mkdir()
    shutil.copytree(base, tree.results / "baseline")
    return tree


def failing(out):
    return {line.split(" ", 2)[1] for line in out.splitlines() if line.startswith("FAIL ")}


def test_the_code_as_it_is_gives_identical_scores(changed, capsys):
    changed.measure(*BM25)
    assert gate(changed.results, "--retriever", "bm25") == 0
    out = capsys.readouterr().out
    assert out.count("IDENTICAL bm25/") == 3
    assert out.splitlines()[-1].startswith("Nothing got worse: 3 identical, ")


def test_stemming_off(changed, capsys):
    changed.edit("conf/retriever/bm25.yaml", "stemmer: language ", "stemmer: null ")
    changed.measure(*BM25)
    assert gate(changed.results, "--retriever", "bm25") == 1
    assert "bm25/xquad/de" in failing(capsys.readouterr().out)


def test_a_fusion_constant_of_a_thousand(changed, capsys):
    changed.edit("conf/fusion/rrf.yaml", "constant: 60 ", "constant: 1000 ")
    changed.measure(*RRF)
    assert gate(changed.results, "--retriever", "hybrid", "--dataset", "xquad/de") == 1
    assert "hybrid/xquad/de" in failing(capsys.readouterr().out)


def test_a_normalisation_dropped(changed, capsys):
    changed.edit("harness/retrievers/hybrid.py", "1.0, (scores - low) / (high - low))", "1.0, scores)")
    changed.measure(*MIN_MAX)
    assert gate(changed.results, "--dataset", "xquad/en", "--retriever", "hybrid") == 1
    assert re.search(r"^FAIL hybrid \[fusion=min_max\]/xquad/en", capsys.readouterr().out, re.MULTILINE)


def test_half_the_queries_unanswered(changed, capsys):
    whole = "k = min(k, len(self._doc_ids))"
    changed.edit("harness/retrievers/bm25.py", whole, f"{whole}; queries = queries[: len(queries) // 2 or 1]")
    changed.measure(*BM25)
    assert gate(changed.results, "--retriever", "bm25") == 1
    assert failing(capsys.readouterr().out) >= {"bm25/xquad/de", "bm25/xquad/en", "bm25/macro"}


def test_a_changed_collection_half_the_judged_queries_and_a_missing_cell_cannot_be_decided(changed, data, capsys):
    own = changed.top / "mine"
    shutil.copytree(data / "xquad" / "de", own)
    for path in own.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder = ["retriever=bm25", "dataset=folder", f"dataset.path={own}"]
    changed.measure(*folder)
    only = ("--retriever", "bm25", "--dataset", "mine")
    results = str(changed.results)
    assert read.main(["accept", "--results", results, "--reason", "a collection of my own", "--dataset", "mine"]) == 0
    assert gate(changed.results, *only) == 0
    qrels = own / "qrels" / "test.tsv"
    lines = qrels.read_text().splitlines(keepends=True)
    qrels.write_text("".join(lines[: len(lines) // 2]))
    changed.measure(*folder)
    assert gate(changed.results, *only) == 3
    qrels.write_text("".join(lines))
    corpus = own / "corpus.jsonl"
    first, *rest = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join([json.dumps({**json.loads(first), "text": "something else"}) + "\n", *rest]))
    changed.measure(*folder)
    assert gate(changed.results, *only) == 3
    assert gate(changed.results, *only, "--lenient") == 0
    capsys.readouterr()
    assert gate(changed.results, "--retriever", "bm25") == 3
    assert "UNDECIDED bm25/xquad/de - it was not measured" in capsys.readouterr().out


def test_assert_no_regression_measures_and_raises_with_the_gates_lines(changed, monkeypatch):
    cells = ["retriever=bm25", "dataset=xquad/de", *QUICK]
    rules = changed.results / "policy.yaml"
    rules.write_text("cpu: null\nmemory: null\n")
    assert_no_regression(*cells, results=changed.results, policy=rules)
    changed.edit("conf/retriever/bm25.yaml", "stemmer: language ", "stemmer: null ")
    monkeypatch.syspath_prepend(changed.top)
    with pytest.raises(AssertionError, match=r"Worse than the baseline: bm25/xquad/de ndcg@10\.\nFAIL bm25/xquad/de"):
        assert_no_regression(*cells, results=changed.results, policy=rules)
    with pytest.raises(AssertionError, match=r"harness -m retriever=nobody failed:"):
        assert_no_regression("retriever=nobody", results=changed.results)


def test_assert_no_regression_gates_the_cells_that_it_measured_and_no_others(changed, data):
    rules = changed.results / "policy.yaml"
    rules.write_text("cpu: null\nmemory: null\n")
    folder = ["dataset=folder", f"dataset.path={data / 'xquad' / 'en'}", "dataset.name=mine", *QUICK]
    changed.measure("retriever=bm25", *folder)
    results = str(changed.results)
    assert read.main(["accept", "--results", results, "--reason", "mine", "--dataset", "mine"]) == 0
    stays = changed.results / "records" / "mine"
    shutil.move(stays, changed.top / "away")
    with pytest.raises(AssertionError, match=r"Cannot be decided"):
        assert_no_regression(results=changed.results, policy=rules)
    assert_no_regression("retriever=choice(bm25)", *folder, results=changed.results, policy=rules)


def readmes_example(tree, baseline):
    """What the gate says of BM25 without stemming, against the committed baseline."""
    tree.edit("conf/retriever/bm25.yaml", "stemmer: language ", "stemmer: null ")
    tree.measure("-m", "retriever=bm25", "dataset=stdlib,xquad/en,xquad/de")
    return gate(tree.results, "--retriever", "bm25", "--baseline", str(baseline))


def test_the_readme_shows_what_the_gate_says(tmp_path, data, capsys):
    shown = block("gate", README.read_text(encoding="utf-8"))
    baseline = ROOT / "results" / "baseline"
    held = {record.dataset.fingerprint for record in read_baseline(baseline).records}
    if stdlib.load().fingerprint not in held:
        pytest.skip("the committed baseline was made with another Python, whose library is another collection")
    assert readmes_example(Tree(tmp_path / "tree", tmp_path / "results"), baseline) == 1
    said = capsys.readouterr().out
    assert shown == f"```\n$ harness gate --retriever bm25 --policy quality.yaml\n{said}```\n", (
        f"write it anew:\n{said}"
    )


# a retriever of the user's own that becomes slower

SEARCHES = """
from harness.retrievers.bm25 import BM25

TIMES = {times}


class Mine(BM25):
    def search(self, queries, k):
        for _ in range(TIMES):
            found = super().search(queries, k)
        return found
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's project whose retriever searches twenty times over."""
    top = tmp_path / "project"
    (top / "conf" / "retriever").mkdir(parents=True)
    preset = (ROOT / "conf" / "retriever" / "bm25.yaml").read_text()
    preset = preset.replace("harness.retrievers.bm25.BM25", "mine.Mine")
    (top / "conf" / "retriever" / "mine.yaml").write_text(preset)
    (top / "mine.py").write_text(SEARCHES.format(times=20))
    monkeypatch.setenv("PYTHONPATH", f"{top}{os.pathsep}{ROOT}")
    monkeypatch.chdir(top)
    write_random_beir(top / "made", 300, 100)
    return top


def harness(*arguments):
    return subprocess.run([sys.executable, "-m", "harness", *arguments], capture_output=True, text=True)


def test_memory_above_its_limit_is_measured_again(tmp_path, monkeypatch, capsys):
    held = ROOT / "results" / "baseline"
    for part in ("records", "per_query"):
        shutil.copytree(held / part, tmp_path / part)
    (path,) = (tmp_path / "records" / "stdlib" / "bm25").iterdir()
    record = json.loads(path.read_text())
    record["timing"]["peak_memory_bytes"] *= 2
    path.write_text(json.dumps(record))
    asked = []

    def measured(own):
        asked.append(own.retriever.label)
        return own.model_copy(update={"timing": own.timing.model_copy(update={"peak_memory_bytes": peaks.pop()})})

    monkeypatch.setattr(remeasure, "repeat", measured)
    only = ["--retriever", "bm25", "--dataset", "stdlib", "--results", str(tmp_path), "--baseline", str(held)]
    peaks = [record["timing"]["peak_memory_bytes"] // 2, record["timing"]["peak_memory_bytes"]]
    assert read.main(["gate", *only]) == 0
    assert asked == ["bm25", "bm25"]
    assert "(x1.00, limit x1.20, least of 3 measurements)" in capsys.readouterr().out
    peaks = [record["timing"]["peak_memory_bytes"]] * 2
    assert read.main(["gate", *only]) == 1


SMALL = ["dataset=folder", "dataset.path=made"]


def test_a_retriever_made_twice_as_slow_fails_after_two_more_measurements(project):
    cell = [f"--config-dir={project / 'conf'}", "retriever=mine", *SMALL, "timing=cpu1", "timing.latency_queries=0"]
    assert harness(*cell).returncode == 0
    assert harness("accept", "--reason", "as it is").returncode == 0
    (project / "mine.py").write_text(SEARCHES.format(times=40))
    assert harness(*cell).returncode == 0
    done = harness("gate")
    assert done.returncode == 1, done.stdout
    assert "IDENTICAL mine/made" in done.stdout
    line = done.stdout.splitlines()[0]
    assert re.fullmatch(
        r"FAIL mine/made.* cpu/query \S+ -> \S+ \(x[1-9]\d*\.\d\d, limit x1\.20, least of 3 measurements\)", line
    ), done.stdout + done.stderr
    assert done.stderr.count("above its limit, measured again to be sure") == 2


def test_a_configs_name_stays_what_it_is_in_the_other_tree_and_a_path_does_not(tmp_path, monkeypatch):
    top, other = tmp_path / "top", tmp_path / "other"
    for tree in (top, other):
        for name in ("scifact", "bm25", "models"):
            (tree / name).mkdir(parents=True)
    monkeypatch.chdir(top)
    for word in ("dataset=scifact", "retriever=bm25", "+retriever@retriever.retrievers.three=bm25", "timing.repeats=1"):
        assert ab._translate_argument(word, top, other) == word
    assert (
        ab._translate_argument("retriever.encoder.model=models", top, other)
        == f"retriever.encoder.model={other / 'models'}"
    )


def test_two_revisions_are_timed_in_turn(project):
    cell = [f"--config-dir={project / 'conf'}", "retriever=mine", *SMALL, *QUICK, "timing.repeats=3"]
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "base"],
    ):
        subprocess.run(["git", *words], check=True)
    (project / "mine.py").write_text(SEARCHES.format(times=60))
    assert harness(*cell).returncode == 0
    done = harness("gate", "--ab", "HEAD")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^FAIL mine/made.* wall/query .* \(x[1-9]\d*\.\d\d, limit x1\.25\)$", done.stdout, re.MULTILINE)
    assert [line.split()[0] for line in done.stderr.splitlines() if re.match(r"(before|after) \d/2:", line)] == [
        *("before", "after"),
        *("before", "after"),
    ]
    assert not list(Path(".git/worktrees").glob("*")), "the worktree is gone"
    refused = harness("gate", "--ab", "nowhere")
    assert refused.returncode == 2
    assert "'nowhere' cannot be checked out" in refused.stderr
