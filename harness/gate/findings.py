"""Findings of the gate, one for each check, and the verdict over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.leaderboard import Difference

Status = Literal["fail", "undecided", "warn", "new", "improved", "pass", "identical"]
ORDER: tuple[Status, ...] = ("fail", "undecided", "warn", "new", "improved", "pass", "identical")
"""Worst first."""
MACRO = "macro average"
"""Used in place of a dataset for a retriever's mean over all its datasets."""
EVALUATION = "evaluation"
"""The check of an evaluation as a whole: that it was measured, and can be compared."""
LOST_QUERIES = "lost queries"
"""The check of queries whose scores fell to 0."""
QUERY, DOCUMENT, WALL_QUERY, WALL_DOCUMENT = "cpu/query", "cpu/document", "wall/query", "wall/document"
LATENCY, MEMORY, INDEX = "latency p95", "memory", "index bytes"
COSTS = (QUERY, DOCUMENT, WALL_QUERY, WALL_DOCUMENT, LATENCY, MEMORY, INDEX)
"""Checks of costs."""


@dataclass(frozen=True)
class Provenance:
    """When, with which code and in what time an evaluation was measured."""

    started: str
    """UTC time, ISO 8601."""
    revision: str | None
    """Git revision of the code, followed by `+` if files were changed; None if it was installed."""
    seconds: float | None
    """Wall seconds of warm-up, index and searches; None if the evaluation was not timed."""
    part_of: str | None = None
    """For a part of a dataset: the label of the dataset, whose measurement includes this one."""


@dataclass(frozen=True)
class Finding:
    """One check of one retriever on one dataset."""

    status: Status
    retriever: str
    dataset: str
    check: str
    """A metric's name, one of `COSTS`, `LOST_QUERIES` or `EVALUATION`."""
    before: float | None = None
    after: float | None = None
    difference: Difference | None = None
    """For a metric: candidate minus baseline, adjusted over all evaluations and gated metrics, selected or not."""
    limit: float | None = None
    """For a metric: the policy's limit if the drop exceeds it, otherwise the tolerance; for a cost: the largest allowed
    ratio of after to before."""
    message: str = ""
    """The reason why it is undecided, or a note."""
    command: str = ""
    """Command that repeats the evaluation."""
    measured: Provenance | None = None
    """Measurement of the newest record; None for a mean over datasets, and where there is no record."""

    @property
    def is_cost(self) -> bool:
        """True for a check of costs, False for a check of scores or of the evaluation as a whole."""
        return self.check in COSTS

    @property
    def improvement(self) -> float:
        """Change from before to after, positive where it is better; orders the findings of one status."""
        if self.before is None or self.after is None:
            return 0.0
        return 1 - self.ratio if self.is_cost else self.after - self.before

    @property
    def ratio(self) -> float:
        """After / before; 1 where either is missing or before is 0."""
        return self.after / self.before if self.before and self.after is not None else 1.0


@dataclass(frozen=True)
class Verdict:
    """All findings, worst first."""

    findings: Sequence[Finding]
    notes: Sequence[str] = ()
    """Checks that were skipped, and why."""
    lenient: bool = False
    """Treat undecided findings as warnings."""
    tests: int = 0
    """Number of tests of gated metrics, which the p-values and intervals are adjusted over. It includes the tests of
    evaluations that are not selected."""

    def with_status(self, *statuses: Status) -> list[Finding]:
        """Return the findings that have one of the statuses."""
        return [finding for finding in self.findings if finding.status in statuses]

    @property
    def exit_code(self) -> int:
        """0: no regression, 1: regression, 3: undecided."""
        if self.with_status("fail"):
            return 1
        return 3 if self.with_status("undecided") and not self.lenient else 0


def make_verdict(
    findings: Sequence[Finding], notes: Sequence[str] = (), lenient: bool = False, tests: int = 0
) -> Verdict:
    """Return the verdict over findings.

    Args:
        findings: Findings in any order; the verdict has them worst first.
        notes: Checks that were skipped, and why.
        lenient: Treat undecided findings as warnings.
        tests: Number of tests of gated metrics that are adjusted together.
    """
    ordered = sorted(
        findings,
        key=lambda finding: (
            ORDER.index(finding.status),
            finding.is_cost,
            finding.improvement,
            finding.retriever,
            finding.dataset,
            finding.check,
        ),
    )
    return Verdict(ordered, notes, lenient, tests)
