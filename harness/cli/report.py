"""`harness report`: the board of what was measured, in every form."""

import argparse
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import chosen, mteb
from harness.console import say, show_tables
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.leaderboard import Leaderboard, Scores
    from harness.leaderboard.published import PublishedRow
    from harness.leaderboard.table import Table
    from harness.store import Store
    from harness.types import Record

_FILES = ("md", "csv", "tex", "html")
_FORMS = (*_FILES, "json", "svg", "png")
_MANY = 50
"""Above so many rows the page has the means of further metrics, and no tests."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    report: argparse.ArgumentParser = commands.add_parser(
        "report", help="print the board of what was measured, and write it to results/"
    )
    report.add_argument("--only", choices=_FORMS, help="this form alone; text goes to stdout, pictures to results/")
    report.add_argument("--baseline", metavar="NAME", help="compare every row with this one")
    report.add_argument("--published", action="store_true", help="set published figures beside ours")
    report.add_argument("--benchmark", metavar="NAME", help="below the board: what mteb's benchmark makes of it")
    report.add_argument("--readme", type=Path, metavar="FILE", help="also fill the block `board` of this file")
    report.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a file is stale")
    report.set_defaults(command=_report)
    chosen.add(report)
    return report


def _report(options: argparse.Namespace) -> int:
    from harness.leaderboard import build
    from harness.store import Store

    _refuse_contradictions(options)
    store = Store(options.results)
    records = chosen.latest(options, store)
    scores = store.scores(records, [options.metric])
    board = replace(build(records, options.metric, scores, options.baseline), machines=store.machines(records))
    forms = _Forms(options, store, records, board, scores)
    if options.json:
        print(forms.text("json"), end="")
    elif options.check:
        return forms.check()
    elif options.only in ("svg", "png"):
        forms.write({options.results / f"pareto.{options.only}": forms.picture(options.only)})
    elif options.only is not None:
        print(forms.text(options.only), end="")
    else:
        name = options.benchmark
        show_tables([*forms.tables, *([mteb.table(name, records)] if name else [])])
        forms.write(forms.files())
    return 0


def _refuse_contradictions(options: argparse.Namespace) -> None:
    """Raise `ConfigError` for two options of which one would be ignored."""
    pairs = {
        "check": ("only", "json"),
        "only": ("json", "readme"),
        "json": ("readme",),
        "benchmark": ("only", "json", "check"),
    }
    for option, excluded in pairs.items():
        for other in excluded:
            if getattr(options, option) and getattr(options, other):
                raise ConfigError(f"--{option} and --{other} exclude each other; give one of them")


@dataclass
class _Forms:
    """A leaderboard in every form that the report's options ask for."""

    options: argparse.Namespace
    store: "Store"
    records: "list[Record]"
    leaderboard: "Leaderboard"
    scores: "Scores"

    @property
    def tables(self) -> "list[Table]":
        """The tables of the leaderboard."""
        from harness.leaderboard.tables.leaderboard import tables

        return tables(self.leaderboard, self._published)

    def text(self, form: str) -> str:
        """Return one of the forms that are text."""
        from harness.leaderboard import frame, writers
        from harness.leaderboard.page import html

        if form in ("md", "tex"):
            return (writers.markdown if form == "md" else writers.latex)(self.tables)
        boards, scores = self._boards
        if form == "csv":
            return frame.to_csv(frame.to_frame(boards, self._published or ()))
        if form == "json":
            return frame.to_json(frame.leaderboards_data(boards, self._published))
        return html.render(boards, scores, self.store.table, self._published)

    @cached_property
    def _published(self) -> "list[PublishedRow] | None":
        """Published figures where they are asked for, and those that were imported in any case."""
        from harness.leaderboard.published import published_rows

        imported, asked = self.store.published(), self.options.published
        found = published_rows(self.leaderboard, imported, table=asked) if asked or imported else None
        return found if found or asked else None

    def picture(self, form: str) -> bytes:
        """The Pareto front as SVG or PNG. Raises `ConfigError` without matplotlib."""
        from harness.leaderboard import pareto

        return pareto.render(self.leaderboard, form)

    def files(self) -> dict[Path, bytes]:
        """What a report writes: the board's files and the README's block."""
        found = {self.options.results / f"leaderboard.{form}": self.text(form).encode() for form in _FILES}
        if (readme := self.options.readme) is not None:
            found[readme] = self._with_block(readme).encode()
        return found

    def write(self, files: dict[Path, bytes]) -> None:
        """Write files, each whole or not at all."""
        from harness.store import write_atomic

        if self.options.dataset or self.options.retriever:
            say("only some of the records are on this board")
        for path, content in files.items():
            write_atomic(path, content)
        say(f"wrote {', '.join(map(str, files))}")

    def check(self) -> int:
        """1 when a file is not what the records give; a picture that is there must show this board."""
        from harness.leaderboard.pareto import digest

        stale = [str(path) for path, content in self.files().items() if not _is(path, content)]
        pictures = [self.options.results / f"pareto.{form}" for form in ("svg", "png")]
        told = digest(self.leaderboard).encode()
        stale += [str(path) for path in pictures if path.is_file() and told not in path.read_bytes()]
        if stale:
            again = [f"harness report{self._words()}"]
            drawn = [path for path in stale if Path(path).suffix in (".svg", ".png")]
            again += [f"harness report{self._words()} --only {Path(path).suffix[1:]}" for path in drawn]
            say(f"stale: {', '.join(stale)}; write again: {' && '.join(again[len(stale) == len(drawn) :])}")
        return 1 if stale else 0

    def _words(self) -> str:
        """The options that choose what is written, as they are typed."""
        words: list[str] = []
        for name in ("results", "baseline", "metric", "dataset", "retriever", "readme"):
            value = getattr(self.options, name)
            if value and (name, str(value)) not in (("results", "results"), ("metric", "ndcg@10")):
                words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
        words += ["--published"] if self.options.published else []
        return "".join(f" {shlex.quote(word)}" for word in words)

    def _with_block(self, readme: Path) -> str:
        from harness.leaderboard import writers
        from harness.leaderboard.tables.leaderboard import main_table

        begin, end = "<!-- begin: board -->\n", "<!-- end: board -->"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        if end not in text.partition(begin)[2]:
            raise ConfigError(
                f"{readme} has no block to fill; put these two lines in it, in this order: {begin.strip()} {end}"
            )
        before, _, rest = text.partition(begin)
        return f"{before}{begin}{writers.markdown([main_table(self.leaderboard)])}{end}{rest.partition(end)[2]}"

    @cached_property
    def _boards(self) -> "tuple[dict[str, Leaderboard], Scores]":
        """The board of every metric that was measured, the asked one first."""
        from harness.leaderboard import build

        own = self.leaderboard.metric
        others = sorted({name for record in self.records for name in record.metrics} - {own})
        few = len(self.leaderboard.rows) <= _MANY
        scores = self.store.scores(self.records) if few else self.scores
        boards = {
            name: build(self.records, name, scores if few else None, self.leaderboard.baseline) for name in others
        }
        boards = {name: replace(board, machines=self.leaderboard.machines) for name, board in boards.items()}
        return {own: self.leaderboard, **boards}, scores


def _is(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
