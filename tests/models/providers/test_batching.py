"""Tests of harness/providers/batching.py: splitting texts into requests and truncating them."""

import numpy as np
import pytest

from harness.providers import batching


def test_split_covers_every_text_once_within_the_limits():
    rng = np.random.default_rng(0)
    texts = ["x" * int(n) for n in rng.integers(0, 400, 300)]
    spans = list(batching.split(texts, 16, 500))
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(300))
    for span in spans:
        part = texts[span]
        assert len(part) == 1 or (len(part) <= 16 and sum(map(batching.estimate_tokens, part)) <= 500)
    assert list(batching.split([], 16, 500)) == []


@pytest.mark.parametrize("text", ["plain words " * 50, "日本語の文書です。" * 20, "🦊" * 60])
def test_truncate_returns_the_longest_prefix_within_the_limit(text):
    for limit in (1, 2, 7, 50):
        cut = batching.truncate(text, limit)
        assert text.startswith(cut)
        assert batching.estimate_tokens(cut) <= limit
        assert batching.estimate_tokens(text[: len(cut) + 1]) > limit
