"""A student opens a notebook in JupyterLab, runs one cell and scrolls: in a real browser.

JupyterLab is served on the loopback interface only, with settings of its own, and every request
that would leave the machine is refused and counted. Screenshots are kept in `test-artefacts/`.
"""

import numpy as np
import pytest
from browser_lab import (
    PICTURE,
    handle,
    keep_screenshot,
    open_browser,
    picture,
    run_notebook,
    serve_lab,
    slice_number,
    wait_for_alt,
)

from spine_lib.ct.volume import WINDOWS
from spine_lib.explore import render

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CASE = """
import numpy as np
from spine_lib.datasets import make_phantom
from spine_lib.datasets import sample_cases
from spine_lib import SpineError

try:
    name, data = "chest", sample_cases()[0].load()
except SpineError:  # not fetched
    name, data = "phantom", make_phantom(0, shape=(128, 128, 80), spacing_mm=3.0)
guess = data.ct.with_array(np.roll(data.labels.array > 0, 4, axis=0))
"""
SHOW = """
from spine_lib.explore import SliceViewer

viewer = SliceViewer(data.ct, data.labels, guess, case_id=name)
viewer
"""
MORE = """
from spine_lib.explore import CompareViewer, OrthoViewer

display(OrthoViewer(data.ct, data.labels, case_id=name))
display(CompareViewer(data.ct, data.labels, guess, data.labels, case_id=name))
"""
# Answers once a picture other than the present one has been decoded and could be painted.
NEXT_PICTURE = """
() => {
  const find = () => document.querySelector(".jp-OutputArea-output img[alt]");
  const before = find().src;
  let pressed = null;
  const press = () => { pressed ??= performance.now(); };
  addEventListener("keydown", press, {capture: true, once: true});
  window.nextPicture = new Promise((resolve) => {
    const look = () => {
      const now = find();
      if (!now || now.src === before) return;
      watcher.disconnect();
      requestAnimationFrame(() => {
        const atOnce = now.complete && now.naturalWidth > 0;
        now.decode().then(() => resolve({ms: performance.now() - pressed, atOnce}));
      });
    };
    const watcher = new MutationObserver(look);
    watcher.observe(document.body, {subtree: true, childList: true, attributes: true});
  });
}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="module")
def notebook(browser, tmp_path_factory):
    """The notebook, opened and run, with its viewers on the page."""
    with serve_lab(tmp_path_factory.mktemp("lab"), (CASE, SHOW, MORE)) as address:
        page = run_notebook(browser, address, pictures=7)
        yield page
        page.close()


@pytest.fixture(scope="module")
def data():
    """What the notebook shows, loaded in this process too."""
    names = {}
    exec(CASE, names)
    return names["data"], names["guess"]


def test_the_first_picture_is_the_one_that_the_library_draws(notebook, data):
    pixels, alt = picture(notebook)
    case, guess = data
    index = slice_number(notebook) - 1
    expected = render.render_slice(
        case.ct, index, "axial", WINDOWS["bone"], case.labels, guess, "error"
    )
    assert np.array_equal(pixels, expected)
    assert "axial" in alt and "errors of the prediction" in alt
    assert notebook.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0


def test_arrow_keys_move_the_slice(notebook, data):
    handle(notebook, "slice").focus()
    start = slice_number(notebook)
    for press in range(29):
        notebook.evaluate(NEXT_PICTURE)
        notebook.keyboard.press("ArrowRight")
        notebook.evaluate("() => window.nextPicture")
        assert slice_number(notebook) == start + press + 1
    keep_screenshot(notebook, "slice-viewer")
    case, guess = data
    expected = render.render_slice(
        case.ct, start + 28, "axial", WINDOWS["bone"], case.labels, guess, "error"
    )
    assert np.array_equal(picture(notebook)[0], expected)


def test_a_dragged_slider_changes_the_picture(notebook):
    before = slice_number(notebook)
    grip = handle(notebook, "slice").bounding_box()
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    notebook.mouse.move(x, y)
    notebook.mouse.down()
    notebook.mouse.move(x - 60, y, steps=6)
    notebook.mouse.up()
    notebook.wait_for_function(
        "before => !document.querySelector('.jp-OutputArea-output img[alt]').alt"
        ".includes(`slice ${before} of`)",
        arg=before,
    )
    assert slice_number(notebook) < before - 5


def test_planes_overlays_and_buttons_work_from_the_keyboard(notebook):
    notebook.get_by_label("plane").first.select_option("sagittal")
    wait_for_alt(notebook, "sagittal")
    notebook.get_by_label("overlay").first.select_option("outline")
    wait_for_alt(notebook, "outlined")
    notebook.get_by_label("colours by").first.select_option("vertebra")
    wait_for_alt(notebook, "by vertebra")
    keep_screenshot(notebook, "slice-viewer-sagittal")
    before = slice_number(notebook)
    notebook.get_by_role("button", name="Worst slice").focus()
    notebook.keyboard.press("Enter")
    notebook.wait_for_function(
        "before => !document.querySelector('.jp-OutputArea-output img[alt]').alt"
        ".includes(`slice ${before} of`)",
        arg=before,
    )


def test_the_mouse_over_the_picture_tells_hu_and_label(notebook, data):
    case, _ = data
    notebook.get_by_label("plane").first.select_option("axial")
    wait_for_alt(notebook, "axial")
    image, status = notebook.locator(PICTURE).first, notebook.get_by_role("status").first
    image.scroll_into_view_if_needed()
    box, shape = image.bounding_box(), case.ct.shape
    for share, press in (((0.52, 0.62), False), ((0.31, 0.44), True)):
        x, y = (
            box[side] + part * box[length]
            for part, side, length in zip(share, ("x", "y"), ("width", "height"))
        )
        notebook.mouse.move(x, y, steps=2)
        status.filter(has_text="Mouse at").wait_for()
        if press:
            notebook.mouse.down()
            notebook.mouse.up()
        columns, rows = (int(part * size) for part, size in zip(share, shape))
        axial = np.flip(case.ct.array[:, :, slice_number(notebook) - 1])
        near = {
            f"{axial[column, row]} HU"
            for column in range(columns - 1, columns + 2)
            for row in range(rows - 1, rows + 2)
        }
        words = status.filter(has_text="Probe at" if press else "Mouse at")
        words.wait_for()
        notebook.wait_for_timeout(300)
        said = words.inner_text()
        assert any(f": {hu}," in said for hu in near) and "mask" in said
    assert handle(notebook, "probe right").get_attribute("aria-valuenow") in {
        f"{value:.1f}" for value in range(columns - 1, columns + 2)
    }


def test_the_other_viewers_follow_their_sliders(notebook):
    images = notebook.locator(PICTURE)
    before = [images.nth(number).get_attribute("src") for number in range(7)]
    cases = (("I to S", {1}, "ortho-viewer"), ("slice", {4, 5, 6}, "compare-viewer"))
    for name, moved, file in cases:
        grip = handle(notebook, name, last=True)
        grip.scroll_into_view_if_needed()
        grip.focus()
        notebook.keyboard.press("ArrowRight")
        notebook.wait_for_function(
            "([number, before]) => document.querySelectorAll"
            "('.jp-OutputArea-output img[alt]')[number].src !== before",
            arg=[max(moved), before[max(moved)]],
        )
        after = [images.nth(number).get_attribute("src") for number in range(7)]
        assert {number for number in range(7) if after[number] != before[number]} == moved
        before = after
        if file == "compare-viewer":
            notebook.locator(".jp-OutputArea-output svg[role=img]").scroll_into_view_if_needed()
        keep_screenshot(notebook, file)


def test_nothing_went_wrong_and_nothing_left_the_machine(notebook, browser):
    assert notebook.errors == []
    assert notebook.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
    assert browser.refused == []
