"""A Verdict for GitHub Actions: the step's summary in markdown, and annotations.

Limits: a step's summary 1 MiB; ten annotations of a kind for a step (docs.github.com, "Workflow commands").
"""

from collections.abc import Sequence

from harness.gate import Finding, Verdict
from harness.gate.ci import text
from harness.leaderboard.table import Table, tested
from harness.leaderboard.writers import escape_markdown as escape
from harness.leaderboard.writers import markdown

SUMMARY_BYTES = 1024 * 1024
ANNOTATIONS = 9
_HEADINGS = ["", "cell", "check", "baseline", "now", "difference", "95 %", "p (Holm)", "won/tied/lost"]
_QUIET = ("identical", "pass")


def summary(verdict: Verdict, limit: int = SUMMARY_BYTES) -> str:
    """The verdict, what changed as a table, the rest folded; fewer rows where it would be above the limit."""
    changed = [finding for finding in verdict.findings if finding.status not in _QUIET]
    rest = [finding for finding in verdict.findings if finding.status in _QUIET]
    for shown in (len(verdict.findings), 1000, 200, 50, 10, 0):
        written = _summary(verdict, changed[:shown], rest[:shown], len(changed), len(rest))
        if len(written.encode()) < limit:
            return written
    return f"### Retrieval gate\n\n{escape(text.sentence(verdict))[:1000]}\n"


def _summary(verdict: Verdict, changed: Sequence[Finding], rest: Sequence[Finding], n: int, m: int) -> str:
    mark = {0: "\N{WHITE HEAVY CHECK MARK}", 1: "\N{CROSS MARK}", 3: "\N{WARNING SIGN}"}[verdict.exit_code]
    parts = [f"### {mark} Retrieval gate\n", f"{escape(text.sentence(verdict))}\n"]
    if changed:
        parts.append(_table(changed))
        parts += [f"and {n - len(changed)} more\n"] if n > len(changed) else []
    undecided = [finding for finding in changed if finding.status == "undecided"]
    parts += [f"- {escape(text.name(finding))}: {escape(finding.said)}" for finding in undecided]
    parts += [""] if undecided else []
    if m:
        more = f"\nand {m - len(rest)} more\n" if m > len(rest) else ""
        parts.append(
            f"<details><summary>{m} unchanged or within the limits</summary>\n\n{_table(rest)}{more}\n</details>\n"
        )
    parts += [f"Not gated: {escape(note)}.\n" for note in verdict.notes]
    again = [finding for finding in verdict.of("fail", "undecided") if finding.command][:3]
    if again:
        commands = "\n".join(dict.fromkeys(finding.command.replace("`", "'") for finding in again))
        parts.append(f"Measure again:\n\n```sh\n{commands}\n```\n")
    return "\n".join(parts)


def _table(findings: Sequence[Finding]) -> str:
    return markdown([Table("", _HEADINGS, [_row(finding) for finding in findings])])


def _row(finding: Finding) -> list[str]:
    cell = [finding.status, f"{finding.retriever} on {finding.dataset}", finding.check]
    one = finding.difference
    if finding.before is None or finding.after is None:
        return [*cell, *["-"] * 6]
    figures = [text.figure(finding, value) for value in (finding.before, finding.after)]
    if not finding.is_metric:
        return [*cell, *figures, f"x{finding.ratio:.2f} (limit x{finding.limit:.2f})", "-", "-", "-"]
    if one is None:
        return [*cell, *figures, "0", "-", "-", "-"]
    return [*cell, *figures, *tested(one)]


def annotations(verdict: Verdict) -> list[str]:
    """Workflow commands, at most nine and one that counts the rest."""
    kinds = {"fail": "error", "undecided": "warning" if verdict.lenient else "error", "warn": "warning"}
    found = [finding for finding in verdict.findings if finding.status in kinds]
    said = [_command(kinds[finding.status], text.name(finding), text.line(finding)) for finding in found[:ANNOTATIONS]]
    if len(found) > ANNOTATIONS:
        said.append(_command("notice", "Retrieval gate", f"and {len(found) - ANNOTATIONS} more, see the summary"))
    return said


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(said: str) -> str:
    return said.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(said: str) -> str:
    return _data(said).replace(":", "%3A").replace(",", "%2C")
