"""A student runs a notebook and looks at a scan: in a real browser, in each place that is promised.

Jupyter is served on the loopback interface only, with settings of its own, and every request that
would leave the machine is refused and counted. Screenshots are kept in `test-artefacts/`.
"""

import re

import numpy as np
import pytest
from browser_lab import (
    PICTURE,
    another_picture,
    handle,
    keep_screenshot,
    picture,
    run_notebook,
    serve_lab,
    slice_number,
    wait_for_alt,
)

from spine_lib.ct.volume import WINDOWS
from spine_lib.explore import SliceViewer, render

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
FIRST = "SliceViewer(data.ct, data.labels, guess, case_id=name)"
VIEWERS = {  # and how many pictures each has
    "slices": (FIRST, 1),
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


@pytest.fixture(scope="module")
def notebook(browser, tmp_path_factory):
    """The notebook in JupyterLab, opened and run, with its viewers on the page."""
    cells = (CASE + SMALL, *(code for code, _ in VIEWERS.values()))
    with serve_lab(tmp_path_factory.mktemp("lab"), cells) as address:
        page = run_notebook(browser, address, PICTURES)
        yield page
        page.close()


@pytest.fixture(scope="module")
def classic(browser, tmp_path_factory):
    """One viewer in Notebook 7."""
    with serve_lab(tmp_path_factory.mktemp("classic"), (CASE, FIRST), "notebook") as address:
        page = run_notebook(browser, address, 1)
        page.errors.clear()  # of Notebook 7 itself, while it starts
        yield page
        page.close()


@pytest.fixture(scope="module")
def data():
    """What the notebook shows, loaded in this process too."""
    names = {}
    exec(CASE, names)
    return names["data"], names["guess"], names["name"]


@pytest.fixture(scope="module")
def saved(browser, data, tmp_path_factory):
    """The same viewer as a saved page."""
    case, guess, name = data
    path = tmp_path_factory.mktemp("saved") / "viewer.html"
    SliceViewer(case.ct, case.labels, guess, case_id=name).save_html(path, 200, all_planes=False)
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(path.as_uri())
    wait_for_alt(page, "slice")
    yield page
    page.close()


@pytest.fixture(params=["notebook", "classic", "saved"])
def page(request):
    """A slice viewer in JupyterLab, in Notebook 7, and as a saved page."""
    shown = request.getfixturevalue(request.param)
    shown.locator(PICTURE).first.scroll_into_view_if_needed()
    return shown


def spot(scope, across, down, number=0):
    """Return where a point of a picture, as shares, lies on the screen."""
    box = scope.locator(f"{PICTURE}:visible").nth(number).bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def test_the_first_picture_is_the_one_that_the_library_draws(notebook, data):
    pixels, alt = picture(notebook)
    case, guess, _ = data
    index = slice_number(notebook) - 1
    expected = render.render_slice(
        case.ct, index, "axial", WINDOWS["bone"], case.labels, guess, "error"
    )
    assert np.array_equal(pixels, expected)
    assert "axial" in alt and "errors of the prediction" in alt
    assert notebook.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0


def test_wheel_and_keys_move_the_slice(page, data):
    number = slice_number(page)
    page.mouse.move(*spot(page, 0.5, 0.5))
    with another_picture(page):
        page.mouse.wheel(0, -100)
    wait_for_alt(page, f"slice {number + 1} of")
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, -100)
    wait_for_alt(page, f"slice {number + 3} of")
    page.locator(PICTURE).first.focus()
    for key, moved in (("PageUp", 13), ("ArrowUp", 14), ("ArrowRight", 15), ("ArrowDown", 14)):
        page.keyboard.press(key)
        wait_for_alt(page, f"slice {number + moved} of")
    page.keyboard.press("End")
    wait_for_alt(page, f"slice {data[0].ct.shape[2]} of")
    page.keyboard.press("Home")
    wait_for_alt(page, "slice 1 of")
    for _ in range(number - 1):
        page.keyboard.press("ArrowUp")
    wait_for_alt(page, f"slice {number} of")


