"""What the gate finds: one Finding for each check, and the Verdict over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.leaderboard import Difference

Status = Literal["fail", "undecided", "warn", "new", "improved", "pass", "identical"]
ORDER: tuple[Status, ...] = ("fail", "undecided", "warn", "new", "improved", "pass", "identical")
"""Worst first."""
MACRO = "macro average"
"""Stands in a dataset's place for a retriever's mean over all its datasets."""


@dataclass(frozen=True)
class Finding:
    """One check of one retriever on one dataset."""

    status: Status
    retriever: str
    dataset: str
    check: str
    """A metric's name, or `cpu/query`, `cpu/document`, `wall/query`, `wall/document`, `memory`, `index bytes`."""
    before: float | None = None
    after: float | None = None
    difference: Difference | None = None
    """Of a metric: candidate minus baseline; its p is one-sided, in the direction of the change, adjusted by Holm."""
    limit: float | None = None
    """Of a metric the drop that fails when it is significant, or whatever its p where `difference` says so; else the
    ratio of after to before."""
    said: str = ""
    """Why it cannot be decided, or what else must be known."""
    command: str = ""
    """Measures the cell again."""

    @property
    def is_metric(self) -> bool:
        """Whether a score is checked, not a cost."""
        return "@" in self.check or self.check in ("rprec", "cell")

    @property
    def badness(self) -> float:
        """Sorts findings of one status, worst first."""
        if self.before is None or self.after is None:
            return 0.0
        return self.after - self.before if self.is_metric else 1 - self.ratio

    @property
    def ratio(self) -> float:
        """After over before; 1 where either is missing or before is 0."""
        return self.after / self.before if self.before and self.after is not None else 1.0


@dataclass(frozen=True)
class Verdict:
    """All findings, worst first."""

    findings: Sequence[Finding]
    notes: Sequence[str] = ()
    """What was not gated, and why."""
    lenient: bool = False
    """What cannot be decided is a warning."""

    def of(self, *statuses: Status) -> list[Finding]:
        """The findings of some statuses."""
        return [finding for finding in self.findings if finding.status in statuses]

    @property
    def exit_code(self) -> int:
        """0: nothing got worse, 1: something did, 3: it cannot be told."""
        if self.of("fail"):
            return 1
        return 3 if self.of("undecided") and not self.lenient else 0


def verdict(findings: Sequence[Finding], notes: Sequence[str] = (), lenient: bool = False) -> Verdict:
    """The findings in order."""
    order = sorted(
        findings,
        key=lambda own: (
            ORDER.index(own.status),
            not own.is_metric,
            own.badness,
            own.retriever,
            own.dataset,
            own.check,
        ),
    )
    return Verdict(order, notes, lenient)
