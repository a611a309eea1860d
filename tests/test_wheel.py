"""The wheel carries all that the command needs: installed in an empty environment, it lists and measures."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=TOP, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_config_the_types_marker_and_the_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    configs = {path.relative_to(TOP / "conf").as_posix() for path in (TOP / "conf").rglob("*.yaml")}
    assert {f"harness/conf/{name}" for name in configs} <= set(names)
    assert "harness/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "results")) or name.endswith(".pyc")]


def test_the_wheel_runs_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    install = [binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(TOP / "constraints.txt"), str(wheel)], check=True)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def harness(*arguments):
        done = subprocess.run(
            [binaries / "harness", *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "minilm" in harness("list", "retrievers")
    small = ["dataset.documents=100", "dataset.queries=20"]
    assert "bm25" in harness("retriever=bm25", "dataset=stdlib", *small).splitlines()[1]
    assert "FAIL" not in harness("validate")
    assert "100 documents, 20 queries" in harness("validate", "dataset=stdlib", *small)
    assert (tmp_path / "results" / "records").is_dir()