def test_keys_of_a_viewer_do_not_reach_the_notebook(page):
    cells = page.locator(".jp-Cell").count()
    for focused in (page.locator(PICTURE).first, page.get_by_role("slider").first):
        focused.focus()
        for key in ("b", "a", "x", "d", "d"):
            page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert page.locator(".jp-Cell").count() == cells
    number = slice_number(page)
    handle(page, "slice").focus()
    page.keyboard.press("ArrowRight")
    wait_for_alt(page, f"slice {number + 1} of")
    page.keyboard.press("ArrowLeft")
    wait_for_alt(page, f"slice {number} of")


@pytest.mark.parametrize("way", ["Shift", "right"])
def test_a_drag_with_shift_or_the_right_button_changes_the_window(page, way):
    x, y = spot(page, 0.5, 0.5)
    page.mouse.move(x, y)
    with another_picture(page):
        if way == "Shift":
            page.keyboard.down("Shift")
        page.mouse.down(button="left" if way == "Shift" else "right")
        page.mouse.move(x + 30, y + 40, steps=4)
        page.mouse.up(button="left" if way == "Shift" else "right")
        page.keyboard.up("Shift")
    window = page.get_by_label("window").first
    chosen = "select => select.selectedOptions[0].textContent"
    page.wait_for_function(f"(select) => ({chosen})(select) === 'own'", arg=window.element_handle())
    with another_picture(page):
        window.select_option(index=0)


def test_control_and_wheel_zoom_and_a_double_click_ends_it(page):
    canvas = page.locator(PICTURE).first
    width = canvas.bounding_box()["width"]
    page.mouse.move(*spot(page, 0.3, 0.3))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    wider = "([canvas, width]) => canvas.getBoundingClientRect().width > 2 * width"
    page.wait_for_function(wider, arg=[canvas.element_handle(), width])
    page.mouse.dblclick(*spot(page, 0.3, 0.3))
    same = "([canvas, width]) => Math.abs(canvas.getBoundingClientRect().width - width) < 1"
    page.wait_for_function(same, arg=[canvas.element_handle(), width])


def test_a_finger_swipes_through_slices_and_two_pinch(page):
    touch = page.context.new_cdp_session(page)
    number, (x, y) = slice_number(page), spot(page, 0.4, 0.4)

    def fingers(kind, *places):
        points = [{"x": a, "y": b, "id": n} for n, (a, b) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (x, y))
    for moved in range(4, 41, 4):
        fingers("touchMove", (x + moved, y))
    fingers("touchEnd")
    page.wait_for_function(
        "number => document.querySelector('canvas[role=img]').ariaLabel"
        ".match(/slice (\\d+) of/)[1] > number",
        arg=number,
    )
    canvas = page.locator(PICTURE).first
    width = canvas.bounding_box()["width"]
    fingers("touchStart", (x, y), (x + 40, y))
    for moved in (10, 30, 60):
        fingers("touchMove", (x - moved, y), (x + 40 + moved, y))
    fingers("touchEnd")
    wider = "([canvas, width]) => canvas.getBoundingClientRect().width > 2 * width"
    page.wait_for_function(wider, arg=[canvas.element_handle(), width])
    page.get_by_role("button", name="whole").first.click()
    assert abs(canvas.bounding_box()["width"] - width) < 1


