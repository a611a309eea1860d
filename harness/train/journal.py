"""The journal of an LLM's answers: a line for each document, synced to disk before the answer is used.

Its first line has the settings of the requests. A killed process loses no complete answer: a partial last line is
removed, and the request for its document is sent again. Answers are never deleted; a journal that is not continued is
renamed.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from harness.errors import ConfigError, StoreError
from harness.files import exclusive, write_atomic

log = logging.getLogger(__name__)

_FORMAT = 1
_MAX_SHOWN_CHARS = 40


class Entry(BaseModel):
    """The answer for one document, or the failure of its request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str
    """Hash of the document's text."""
    status: Literal["answered", "failed"]
    content: str = ""
    finish: str = ""
    message: str = Field("", validation_alias=AliasChoices("message", "said"), serialization_alias="said")
    """The error message of a failure; `said` in the file."""
    tokens_in: int = 0
    tokens_out: int = 0


class Journal:
    """Answers by document id and hash of the text, and the tokens of all lines. Thread-safe."""

    def __init__(self, path: Path, handle: int, entries: list[Entry]) -> None:
        self._path, self._handle, self._lock = path, handle, Lock()
        self.answers: dict[tuple[str, str], Entry] = {}
        self.tokens_in = self.tokens_out = 0
        for entry in entries:
            self._add(entry)

    def append(self, entry: Entry) -> None:
        """Append a line and sync it to disk. Raises `StoreError`."""
        with self._lock:
            end = os.fstat(self._handle).st_size
            try:
                _append(self._handle, _line(entry.model_dump(exclude_defaults=True, by_alias=True)))
            except OSError as error:
                os.ftruncate(self._handle, end)  # a partial line would corrupt the next one
                raise StoreError(
                    f"{self._path} cannot be written: {error.strerror}; free some disk space and repeat the command"
                ) from None
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        if entry.status == "answered":
            self.answers[entry.id, entry.text] = entry
        self.tokens_in += entry.tokens_in
        self.tokens_out += entry.tokens_out


@contextmanager
def open_journal(path: Path, settings: Mapping[str, Any], resume: bool) -> Iterator[Journal]:
    """Open the journal of the answers to requests with `settings`, locked against other processes.

    Args:
        path: The journal's file.
        settings: The settings that answers depend on.
        resume: Continue an existing journal; False renames it and begins a new one.

    Raises:
        ConfigError: The journal has answers to requests with other settings.
        StoreError: The file is not a journal, or cannot be written.
    """
    with exclusive(path.with_name(f".{path.name}.lock"), f"adding to {path}"):
        if not resume and path.exists():
            _rename_with_date(path)
        entries, end = _load_or_create(path, {"journal": _FORMAT, **settings})
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written: {error.strerror}; write to another file: output=FILE"
            ) from None
        try:
            os.ftruncate(handle, end)
            yield Journal(path, handle, entries)
        finally:
            os.close(handle)


def _load_or_create(path: Path, header: Mapping[str, Any]) -> tuple[list[Entry], int]:
    """Return a journal's entries and the end of its lines in bytes; create a missing journal with this header."""
    if path.exists():
        present, entries, end = _read(path)
        if present == header:
            return entries, end
        _refuse_other_settings(path, present, header, entries)
    write_atomic(path, _line(header))
    return [], len(_line(header))


def _append(handle: int, line: bytes) -> None:
    """Append a line to an open file, and wait until it is on disk."""
    while line:
        line = line[os.write(handle, line) :]
    os.fsync(handle)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _read(path: Path) -> tuple[dict[str, Any], list[Entry], int]:
    """Return the header and the entries of a journal, and the end of its complete lines in bytes."""
    header, entries, end = dict[str, Any](), list[Entry](), 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                if number == 1:
                    header = {**json.loads(line)}
                    header["journal"]
                else:
                    entries.append(Entry.model_validate(json.loads(line)))
            except (ValueError, TypeError, KeyError):
                raise _invalid_line(path, number) from None
            end += len(line)
    if not header:
        raise _invalid_line(path, 1)
    return header, entries, end


def _invalid_line(path: Path, number: int) -> StoreError:
    return StoreError(
        f"{path}:{number}: not a line of a journal of answers; fix or remove the line, or write to another file: "
        "output=FILE"
    )


def _refuse_other_settings(
    path: Path, present: Mapping[str, Any], requested: Mapping[str, Any], entries: Sequence[Entry]
) -> None:
    """Raise `ConfigError` if a journal has answers, which cost money, to requests with other settings."""
    if not any(entry.status == "answered" or entry.tokens_in for entry in entries):
        return
    names = [name for name in sorted({*present, *requested}) if present.get(name) != requested.get(name)]
    changes = ", ".join(f"{name} {_shorten(present.get(name))}, not {_shorten(requested.get(name))}" for name in names)
    raise ConfigError(
        f"{path} has answers to other settings: {changes}; keep them and write to another file: output=FILE; or move "
        "them aside and pay for new ones: resume=false"
    )


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}... ({len(text)} characters)"


def _rename_with_date(path: Path) -> None:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    moved = path.with_name(f"{path.name.removesuffix('.jsonl')}.{moment}.jsonl")
    path.rename(moved)
    log.warning("the previous answers were moved to %s", moved)
