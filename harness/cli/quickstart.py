"""`harness quickstart`, or `harness` alone: the offline retrievers on the embedded dataset."""

from collections.abc import Sequence

from harness.cli import run


def main(arguments: Sequence[str]) -> int:
    """Run the sweep of conf/experiment/quickstart.yaml; settings such as `results_dir=DIR` may follow."""
    return run.measure(["experiment=quickstart", *arguments])
