"""The site: built without a warning, whole without a network; its viewers move in a browser."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser_lab import open_browser

ROOT = Path(__file__).parents[2]
ROOMS = """ct annotations datasets slices models training metrics volumes explore reproduce
    course""".split()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx", reason="the extra `site` is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", out / "cache"]
    done = subprocess.run(
        [*command, ROOT / "docs", out / "html"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


class Page(HTMLParser):
    """The addresses that a page loads or links to, and the attributes of its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.loads, self.images = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "img":
            self.images.append(values)
        if tag in ("img", "script", "iframe", "source") and values.get("src"):
            self.loads.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(values["href"])


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    paths = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    return {path: Page(path) for path in paths}


def test_every_lesson_and_room_has_its_page(site):
    for lesson in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert (site / "lessons" / f"{lesson.stem}.html").is_file()
    for room in ROOMS:
        text = (site / "api" / f"spine_lib.{room}.html").read_text(encoding="utf-8")
        assert f'id="module-spine_lib.{room}"' in text
    text = (site / "api" / "spine_lib.metrics.overlap.html").read_text(encoding="utf-8")
    assert "Parameters" in text and "Returns" in text
    assert not list(site.rglob("*solutions*")) and not list(site.rglob("*exercises*"))


def test_every_link_inside_the_site_leads_to_a_file(pages):
    for path, page in pages.items():
        for address in page.links:
            file = re.split("[#?]", address)[0]
            if file and not re.match(r"[a-z]+:", address):
                assert (path.parent / file).exists(), f"{path.name}: {address}"


def test_no_page_loads_anything_from_outside_of_the_site(site, pages):
    for path, page in pages.items():
        for address in page.loads:
            assert not re.match(r"(https?:)?//", address), f"{path.name} loads {address}"
            if not address.startswith(("data:", "#")):
                assert (path.parent / address.partition("?")[0]).exists(), f"{path.name}: {address}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"]?http", text), style


def test_every_picture_of_a_lesson_has_an_alt_text(pages):
    images = [
        image for path, page in pages.items() if "lessons" in path.parts for image in page.images
    ]
    assert len(images) > 20
    for image in images:
        assert len(image.get("alt") or "") > 15 and "_images" not in image["alt"], image


@pytest.mark.browser
def test_the_sliders_of_a_saved_viewer_react_without_a_network(site, tmp_path):
    with open_browser(tmp_path) as browser:
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "viewers.html").as_uri())
        frame = page.frame_locator("iframe")
        canvas = frame.locator("canvas[aria-label*='slice']:visible").first
        canvas.wait_for()
        before = canvas.get_attribute("aria-label")
        frame.get_by_role("slider", name="axial slice").first.press("ArrowRight")
        frame.locator(f'canvas[aria-label="{before}"]').wait_for(state="detached")
        frame.get_by_role("combobox", name="plane").select_option("coronal")
        frame.locator("canvas[aria-label*='coronal slice']:visible").wait_for()
        assert errors == [] and browser.refused == []
