"""Tables of a comparison: differences, the queries that changed most, slices, and config differences."""

from collections.abc import Iterator, Sequence

from harness.leaderboard.compare import ChangedQuery, Comparison
from harness.leaderboard.slices import Slice
from harness.leaderboard.table import GAP, Table, format_difference, format_score
from harness.leaderboard.tables.leaderboard import columns_of, evaluation_of

_MAX_DOCUMENTS = 5
"""Number of documents shown of a ranking."""
_TEXT_LENGTH = 90
_ID_LENGTH = 20


def tables(comparison: Comparison) -> list[Table]:
    """Return tables of the differences, the changed queries, the slices and the config differences."""
    result = [_differences(comparison)]
    if comparison.changed:
        rows = [row for query in comparison.changed for row in _query_rows(query)]
        headings = ["dataset", "query", "", comparison.leaderboard.metric, "text, first documents (grade)"]
        result.append(Table("queries that changed most", headings, rows, align="lllrl"))
    result += [_slice(comparison, part) for part in comparison.slices]
    if comparison.config:
        rows = [[key, a, b] for key, (a, b) in comparison.config.items()]
        result.append(Table("config", ["key", "A", "B"], rows, align="lll"))
    return result


def _differences(comparison: Comparison) -> Table:
    notes = [
        "Won: queries where B scores higher. MDE: minimum detectable effect of one test at 80 % power, before Holm's "
        "correction."
    ]
    if comparison.unpaired:
        unpaired = ", ".join(comparison.unpaired)
        notes.append(f"Not tested, because per-query scores are missing or of other queries: {unpaired}.")
    headings = ["dataset", "A", "B", "B - A", "95 %", "p (Holm)", "won/tied/lost", "d", "MDE"]
    title = f"A: {comparison.a}, B: {comparison.b}, {comparison.leaderboard.metric}"
    return Table(title, headings, list(_difference_rows(comparison)), notes)


def _difference_rows(comparison: Comparison) -> Iterator[list[str]]:
    leaderboard = comparison.leaderboard
    rows = {row.label: row for row in leaderboard.rows}
    for dataset, heading in columns_of(leaderboard).items():
        a, b = (evaluation_of(rows[label], dataset) for label in (comparison.a, comparison.b))
        if a is None or b is None:
            continue
        difference = comparison.overall if dataset is None else comparison.difference(dataset)
        effect = None if difference is None else difference.effect
        detectable = None if dataset is None else leaderboard.detectable.get(dataset)
        yield [
            *(heading, format_score(a.value), format_score(b.value), *format_difference(difference)),
            GAP if effect is None else f"{effect:+.2f}",
            GAP if detectable is None else f"{detectable:.3f}",
        ]


def _query_rows(query: ChangedQuery) -> Iterator[list[str]]:
    yield [
        query.dataset,
        query.query_id,
        "B - A",
        f"{query.b - query.a:+.4f}",
        _shorten(query.text or "", _TEXT_LENGTH),
    ]
    for side, value, ranked in (("A", query.a, query.a_ranked), ("B", query.b, query.b_ranked)):
        yield ["", "", side, format_score(value), _ranking(ranked)]


def _ranking(ranked: Sequence[tuple[str, int | None]] | None) -> str:
    """Return the first documents, each with its grade, `?` where it is unjudged."""
    if ranked is None:
        return "the ranking is not stored"
    grades = [
        f"{_shorten(doc, _ID_LENGTH)} ({'?' if grade is None else grade})" for doc, grade in ranked[:_MAX_DOCUMENTS]
    ]
    return " ".join(grades) or "nothing"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _slice(comparison: Comparison, part: Slice) -> Table:
    rows = []
    for each in part.bins:
        a, b = each.means[comparison.a], each.means[comparison.b]
        rows.append([each.name, str(each.queries), format_score(a), format_score(b), f"{b - a:+.4f}"])
    return Table(f"{part.dataset} by {part.by}", [part.by, "queries", "A", "B", "B - A"], rows)
