"""Somebody without Python opens a saved page: slices, windows and overlays work from the file."""

import re

import numpy as np
import pytest
from browser_lab import keep_screenshot

from spine_lib.ct.volume import WINDOWS
from spine_lib.explore import CompareViewer, SliceViewer, render

pytestmark = [pytest.mark.browser, pytest.mark.slow]

READ = """canvas => [
  ...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
]"""


@pytest.fixture(scope="module")
def case():
    """A phantom, its spine moved by two voxels, and less of it as probabilities."""
    from spine_lib.datasets import make_phantom

    data = make_phantom(0, shape=(128, 128, 80), spacing_mm=3.0)
    guess = data.ct.with_array(np.roll(data.labels.array > 0, 2, axis=0))
    chance = data.ct.with_array(np.roll(guess.array, 1, axis=1) * np.float32(0.7))
    return data, guess, chance


@pytest.fixture
def open_page(browser):
    """Open a file; what goes wrong on the page, or leaves the machine, fails the test."""
    pages, errors = [], []

    def opened(path):
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert errors == [] and browser.refused == []


def shown(page):
    """Return the first visible picture without its overlay, and its alt text."""
    canvas = page.locator("canvas:visible").first
    rows, columns = (int(canvas.get_attribute(side)) for side in ("height", "width"))
    pixels = np.array(canvas.evaluate(READ), int).reshape(rows, columns, 4)
    return pixels[..., 0], canvas.get_attribute("aria-label")


def wait_for_alt(page, words):
    page.locator(f"canvas[aria-label*='{words}']:visible").first.wait_for()


def test_a_saved_viewer_has_slices_planes_windows_and_overlay(case, open_page, tmp_path):
    data, guess, _ = case
    viewer = SliceViewer(data.ct, data.labels, guess, case_id="saved")
    page = open_page(viewer.save_html(tmp_path / "viewer.html"))
    index = viewer.slice.value
    wait_for_alt(page, f"axial slice {index + 1} of 80")
    page.keyboard.press("ArrowRight")  # the slice slider has the focus
    wait_for_alt(page, f"axial slice {index + 2} of 80")
    assert f"slice {index + 2} of 80" in page.get_by_role("status").first.inner_text()
    assert "Dice" in page.get_by_role("status").first.inner_text()
    keep_screenshot(page, "saved-page")
    for window in ("bone", "soft tissue"):
        centre, width = WINDOWS[window]
        option = f"{window} ({centre:g} / {width:g} HU)"
        page.get_by_role("combobox", name="window").select_option(label=option)
        wait_for_alt(page, f"Window: {window}")
        expected = render.render_slice(data.ct, index + 1, "axial", WINDOWS[window])[..., 0]
        assert np.abs(shown(page)[0] - expected).mean() < 6
    over = page.locator(".frame img:visible")
    assert over.count() == 1 and over.evaluate("one => one.naturalWidth") == 128
    page.get_by_role("slider", name="overlay opacity %").fill("40")
    assert over.evaluate("one => getComputedStyle(one).opacity") == "0.4"
    page.get_by_role("checkbox", name="overlay").uncheck()
    assert over.count() == 0 and "without overlay" in shown(page)[1]
    page.get_by_role("combobox", name="plane").select_option("sagittal")
    wait_for_alt(page, "sagittal slice")
    expected = render.render_slice(data.ct, viewer.voxel[0], "sagittal", WINDOWS["soft tissue"])[
        ..., 0
    ]
    assert np.abs(shown(page)[0] - expected).mean() < 6
    keep_screenshot(page, "saved-page-sagittal")


def test_an_overlay_drawn_with_larger_pixels_lies_on_the_same_part_of_the_ct(
    case, open_page, tmp_path
):
    data, _, _ = case
    style = render.Style("outline", "vertebra", pixel_mm=6.0)
    viewer = SliceViewer(data.ct, data.labels, case_id="coarse", style=style)
    page = open_page(viewer.save_html(tmp_path / "viewer.html"))
    index = viewer.slice.value
    wait_for_alt(page, f"axial slice {index + 1} of 80")
    expected = render.render_slice(data.ct, index, "axial", WINDOWS["bone"])[..., 0]
    found = shown(page)[0]
    assert found.shape == expected.shape  # all of the slice, not a corner of it
    assert np.abs(found - expected).mean() < 6
    over = page.locator(".frame img:visible")
    assert over.evaluate("one => one.naturalWidth") == 64


def test_the_mark_of_a_saved_comparison_follows_the_slice(case, open_page, tmp_path):
    data, guess, chance = case
    viewer = CompareViewer(data.ct, data.labels, guess, chance, ("one", "two"), case_id="saved")
    page = open_page(viewer.save_html(tmp_path / "compare.html"))
    start = viewer.slice.value
    wait_for_alt(page, f"truth: CT of case saved, axial slice {start + 1} of 80")
    chart = page.locator("svg[role=img]:visible")
    places = []
    for step in range(3):
        index = start + step
        wait_for_alt(page, f"two: CT of case saved, axial slice {index + 1} of 80")
        score = viewer.counts["two"].dice("axial")[index]
        assert f"slice {index + 1}: one" in chart.get_attribute("aria-label")
        assert f"two {score:.3f}" in chart.get_attribute("aria-label")
        moved = chart.locator(".mark").get_attribute("transform")
        places.append(float(re.search(r"\(([\d.]+)", moved).group(1)))
        page.keyboard.press("ArrowRight")
    assert places[0] < places[1] < places[2]
    assert page.locator("canvas:visible").count() == 3
    keep_screenshot(page, "saved-comparison")
    page.get_by_role("combobox", name="plane").select_option("coronal")
    wait_for_alt(page, "two: CT of case saved, coronal slice")
    assert "coronal" in chart.get_attribute("aria-label") and chart.count() == 1
