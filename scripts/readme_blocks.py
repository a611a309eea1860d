"""Write the README's generated blocks: python scripts/readme_blocks.py"""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
COMMANDS = {
    "retrievers": ("harness list retrievers", ("list", "retrievers")),
    "help": ("harness --help", ("--help",)),
}
"""By block, the command as a user types it and its arguments."""


def block(name: str, text: str) -> str:
    """Return the content between a block's two markers; `name` is the block and `text` the whole file."""
    match = re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)
    if not match:
        raise ValueError(f"the text has no block {name!r}")
    return match[1]


def replace(name: str, content: str, text: str) -> str:
    """Return `text` with `content` between the two markers of the block `name`."""
    return text.replace(f"-->\n{block(name, text)}<!-- end: {name} -->", f"-->\n{content}<!-- end: {name} -->")


def generated() -> dict[str, str]:
    """Return the content of each block that is the output of a command."""
    return {name: f"```\n$ {typed}\n{output(*arguments)}```\n" for name, (typed, arguments) in COMMANDS.items()}


def output(*arguments: str) -> str:
    """Return what the command line prints on stdout in 100 columns."""
    program = [sys.executable, "-m", "harness", *arguments]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(program, capture_output=True, text=True, check=True, env=environment).stdout


def main() -> None:
    """Rewrite the blocks in place."""
    text = README.read_text(encoding="utf-8")
    for name, content in generated().items():
        text = replace(name, content, text)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
