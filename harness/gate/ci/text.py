"""A Verdict in words: one line for each finding, worst first, then one plain sentence."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.gate import Finding, Verdict


def lines(verdict: Verdict) -> list[str]:
    """Every finding's line, what was not gated, and the sentence."""
    notes = [f"not gated: {note}" for note in verdict.notes]
    return [*map(line, verdict.findings), *notes, sentence(verdict)]


def line(finding: Finding) -> str:
    """`FAIL minilm/scifact ndcg@10 0.642 -> 0.618 (-0.024 [-0.037, -0.011], p=0.0004 Holm, limit 0.005) W41 T203 L56`.

    Won, tied and lost are queries.
    """
    return " ".join(f"{finding.status.upper()} {name(finding)} {told(finding)}".split())


def name(finding: Finding) -> str:
    """`minilm/scifact ndcg@10`."""
    check = "" if finding.check == "cell" else f" {finding.check}"
    return " ".join(f"{finding.retriever}/{finding.dataset}{check}".split())


def told(finding: Finding) -> str:
    """What a finding says of its figures."""
    if finding.before is None or finding.after is None:
        return f"- {finding.said}" if finding.said else ""
    if not finding.is_metric:
        return _cost(finding)
    said, one = f"{figure(finding, finding.before)} -> {figure(finding, finding.after)}", finding.difference
    if one is not None:
        inside = f"{one.delta:+.4f} [{one.low:+.4f}, {one.high:+.4f}], p={one.p:.4f} Holm, limit {finding.limit:g}"
        said = f"{said} ({inside}) W{one.won} T{one.tied} L{one.lost}"
    return f"{said} - {finding.said}" if finding.said else said


def figure(finding: Finding, value: float) -> str:
    """A score with four digits, bytes as MB, any other cost with four significant digits."""
    if finding.is_metric:
        return f"{value:.4f}"
    return f"{value / 1e6:.4g} MB" if finding.check in ("memory", "index bytes") else f"{value:.4g}"


def _cost(finding: Finding) -> str:
    before, after = (figure(finding, value or 0.0) for value in (finding.before, finding.after))
    more = f", {finding.said}" if finding.said else ""
    return f"{before} -> {after} (x{finding.ratio:.2f}, limit x{finding.limit:.2f}{more})"


def sentence(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    failed, undecided = verdict.of("fail"), verdict.of("undecided")
    if failed:
        said = f"Worse than the baseline: {_names(failed)}"
        return f"{said}; {len(undecided)} more cannot be decided." if undecided else f"{said}."
    if undecided:
        said = "Cannot be decided" if verdict.exit_code else "Not decided, and let pass"
        return f"{said}: {_names(undecided)}."
    counts = [
        f"{len(own)} {word}"
        for status, word in (
            ("identical", "identical"),
            ("pass", "within the limits"),
            ("improved", "improved"),
            ("warn", "to look at"),
            ("new", "new"),
        )
        if (own := verdict.of(status))  # type: ignore[arg-type]
    ]
    return f"Nothing got worse: {', '.join(counts) or 'nothing was gated'}."


def _names(findings: Sequence[Finding], most: int = 4) -> str:
    shown = [name(finding) for finding in findings[:most]]
    rest = len(findings) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def as_plain(verdict: Verdict) -> dict[str, Any]:
    """Lists, dicts, strings and numbers, not rounded."""
    return {
        "exit_code": verdict.exit_code,
        "said": sentence(verdict),
        "notes": list(verdict.notes),
        "findings": [asdict(finding) for finding in verdict.findings],
    }
