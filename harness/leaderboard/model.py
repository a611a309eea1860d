"""What a board is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types import PerQuery, Record

Scores = Mapping[str, PerQuery]
"""Per-query scores by the path that a record names in files.per_query."""

AXES = {"queries_per_s": True, "docs_per_s": True, "latency_ms": False, "index_mb": False}
"""What a row costs, and whether more is better."""


@dataclass(frozen=True)
class Difference:
    """A retriever against another on the same queries: mean of the per-query differences and what it can tell."""

    delta: float
    low: float
    high: float
    """Ends of the 95 % bootstrap interval of `delta`."""
    p: float
    """Paired randomisation, two-sided, adjusted by Holm over the family that is shown."""
    won: int
    tied: int
    lost: int
    effect: float | None
    """Cohen's d of the paired differences over one dataset; None over several, or where none differs."""


@dataclass(frozen=True)
class Cell:
    """One retriever on one dataset, which may have several parts; or its mean over several datasets."""

    value: float
    records: tuple[Record, ...]
    interval: tuple[float, float] | None = None
    """95 % bootstrap interval of the mean; None without per-query scores."""
    best: bool = False
    close: bool | None = None
    """Not the best of its column and not significantly below it; None where that could not be tested."""
    versus: Difference | None = None
    """Against the board's baseline."""


@dataclass(frozen=True)
class Row:
    """One retriever: its cells by dataset, its mean over the common datasets and what it cost there."""

    label: str
    cells: dict[str, Cell]
    failed: frozenset[str]
    """Datasets on which its newest try failed and no older one succeeded."""
    overall: Cell | None = None
    """Over the common datasets; None when there is none or this row lacks one."""
    queries_per_s: float | None = None
    docs_per_s: float | None = None
    latency_ms: float | None = None
    """95th percentile of a query searched alone, over all queries timed on the common datasets."""
    index_mb: float | None = None
    """Of the dataset with the largest index."""
    environment: str | None = None
    """Where all of its costs were measured; None where they come from several environments."""
    threads: int | None = None
    """With how many threads all of them were; None where that differs."""
    front: frozenset[str] = frozenset()
    """Of AXES, those on which no row of the same environment and as many threads is both better and cheaper."""

    @property
    def mean(self) -> float | None:
        """Mean over the common datasets."""
        return self.overall.value if self.overall else None

    @property
    def name(self) -> str:
        """The config's name, without its differences."""
        return next((record.retriever.name for record in self.records), self.label.partition(" [")[0])

    @property
    def family(self) -> str:
        """The module of the retriever's class, such as `dense` or `splade`."""
        target = next((str(record.retriever.config.get("_target_", "")) for record in self.records), "")
        return target.split(".")[-2] if "." in target else "other"

    @property
    def records(self) -> list[Record]:
        """Those of every cell, in the datasets' order."""
        return [record for _, cell in sorted(self.cells.items()) for record in cell.records]


@dataclass(frozen=True)
class Board:
    """Rows best first, the datasets in order, and which of them the means cover."""

    metric: str
    datasets: list[str]
    common: list[str]
    rows: list[Row]
    environments: list[str]
    """Fingerprints of the environments that the shown figures come from."""
    remarks: dict[str, list[str]]
    """What a reader must know of some retrievers, and the rows that it is about."""
    baseline: str | None = None
    detectable: dict[str, float] = field(default_factory=dict)
    """Smallest true difference to the best row that one test on a dataset's queries finds in four of five cases."""
    tests: int = 0
    """Comparisons with the best row: the family that Holm's correction covers."""
    untested: dict[str, list[str]] = field(default_factory=dict)
    """By dataset, rows that could not be tested: their scores by query are missing or of other queries."""
    cautions: list[str] = field(default_factory=list)
    """What was left out, and what differs between rows that are compared."""
    machines: dict[str, str] = field(default_factory=dict)
    """What is known of the environments, by fingerprint."""
