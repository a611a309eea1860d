"""Tests of harness/user_code.py: a hash of user code covers every module that it imports, and no library."""

import importlib

import pytest

from harness import user_code

IMPORTED_FILES = [
    "package_of_user/__init__.py",
    "package_of_user/search.py",
    "package_of_user/lazy_user.py",
    "package_of_user/inner/__init__.py",
    "package_of_user/inner/deep.py",
    "sibling_of_user.py",
    "computed_user.py",
    "constant_user.py",
    "named_user.py",
]


@pytest.mark.parametrize("changed", IMPORTED_FILES)
def test_every_imported_module_counts(project, changed):
    importlib.import_module("package_of_user.search")
    before = user_code.code_hash(["package_of_user.search"])
    assert before == user_code.code_hash(["package_of_user.search"])
    path = project / changed
    path.write_text(path.read_text() + "# changed\n")
    assert user_code.code_hash(["package_of_user.search"]) != before


def test_a_module_that_is_not_imported_does_not_count(project):
    importlib.import_module("unrelated_user")
    before = user_code.code_hash(["package_of_user.search"])
    (project / "unrelated_user.py").write_text("value = 2\n")
    assert user_code.code_hash(["package_of_user.search"]) == before


def test_the_versions_of_imported_packages_count(project, monkeypatch):
    (project / "sibling_of_user.py").write_text("import polars\n")
    before = user_code.code_hash(["sibling_of_user"])
    version_of = user_code.importlib.metadata.version

    def hash_with_new_version_of(package):
        monkeypatch.setattr(
            user_code.importlib.metadata, "version", lambda name: "99" if name == package else version_of(name)
        )
        return user_code.code_hash(["sibling_of_user"])

    assert hash_with_new_version_of("polars") != before
    assert hash_with_new_version_of("faiss-cpu") == hash_with_new_version_of("retrieval-harness") == before


@pytest.mark.parametrize("module", ["json", "numpy", "harness.metrics", "no_such_module_of_user", "builtins"])
def test_libraries_and_the_harness_have_no_hash(module):
    assert user_code.code_hash([module]) is None


def test_source_with_a_syntax_error_counts(project):
    (project / "sibling_of_user.py").write_text("def broken(:\n")
    first = user_code.code_hash(["sibling_of_user"])
    (project / "sibling_of_user.py").write_text("def broken((:\n")
    assert first is not None
    assert user_code.code_hash(["sibling_of_user"]) != first
