"""A verdict as text: one line for each finding, worst first, then one sentence."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.gate import Finding, Verdict
from harness.gate.findings import EVALUATION, INDEX, MEMORY


def lines(verdict: Verdict) -> list[str]:
    """Return a line for each finding and each skipped check, and the summary."""
    notes = [f"not gated: {note}" for note in verdict.notes]
    return [*map(line, verdict.findings), *notes, summary(verdict)]


def line(finding: Finding) -> str:
    """Return a finding's line, which ends with the numbers of queries won, tied and lost.

    `FAIL minilm/scifact ndcg@10 0.642 -> 0.618 (-0.024 [-0.037, -0.011], p=0.0004, limit 0.005) W41 T203 L56`
    """
    return " ".join(f"{finding.status.upper()} {name(finding)} {details(finding)}".split())


def name(finding: Finding) -> str:
    """Return the evaluation and the check: `minilm/scifact ndcg@10`."""
    check = "" if finding.check == EVALUATION else f" {finding.check}"
    return " ".join(f"{finding.retriever}/{finding.dataset}{check}".split())


def details(finding: Finding) -> str:
    """Return a finding's figures and message."""
    if finding.before is None or finding.after is None:
        return f"- {finding.message}" if finding.message else ""
    if finding.is_cost:
        return _cost(finding)
    text = f"{format_figure(finding, finding.before)} -> {format_figure(finding, finding.after)}"
    if (difference := finding.difference) is not None:
        interval = f"[{difference.low:+.4f}, {difference.high:+.4f}]"
        test = f"{difference.delta:+.4f} {interval}, p={difference.p:.4f}, limit {finding.limit:g}"
        text = f"{text} ({test}) W{difference.won} T{difference.tied} L{difference.lost}"
    return f"{text} - {finding.message}" if finding.message else text


def format_figure(finding: Finding, value: float) -> str:
    """Format a `value` of a `finding`: a score with four decimals, bytes as MB, CPU time with four digits."""
    if not finding.is_cost:
        return f"{value:.4f}"
    return f"{value / 1e6:.4g} MB" if finding.check in (MEMORY, INDEX) else f"{value:.4g}"


def _cost(finding: Finding) -> str:
    before, after = (format_figure(finding, value or 0.0) for value in (finding.before, finding.after))
    message = f", {finding.message}" if finding.message else ""
    return f"{before} -> {after} (x{finding.ratio:.2f}, limit x{finding.limit:.2f}{message})"


def summary(verdict: Verdict) -> str:
    """Return the verdict in one sentence, followed by the number of tests that its p-values are adjusted over."""
    return f"{_conclusion(verdict)} {family(verdict)}".rstrip()


def family(verdict: Verdict) -> str:
    """Return a sentence with the number of tests that are adjusted together; "" if no score changed."""
    return f"Adjusted over {verdict.tests} test{'s' if verdict.tests > 1 else ''}." if verdict.tests else ""


def _conclusion(verdict: Verdict) -> str:
    failed, undecided = verdict.with_status("fail"), verdict.with_status("undecided")
    if failed:
        text = f"Worse than the baseline: {_names(failed)}"
        return f"{text}; {len(undecided)} more cannot be decided." if undecided else f"{text}."
    if undecided:
        text = "Cannot be decided" if verdict.exit_code else "Undecided, allowed by --lenient"
        return f"{text}: {_names(undecided)}."
    counts = [
        f"{len(findings)} {words}"
        for status, words in (
            ("identical", "identical"),
            ("pass", "within the limits"),
            ("improved", "improved"),
            ("warn", "with a warning"),
            ("new", "new"),
        )
        if (findings := verdict.with_status(status))  # type: ignore[arg-type]
    ]
    return f"Nothing got worse: {', '.join(counts) or 'nothing was checked'}."


def _names(findings: Sequence[Finding], limit: int = 4) -> str:
    shown = [name(finding) for finding in findings[:limit]]
    remaining = len(findings) - len(shown)
    return ", ".join(shown) + (f" and {remaining} more" if remaining else "")


def to_dict(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for JSON; no number is rounded."""
    return {
        "exit_code": verdict.exit_code,
        "summary": summary(verdict),
        "tests": verdict.tests,
        "notes": list(verdict.notes),
        "findings": [asdict(finding) for finding in verdict.findings],
    }
