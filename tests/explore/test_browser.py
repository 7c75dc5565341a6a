"""A student opens a notebook in JupyterLab, runs its cells and moves sliders: in a real browser.

JupyterLab is served on the loopback interface only, with settings of its own, and every request
that would leave the machine is refused and counted. Screenshots are kept in `test-artefacts/`.
"""

import numpy as np
import pytest
from browser_lab import (
    PICTURE,
    handle,
    keep_screenshot,
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
from spine_lib.explore import *

try:
    name, data = "chest", sample_cases()[0].load()
except SpineError:  # not fetched
    name, data = "phantom", make_phantom(0, shape=(128, 128, 80), spacing_mm=3.0)
guess = data.ct.with_array(np.roll(data.labels.array > 0, 4, axis=0))
"""
SMALL = """
small = make_phantom(0, shape=(96, 96, 64), spacing_mm=4.0)
chance = small.ct.with_array(np.roll(small.labels.array > 0, 1, axis=0) * np.float32(0.7))
"""
VIEWERS = {  # and how many pictures each has
    "slices": ("SliceViewer(data.ct, data.labels, guess, case_id=name)", 1),
    "planes": ("OrthoViewer(data.ct, data.labels, case_id=name)", 3),
    "comparison": ("CompareViewer(data.ct, data.labels, guess, data.labels, case_id=name)", 3),
    "window": ("WindowExplorer(small.ct, case_id='phantom')", 1),
    "threshold": ("ThresholdExplorer(small.ct, small.labels, chance, case_id='phantom')", 1),
    "augmentation": ("AugmentationExplorer(small.ct, small.labels, case_id='phantom')", 2),
    "receptive": ("ReceptiveFieldExplorer()", 1),
    "quiz": ("AnnotationQuiz(small.ct, small.labels, case_id='phantom')", 1),
    "3d": ("view_3d(small.ct, small.labels, case_id='phantom')", 3),
}
PICTURES = sum(count for _, count in VIEWERS.values())
WEBGL = """() => Boolean(document.createElement("canvas").getContext("webgl2"))"""
# Whether anything but one colour is drawn; in the frame in which it is drawn, as WebGL keeps none.
DRAWN = """canvas => new Promise((resolve) => {
  const tries = Date.now() + 20000;
  const look = () => {
    const small = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
    const context = small.getContext("2d");
    context.drawImage(canvas, 0, 0, 64, 64);
    const words = new Uint32Array(context.getImageData(0, 0, 64, 64).data.buffer);
    if (new Set(words).size > 20) resolve(true);
    else if (Date.now() > tries) resolve(false);
    else { dispatchEvent(new Event("resize")); requestAnimationFrame(look); }
  };
  requestAnimationFrame(look);
})"""
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
def notebook(browser, tmp_path_factory):
    """The notebook, opened and run, with its viewers on the page."""
    cells = (CASE + SMALL, *(code for code, _ in VIEWERS.values()))
    with serve_lab(tmp_path_factory.mktemp("lab"), cells) as address:
        page = run_notebook(browser, address, PICTURES)
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
        "limit => document.querySelector('.jp-OutputArea-output img[alt]').alt"
        ".match(/slice (\\d+) of/)[1] < limit",
        arg=before - 5,
    )


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


def output(notebook, name):
    """Return the output of one explorer, scrolled to, and its last picture."""
    cells = notebook.locator(".jp-Notebook .jp-CodeCell")
    cell = cells.nth(1 + list(VIEWERS).index(name))
    cell.scroll_into_view_if_needed()
    return cell, cell.locator("img[alt]").last


def changes(notebook, image, act):
    """Do something and wait for another picture."""
    before = image.get_attribute("src")
    act()
    notebook.wait_for_function(
        "([image, before]) => image.isConnected && image.src !== before || !image.isConnected",
        arg=[image.element_handle(), before],
    )
    assert image.get_attribute("src") != before


@pytest.mark.parametrize(
    ("name", "slider", "moved"),
    [("planes", "I to S", {0}), ("comparison", "slice", {0, 1, 2})],
)
def test_a_slider_moves_the_slices_of_its_plane(notebook, name, slider, moved):
    cell, _ = output(notebook, name)
    images = cell.locator("img[alt]")
    before = [images.nth(number).get_attribute("src") for number in range(3)]
    handle(cell, slider).focus()
    changes(notebook, images.nth(max(moved)), lambda: notebook.keyboard.press("ArrowRight"))
    after = [images.nth(number).get_attribute("src") for number in range(3)]
    assert {number for number in range(3) if after[number] != before[number]} == moved
    keep_screenshot(notebook, name)


@pytest.mark.parametrize(
    ("name", "slider"),
    [
        ("window", "width HU"),
        ("threshold", "threshold"),
        ("augmentation", "strength"),
        ("receptive", "dilation"),
    ],
)
def test_an_explorer_answers_its_slider(notebook, name, slider):
    cell, image = output(notebook, name)
    alt = image.get_attribute("alt")

    def press():
        handle(cell, slider).focus()
        for _ in range(20 if name == "threshold" else 1):  # beyond the probability of 0.7
            notebook.keyboard.press("PageUp" if name == "threshold" else "ArrowRight")

    changes(notebook, image, press)
    keep_screenshot(notebook, f"explorer-{name}")
    assert image.get_attribute("alt") != alt


def test_the_quiz_takes_an_answer_and_goes_to_the_mistake(notebook):
    cell, image = output(notebook, "quiz")
    assert "Question 1 of 5" in cell.inner_text()
    changes(notebook, image, lambda: cell.get_by_label("plane").select_option("coronal"))
    cell.get_by_label("two numbers are swapped").check()
    cell.get_by_role("button", name="Answer").click()
    cell.get_by_text("of 1 right.").wait_for()
    keep_screenshot(notebook, "explorer-quiz")
    changes(notebook, image, lambda: cell.get_by_role("button", name="Next question").click())
    cell.get_by_text("Question 2 of 5").wait_for()


def test_the_spine_is_seen_in_3d_or_as_a_still(notebook):
    cell, _ = output(notebook, "3d")
    stills = cell.locator("img[alt]")
    assert stills.count() == 3
    for number in range(3):
        assert stills.nth(number).evaluate("one => one.complete && one.naturalWidth > 50")
        assert "Surface of the mask of case phantom" in stills.nth(number).get_attribute("alt")
    canvas = cell.locator("canvas")
    if cell.get_by_text("install ipyniivue").count():
        print("3D: ipyniivue is not installed, the still views are shown")
    elif not notebook.evaluate(WEBGL):
        print("3D: this browser has no WebGL, the still views are shown")
    else:
        print("3D: drawn with WebGL")
        canvas.first.wait_for()
        assert canvas.first.evaluate(DRAWN)
    keep_screenshot(notebook, "view-3d")


def test_nothing_went_wrong_and_nothing_left_the_machine(notebook, browser):
    assert notebook.evaluate(WEBGL) is False or notebook.errors == []
    for kind in ('="application/vnd.jupyter.stderr"', "*=error"):
        assert notebook.locator(f".jp-OutputArea-output[data-mime-type{kind}]").count() == 0
    assert notebook.locator(PICTURE).count() == PICTURES
    assert browser.refused == []
