"""Tests that every dataset loader's digest changes only together with versions.DATASETS."""

import dataset_cases as cases
import pytest
import yaml
from differences import exact_difference
from golden_file import FOLDER, Entry, GoldenFile, current_versions

from harness.config.conf import CONF

GROUP = CONF / "dataset"
DATASETS = FOLDER / "datasets.json"


@pytest.mark.parametrize("case", cases.CASES)
def test_a_dataset_changes_only_with_its_version(case, tmp_path, regenerate):
    current = Entry(current_versions(["DATASETS"]), cases.digest(cases.CASES[case](tmp_path)))
    GoldenFile(DATASETS, cases.CASES, regenerate).check(case, current, exact_difference)


def test_every_loader_has_a_golden_digest():
    configs = {path.relative_to(GROUP).with_suffix("").as_posix(): path for path in GROUP.rglob("*.yaml")}
    targets = {name: yaml.safe_load(path.read_text("utf-8")).get("_target_") for name, path in configs.items()}
    missing = {target for target in targets.values() if target} - {targets[name] for name in cases.OPTIONS}
    assert not missing, "add a config of each to OPTIONS, and a case to CASES, in tests/golden/dataset_cases.py"


def test_every_file_format_is_loaded_as_the_same_dataset():
    stored = {name: entry.values for name, entry in GoldenFile(DATASETS, cases.CASES).read().items()}
    same = [values for name, values in stored.items() if name not in ("stdlib", "beir_dev_split")]
    assert len({values["corpus fingerprint"] for values in same}) == 1
    assert len({values["fingerprint"] for values in same if not values["candidates"]}) == 1
    assert len({values["fingerprint"] for values in same if values["candidates"]}) == 1
