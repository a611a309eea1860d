"""Downloads: resumed after an interruption, verified by checksum, and unpacked inside their folder only."""

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from harness.errors import DownloadError
from harness.files import temporary_folder
from harness.instrument import stage

_CHUNK = 1 << 20
_ALTERNATIVE = "or put the unpacked dataset into the folder that data_dir or HARNESS_DATA names"


def fetch(url: str, target: Path, md5: str | None, attempts: int = 5) -> None:
    """Download a file, resuming an earlier attempt.

    Args:
        url: The file's address.
        target: The path to write; a partial download is ``<target>.part``.
        md5: Expected checksum, hexadecimal; None: not checked.
        attempts: Largest number of requests, with exponential backoff after server errors.

    Raises:
        DownloadError: The download failed, or the checksum differs.
    """
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, attempts + 1):
        try:
            _append(url, part)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 or attempt == attempts:
                raise DownloadError(f"{url}: HTTP {error.code} {error.reason}; {_ALTERNATIVE}") from None
            time.sleep(0.5 * 2**attempt)
        except (OSError, http.client.HTTPException) as error:
            if attempt == attempts or not part.exists():
                received = part.stat().st_size if part.exists() else 0
                reason = (
                    f"{getattr(error, 'reason', error)}; {received} bytes are kept: run the command again to resume"
                )
                raise DownloadError(f"{url}: {reason}; {_ALTERNATIVE}") from None
    if md5 is not None and (actual := _md5(part)) != md5:
        part.unlink()
        raise DownloadError(f"{url}: md5 is {actual}, expected {md5}: the file was damaged or changed; removed")
    part.replace(target)


def _append(url: str, part: Path) -> None:
    received = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={received}-"} if received else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=60)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send
            error.close()
            return
        raise
    with response:
        if received and response.status != 206:  # the server sends the whole file again
            received = 0
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        with stage(f"download {part.stem}", total=total) as step, part.open("ab" if received else "wb") as sink:
            step(received)
            while chunk := response.read(_CHUNK):
                sink.write(chunk)
                step(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection broke after {part.stat().st_size} of {total} bytes")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the top-level folders of the zip file `archive` into `folder`, replacing folders of the same name.

    Raises:
        DownloadError: The archive is damaged, or has a link or a path outside the folder; nothing is unpacked then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder / f".unpacking-{archive.stem}") as target, _open(archive) as files:
        inside = target.resolve()
        for info in files.infolist():
            path = (inside / info.filename).resolve()
            link = (info.external_attr >> 16) & 0o170000 == 0o120000
            if link or not path.is_relative_to(inside):
                raise DownloadError(
                    f"{archive}: it has a file outside its folder: {info.filename!r}; nothing was unpacked"
                )
        files.extractall(inside)
        for entry in inside.iterdir():
            unpacked = folder / entry.name
            if unpacked.is_dir():
                shutil.rmtree(unpacked)
            entry.replace(unpacked)


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{archive}: {error}") from None
