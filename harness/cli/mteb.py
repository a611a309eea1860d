"""`harness mteb NAME`: sweep over the tasks of an mteb benchmark and print its aggregates."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.console import say, show, show_tables
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.leaderboard.table import Table
    from harness.types import Record


def main(arguments: Sequence[str]) -> int:
    """Evaluate retrievers on a benchmark's tasks and print the benchmark's aggregates; settings may follow the name."""
    from harness.cli import run
    from harness.cli.job import FAILED, USAGE, exit_code

    parser = argparse.ArgumentParser(
        prog="harness mteb", description="Evaluate on the tasks of an mteb benchmark that rank texts.", add_help=True
    )
    parser.add_argument("benchmark", help="a name such as BEIR or 'MTEB(eng, v2)'; see: harness list benchmarks")
    parser.add_argument("settings", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="config overrides")
    options, leading_settings = parser.parse_known_args(arguments)
    settings = [*leading_settings, *options.settings]
    try:
        words = sweep(options.benchmark, settings)
    except HarnessError as error:
        say(f"error: {error}")
        return exit_code(error)
    code = run.measure(words)
    if code in (0, FAILED, USAGE) and not any(
        word.startswith(("--cfg", "-c", "--info", "--help")) for word in settings
    ):
        _show(options.benchmark, settings)
    return code


def sweep(benchmark: str, settings: Sequence[str]) -> list[str]:
    """Return the overrides of a sweep over a benchmark's tasks, or over those that `dataset.task=` names.

    Raises:
        ConfigError: mteb has no such benchmark, or none of its tasks ranks texts.
    """
    from harness.config.build import quote
    from harness.interop.mteb.registry import benchmark_splits  # imports mteb, which takes seconds

    tasks = ",".join(quote(str(split)) for split in benchmark_splits(benchmark))
    words = ["experiment=mteb", *settings, f"dataset.benchmark={quote(benchmark)}"]
    names_tasks = any(word.startswith("dataset.task=") for word in settings)
    return words if names_tasks else [*words, f"dataset.task={tasks}"]


def table(name: str, records: "Iterable[Record]") -> "Table":
    """Return a row for each retriever: the aggregates that the benchmark defines, or the tasks not measured yet."""
    from harness.interop.mteb.results import aggregates
    from harness.leaderboard.table import Table

    summaries = aggregates(name, records)
    columns = list(dict.fromkeys(key for summary in summaries for key in summary.scores))
    rows = [[summary.label, *(_figure(summary.scores.get(key)) for key in columns)] for summary in summaries]
    notes = [
        f"{summary.label}: no mean, {len(summary.missing)} tasks are not measured: "
        + ", ".join([*summary.missing[:5], *(["..."] if len(summary.missing) > 5 else [])])
        for summary in summaries
        if summary.missing
    ]
    title = f"{name} as mteb aggregates it, over its tasks that rank texts"
    headings = ["retriever", *columns] if summaries else []
    return Table(title, headings, rows, notes if summaries else ["None of its tasks is measured."])


def _figure(value: float | None) -> str:
    """Format a mean with four digits, a rank without."""
    return "-" if value is None else f"{value:.0f}" if value == int(value) and value >= 1 else f"{value:.4f}"


def _show(benchmark: str, settings: Sequence[str]) -> None:
    """Print the benchmark's aggregates over all of the results folder."""
    from harness.config import build
    from harness.store import Store

    try:
        words = [word for word in settings if word.startswith("results_dir=")]
        results = Path(str(build.composed(["retriever=bm25", *words])["results_dir"])).expanduser()
        show("\n")
        show_tables([table(benchmark, Store(results).latest())])
    except HarnessError as error:
        say(f"error: {error}")
