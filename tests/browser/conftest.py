"""Fixtures of the browser tests: stored results, their page, and Chromium."""

import json
import os
import shutil

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from support.pages import Page, make_store, render

from harness import stats
from harness.leaderboard import significance
from harness.simultaneous import PairwiseTests


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Return a store of seven retrievers on three datasets."""
    return make_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def page_file(results, tmp_path_factory):
    """Return the file of the page of `results`."""
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(render(results), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Return a headless Chromium; without one fail in CI and skip elsewhere."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        message = "chromium and chromedriver are not installed: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        "window-size=1400,1000",
    ]:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def page(chromium, page_file):
    """Return the opened page. Afterwards its console must be empty, and it must have requested nothing but files."""
    page_ = Page(chromium, page_file)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    yield page_.open()
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    requests = [
        message["params"]["request"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    urls = [request["url"] for request in requests]
    internal = ("about:", "chrome:", "chrome-untrusted:")  # a new tab of a browser that starts slowly
    assert [url for url in urls if not url.startswith(("file:", "data:", *internal))] == []
    assert any(url.startswith("file:") for url in urls)
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.fixture
def constant_statistics(monkeypatch):
    """Replace intervals and p-values by values of as many digits that take no time."""

    def resample(strata):
        means = stats.mean(strata)
        return stats.Resampled(means - 0.0211, means + 0.0222, np.full_like(means, 1 / len(means)))

    def compare_all(columns, datasets):
        means = [stats.mean(strata) for strata in columns]
        p_values = [np.exp(-30 * np.abs(each[:, None] - each)) for each in means]
        return [
            PairwiseTests(each, p, int(each.argmax()), lambda a, b: (0.0123, 0.0456), stats.ALPHA)
            for each, p in zip(means, p_values, strict=True)
        ]

    monkeypatch.setattr(stats, "resample", resample)
    monkeypatch.setattr(significance, "compare_all", compare_all)
