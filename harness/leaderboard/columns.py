"""Names of the leaderboard's columns: datasets, and older versions of them."""

from collections.abc import Collection, Sequence
from datetime import datetime

from harness.types import Record


def column_names(records: Sequence[Record]) -> list[str]:
    """Return the name of each record's column, which for an older version of a dataset has a hash."""
    columns = DatasetColumns(
        sorted((each for each in records if each.status == "ok"), key=lambda record: record.started)
    )
    return [columns.name(record) for record in records]


class DatasetColumns:
    """The columns of records: one for each dataset, and one more for each of its older versions.

    If datasets of one name have different contents, all but the newest have a hash in their column's name. The parts of
    a group share a column; parts with other content share another one.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._newest = {
            (record.dataset.label, record.dataset.name): record.dataset.fingerprint
            for record in records
            if record.dataset.fingerprint is not None
        }
        self._superseded: dict[str, tuple[str, datetime]] = {}

    def name(self, record: Record) -> str:
        """Return the name of a record's column."""
        info = record.dataset
        label = info.label if info.group is None else info.label.replace(info.name, info.group, 1)
        fingerprint = info.fingerprint
        if fingerprint is None or self._newest.get((info.label, info.name)) in (None, fingerprint):
            return label
        name = f"{label} ({fingerprint[:6]})"
        self._superseded[name] = (label, record.started)
        return name

    @property
    def newer_versions(self) -> dict[str, str]:
        """By the column of an older version of a dataset, the column of the newest one."""
        return {name: label for name, (label, _) in self._superseded.items()}

    def cautions(self, datasets: Collection[str]) -> list[str]:
        """Describe the older versions of datasets among `datasets`."""
        return [
            f"column {name} holds an older version of {newest}, last measured on "
            f"{self._superseded[name][1]:%Y-%m-%d}, and is part of no mean; hide it: harness forget --dataset {name!r}"
            for name, newest in sorted(self.newer_versions.items())
            if name in datasets and newest in datasets
        ]
