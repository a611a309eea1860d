"""Types of the leaderboard."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.types import PerQuery, Record
from harness.types.intervals import Interval

if TYPE_CHECKING:
    from harness.leaderboard.significance import ColumnTests, ComparisonFamily

MEANS = ""
"""Name of the column of means over datasets, beside the datasets' names."""

Scores = Mapping[str, PerQuery]
"""Per-query scores by the path that a record names in files.per_query."""

AXES = {"queries_per_s": True, "docs_per_s": True, "latency_ms": False, "index_mb": False}
"""Costs of a row; True where more is better."""


@dataclass(frozen=True)
class Difference:
    """Mean of the per-query differences between two retrievers, with its confidence interval and test."""

    delta: float
    low: float
    high: float
    """Ends of the 95 % interval of `delta`, simultaneous over the family of comparisons."""
    p: float
    """Two-sided p-value of the paired test, adjusted over the family of comparisons."""
    won: int
    tied: int
    lost: int
    effect: float | None
    """Cohen's d of the paired differences on one dataset; None over several, or where they do not vary."""


@dataclass(frozen=True)
class EvaluationSummary:
    """The score of one retriever on one dataset, which may have several parts, or its mean over several datasets."""

    value: float
    records: tuple[Record, ...]
    interval: tuple[float, float] | None = None
    """95 % confidence interval of the mean; None without per-query scores."""
    best: bool = False
    """True for the highest value of a column with several."""
    best_share: float | None = None
    """Share of the resamples of the queries in which it is the highest of its column; None without per-query scores."""
    tied_with_best: bool | None = None
    """True if not the best of its column and not significantly worse than it; None where it could not be tested."""
    versus: Difference | None = None
    """Difference to the leaderboard's baseline."""


@dataclass(frozen=True)
class Row:
    """One retriever: its evaluations by dataset, its mean over the common datasets and its costs there."""

    label: str
    evaluations: dict[str, EvaluationSummary]
    failed: frozenset[str]
    """Datasets on which every attempt failed."""
    overall: EvaluationSummary | None = None
    """Mean over the common datasets; None if there are none, or the row lacks one of them."""
    queries_per_s: float | None = None
    docs_per_s: float | None = None
    latency_ms: float | None = None
    """95th percentile of single-query latency over the common datasets, each of which has the same weight."""
    index_mb: float | None = None
    """Size of the largest index among the common datasets."""
    environment: str | None = None
    """Environment of all costs; None if they come from several."""
    threads: int | None = None
    """Number of threads of all costs; None if it differs."""
    front: frozenset[str] = frozenset()
    """The AXES on which the row is on the Pareto front of rows with the same environment and number of threads."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """95 % intervals of the costs, by axis; none for a cost that rests on one sample."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """Number of samples of the costs, by axis: the smallest on any dataset; of the latency, all of them."""
    busy: Mapping[str, str] = field(default_factory=dict)
    """Why a cost was measured while the machine was busy, by axis."""
    refresh: str = ""
    """Commands that measure again what was measured while the machine was busy."""
    gaps: Mapping[str, str] = field(default_factory=dict)
    """Why a cost is missing, by axis."""

    @property
    def mean(self) -> float | None:
        """Mean over the common datasets."""
        return self.overall.value if self.overall else None

    @property
    def name(self) -> str:
        """Name of the config, without the overrides that are part of the label."""
        return next((record.retriever.name for record in self.records), self.label.partition(" [")[0])

    @property
    def family(self) -> str:
        """Module of the retriever's class, such as `dense` or `splade`."""
        target = next((str(record.retriever.config.get("_target_", "")) for record in self.records), "")
        return target.split(".")[-2] if "." in target else "other"

    @property
    def records(self) -> list[Record]:
        """Records of every evaluation, in the order of the datasets."""
        return [record for _, evaluation in sorted(self.evaluations.items()) for record in evaluation.records]


@dataclass(frozen=True)
class Leaderboard:
    """The table of retrievers x datasets of one metric, best row first."""

    metric: str
    datasets: list[str]
    common: list[str]
    """Datasets that every row has; the means and costs cover these."""
    rows: list[Row]
    environments: list[str]
    """Fingerprints of the environments of the figures."""
    remarks: dict[str, list[str]]
    """Remarks on retrievers, each with the labels of the rows that it applies to."""
    baseline: str | None = None
    """Label of the row that the others are compared with."""
    detectable: dict[str, float] = field(default_factory=dict)
    """Minimum detectable effect of a comparison with the best row, by dataset (80 % power, 5 % level, one test)."""
    family: "ComparisonFamily | None" = None
    """All comparisons of the rows on the datasets, and of their means where these cover `common`; None: not tested."""
    means_family: "ComparisonFamily | None" = None
    """Comparisons of the means where `family` has none over `common`, because rows or datasets are hidden."""
    untested: dict[str, list[str]] = field(default_factory=dict)
    """By dataset, rows without per-query scores or with scores of other queries."""
    judged: dict[str, float] = field(default_factory=dict)
    """By label, the mean share of judged documents among the first ten, over `common`, where it is known."""
    cautions: list[str] = field(default_factory=list)
    """Records that were left out, and settings that differ between compared rows."""
    machines: dict[str, str] = field(default_factory=dict)
    """Descriptions of the environments, by fingerprint."""

    def difference(self, a: str, b: str, dataset: str = MEANS) -> Difference | None:
        """Return row b minus row a; None where one of them was not tested.

        Args:
            a: Label of the row to compare with.
            b: Label of the other row.
            dataset: The dataset; by default the mean over `common`.
        """
        tests = self.column_tests(dataset)
        return tests.difference(a, b) if tests else None

    def column_tests(self, dataset: str = MEANS) -> "ColumnTests | None":
        """Return the tests of a column; of the means over one dataset, those of that dataset. None if not tested."""
        if dataset == MEANS and len(self.common) == 1:
            dataset = self.common[0]
        families = (self.means_family if dataset == MEANS else None, self.family)
        return next((family.columns[dataset] for family in families if family and dataset in family.columns), None)

    def comparisons(self, dataset: str = MEANS) -> int | None:
        """Return the number of comparisons that those of a column are adjusted over; None if it was not tested."""
        if self.column_tests(dataset) is None:
            return None
        is_own_family = dataset == MEANS and len(self.common) > 1 and self.means_family is not None
        family = self.means_family if is_own_family else self.family
        return family.size if family else None

    @property
    def tests(self) -> int:
        """Number of comparisons that are adjusted together."""
        return self.family.size if self.family else 0
