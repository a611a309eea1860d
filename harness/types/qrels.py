"""Qrels: which documents are relevant to which query, and how much."""

from collections.abc import Iterator, Mapping


class Qrels(Mapping[str, Mapping[str, int]]):
    """Query id -> {document id: grade}. A grade above 0 is relevant; 0 and below are judged and not relevant."""

    def __init__(self, grades: Mapping[str, Mapping[str, int]]) -> None:
        self._grades = {query: dict(docs) for query, docs in grades.items()}

    def __getitem__(self, query: str) -> Mapping[str, int]:
        return self._grades[query]

    def __iter__(self) -> Iterator[str]:
        return iter(self._grades)

    def __len__(self) -> int:
        return len(self._grades)

    def queries_with_relevant(self) -> list[str]:
        """Ids of the queries with at least one relevant document: those that a mean is taken over."""
        return [query for query, docs in self._grades.items() if any(grade > 0 for grade in docs.values())]

    def judgements(self) -> int:
        """How many (query, document) pairs are judged."""
        return sum(map(len, self._grades.values()))

    def __repr__(self) -> str:
        return f"Qrels({len(self)} queries, {self.judgements()} judgements)"
