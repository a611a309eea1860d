"""The tables of a comparison: differences, the queries that changed most, slices, and differences of the configs."""

from collections.abc import Iterator, Sequence

from harness.leaderboard.compare import Changed, Comparison
from harness.leaderboard.slices import Slice
from harness.leaderboard.table import GAP, Table, score, tested
from harness.leaderboard.tables.leaderboard import at, columns_of

_SHOWN = 5
"""Documents shown of a ranking."""
_TEXT_LENGTH = 90
_ID_LENGTH = 20


def tables(comparison: Comparison) -> list[Table]:
    """Return the differences per dataset and over all, the changed queries, the slices and the configs' differences."""
    found = [_differences(comparison)]
    if comparison.changed:
        rows = [row for query in comparison.changed for row in _query_rows(query)]
        headings = ["dataset", "query", "", comparison.board.metric, "text, first documents (grade)"]
        found.append(Table("queries that changed most", headings, rows, align="lllrl"))
    found += [_slice(comparison, part) for part in comparison.slices]
    if comparison.config:
        rows = [[key, a, b] for key, (a, b) in comparison.config.items()]
        found.append(Table("config", ["key", "A", "B"], rows, align="lll"))
    return found


def _differences(comparison: Comparison) -> Table:
    board = comparison.board
    notes = [
        "Won: queries where B scores higher. Can tell: the smallest true difference that one test alone finds in "
        "80 % of repeats, before Holm's correction."
    ]
    if comparison.unpaired:
        unpaired = ", ".join(comparison.unpaired)
        notes.append(f"Not tested, per-query scores are missing or of other queries: {unpaired}.")
    headings = ["dataset", "A", "B", "B - A", "95 %", "p (Holm)", "won/tied/lost", "d", "can tell"]
    title = f"A: {comparison.a}, B: {comparison.b}, {board.metric}"
    return Table(title, headings, list(_difference_rows(comparison)), notes)


def _difference_rows(comparison: Comparison) -> Iterator[list[str]]:
    board = comparison.board
    rows = {row.label: row for row in board.rows}
    for dataset, heading in columns_of(board).items():
        a, b = (at(rows[label], dataset) for label in (comparison.a, comparison.b))
        if a is None or b is None:
            continue
        difference = comparison.overall if dataset is None else comparison.difference(dataset)
        effect = None if difference is None else difference.effect
        detectable = None if dataset is None else board.detectable.get(dataset)
        yield [
            *(heading, score(a.value), score(b.value), *tested(difference)),
            GAP if effect is None else f"{effect:+.2f}",
            GAP if detectable is None else f"{detectable:.3f}",
        ]


def _query_rows(query: Changed) -> Iterator[list[str]]:
    yield [query.dataset, query.query_id, "B - A", f"{query.b - query.a:+.4f}", _short(query.text or "", _TEXT_LENGTH)]
    for side, value, ranked in (("A", query.a, query.a_ranked), ("B", query.b, query.b_ranked)):
        yield ["", "", side, score(value), _ranking(ranked)]


def _ranking(ranked: Sequence[tuple[str, int | None]] | None) -> str:
    """Return the first documents, each with its grade, `?` where it is not judged."""
    if ranked is None:
        return "the ranking is not kept"
    grades = [f"{_short(doc, _ID_LENGTH)} ({'?' if grade is None else grade})" for doc, grade in ranked[:_SHOWN]]
    return " ".join(grades) or "nothing"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _slice(comparison: Comparison, part: Slice) -> Table:
    rows = []
    for queries in part.bins:
        a, b = queries.means[comparison.a], queries.means[comparison.b]
        rows.append([queries.name, str(queries.queries), score(a), score(b), f"{b - a:+.4f}"])
    return Table(f"{part.dataset} by {part.by}", [part.by, "queries", "A", "B", "B - A"], rows)