def test_the_pointer_tells_hu_label_and_mm(page, data):
    case, *_ = data
    status, shape = page.get_by_role("status").first, case.ct.shape
    page.mouse.move(*spot(page, 0.31, 0.44), steps=2)
    status.filter(has_text="Mouse at").wait_for()
    index = slice_number(page) - 1
    column, across = (int(share * size) for share, size in zip((0.31, 0.44), shape))
    axial = np.flip(case.ct.array[:, :, index])
    near = axial[column - 1 : column + 2, across - 1 : across + 2].astype(int)
    page.wait_for_timeout(300)
    words = status.inner_text()
    value = int(re.search(r"(-?\d+) HU", words).group(1))
    # A saved page keeps levels of 17 HU for air, through a lossy picture.
    slack = 60 if "about" in words else 0
    assert near.min() - slack <= value <= near.max() + slack
    assert re.search(r"R [+-][\d.]+, A [+-][\d.]+, S [+-][\d.]+ mm", words)
    spine = np.argwhere(np.flip(case.labels.array[:, :, index]) > 0)
    middle = (spine[len(spine) // 2] + 0.5) / shape[:2]
    page.mouse.move(*spot(page, *middle), steps=2)
    status.filter(has_text=re.compile("mask [A-Zs]|true positive|false negative")).wait_for()


@pytest.mark.parametrize("place", ["notebook", "classic"])
def test_a_stroke_paints_shows_its_score_and_is_taken_back(request, place):
    page = request.getfixturevalue(place)
    page.get_by_role("button", name="paint").first.click()
    page.locator("canvas.spine-brush").first.wait_for()
    page.locator(PICTURE).first.scroll_into_view_if_needed()
    status, (x, y) = page.get_by_role("status").first, spot(page, 0.3, 0.6)
    score = re.search(r"slice Dice [\d.]+", status.inner_text()).group()
    unpainted = picture(page)[0]
    page.mouse.move(x, y)
    with another_picture(page):
        page.mouse.down()
        page.mouse.move(x + 40, y + 10, steps=8)
        page.mouse.up()
    status.filter(has_not_text=score).wait_for()
    keep_screenshot(page, f"brush-{place}")
    page.wait_for_timeout(300)
    page.keyboard.press("z")
    status.filter(has_text=score).wait_for()
    page.get_by_role("button", name="look").first.click()
    assert np.array_equal(picture(page)[0], unpainted)


def test_a_view_is_saved_as_a_png_and_fills_the_screen(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").first.click()
    assert re.fullmatch(r".* CT, axial slice \d+ of \d+\.png", download.value.suggested_filename)
    page.get_by_role("button", name="full screen").first.click()
    large = "() => document.querySelector('.spine-picture:is(:fullscreen, .spine-full) canvas')"
    page.wait_for_function(large)
    page.get_by_role("button", name="full screen").first.click()
    page.wait_for_function(f"() => !({large})()")


def test_a_dragged_slider_changes_the_picture(notebook):
    before = slice_number(notebook)
    for _ in range(40):
        handle(notebook, "slice").press("ArrowRight")
    wait_for_alt(notebook, f"slice {before + 40} of")
    grip = handle(notebook, "slice").bounding_box()
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    notebook.mouse.move(x, y)
    notebook.mouse.down()
    notebook.mouse.move(x - grip["width"] / 3, y, steps=6)
    notebook.mouse.up()
    notebook.wait_for_function(
        "limit => document.querySelector('canvas[role=img]').ariaLabel"
        ".match(/slice (\\d+) of/)[1] < limit",
        arg=before + 35,
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
        "before => !document.querySelector('canvas[role=img]').ariaLabel"
        ".includes(`slice ${before} of`)",
        arg=before,
    )
    with another_picture(notebook):  # the worst slice may have no mask, the next with spine has
        notebook.get_by_role("button", name="Next slice with spine").first.click()
    with another_picture(notebook):
        notebook.get_by_role("button", name="none", exact=True).first.click()
    with another_picture(notebook):
        notebook.get_by_role("button", name="spine only", exact=True).first.click()


def output(notebook, name):
    """Return the output of one viewer, scrolled to."""
    cells = notebook.locator(".jp-Notebook .jp-CodeCell")
    cell = cells.nth(1 + list(VIEWERS).index(name)).locator(".jp-OutputArea-output").last
    cell.scroll_into_view_if_needed()
    return cell


@pytest.mark.parametrize(
    ("name", "slider", "moved"),
    [("planes", "I to S", {0}), ("comparison", "slice", {0, 1, 2})],
)
def test_a_slider_moves_the_slices_of_its_plane(notebook, name, slider, moved):
    cell = output(notebook, name)
    canvases = cell.locator(PICTURE)
    before = [canvases.nth(number).get_attribute("aria-label") for number in range(3)]
    handle(cell, slider).focus()
    with another_picture(cell, max(moved)):
        notebook.keyboard.press("ArrowRight")
    for number in moved:
        changed = "([canvas, before]) => canvas.ariaLabel !== before"
        element = canvases.nth(number).element_handle()
        notebook.wait_for_function(changed, arg=[element, before[number]])
    after = [canvases.nth(number).get_attribute("aria-label") for number in range(3)]
    assert {number for number in range(3) if after[number] != before[number]} == moved
    keep_screenshot(notebook, name)


def test_a_click_in_one_plane_moves_the_others(notebook):
    cell = output(notebook, "planes")
    with another_picture(cell, 1), another_picture(cell, 2):
        notebook.mouse.click(*spot(cell, 0.4, 0.6))
    assert "Cursor at" in cell.get_by_role("status").first.inner_text()


def test_a_click_on_the_curve_of_a_comparison_goes_to_the_slice(notebook):
    cell = output(notebook, "comparison")
    with another_picture(cell):
        cell.locator(".spine-chart").click(position={"x": 300, "y": 80})
    with another_picture(cell, 1):
        cell.get_by_label("models").select_option("checkerboard")
    keep_screenshot(notebook, "comparison-checkerboard")


@pytest.mark.parametrize(
    ("name", "slider", "key"),
    [
        ("window", "width HU", "ArrowRight"),
        ("threshold", "threshold", "End"),
        ("augmentation", "strength", "ArrowRight"),
        ("receptive", "dilation", "ArrowRight"),
    ],
)
def test_an_explorer_answers_its_slider(notebook, name, slider, key):
    cell = output(notebook, name)
    last = cell.locator(PICTURE).count() - 1
    alt = cell.locator(PICTURE).last.get_attribute("aria-label")
    with another_picture(cell, last):
        handle(cell, slider).press(key)
    keep_screenshot(notebook, f"explorer-{name}")
    assert cell.locator(PICTURE).last.get_attribute("aria-label") != alt


def test_the_quiz_takes_an_answer_beside_its_button_and_goes_to_the_mistake(notebook):
    cell = output(notebook, "quiz")
    assert "Question 1 of 5" in cell.inner_text()
    with another_picture(cell):
        cell.get_by_label("plane").select_option("coronal")
    cell.get_by_label("two numbers are swapped").check()
    answer = cell.get_by_role("button", name="Answer")
    answer.click()
    verdict = cell.get_by_text("of 1 right.")
    verdict.wait_for()
    assert 0 < verdict.bounding_box()["y"] - answer.bounding_box()["y"] < 100
    keep_screenshot(notebook, "explorer-quiz")
    cell.get_by_role("button", name="Next question").click()
    cell.get_by_text("Question 2 of 5").wait_for()


def test_the_spine_is_seen_in_3d_or_as_a_still(notebook):
    cell = output(notebook, "3d")
    stills = notebook.locator(".jp-CodeCell").last.locator(PICTURE)
    assert stills.count() == 3
    for number in range(3):
        assert stills.nth(number).evaluate("one => one.width") > 50
        assert "Surface of the mask of case phantom" in stills.nth(number).get_attribute(
            "aria-label"
        )
    turned = cell.locator("canvas:not([role=img])")
    if cell.get_by_text("install ipyniivue").count():
        print("3D: ipyniivue is not installed, the still views are shown")
    elif not notebook.evaluate(WEBGL):
        print("3D: this browser has no WebGL, the still views are shown")
    else:
        print("3D: drawn with WebGL")
        turned.first.wait_for()
        assert turned.first.evaluate(DRAWN)
    keep_screenshot(notebook, "view-3d")


def test_nothing_went_wrong_and_nothing_left_the_machine(page, browser):
    assert page.evaluate(WEBGL) is False or page.errors == []
    for kind in ('="application/vnd.jupyter.stderr"', "*=error"):
        assert page.locator(f".jp-OutputArea-output[data-mime-type{kind}]").count() == 0
    assert browser.refused == []
