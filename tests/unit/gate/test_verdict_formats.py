"""Tests of the formats of a verdict: JUnit, annotations and the summary."""

import re

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from support.gate import BASE, gate_values, make_evaluations, run_gate, shifted

from harness.gate import Finding, make_verdict
from harness.gate.ci import github, junit


def verdict_with_failures(n):
    """Return a verdict with `n` failed evaluations and one finding of every other kind."""
    names = [f"r{number}, <b>%::" for number in range(n)]
    failing = gate_values({(name, "x|y"): BASE for name in names}, {(name, "x|y"): shifted(-0.02) for name in names})
    remaining = [
        Finding(
            "undecided",
            "lost",
            "x",
            "evaluation",
            message="it was not measured\nreally",
            command="harness retriever=lost",
        ),
        Finding("new", "fresh", "x", "evaluation", message="not in the baseline"),
        Finding("fail", "slow", "x", "cpu/query", 1.0, 1.5, limit=1.2, command="harness retriever=slow"),
    ]
    return make_verdict(
        [*failing.findings, *remaining], ["cpu/query: measured in another environment (1 of 2 evaluations)"]
    )


def test_junit_is_valid_and_counts_failures_errors_and_skips(tmp_path):
    verdict = verdict_with_failures(3)
    path = tmp_path / "gate.xml"
    path.write_text(junit.render(verdict), encoding="utf-8")
    report = JUnitXml.fromfile(str(path))
    suites = {suite.name: suite for suite in report}
    assert set(suites) == {"r0, <b>%::", "r1, <b>%::", "r2, <b>%::", "lost", "fresh", "slow"}
    kinds = {suite: [type(result) for case in cases for result in case.result] for suite, cases in suites.items()}
    assert kinds["r0, <b>%::"] == [Failure]
    assert kinds["lost"] == [Error]
    assert kinds["fresh"] == [Skipped]
    assert (report.failures, report.errors, report.skipped) == (4, 1, 1)
    case = next(iter(suites["slow"]))
    assert (case.classname, case.name) == ("slow", "x cpu/query")
    assert "x1.50" in case.result[0].message
    lenient = junit.render(make_verdict(verdict.findings, [], lenient=True))
    assert JUnitXml.fromstring(lenient.encode()).errors == 0


def test_junit_leaves_out_characters_that_xml_forbids():
    finding = Finding("undecided", "a\x00b\x1b", "x", "evaluation", message="\x0b\ud800 odd")
    assert JUnitXml.fromstring(junit.render(make_verdict([finding])).encode()).errors == 1


def test_at_most_ten_annotations_are_printed_and_the_last_counts_the_rest():
    lines = github.annotations(verdict_with_failures(20))
    assert len(lines) == 10
    assert lines[-1] == "::notice title=Retrieval gate::and 13 more, see the summary"
    for line in lines:
        assert re.fullmatch(r"::(error|warning|notice) title=[^:,\n]*::[^\n\r]*", line)
    assert "r0%2C <b>%25%3A%3A" in " ".join(github.annotations(verdict_with_failures(1)))
    assert len(github.annotations(verdict_with_failures(2))) == 4


def test_the_summary_shows_changes_and_folds_the_rest():
    verdict = make_verdict(
        [*verdict_with_failures(2).findings, *gate_values({("a", "x"): BASE}, {("a", "x"): BASE}).findings], ["a note"]
    )
    summary = github.summary(verdict)
    assert summary.startswith("### \N{CROSS MARK} Retrieval gate\n")
    before, _, folded = summary.partition("<details>")
    assert "r0, &lt;b>" in before
    assert r"x\|y" in before
    assert "| identical | a on x |" in folded
    assert "Not gated: a note." in summary
    assert "harness retriever=slow" in summary
    passed = github.summary(gate_values({("a", "x"): BASE}, {("a", "x"): BASE}))
    assert passed.startswith("### \N{WHITE HEAVY CHECK MARK} Retrieval gate")


@pytest.mark.parametrize(
    ("status", "check", "message"),
    [
        ("fail", "evaluation", "its newest try failed: WeightsError: gone"),
        ("fail", "lost queries", "6 of 300 queries fell to 0 in ndcg@10"),
        ("fail", "evaluation", "document ids differ: 0% of the baseline's ranked ids occur in the new rankings"),
        ("undecided", "evaluation", "it was not measured"),
        ("warn", "evaluation", "not in the baseline, and its newest try failed"),
        ("pass", "lost queries", "1 of 300 queries fell to 0 in ndcg@10"),
    ],
)
def test_the_summary_has_the_message_of_every_finding(status, check, message):
    summary = github.summary(make_verdict([Finding(status, "a", "x", check, message=message)]))
    name = "a/x" if check == "evaluation" else f"a/x {check}"
    assert f"\n- {name}: {message}\n" in summary
    assert ("<details>" in summary.partition(message)[0]) == (status == "pass")


def test_the_summary_stays_below_githubs_limit():
    finding = Finding("fail", "r" * 400, "d" * 400, "ndcg@10", 0.5, 0.4, limit=0.005, message="s" * 400)
    summary = github.summary(make_verdict([finding] * 5000))
    assert len(summary.encode()) < 1024 * 1024
    assert re.search(r"\nand \d+ more\n", summary)
    assert len(github.summary(make_verdict([finding] * 5000), limit=3000).encode()) < 3000


def test_junit_has_the_time_of_each_evaluation_and_suite():
    verdict = gate_values({("a", "x"): BASE, ("a", "y"): BASE}, {("a", "x"): BASE, ("a", "y"): shifted(-0.02)})
    report = JUnitXml.fromstring(junit.render(verdict).encode())
    (suite,) = report
    assert {case.time for case in suite} == {5.0, 0.0}, "warm-up, index and three searches; the mean has none"
    assert suite.time == 10.0, "each evaluation counts once"
    assert suite.timestamp == "2026-01-01T00:01:00+00:00"
    assert verdict.findings[0].measured.seconds == 5.0


def test_junit_counts_the_time_of_a_dataset_in_parts_once():
    sides = []
    for minutes in (0, 1):
        records, scores = make_evaluations({("a", "f0"): BASE, ("a", "f1"): BASE, ("a", "y"): BASE}, minutes)
        group = {"group": "forums", "parts": 2}
        parts = [each.model_copy(update={"dataset": each.dataset.model_copy(update=group)}) for each in records[:2]]
        sides += [[*parts, records[2]], scores]
    verdict = run_gate(*sides)
    (suite,) = JUnitXml.fromstring(junit.render(verdict).encode())
    times = {case.name: case.time for case in suite}
    assert (times["forums ndcg@10"], times["f0 cpu/query"], times["y ndcg@10"]) == (10.0, 5.0, 5.0)
    assert suite.time == 15.0
    of_costs = [finding for finding in verdict.findings if finding.is_cost]
    (suite,) = JUnitXml.fromstring(junit.render(make_verdict(of_costs)).encode())
    assert suite.time == 15.0, "the parts, where no finding is on the whole dataset"
