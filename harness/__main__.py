"""The `harness` command: `harness --help`."""

import sys

from harness.cli import COMMANDS


def main() -> None:
    """Hand the command line to the reader of records or to Hydra; the exit code is the process'."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in {*COMMANDS[1:], "--help", "-h", "--version"}:
        from harness.cli.read import main as command
    else:
        from harness.cli.run import main as command
    sys.exit(command(arguments[1:] if arguments[:1] == ["run"] else arguments))


if __name__ == "__main__":
    main()
