"""The journal of what a model answered: a line for each document, on disk before anything else is done with it.

Its first line says what was asked for. A killed process loses no answer that it has read: a line cut off in writing
is taken away and that document is asked again. Answers are never deleted, only set aside.
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

from pydantic import BaseModel, ConfigDict

from harness.errors import ConfigError, StoreError
from harness.files import exclusive, write_atomic

log = logging.getLogger(__name__)

_FORMAT = 1
_SHORT = 40


class Entry(BaseModel):
    """What asking for one document came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str
    """Hash of the document's text."""
    status: Literal["answered", "failed"]
    content: str = ""
    finish: str = ""
    said: str = ""
    """Of a failure."""
    tokens_in: int = 0
    tokens_out: int = 0


class Journal:
    """`answers` by id and hash of the text, and what all lines cost. Lines may be added from several threads."""

    def __init__(self, path: Path, handle: int, entries: list[Entry]) -> None:
        self._path, self._handle, self._lock = path, handle, Lock()
        self.answers: dict[tuple[str, str], Entry] = {}
        self.tokens_in = self.tokens_out = 0
        for entry in entries:
            self._note(entry)

    def append(self, entry: Entry) -> None:
        """Add a line, on disk when this ends. Raises `StoreError`."""
        with self._lock:
            end = os.fstat(self._handle).st_size
            try:
                _append(self._handle, _line(entry.model_dump(exclude_defaults=True)))
            except OSError as error:
                os.ftruncate(self._handle, end)  # half a line would spoil the next one
                raise StoreError(
                    f"{self._path} cannot be written: {error.strerror}; make room and give the command again"
                ) from None
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry.status == "answered":
            self.answers[entry.id, entry.text] = entry
        self.tokens_in += entry.tokens_in
        self.tokens_out += entry.tokens_out


@contextmanager
def opened(path: Path, settings: Mapping[str, Any], resume: bool) -> Iterator[Journal]:
    """The journal of answers to `settings`, for one process at a time; without `resume` a new one.

    Raises `ConfigError` for one of other settings, `StoreError` for a file that is none.
    """
    with exclusive(path.with_name(f".{path.name}.lock"), f"adding to {path}"):
        if not resume and path.exists():
            _set_aside(path)
        entries, end = _begun(path, {"journal": _FORMAT, **settings})
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}; write elsewhere: output=FILE") from None
        try:
            os.ftruncate(handle, end)
            yield Journal(path, handle, entries)
        finally:
            os.close(handle)


def _begun(path: Path, header: Mapping[str, Any]) -> tuple[list[Entry], int]:
    """The entries of a journal with this first line, which is made where there is none, and where its lines end."""
    if path.exists():
        there, entries, end = _read(path)
        if there == header:
            return entries, end
        _check_unpaid(path, there, header, entries)
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
    """The first line and the entries of a journal, and where its whole lines end."""
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
                raise _no_journal(path, number) from None
            end += len(line)
    if not header:
        raise _no_journal(path, 1)
    return header, entries, end


def _no_journal(path: Path, number: int) -> StoreError:
    return StoreError(
        f"{path}:{number}: no line of a journal of answers; mend or remove the line, or write elsewhere: output=FILE"
    )


def _check_unpaid(path: Path, there: Mapping[str, Any], asked: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    """Refuse to write over answers to other settings."""
    if not any(entry.status == "answered" or entry.tokens_in for entry in entries):
        return
    differing = [name for name in sorted({*there, *asked}) if there.get(name) != asked.get(name)]
    said = ", ".join(f"{name} {_said(there.get(name))}, not {_said(asked.get(name))}" for name in differing)
    raise ConfigError(
        f"{path} holds answers to other settings: {said}; keep them and write elsewhere: output=FILE; or set them "
        "aside and pay for new ones: resume=false"
    )


def _said(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}... ({len(text)} characters)"


def _set_aside(path: Path) -> None:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    beside = path.with_name(f"{path.name.removesuffix('.jsonl')}.{moment}.jsonl")
    path.rename(beside)
    log.warning("the answers that were there are kept in %s", beside)
