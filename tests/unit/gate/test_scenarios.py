"""Tests of the exit code and the message for changes of code, data, configs and results, in one table."""

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.command_line import harness
from support.gate import BASE, store_evaluations
from support.gate_scenarios import (
    PLAN,
    ChangedRun,
    accept_bm25,
    evaluate_again,
    records_of,
    verbs_dataset,
    with_first_text,
    with_other_ids,
)

from harness.cli import read
from harness.retrievers.bm25 import BM25
from harness.store import Store
from harness.store.tables import as_table, parquet
from harness.text.tokenizer import Tokenizer
from harness.types import PerQuery, Qrels


class Scenario(NamedTuple):
    """A change, and what the gate must say about it."""

    change: Callable[[Path], None]
    exit_code: int
    message: str
    """Pattern of a line."""
    arguments: tuple[str, ...] = ()


# ---- retrievers


class ShortTail(ChangedRun):
    def change(self, docs, scores):
        docs[:, 10:] = -1
        return docs, scores


class Duplicates(ChangedRun):
    def change(self, docs, scores):
        docs[:, 1] = docs[:, 0]
        return docs, scores


class NotANumber(ChangedRun):
    def change(self, docs, scores):
        scores[0, 0] = np.nan
        return docs, scores


class Sleeping(BM25):
    def search(self, queries, k):
        time.sleep(0.1)
        return super().search(queries, k)


# ---- changes


def edit_record(results, edit):
    """Evaluate BM25 again and edit the JSON of its record."""
    evaluate_again(results)
    path = records_of(results)[-1]
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def edit_scores(results, edit):
    """Evaluate BM25 again and replace its per-query scores by the edited ones."""
    evaluate_again(results)
    record = max(Store(results).records(), key=lambda record: record.started)
    scores = Store(results).scores([record])[record.files.per_query]
    (results / record.files.per_query).write_bytes(parquet(as_table(edit(scores))))


def remove_records(results):
    shutil.rmtree(results / "records")


def retriever_gone(results):
    """Accept a second retriever that is not measured any more."""
    store_evaluations(results, {("gone", "x"): BASE})
    accept_again(results)
    shutil.rmtree(results / "records" / "x")


def accept_again(results):
    assert read.main(["accept", "--reason", "next", "--results", str(results)]) == 0


def change_one_word(results):
    dataset = verbs_dataset()
    evaluate_again(results, dataset=with_first_text(dataset, f"{dataset.corpus.texts[0]} word"))


def remove_judgements(results):
    dataset = verbs_dataset()
    evaluate_again(results, dataset=replace(dataset, qrels=Qrels({**dataset.qrels, "q0": {"d0": 1}})))


def lose_queries(n):
    """Return a change of a sweep of twenty retrievers in which `n` queries of one fall to 0.

    In each of the other nineteen, five queries fall to 0 and five rise from 0.
    """

    def change(results):
        rng = np.random.default_rng(0)
        names = [f"r{number}" for number in range(20)]
        before, after = ({(name, "x"): BASE.copy() for name in names} for _ in range(2))
        for key in before:
            after[key] = np.clip(BASE + rng.normal(0, 0.02, 300), 0.01, 1)
            changed = rng.permutation(300)[:10]
            before[key][changed[:5]] = after[key][changed[5:]] = 0
        before["r7", "x"] = BASE
        after["r7", "x"] = np.where(np.arange(300) < n, 0, BASE)
        store_evaluations(results, before)
        accept_again(results)
        store_evaluations(results, after, 1)

    return change


def damage_baseline(results):
    next((results / "baseline").rglob("*.parquet")).write_bytes(b"trash")


def remove_query_row(results):
    edit_scores(
        results,
        lambda scores: PerQuery(scores.query_ids[1:], {name: values[1:] for name, values in scores.values.items()}),
    )


def remove_baseline_row(results):
    """Measure a second retriever whose row was removed from the baseline."""
    store_evaluations(results, {("second", "x"): BASE})
    accept_again(results)
    manifest = results / "baseline" / "baseline.json"
    content = json.loads(manifest.read_text())
    content["evaluations"] = [each for each in content["evaluations"] if each["retriever"] != "second"]
    manifest.write_text(json.dumps(content))


def add_row(results):
    store_evaluations(results, {("second", "x"): BASE})


def lose_ungated_metric(results):
    edit_scores(
        results,
        lambda scores: PerQuery(
            scores.query_ids, {**scores.values, "map@100": np.clip(scores.values["map@100"] - 0.1, 0.001, 1)}
        ),
    )


def measure_with_other_code(results):
    edit_record(results, lambda record: record.update(code="0" * 16, revision="0123456789ab"))


