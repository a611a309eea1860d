"""The `harness` command: `harness --help`."""

import importlib
import sys

from harness.commands import JOBS, READS
from harness.console import tolerant_output


def main() -> None:
    """Run the module of the command and exit with the code that it returns."""
    arguments = sys.argv[1:]
    if not arguments:
        name = "quickstart"
    elif arguments[0] in {*READS, "--help", "-h", "--version"}:
        name = "read"
    elif arguments[0] in JOBS:
        name, *arguments = arguments
    else:
        name = "run"
    with tolerant_output():
        code = importlib.import_module(f"harness.cli.{name}").main(arguments)
    sys.exit(code)


if __name__ == "__main__":
    main()
