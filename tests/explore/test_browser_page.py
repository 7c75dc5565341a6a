"""Somebody without Python opens a saved page: slices, windows and overlays work from the file.

What saved pages share with viewers in a notebook is in `test_browser.py`.
"""

import numpy as np
import pytest
from browser_lab import PICTURE, another_picture, keep_screenshot, picture, wait_for_alt

from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import CompareViewer, OrthoViewer, SliceViewer, render

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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


def test_a_saved_viewer_has_planes_windows_overlay_and_structures(case, open_page, tmp_path):
    data, _, _ = case
    viewer = SliceViewer(data.ct, data.labels, case_id="saved")
    page = open_page(viewer.save_html(tmp_path / "viewer.html"))
    index, style = viewer.slice.value, viewer.overlay.style
    wait_for_alt(page, f"axial slice {index + 1} of 80")
    page.keyboard.press("ArrowRight")  # the picture has the focus
    wait_for_alt(page, f"axial slice {index + 2} of 80")
    assert f"slice {index + 2} of 80" in page.get_by_role("status").first.inner_text()
    keep_screenshot(page, "saved-page")
    for window in ("soft tissue", "bone"):
        centre, width = WINDOWS[window]
        option = f"{window} ({centre:g} / {width:g} HU)"
        page.get_by_role("combobox", name="window").select_option(label=option)
        wait_for_alt(page, f"Window: {window}")
        expected = render.render_slice(
            data.ct, index + 1, "axial", WINDOWS[window], data.labels, style=style
        )
        assert np.abs(picture(page)[0].astype(int) - expected).mean() < 6
    painted = picture(page)[0].astype(int)
    page.get_by_role("slider", name="overlay opacity %").fill("40")
    wait_for_alt(page, "Window: bone")
    plain = render.render_slice(data.ct, index + 1, "axial", WINDOWS["bone"]).astype(int)
    spine = np.abs(painted - plain).max(axis=2) > 20
    faded = picture(page)[0].astype(int)
    ratio = np.abs(faded - plain)[spine].mean() / np.abs(painted - plain)[spine].mean()
    assert 0.3 < ratio < 0.55
    page.get_by_role("button", name="none", exact=True).click()
    assert np.abs(picture(page)[0].astype(int) - plain).mean() < 4
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("checkbox", name="overlay").uncheck()
    wait_for_alt(page, "without overlay")
    assert np.abs(picture(page)[0].astype(int) - plain).mean() < 4
    page.get_by_role("combobox", name="plane").select_option("sagittal")
    wait_for_alt(page, "sagittal slice")
    expected = render.render_slice(data.ct, viewer.voxel[0], "sagittal", WINDOWS["bone"])
    assert np.abs(picture(page)[0].astype(int) - expected).mean() < 6
    keep_screenshot(page, "saved-page-sagittal")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 800)])
def test_a_tall_picture_leaves_its_slider_on_the_screen(case, open_page, tmp_path, width, height):
    data, _, _ = case
    tall = Volume(data.ct.array, np.diag([1, 1, 3, 1]) @ data.ct.affine)
    page = open_page(SliceViewer(tall, plane="coronal").save_html(tmp_path / "tall.html"))
    page.set_viewport_size({"width": width, "height": height})
    wait_for_alt(page, "coronal")
    box = page.get_by_role("slider", name="coronal slice").bounding_box()
    assert box["y"] + box["height"] < height
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_the_mark_of_a_saved_comparison_follows_the_slice_and_a_click_moves_it(
    case, open_page, tmp_path
):
    data, guess, chance = case
    viewer = CompareViewer(data.ct, data.labels, guess, chance, ("one", "two"), case_id="saved")
    page = open_page(viewer.save_html(tmp_path / "compare.html"))
    start = viewer.slice.value
    wait_for_alt(page, f"truth: CT of case saved, axial slice {start + 1} of 80")
    chart = page.locator(".spine-chart:visible")
    places = []
    for step in range(3):
        index = start + step
        wait_for_alt(page, f"two: CT of case saved, axial slice {index + 1} of 80")
        score = viewer.counts["two"].dice("axial")[index]
        assert f"slice {index + 1}: one" in chart.get_attribute("aria-label")
        assert f"two {score:.3f}" in chart.get_attribute("aria-label")
        places.append(chart.locator(".spine-mark").bounding_box()["x"])
        page.keyboard.press("ArrowRight")
    assert places[0] < places[1] < places[2]
    with another_picture(page):
        chart.click(position={"x": 400, "y": 80})
    widths = {one.bounding_box()["width"] for one in page.locator(f"{PICTURE}:visible").all()}
    assert page.locator(f"{PICTURE}:visible").count() == 3 and max(widths) - min(widths) < 2
    keep_screenshot(page, "saved-comparison")
    page.get_by_role("combobox", name="plane").select_option("coronal")
    wait_for_alt(page, "two: CT of case saved, coronal slice")
    assert "coronal" in chart.get_attribute("aria-label") and chart.count() == 1


def test_a_click_in_one_saved_plane_moves_the_others(case, open_page, tmp_path):
    data, _, _ = case
    viewer = OrthoViewer(data.ct, data.labels)
    page = open_page(viewer.save_html(tmp_path / "planes.html", max_slices=128))
    wait_for_alt(page, "sagittal slice")
    box = page.locator(PICTURE).first.bounding_box()
    x, y = box["x"] + 0.254 * box["width"], box["y"] + 0.404 * box["height"]
    with another_picture(page, 1), another_picture(page, 2):
        page.mouse.click(x, y)
    wait_for_alt(page, f"sagittal slice {128 - int(0.254 * 128)} of 128")
    wait_for_alt(page, f"coronal slice {128 - int(0.404 * 128)} of 128")
    keep_screenshot(page, "saved-planes")
