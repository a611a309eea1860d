"""Tests of cache keys: equal keys imply equal vectors, for random pairs of settings and texts and for changed weights.

mteb's cache is known to return another model's vectors for a model that was retrained under the same name, for weights
that were replaced in the same path, and for another revision of a hub model.
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
DEFAULTS = {name: values[0] for name, values in SETTINGS.items()}
TEXTS = ("a green bottle", "cafe\u0301 in the sun", "", "two words", "Two words", "the moon orbits the earth")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Return the folders of three models of random weights, and of a copy of the first."""
    root = tmp_path_factory.mktemp("models")
    model_folders: dict[Any, Path] = {n: write_dense(root / str(n), seed=n) for n in range(3)}
    model_folders["copy of 0"] = Path(shutil.copytree(model_folders[0], root / "copy"))
    return model_folders


def vary(texts: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """Return the texts with one small change."""
    changed, row = list(texts), rng.randrange(len(texts))
    kind = rng.randrange(7)
    if kind == 0:
        changed[row] += "s"
    elif kind == 1:
        changed[row] += " "  # tokenizers ignore it
    elif kind == 2:
        changed[row] = unicodedata.normalize("NFC", changed[row])
    elif kind == 3:
        changed[row] = changed[row].swapcase()
    elif kind == 4:
        rng.shuffle(changed)
    elif kind == 5:  # move the border between two texts
        row = row % (len(changed) - 1)
        joined = changed[row] + changed[row + 1]
        cut = rng.randint(0, len(joined))
        changed[row : row + 2] = [joined[:cut], joined[cut:]]
    else:
        changed.pop(row)
    return tuple(changed)


Case = tuple[tuple[tuple[str, Any], ...], tuple[str, ...]]


def make_case(settings: dict[str, Any], texts: tuple[str, ...]) -> Case:
    return tuple(sorted(settings.items(), key=lambda item: item[0])), texts


def draw_settings(rng: random.Random, n: int) -> list[dict[str, Any]]:
    """Return the default settings, and others with a few changes."""
    changed = [{name: rng.choice(SETTINGS[name]) for name in rng.sample(sorted(SETTINGS), 3)} for _ in range(n - 1)]
    return [DEFAULTS, *({**DEFAULTS, **changes} for changes in changed)]


def draw_pair(rng: random.Random, settings: dict[str, Any], text_variants: list[tuple[str, ...]]) -> tuple[Case, Case]:
    """Return a case of these settings, and one with up to two settings changed, with the same texts or others."""
    texts = TEXTS if rng.random() < 0.7 else rng.choice(text_variants)
    changed = dict(settings)
    for name in rng.sample(sorted(SETTINGS), rng.choice([0, 0, 0, 1, 1, 1, 1, 1, 1, 2])):
        changed[name] = rng.choice(SETTINGS[name])
    return make_case(settings, texts), make_case(changed, rng.choice(text_variants) if rng.random() < 0.4 else texts)


@pytest.mark.slow
def test_equal_keys_imply_equal_vectors_for_a_thousand_random_pairs(folders):
    @remembered
    def load_encoder(settings: tuple[tuple[str, Any], ...]) -> DenseEncoder:
        arguments = dict(settings)
        return DenseEncoder(str(folders[arguments.pop("model")]), device="cpu", cache=False, **arguments)

    @remembered
    def key_and_vectors(case: Case) -> tuple[Path, bytes]:
        """Return the cache key of a case and the bytes of its vectors."""
        settings, texts = dict(case[0]), list(case[1])
        side = settings.pop("side")
        encoder = load_encoder(make_case(settings, ())[0])
        vectors = encoder.encode(StringColumn(texts), side).numpy()
        return shards.path_of(
            {"libraries": cache._libraries(), **encoder._identity(encoder._loaded(), side)}, texts
        ), vectors.tobytes()

    rng, counts = random.Random(0), {(True, True): 0, (False, True): 0, (False, False): 0}
    settings_variants, text_variants = draw_settings(rng, 8), [vary(TEXTS, rng) for _ in range(16)]
    text_variants += [vary(texts, rng) for texts in text_variants]
    for _ in range(PAIRS):
        first, second = draw_pair(rng, rng.choice(settings_variants), text_variants)
        (key, vectors), (second_key, second_vectors) = key_and_vectors(first), key_and_vectors(second)
        are_equal = (key == second_key, vectors == second_vectors)
        assert are_equal != (True, False), f"{first} and {second} have the same key and different vectors"
        counts[are_equal] += first != second
    assert counts[True, True] > PAIRS / 50, "the copied model, and settings that equal the model's defaults"
    assert counts[False, False] > PAIRS / 3
    assert counts[False, True] > PAIRS / 50, "settings and texts whose change has no effect"


# -------------------------------------------------------------------------------------------------- changed weights

MANY_TEXTS = StringColumn([f"text {number}" for number in range(200)])


def encode(model: str) -> np.ndarray:
    """Return the vectors of a new encoder that uses the cache."""
    return DenseEncoder(model, device="cpu").encode(MANY_TEXTS, "document").numpy()


def encode_without_cache(model: str) -> np.ndarray:
    return DenseEncoder(model, device="cpu", cache=False).encode(MANY_TEXTS, "document").numpy()


def assert_not_shared(empty_cache: Path, first: np.ndarray, second: np.ndarray, model: str) -> None:
    assert not np.allclose(first, second), "the two models have different vectors"
    np.testing.assert_array_equal(second, encode_without_cache(model))
    assert len(list(empty_cache.rglob("*.safetensors"))) == 2


def test_a_retrained_model_in_the_same_folder_is_encoded_again(folders, tmp_path, empty_cache):
    folder = tmp_path / "model"
    shutil.copytree(folders[0], folder)
    first = encode(str(folder))
    shutil.rmtree(folder)
    shutil.copytree(folders[1], folder)
    assert_not_shared(empty_cache, first, encode(str(folder)), str(folder))


def test_replaced_weights_of_the_same_size_and_time_are_encoded_again(folders, tmp_path, empty_cache):
    folder = tmp_path / "model"
    shutil.copytree(folders[0], folder)
    first = encode(str(folder))
    weights = folder / "model.safetensors"
    before = weights.stat()
    weights.write_bytes((folders[1] / "model.safetensors").read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    assert_not_shared(empty_cache, first, encode(str(folder)), str(folder))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty hub cache without network, and return the folder of the model org/tiny in it."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder / "models--org--tiny"


def write_snapshot(hub: Path, model: Path, revision: str) -> None:
    """Write a snapshot as huggingface_hub does, and point the branch main at it."""
    shutil.copytree(model, hub / "snapshots" / revision)
    (hub / "refs").mkdir(exist_ok=True)
    (hub / "refs" / "main").write_text(revision)


@pytest.mark.parametrize("names", [("org/tiny@{old}", "org/tiny@{new}"), ("org/tiny", "org/tiny")])
def test_another_revision_of_a_hub_model_is_encoded_again(folders, hub, empty_cache, names):
    revisions = {"old": "a" * 40, "new": "b" * 40}
    before, after = (name.format(**revisions) for name in names)
    write_snapshot(hub, folders[0], revisions["old"])
    first = encode(before)
    write_snapshot(hub, folders[1], revisions["new"])
    assert_not_shared(empty_cache, first, encode(after), after)
    np.testing.assert_array_equal(encode(f"org/tiny@{revisions['old']}"), first)


def test_two_models_with_the_same_relative_path_do_not_share_vectors(folders, tmp_path, empty_cache, monkeypatch):
    results = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        shutil.copytree(folders[number], tmp_path / str(number) / "model")
        monkeypatch.chdir(tmp_path / str(number))
        results.append(encode("./model"))
    assert_not_shared(empty_cache, *results, "./model")
