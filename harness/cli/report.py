"""`harness report`: the board of what was measured, in every form."""

import argparse
import shlex
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import chosen, mteb
from harness.console import say
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.leaderboard import Board, Scores
    from harness.leaderboard.published import Beside
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
        chosen.show(forms.terminal())
        forms.write(forms.files())
    return 0


def _refuse_contradictions(options: argparse.Namespace) -> None:
    """Options of which one would be passed over in silence."""
    pairs = [
        ("--check", "--only"),
        ("--check", "--json"),
        ("--only", "--json"),
        ("--only", "--readme"),
        ("--json", "--readme"),
        ("--benchmark", "--only"),
        ("--benchmark", "--json"),
        ("--benchmark", "--check"),
    ]
    for one, other in pairs:
        if all(getattr(options, name[2:]) for name in (one, other)):
            raise ConfigError(f"{one} and {other} exclude each other; give one of them")


class _Forms:
    """A board in every form that the report's options ask for."""

    def __init__(
        self,
        options: argparse.Namespace,
        store: "Store",
        records: "list[Record]",
        board: "Board",
        scores: "Scores",
    ) -> None:
        self._options, self._store, self._records = options, store, records
        self._board, self._scores = board, scores

    def terminal(self) -> str:
        """The board on the terminal, published figures below it when asked for."""
        from harness.leaderboard.tables import published, terminal

        width, color = chosen.terminal()
        found = self._published
        below = [] if found is None else [published.render_terminal(self._board, found, width, color)]
        if self._options.benchmark:
            below.append(mteb.render(self._options.benchmark, self._records, width, color))
        return "\n".join([terminal.render(self._board, width, color), *below])

    def text(self, form: str) -> str:
        """One of the forms that are text."""
        from harness.leaderboard.page import html
        from harness.leaderboard.tables import csv, json, latex, markdown, published

        if form == "md":
            found = self._published
            below = [] if found is None else [published.render_markdown(self._board, found)]
            return "\n".join([markdown.render(self._board), *below])
        if form == "tex":
            return latex.render(self._board, self._published or ())
        boards, scores = self._boards
        if form == "html":
            return html.render(boards, scores, self._store.table, self._published)
        return csv.render(boards, self._published or ()) if form == "csv" else json.render(boards, self._published)

    @cached_property
    def _published(self) -> "list[Beside] | None":
        """Published figures where they are asked for, and those that were imported in any case."""
        from harness.leaderboard.published import beside

        imported, asked = self._store.published(), self._options.published
        found = beside(self._board, imported, table=asked) if asked or imported else None
        return found if found or asked else None

    def picture(self, form: str) -> bytes:
        """The Pareto front as SVG or PNG. Raises `ConfigError` without matplotlib."""
        from harness.leaderboard import pareto

        return pareto.render(self._board, form)

    def files(self) -> dict[Path, bytes]:
        """What a report writes: the board's files and the README's block."""
        found = {self._options.results / f"leaderboard.{form}": self.text(form).encode() for form in _FILES}
        if (readme := self._options.readme) is not None:
            found[readme] = self._with_block(readme).encode()
        return found

    def write(self, files: dict[Path, bytes]) -> None:
        """Write files, each whole or not at all."""
        from harness.store import write_atomic

        if self._options.dataset or self._options.retriever:
            say("only some of the records are on this board")
        for path, content in files.items():
            write_atomic(path, content)
        say(f"wrote {', '.join(map(str, files))}")

    def check(self) -> int:
        """1 when a file is not what the records give; a picture that is there must show this board."""
        from harness.leaderboard.pareto import digest

        stale = [str(path) for path, content in self.files().items() if not _is(path, content)]
        pictures = [self._options.results / f"pareto.{form}" for form in ("svg", "png")]
        told = digest(self._board).encode()
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
            value = getattr(self._options, name)
            if value and (name, str(value)) not in (("results", "results"), ("metric", "ndcg@10")):
                words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
        return "".join(
            f" {word}" for word in map(shlex.quote, [*words, *(["--published"] if self._options.published else [])])
        )

    def _with_block(self, readme: Path) -> str:
        from harness.leaderboard.tables import markdown

        begin, end = "<!-- begin: board -->\n", "<!-- end: board -->"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        if end not in text.partition(begin)[2]:
            raise ConfigError(
                f"{readme} has no block to fill; put these two lines in it, in this order: {begin.strip()} {end}"
            )
        before, _, rest = text.partition(begin)
        return f"{before}{begin}{markdown.main(self._board)}{end}{rest.partition(end)[2]}"

    @cached_property
    def _boards(self) -> "tuple[dict[str, Board], Scores]":
        """The board of every metric that was measured, the asked one first."""
        from harness.leaderboard import build

        own = self._board.metric
        others = sorted({name for record in self._records for name in record.metrics} - {own})
        few = len(self._board.rows) <= _MANY
        scores = self._store.scores(self._records) if few else self._scores
        boards = {name: build(self._records, name, scores if few else None, self._board.baseline) for name in others}
        boards = {name: replace(board, machines=self._board.machines) for name, board in boards.items()}
        return {own: self._board, **boards}, scores


def _is(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
