"""Golden files: stored values that current values are compared with, and the versions under which they were stored.

Values may change only together with one of their versions in harness/versions.py; `REGENERATE` then rewrites them.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import versions

FOLDER = Path(__file__).parent
REGENERATE = ".venv/bin/python -m pytest tests/golden --regenerate"

Values = dict[str, Any]
FindDifference = Callable[[Values, Values], str | None]
"""A function that returns the first difference of stored and current values in words, or None."""


@dataclass(frozen=True)
class Entry:
    """The values of one case and the versions they depend on, such as {"RANKING": 1, "EMBEDDINGS['dense']": 1}."""

    versions: dict[str, int]
    values: Values


def current_versions(names: Sequence[str]) -> dict[str, int]:
    """Return the versions of harness/versions.py by their names, such as RANKING or EMBEDDINGS['dense']."""
    known = {"METRICS": versions.METRICS, "RANKING": versions.RANKING, "DATASETS": versions.DATASETS}
    known |= {f"EMBEDDINGS[{family!r}]": version for family, version in versions.EMBEDDINGS.items()}
    return {name: known[name] for name in names}


def problem(name: str, stored: Entry | None, current: Entry, find_difference: FindDifference) -> str | None:
    """Return why a case fails and what to do about it, or None where it passes."""
    if stored is None:
        return f"{name} has no golden values yet; write them: {REGENERATE}"
    if stored.versions != current.versions:
        return f"{name}: {_changed_versions(stored, current)}; regenerate: {REGENERATE}"
    difference = find_difference(stored.values, current.values)
    if difference is None:
        return None
    choices = " or ".join(f"versions.{name}" for name in current.versions)
    return (
        f"{name}: the values changed and the versions did not. Raise {choices} (harness/versions.py) and regenerate "
        f"with {REGENERATE}, or find the bug. First difference: {name}, {difference}"
    )


def refusal(name: str, stored: Entry | None, current: Entry, find_difference: FindDifference) -> str | None:
    """Return why the stored values of a case may not be replaced by the current ones, or None where they may."""
    if stored is None:
        return None
    for version, number in current.versions.items():
        if number < stored.versions.get(version, 0):
            return f"{name}: versions.{version} is {number} and was {stored.versions[version]}: versions only rise"
    if any(number > stored.versions.get(version, 0) for version, number in current.versions.items()):
        return None
    difference = find_difference(stored.values, current.values)
    if difference is None:
        return None
    return f"not regenerated: {problem(name, Entry(current.versions, stored.values), current, find_difference)}"


def _changed_versions(stored: Entry, current: Entry) -> str:
    names = dict.fromkeys([*stored.versions, *current.versions])
    changed = [name for name in names if stored.versions.get(name) != current.versions.get(name)]
    return ", ".join(
        f"versions.{name} is {current.versions.get(name)}, the golden values are of {stored.versions.get(name)}"
        for name in changed
    )


class GoldenFile:
    """A JSON file of entries by the names of their cases, one line for each value.

    Args:
        path: The file; it need not exist yet.
        cases: The names of all cases; entries of others are dropped when one is stored.
        regenerate: Store the current values where that is allowed, instead of comparing.
    """

    def __init__(self, path: Path, cases: Collection[str], regenerate: bool = False) -> None:
        self._path, self._cases, self._regenerate = path, cases, regenerate

    def read(self) -> dict[str, Entry]:
        """Return the stored entries by the names of their cases."""
        if not self._path.is_file():
            return {}
        content = json.loads(self._path.read_text(encoding="utf-8"))
        return {name: Entry(entry["versions"], entry["values"]) for name, entry in content.items()}

    def check(self, name: str, current: Entry, find_difference: FindDifference) -> None:
        """Fail the running test where the values of a case changed, or may not be stored when regenerating."""
        entries = self.read()
        decide = refusal if self._regenerate else problem
        if message := decide(name, entries.get(name), current, find_difference):
            pytest.fail(message, pytrace=False)
        if self._regenerate:
            self._write(entries, name, current, find_difference)

    def _write(self, entries: dict[str, Entry], name: str, current: Entry, find_difference: FindDifference) -> None:
        """Store an entry; values that count as equal keep their stored digits."""
        stored = entries.get(name)
        same = stored is not None and find_difference(stored.values, current.values) is None
        entries[name] = Entry(current.versions, stored.values if stored and same else current.values)
        self._path.write_text(_dump({key: entries[key] for key in sorted(entries) if key in self._cases}), "utf-8")


def _dump(entries: dict[str, Entry]) -> str:
    blocks = []
    for name, entry in entries.items():
        lines = ",\n".join(f"   {_compact(key)}: {_compact(value)}" for key, value in entry.values.items())
        head = f' {_compact(name)}: {{\n  "versions": {_compact(entry.versions)}'
        blocks.append(f'{head},\n  "values": {{\n{lines}\n  }}\n }}')
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
