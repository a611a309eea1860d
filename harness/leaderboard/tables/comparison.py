"""Tables of a comparison: differences, the queries that changed most, slices, and config differences."""

from collections.abc import Iterator, Sequence

from harness.leaderboard.compare import ChangedQuery, Comparison, describe_record
from harness.leaderboard.slices import Slice
from harness.leaderboard.table import GAP, Table, format_difference, format_score
from harness.leaderboard.tables.leaderboard import columns_of, evaluation_of, family_notes, judged_notes
from harness.metrics import is_coverage
from harness.types import Record

_MAX_DOCUMENTS = 5
"""Number of documents shown of a ranking."""
_TEXT_LENGTH = 90
_ID_LENGTH = 20
_MAX_RECORDS = 6
"""Number of records that are listed of each side."""


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
        "Won: queries where B scores higher. MDE: minimum detectable effect of one unadjusted test at 80 % power.",
        *family_notes(comparison.leaderboard),
        *judged_notes(comparison.leaderboard),
    ]
    notes += [_records_note(side, records) for side, records in zip("AB", comparison.records, strict=True)]
    if is_coverage(comparison.leaderboard.metric):
        notes.append("The share of judged documents is not tested: it says nothing about quality.")
    elif comparison.unpaired:
        unpaired = ", ".join(comparison.unpaired)
        notes.append(f"Not tested, because per-query scores are missing or of other queries: {unpaired}.")
    headings = ["dataset", "A", "B", "B - A", "95 %", "adjusted p", "won/tied/lost", "d", "MDE"]
    title = f"A: {comparison.a}, B: {comparison.b}, {comparison.leaderboard.metric}"
    return Table(title, headings, list(_difference_rows(comparison)), notes)


def _records_note(side: str, records: Sequence[Record]) -> str:
    """Return the time and id of each record of a side, and whether they are of one retriever."""
    measured = "; ".join(f"{record.dataset.label} {describe_record(record)}" for record in records[:_MAX_RECORDS])
    more = f"; and {len(records) - _MAX_RECORDS} more" if len(records) > _MAX_RECORDS else ""
    identities = {record.retriever.identity or str(record.retriever.config) for record in records}
    several = f" These are of {len(identities)} different retrievers of this name." if len(identities) > 1 else ""
    return f"{side}: {measured}{more}.{several}"


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
