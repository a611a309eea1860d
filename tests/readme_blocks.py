"""The README's generated blocks. Write those that a command gives at once:   python tests/readme_blocks.py"""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def block(name: str, text: str) -> str:
    """The content between a block's two markers in some text."""
    found = re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)
    assert found, f"README has no block {name}"
    return found[1]


def generated() -> dict[str, str]:
    """The blocks that are a command's output."""
    return {name: f"```\n$ {said}\n{output(*words)}```\n" for name, (said, words) in COMMANDS.items()}


COMMANDS = {
    "retrievers": ("harness list retrievers", ("list", "retrievers")),
    "help": ("harness --help", ("--help",)),
}


def output(*arguments: str) -> str:
    """What the command prints on stdout, 100 columns wide."""
    program = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=_environment())
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "100"}


def main() -> None:
    """Rewrite the blocks in place."""
    text = README.read_text(encoding="utf-8")
    for name, content in generated().items():
        old = f"<!-- begin: {name} -->\n{block(name, text)}<!-- end: {name} -->"
        text = text.replace(old, f"<!-- begin: {name} -->\n{content}<!-- end: {name} -->")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
