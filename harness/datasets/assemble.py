"""Build a Dataset from a corpus, queries and judgements that were read from files."""

from collections.abc import Callable

from harness.datasets.judgements import Judgements
from harness.types import Corpus, Dataset, Queries, StringColumn


def assemble(
    name: str,
    split: str,
    corpus: Corpus,
    queries: Queries,
    judged: Judgements,
    *,
    drop_self_hits: bool = False,
    group: str | None = None,
    parts: int = 1,
    instruction: str | None = None,
    load_titles: Callable[[], StringColumn] | None = None,
) -> Dataset:
    """Build a dataset of the queries that have a relevant document. Raises `DataError` as `Dataset.validated`."""
    dataset = Dataset(
        name, split, corpus, queries, judged.qrels, drop_self_hits, group, parts, instruction, load_titles
    )
    return dataset.validated(str(judged.path), judged.place)
