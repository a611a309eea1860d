"""Equal keys only for equal vectors: over random pairs of settings and texts, and where other caches are known to fail.

What is known of mteb's: it returned another model's numbers for a model trained again under its name, for other weights
in the same place, and for another revision of a model of the hub.
"""

import os
import random
import shutil
import unicodedata
from functools import cache as remembered
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from support.models import write_dense

from harness.embedding_cache import cache, shards
from harness.encoders.dense import DenseEncoder
from harness.types import StringColumn

PAIRS = 1000
PROMPTS = [None, "", "say: ", "say:"]
SETTINGS: dict[str, list[Any]] = {
    "model": [0, 1, 2, "copy of 0"],
    "dtype": ["float32", "bfloat16"],
    "document_prompt": PROMPTS,
    "query_prompt": PROMPTS[:3],
    "max_length": [None, 4, 6],
    "pooling": [None, "mean", "cls", "max"],
    "normalize": [None, True, False],
    "dimensions": [None, 16, 5],
    "side": ["document", "query"],
}
USUAL = {name: values[0] for name, values in SETTINGS.items()}
TEXTS = ("a green bottle", "cafe\u0301 in the sun", "", "two words", "Two words", "the moon orbits the earth")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Three models of random weights, and the first of them in another place."""
    root = tmp_path_factory.mktemp("models")
    made: dict[Any, Path] = {n: write_dense(root / str(n), seed=n) for n in range(3)}
    made["copy of 0"] = Path(shutil.copytree(made[0], root / "copy"))
    return made


def varied(texts: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """The texts with one small thing changed."""
    found, place = list(texts), rng.randrange(len(texts))
    how = rng.randrange(7)
    if how == 0:
        found[place] += "s"
    elif how == 1:
        found[place] += " "  # no tokenizer sees it
    elif how == 2:
        found[place] = unicodedata.normalize("NFC", found[place])
    elif how == 3:
        found[place] = found[place].swapcase()
    elif how == 4:
        rng.shuffle(found)
    elif how == 5:  # the end of one text is the beginning of the next
        place = place % (len(found) - 1)
        both = found[place] + found[place + 1]
        cut = rng.randint(0, len(both))
        found[place : place + 2] = [both[:cut], both[cut:]]
    else:
        found.pop(place)
    return tuple(found)


Case = tuple[tuple[tuple[str, Any], ...], tuple[str, ...]]


def case(settings: dict[str, Any], texts: tuple[str, ...]) -> Case:
    return tuple(sorted(settings.items(), key=lambda item: item[0])), texts


def bases(rng: random.Random, n: int) -> list[dict[str, Any]]:
    """The usual settings, and others with a few changes."""
    changed = [{name: rng.choice(SETTINGS[name]) for name in rng.sample(sorted(SETTINGS), 3)} for _ in range(n - 1)]
    return [USUAL, *({**USUAL, **changes} for changes in changed)]


def pair(rng: random.Random, settings: dict[str, Any], several: list[tuple[str, ...]]) -> tuple[Case, Case]:
    """These settings, and others near them with none, one or two changed; with the same texts or with others."""
    texts = TEXTS if rng.random() < 0.7 else rng.choice(several)
    near = dict(settings)
    for name in rng.sample(sorted(SETTINGS), rng.choice([0, 0, 0, 1, 1, 1, 1, 1, 1, 2])):
        near[name] = rng.choice(SETTINGS[name])
    return case(settings, texts), case(near, rng.choice(several) if rng.random() < 0.4 else texts)


def test_equal_keys_only_for_equal_vectors_over_a_thousand_random_pairs(folders):
    @remembered
    def opened(settings: tuple[tuple[str, Any], ...]) -> DenseEncoder:
        given = dict(settings)
        return DenseEncoder(str(folders[given.pop("model")]), device="cpu", cache=False, **given)

    @remembered
    def known(one: Case) -> tuple[Path, bytes]:
        """Its key, and its vectors to the last bit."""
        settings, texts = dict(one[0]), list(one[1])
        side = settings.pop("side")
        own = opened(case(settings, ())[0])
        vectors = own.encode(StringColumn(texts), side).numpy()
        return shards.path_of(
            {"libraries": cache._libraries(), **own._identity(own._loaded(), side)}, texts
        ), vectors.tobytes()

    rng, seen = random.Random(0), {(True, True): 0, (False, True): 0, (False, False): 0}
    some, several = bases(rng, 8), [varied(TEXTS, rng) for _ in range(16)]
    several += [varied(texts, rng) for texts in several]
    for _ in range(PAIRS):
        one, other = pair(rng, rng.choice(some), several)
        (key, vectors), (other_key, other_vectors) = known(one), known(other)
        same = (key == other_key, vectors == other_vectors)
        assert same != (True, False), f"{one} and {other} have one key and two vectors"
        seen[same] += one != other
    assert seen[True, True] > PAIRS / 50, "one model in two places, settings that say what is so anyhow"
    assert seen[False, False] > PAIRS / 3
    assert seen[False, True] > PAIRS / 50, "settings and texts that happen to change nothing"


# --------------------------------------------------------------------------------------------- the three known failures

MANY = StringColumn([f"text {number}" for number in range(200)])


def vectors(model: str) -> np.ndarray:
    """What a new encoder, as a new process would make it, gives with the cache as it stands."""
    return DenseEncoder(model, device="cpu").encode(MANY, "document").numpy()


def truth(model: str) -> np.ndarray:
    return DenseEncoder(model, device="cpu", cache=False).encode(MANY, "document").numpy()


def assert_each_has_its_own(empty_cache: Path, first: np.ndarray, second: np.ndarray, model: str) -> None:
    assert not np.allclose(first, second), "they are other vectors"
    np.testing.assert_array_equal(second, truth(model))
    assert len(list(empty_cache.rglob("*.safetensors"))) == 2


def test_a_model_trained_again_under_its_name_has_its_own_vectors(folders, tmp_path, empty_cache):
    place = tmp_path / "model"
    shutil.copytree(folders[0], place)
    first = vectors(str(place))
    shutil.rmtree(place)
    shutil.copytree(folders[1], place)
    assert_each_has_its_own(empty_cache, first, vectors(str(place)), str(place))


def test_other_weights_of_the_same_size_and_age_in_the_same_file_have_their_own_vectors(folders, tmp_path, empty_cache):
    place = tmp_path / "model"
    shutil.copytree(folders[0], place)
    first = vectors(str(place))
    weights = place / "model.safetensors"
    before = weights.stat()
    weights.write_bytes((folders[1] / "model.safetensors").read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    assert_each_has_its_own(empty_cache, first, vectors(str(place)), str(place))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache of the test's own, and no hub."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder / "models--org--tiny"


def in_hub(hub: Path, model: Path, revision: str) -> None:
    """A snapshot as huggingface_hub keeps it, to which main points from now on."""
    shutil.copytree(model, hub / "snapshots" / revision)
    (hub / "refs").mkdir(exist_ok=True)
    (hub / "refs" / "main").write_text(revision)


@pytest.mark.parametrize("names", [("org/tiny@{old}", "org/tiny@{new}"), ("org/tiny", "org/tiny")])
def test_another_revision_of_a_model_of_the_hub_has_its_own_vectors(folders, hub, empty_cache, names):
    revisions = {"old": "a" * 40, "new": "b" * 40}
    before, after = (name.format(**revisions) for name in names)
    in_hub(hub, folders[0], revisions["old"])
    first = vectors(before)
    in_hub(hub, folders[1], revisions["new"])
    assert_each_has_its_own(empty_cache, first, vectors(after), after)
    np.testing.assert_array_equal(vectors(f"org/tiny@{revisions['old']}"), first)


def test_the_vectors_of_a_models_namesake_are_never_anothers(folders, tmp_path, empty_cache, monkeypatch):
    """Two folders with one name, each given by the same words from where it lies."""
    found = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        shutil.copytree(folders[number], tmp_path / str(number) / "model")
        monkeypatch.chdir(tmp_path / str(number))
        found.append(vectors("./model"))
    assert_each_has_its_own(empty_cache, *found, "./model")
