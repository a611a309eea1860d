"""Write the blocks of README.md and docs/ that are made from committed results or by running code.

    python scripts/generated_blocks.py                  # every block
    python scripts/generated_blocks.py speed growth     # some

A block stands between two comments, `<!-- begin: NAME -->` and `<!-- end: NAME -->`.
"""

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import benchmark_tables  # noqa: E402

from harness.leaderboard import Leaderboard, build, writers  # noqa: E402
from harness.leaderboard.tables.leaderboard import main_table, tables  # noqa: E402
from harness.store import Store  # noqa: E402

README = ROOT / "README.md"
BENCHMARKS = ROOT / "docs" / "explanation" / "benchmarks.md"
DEMO_PAGE = ROOT / "docs" / "demo.md"
DEMO = ROOT / "results" / "demo"
EXAMPLE = """\
import harness

data = harness.load_dataset("stdlib")  # or "scifact", "mteb:SciFact", a folder, Dataset.from_dicts(...)
tuned = harness.BM25(k1=0.9, b=0.4)  # or a model of sentence-transformers, a function, a run file
results = harness.evaluate({"bm25": "bm25", "tuned": tuned, "splade": "splade_tiny"}, data, timing=None)
print(results)
gain = results.compare("bm25", "splade").difference("stdlib")
print(f"{gain.delta:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], p = {gain.p:.4f}, better for {gain.won} queries")
"""


def block(name: str, text: str) -> str:
    """Return the content between a block's two comments; `name` is the block and `text` the whole file."""
    match = re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)
    if not match:
        raise ValueError(f"the text has no block {name!r}")
    return match[1]


def replace(name: str, content: str, text: str) -> str:
    """Return `text` with `content` between the two comments of the block `name`."""
    old, comments = block(name, text), (f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->")
    return text.replace(old.join(comments), content.join(comments))


def quickstart() -> str:
    """Return what `make quickstart` prints, from the demo's records of the same evaluations."""
    printed = writers.terminal([main_table(_demo("stdlib"))])
    return f"```text\n$ make quickstart\n...\n{printed.rstrip()}\n```\n"


def python_example() -> str:
    """Return the README's Python and what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(EXAMPLE, {})  # noqa: S102
    return f"```python\n{EXAMPLE}```\n\n```text\n{printed.getvalue().rstrip()}\n```\n"


def speed() -> str:
    """Return the README's rows of the benchmarks."""
    return benchmark_tables.readme_table(benchmark_tables.read(benchmark_tables.RATIOS))


def ratios() -> str:
    """Return all rows of the benchmarks against other tools."""
    return benchmark_tables.ratios_table(benchmark_tables.read(benchmark_tables.RATIOS))


def growth() -> str:
    """Return the table of how costs grow with the number of documents."""
    return benchmark_tables.growth_table(benchmark_tables.read(benchmark_tables.GROWTH))


def leaderboard() -> str:
    """Return the demo leaderboard as markdown."""
    return writers.markdown(tables(_demo()))


BLOCKS: dict[str, tuple[Path, Callable[[], str]]] = {
    "quickstart": (README, quickstart),
    "python": (README, python_example),
    "speed": (README, speed),
    "ratios": (BENCHMARKS, ratios),
    "growth": (BENCHMARKS, growth),
    "leaderboard": (DEMO_PAGE, leaderboard),
}
"""By block, its file and the function that makes its content."""


def _demo(*datasets: str) -> Leaderboard:
    store = Store(DEMO)
    records = [record for record in store.latest() if not datasets or record.dataset.name in datasets]
    return build(records, "ndcg@10", store.scores(records, ["ndcg@10"]))


def main() -> None:
    """Write the blocks in place."""
    parser = argparse.ArgumentParser(description="Write the generated blocks of README.md and docs/.")
    parser.add_argument("blocks", nargs="*", metavar="NAME", help=f"some of {', '.join(BLOCKS)}; without any: all")
    for name in parser.parse_args().blocks or BLOCKS:
        path, make = BLOCKS[name]
        path.write_text(replace(name, make(), path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
