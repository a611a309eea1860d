"""A verdict for GitHub Actions: the step summary in Markdown, and annotations.

Limits: 1 MiB for a step summary; ten annotations of a kind for a step (docs.github.com, "Workflow commands").
"""

from collections.abc import Sequence

from harness.gate import Finding, Verdict
from harness.gate.ci import text
from harness.leaderboard.table import Table, format_difference
from harness.leaderboard.writers import escape_markdown as escape
from harness.leaderboard.writers import markdown

SUMMARY_BYTES = 1024 * 1024
ANNOTATIONS = 9
_HEADINGS = ["", "evaluation", "check", "baseline", "now", "difference", "95 %"]
_UNCHANGED = ("identical", "pass")


def summary(verdict: Verdict, limit: int = SUMMARY_BYTES) -> str:
    """Return the step summary: the verdict, a table of changes, and the other findings folded.

    Args:
        verdict: The verdict.
        limit: Largest number of bytes; tables have fewer rows where they would exceed it.
    """
    changed = [finding for finding in verdict.findings if finding.status not in _UNCHANGED]
    unchanged = [finding for finding in verdict.findings if finding.status in _UNCHANGED]
    for n_rows in (len(verdict.findings), 1000, 200, 50, 10, 0):
        markdown_text = _summary(verdict, changed, unchanged, n_rows)
        if len(markdown_text.encode()) < limit:
            return markdown_text
    return f"### Retrieval gate\n\n{escape(text.summary(verdict))[:1000]}\n"


def _summary(verdict: Verdict, changed: Sequence[Finding], unchanged: Sequence[Finding], n_rows: int) -> str:
    mark = {0: "\N{WHITE HEAVY CHECK MARK}", 1: "\N{CROSS MARK}", 3: "\N{WARNING SIGN}"}[verdict.exit_code]
    parts = [f"### {mark} Retrieval gate\n", f"{escape(text.summary(verdict))}\n"]
    if shown := changed[:n_rows]:
        parts.append(_table(shown, verdict.tests))
        parts += [f"and {len(changed) - len(shown)} more\n"] if len(changed) > len(shown) else []
    parts += _messages(shown)
    if unchanged:
        folded = unchanged[:n_rows]
        more = f"\nand {len(unchanged) - len(folded)} more\n" if len(unchanged) > len(folded) else ""
        listing = "\n".join([_table(folded, verdict.tests), *_messages(folded)])
        title = f"{len(unchanged)} unchanged or within the limits"
        parts.append(f"<details><summary>{title}</summary>\n\n{listing}{more}\n</details>\n")
    parts += [f"Not gated: {escape(note)}.\n" for note in verdict.notes]
    repeatable = [finding for finding in verdict.with_status("fail", "undecided") if finding.command][:3]
    if repeatable:
        commands = "\n".join(dict.fromkeys(finding.command.replace("`", "'") for finding in repeatable))
        parts.append(f"Measure again:\n\n```sh\n{commands}\n```\n")
    return "\n".join(parts)


def _messages(findings: Sequence[Finding]) -> list[str]:
    """Return a list item for each finding that has a message, and an empty line after them."""
    items = [f"- {escape(text.name(each))}: {escape(each.message)}" for each in findings if each.message]
    return [*items, ""] if items else []


def _table(findings: Sequence[Finding], tests: int) -> str:
    p_heading = f"p adjusted over {tests} test{'s' if tests > 1 else ''}" if tests else "adjusted p"
    headings = [*_HEADINGS, p_heading, "won/tied/lost"]
    return markdown([Table("", headings, [_row(finding) for finding in findings])])


def _row(finding: Finding) -> list[str]:
    names = [finding.status, f"{finding.retriever} on {finding.dataset}", finding.check]
    if finding.before is None or finding.after is None:
        return [*names, *["-"] * 6]
    figures = [text.format_figure(finding, value) for value in (finding.before, finding.after)]
    if finding.is_cost:
        return [*names, *figures, f"x{finding.ratio:.2f} (limit x{finding.limit:.2f})", "-", "-", "-"]
    if finding.difference is None:
        return [*names, *figures, "0", "-", "-", "-"]
    return [*names, *figures, *format_difference(finding.difference)]


def annotations(verdict: Verdict) -> list[str]:
    """Return workflow commands: at most nine, and one that counts the remaining findings."""
    kinds = {"fail": "error", "undecided": "warning" if verdict.lenient else "error", "warn": "warning"}
    findings = [finding for finding in verdict.findings if finding.status in kinds]
    commands = [
        _command(kinds[finding.status], text.name(finding), text.line(finding)) for finding in findings[:ANNOTATIONS]
    ]
    if len(findings) > ANNOTATIONS:
        remaining = len(findings) - ANNOTATIONS
        commands.append(_command("notice", "Retrieval gate", f"and {remaining} more, see the summary"))
    return commands


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_escape_property(title)}::{_escape_data(message)}"


def _escape_data(data: str) -> str:
    return data.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(value: str) -> str:
    return _escape_data(value).replace(":", "%3A").replace(",", "%2C")
