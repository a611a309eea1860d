"""Tests that every offline retriever's ranking changes only with versions.RANKING or its encoder's version."""

import os

import pytest
import retriever_cases as cases
import stand_ins
from golden_file import FOLDER, REGENERATE, Entry, GoldenFile, current_versions
from support.api_server import KEY, serving

from harness import versions
from harness.config import build
from harness.config.conf import options_of
from harness.errors import WeightsError
from harness.retrievers.bm25 import BM25

RANKINGS = FOLDER / "rankings.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the stand-ins that the overrides name: tiny models, and the address of an embedding provider."""
    folder = tmp_path_factory.mktemp("stand-ins")
    masked = stand_ins.write_masked(folder / "masked")
    with pytest.MonkeyPatch.context() as patch, serving(stand_ins.count_words) as server:
        for name in ("OPENAI_API_KEY", "CO_API_KEY"):
            patch.setenv(name, KEY)
        yield {
            "masked": masked,
            "cross_encoder": stand_ins.write_cross_encoder(folder / "cross", masked),
            "static": stand_ins.write_static(folder / "static", cases.corpus().texts),
            "provider": server.address,
        }


def entry_of(case, models):
    """Return the current ranking of a case; skip where its weights are not installed and cannot be downloaded."""
    config = cases.config_of(case, models)
    try:
        values = cases.rank(build.construct(config, "retriever"))
    except WeightsError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error).splitlines()[0])
    return Entry(current_versions(cases.versions_of(config)), values)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.ALL_CASES)
def test_a_ranking_changes_only_with_its_versions(case, models, regenerate):
    current = entry_of(case, models)
    GoldenFile(RANKINGS, cases.ALL_CASES, regenerate).check(case, current, cases.compare(case, current.versions))


def test_every_config_has_a_golden_ranking_or_a_reason_for_none():
    configs = {name for name, _ in options_of("retriever")}
    missing = configs - {*cases.CASES, *cases.LEFT_OUT}
    assert not missing, "add each to CASES, or to LEFT_OUT with a reason, in tests/golden/retriever_cases.py"
    assert {*cases.CASES, *cases.LEFT_OUT} - configs == set(), "these have no config in conf/retriever"
    assert {*cases.CASES} & {*cases.LEFT_OUT} == set()


def test_every_version_of_embeddings_has_a_golden_ranking():
    stored = GoldenFile(RANKINGS, cases.ALL_CASES).read().values()
    assert {name for entry in stored for name in entry.versions} == {
        "RANKING",
        *(f"EMBEDDINGS[{family!r}]" for family in versions.EMBEDDINGS),
    }


def test_a_changed_default_of_bm25_fails_and_names_the_version_to_raise(models, monkeypatch):
    case = "bm25 by constructor defaults"
    monkeypatch.setattr(BM25.__init__, "__defaults__", (0.9, 0.75))
    current = entry_of(case, models)
    with pytest.raises(pytest.fail.Exception) as failure:
        GoldenFile(RANKINGS, cases.ALL_CASES).check(case, current, cases.compare(case, current.versions))
    for part in ("versions.RANKING", "harness/versions.py", REGENERATE, "First difference", "query q01, rank 1"):
        assert part in str(failure.value)