FAILED = "^FAIL bm25/verbs - its newest try failed: "
SCENARIOS = {
    "unchanged": Scenario(evaluate_again, 0, r"^IDENTICAL bm25/verbs ndcg@10 "),
    "nothing measured": Scenario(remove_records, 3, r"^UNDECIDED bm25/verbs - it was not measured$"),
    "retriever gone": Scenario(retriever_gone, 3, r"^UNDECIDED gone/x - it was not measured$"),
    "one word of one document changed": Scenario(
        change_one_word, 3, r"^UNDECIDED bm25/verbs - the dataset differs: \w+ in the baseline, \w+ now$"
    ),
    "judgements removed": Scenario(remove_judgements, 3, r"^UNDECIDED bm25/verbs - the dataset differs: "),
    "self-hit flag": Scenario(
        lambda results: evaluate_again(results, dataset=replace(verbs_dataset(), drop_self_hits=True)),
        *(3, r"^UNDECIDED bm25/verbs - the dataset differs: "),
    ),
    "ids turned over": Scenario(
        lambda results: evaluate_again(results, dataset=with_other_ids(verbs_dataset())),
        *(
            3,
            r"the dataset differs: .*; document ids differ: 0% of the baseline's ranked ids occur in the new rankings",
        ),
    ),
    "k": Scenario(
        lambda results: (remove_records(results), evaluate_again(results, k=10)),
        *(3, r"k differs: 100 in the baseline, 10 now"),
    ),
    "metric version": Scenario(
        lambda results: edit_record(results, lambda record: record.update(metric_version=99)),
        *(3, r"the metrics' version differs: \d+ in the baseline, 99 now"),
    ),
    "recall tail lost": Scenario(
        lambda results: evaluate_again(results, ShortTail()), 1, r"^FAIL bm25/verbs recall@100 1\.0000 -> 0\.\d+ \("
    ),
    "duplicates": Scenario(
        lambda results: evaluate_again(results, Duplicates()),
        1,
        FAILED + "RunError: ",
    ),
    "NaN": Scenario(
        lambda results: evaluate_again(results, NotANumber()),
        1,
        FAILED + "RunError: ",
    ),
    "NaN in stored scores": Scenario(
        lambda results: edit_scores(
            results, lambda scores: PerQuery(scores.query_ids, {**scores.values, "ndcg@10": np.full(120, np.nan)})
        ),
        *(3, r"^UNDECIDED bm25/verbs ndcg@10 - a score is not a number$"),
    ),
    "stemmer off": Scenario(
        lambda results: evaluate_again(results, BM25(Tokenizer(stemmer=None))), 1, r"^FAIL bm25/verbs ndcg@10 "
    ),
    "stale record": Scenario(
        measure_with_other_code,
        3,
        r"^UNDECIDED bm25/verbs - measured with other code than the present "
        r"\(revision 0123456789ab, 20\d\d-\d\d-\d\d \d\d:\d\d UTC\)",
    ),
    "stale record, lenient": Scenario(measure_with_other_code, 0, r"^IDENTICAL bm25/verbs ndcg@10 ", ("--lenient",)),
    "3 queries lost": Scenario(lose_queries(3), 0, "^PASS r7/x lost queries - 3 of 300 queries fell to 0 in ndcg@10"),
    "6 queries lost": Scenario(
        lose_queries(6),
        1,
        r"^FAIL r7/x lost queries - 6 of 300 .*p=0\.0342 adjusted, limit 3\): q0, q1, q2, ",
    ),
    "sleeping search": Scenario(
        lambda results: evaluate_again(results, Sleeping(), plan=PLAN), 1, r"^FAIL bm25/verbs wall/query .*limit x"
    ),
    "damaged baseline": Scenario(damage_baseline, 3, r"^UNDECIDED baseline/all - the baseline is damaged: "),
    "row of a query removed": Scenario(
        remove_query_row, 3, r"the judged queries differ: 120 in the baseline, 119 now, 119 in both"
    ),
    "row removed from the baseline": Scenario(remove_baseline_row, 0, r"^NEW second/x - not in the baseline$"),
    "new row": Scenario(add_row, 0, r"^NEW second/x - not in the baseline$"),
    "failed newest try": Scenario(
        lambda results: edit_record(results, lambda record: record.update(status="failed", error="WeightsError: gone")),
        *(1, FAILED + "WeightsError: gone$"),
    ),
    "typo": Scenario(
        evaluate_again,
        2,
        r"no record of retriever 'bm52'; there are bm25; did you mean 'bm25'\?",
        ("--retriever", "bm52"),
    ),
    "ungated metric": Scenario(
        lose_ungated_metric, 0, r"^WARN bm25/verbs map@100 0\.\d+ -> 0\.\d+ \(.*, limit 0\.005\) .* - not gated$"
    ),
    "label changed": Scenario(
        lambda results: (remove_records(results), evaluate_again(results, name="bm25 renamed")),
        *(3, r"^UNDECIDED bm25/verbs - it was not measured$"),
    ),
}


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    """Return a results folder whose BM25 evaluation was accepted as the baseline."""
    results = tmp_path_factory.mktemp("accepted") / "results"
    accept_bm25(results)
    return results


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gate_answers(name, accepted, tmp_path, monkeypatch, capsys):
    scenario = SCENARIOS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    shutil.copytree(accepted, "results")
    scenario.change(Path("results"))
    capsys.readouterr()
    code = harness(monkeypatch, "gate", *scenario.arguments)
    out, err = capsys.readouterr()
    assert code == scenario.exit_code, out + err
    assert re.search(scenario.message, out + err, re.MULTILINE), out + err
