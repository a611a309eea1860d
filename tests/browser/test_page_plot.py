"""Tests of the page's plot in a browser: names and environments."""

import re

import pytest
from support.pages import make_store, render

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [400, 1400])
def test_names_in_the_plot_do_not_overlap(page, width):
    page.resize(width)
    for axis in ("queries_per_s", "docs_per_s", "latency_ms", "index_mb"):
        page.open(axis=axis)
        boxes = page.js(
            "return [...document.querySelectorAll('#picture .name')].map((o) => o.getBoundingClientRect().toJSON())"
        )
        assert len(boxes) >= (5 if width > 1000 else 3)
        for position, first in enumerate(boxes):
            for second in boxes[position + 1 :]:
                is_beside = first["right"] <= second["left"] or second["right"] <= first["left"]
                assert is_beside or first["bottom"] <= second["top"] or second["bottom"] <= first["top"]
        svg = page.js("return document.querySelector('#picture svg').getBoundingClientRect().toJSON()")
        assert all(svg["left"] <= box["left"] and box["right"] <= svg["right"] for box in boxes)


def test_several_environments_have_a_warning_and_different_symbols(page, tmp_path):
    store = make_store(tmp_path / "results", ("e1" * 8, "e2" * 8))
    path = tmp_path / "leaderboard.html"
    path.write_text(render(store), encoding="utf-8")
    page.open(path)
    assert "2 environments (e1e1e1e1, e2e2e2e2) and do not compare" in page.find(".warning").text
    assert page.find_all("#picture circle.point")
    assert page.find_all("#picture polygon.point")
    assert "squares: environment e2e2e2e2" in page.find("#plotted").text


def test_one_environment_has_no_warning(page_file):
    assert 'class="warning">' not in re.sub(r"<noscript>.*?</noscript>", "", page_file.read_text(encoding="utf-8"))
