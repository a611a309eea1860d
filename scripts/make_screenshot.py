"""Take the picture of the leaderboard page that README.md shows, from the records in results/demo/.

    python scripts/make_screenshot.py           # writes docs/images/leaderboard.png

Needs Chromium and its driver on the path.
"""

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from harness.leaderboard import build  # noqa: E402
from harness.leaderboard.page import html  # noqa: E402
from harness.store import Store  # noqa: E402

DEMO = ROOT / "results" / "demo"
PICTURE = ROOT / "docs" / "images" / "leaderboard.png"
WIDTH, HEIGHT = 1180, 1190
"""Of the picture, in pixels."""


def render_page() -> str:
    """Return the demo leaderboard as one HTML page."""
    store = Store(DEMO)
    records = store.latest()
    metrics = [metric for metric in records[0].metrics if all(metric in record.metrics for record in records)]
    scores = store.scores(records, metrics)
    leaderboards = {metric: build(records, metric, scores) for metric in metrics}
    return html.render(leaderboards, scores, store.table, None)


def take_picture(page: Path, picture: Path) -> None:
    """Write the top of an HTML page as a PNG file, in light colours.

    Args:
        page: The HTML file.
        picture: The PNG file that is written.
    """
    from selenium import webdriver  # building the documentation needs only `render_page`
    from selenium.webdriver.chrome.service import Service

    browser, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if browser is None or driver is None:
        raise SystemExit("chromium and chromedriver are needed: apt-get install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in ("headless=new", "no-sandbox", "hide-scrollbars", f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        window = webdriver.Chrome(options=options, service=Service(driver))
        try:
            metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
            window.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
            window.get(page.as_uri())
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(window.get_screenshot_as_png())
        finally:
            window.quit()


def main() -> None:
    """Render the page into a temporary file and take its picture."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "leaderboard.html"
        page.write_text(render_page(), encoding="utf-8")
        take_picture(page, PICTURE)


if __name__ == "__main__":
    main()
