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
    open_browser,
    open_page,
    picture,
    run_notebook,
    serve_lab,
    slice_number,
    wait_for_alt,
)

from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import CompareViewer, OrthoViewer, SliceViewer, render

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CASE = """
import numpy as np
from spine_lib.datasets import make_phantom
from spine_lib.explore import *

data = make_phantom(0, shape=(96, 96, 64), spacing_mm=4.0)
moved = np.roll(data.labels.array > 0, 2, axis=0)
guess, chance = (data.ct.with_array(array) for array in (moved, moved * np.float32(0.7)))
"""
FIRST = "SliceViewer(data.ct, data.labels, guess, case_id='phantom')"
VIEWERS = {  # and how many pictures each has
    "slices": (FIRST, 1),
    "planes": ("OrthoViewer(data.ct, data.labels, case_id='phantom')", 3),
    "comparison": ("CompareViewer(data.ct, data.labels, guess, data.labels, case_id='it')", 3),
    "window": ("WindowExplorer(data.ct, case_id='phantom')", 1),
    "threshold": ("ThresholdExplorer(data.ct, data.labels, chance, case_id='phantom')", 1),
    "augmentation": ("AugmentationExplorer(data.ct, data.labels, case_id='phantom')", 2),
    "receptive": ("ReceptiveFieldExplorer()", 1),
    "prevalence": ("PrevalenceExplorer()", 0),
    "quiz": ("AnnotationQuiz(data.ct, data.labels, case_id='phantom')", 1),
    "3d": ("view_3d(data.ct, data.labels, case_id='phantom')", 3),
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
LARGE = "() => document.querySelector('.spine-picture:is(:fullscreen, .spine-full) canvas')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Two notebooks: all viewers for JupyterLab, one viewer for Notebook 7."""
    every = (CASE, *(code for code, _ in VIEWERS.values()))
    notebooks = {"lab": every, "notebooks": (CASE, FIRST)}
    with serve_lab(tmp_path_factory.mktemp("lab"), notebooks) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def lab(browser, served):
    """The notebook in JupyterLab, opened and run, with its viewers on the page."""
    page = run_notebook(browser, served["lab"], PICTURES)
    yield page
    page.close()


@pytest.fixture
def notebook(lab):
    """The same, in front: Chromium slows down what is behind."""
    lab.bring_to_front()
    return lab


@pytest.fixture(scope="module")
def classic(browser, served):
    """One viewer in Notebook 7."""
    page = run_notebook(browser, served["notebooks"], 1)
    page.errors.clear()  # of Notebook 7 itself, while it starts
    yield page
    page.close()


@pytest.fixture(scope="module")
def data():
    """What the notebook shows, made in this process too."""
    names = {}
    exec(CASE, names)
    return names["data"], names["guess"], names["chance"]


@pytest.fixture(scope="module")
def saved(browser, data, tmp_path_factory):
    """The same viewer as a saved page."""
    case, guess, _ = data
    viewer = SliceViewer(case.ct, case.labels, guess, case_id="phantom")
    page = open_page(browser, viewer.save_html(tmp_path_factory.mktemp("saved") / "viewer.html"))
    yield page
    page.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Save a viewer as a page and open it; what goes wrong on the page fails the test."""
    pages = []

    def opened(viewer, **options):
        pages.append(open_page(browser, viewer.save_html(tmp_path / "viewer.html", **options)))
        return pages[-1]

    yield opened
    for page in pages:
        assert page.errors == []
        page.close()


@pytest.fixture(params=["notebook", "classic", "saved"])
def page(request):
    """A slice viewer in JupyterLab, in Notebook 7, and as a saved page."""
    shown = request.getfixturevalue(request.param)
    shown.bring_to_front()
    shown.locator(PICTURE).first.scroll_into_view_if_needed()
    return shown


def spot(scope, across, down, number=0):
    """Return where a point of a picture, as shares, lies on the screen."""
    box = scope.locator(f"{PICTURE}:visible").nth(number).bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def wait_for_width(page, test, width):
    """Wait until the first picture's width passes a test against a width."""
    canvas = page.locator(PICTURE).first.element_handle()
    condition = f"([canvas, width]) => canvas.getBoundingClientRect().width {test}"
    page.wait_for_function(condition, arg=[canvas, width])


def output(notebook, name):
    """Return the output of one viewer, scrolled to."""
    cells = notebook.locator(".jp-Notebook .jp-CodeCell")
    cell = cells.nth(1 + list(VIEWERS).index(name)).locator(".jp-OutputArea-output").last
    cell.scroll_into_view_if_needed()
    return cell


def test_the_first_picture_is_the_one_that_the_library_draws(notebook, data):
    pixels, alt = picture(notebook)
    case, guess, _ = data
    volumes = (case.labels, guess, "error")
    index = slice_number(notebook) - 1
    expected = render.render_slice(case.ct, index, "axial", WINDOWS["bone"], *volumes)
    assert np.array_equal(pixels, expected)
    assert "axial" in alt and "errors of the prediction" in alt


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
    for key, reached in (("End", data[0].ct.shape[2]), ("Home", 1)):
        page.keyboard.press(key)
        wait_for_alt(page, f"slice {reached} of")
    handle(page, "slice").fill(str(number - 1))
    wait_for_alt(page, f"slice {number} of")


def test_a_slider_is_moved_by_keys_and_by_hand_and_no_key_reaches_the_notebook(page):
    cells, number = page.locator(".jp-Cell").count(), slice_number(page)
    slider = handle(page, "slice")
    for focused in (page.locator(PICTURE).first, slider):
        focused.focus()
        for key in ("b", "a", "x", "d", "d"):
            page.keyboard.press(key)
    page.keyboard.press("ArrowRight")
    wait_for_alt(page, f"slice {number + 1} of")
    assert page.locator(".jp-Cell").count() == cells
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(box["x"], y, steps=6)
    page.mouse.up()
    wait_for_alt(page, "slice 1 of")
    slider.fill(str(number - 1))
    wait_for_alt(page, f"slice {number} of")


@pytest.mark.parametrize(
    ("page", "way"),
    [("notebook", "Shift"), ("classic", "right"), ("saved", "right"), ("saved", "Shift")],
    indirect=["page"],
)
def test_a_drag_with_shift_or_the_right_button_changes_the_window(page, way):
    x, y = spot(page, 0.5, 0.5)
    page.mouse.move(x, y)
    with another_picture(page):
        if way == "Shift":
            page.keyboard.down("Shift")
        page.mouse.down(button="left" if way == "Shift" else "right")
        page.mouse.move(x + 30, y + 40, steps=2)
        page.mouse.up(button="left" if way == "Shift" else "right")
        page.keyboard.up("Shift")
    window = page.get_by_label("window").first
    chosen = "(select) => select.selectedOptions[0].textContent === 'own'"
    page.wait_for_function(chosen, arg=window.element_handle())
    with another_picture(page):
        window.select_option(index=0)


@pytest.mark.parametrize("page", ["notebook", "saved"], indirect=True)
def test_control_and_wheel_or_two_fingers_zoom_and_one_finger_swipes(page):
    width = page.locator(PICTURE).first.bounding_box()["width"]
    page.mouse.move(*spot(page, 0.3, 0.3))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    wait_for_width(page, "> 2 * width", width)
    page.mouse.dblclick(*spot(page, 0.3, 0.3))
    wait_for_width(page, "< width + 1", width)

    touch = page.context.new_cdp_session(page)
    number, (x, y) = slice_number(page), spot(page, 0.4, 0.4)

    def fingers(kind, *places):
        points = [{"x": a, "y": b, "id": n} for n, (a, b) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (x, y))
    for moved in (16, 40):
        fingers("touchMove", (x + moved, y))
    fingers("touchEnd")
    wait_for_alt(page, f"slice {number + 5} of")
    fingers("touchStart", (x, y), (x + 40, y))
    for moved in (30, 60):
        fingers("touchMove", (x - moved, y), (x + 40 + moved, y))
    fingers("touchEnd")
    wait_for_width(page, "> 2 * width", width)
    page.get_by_role("button", name="whole").first.click()
    wait_for_width(page, "< width + 1", width)


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
    page.bring_to_front()
    page.get_by_role("button", name="paint").first.click()
    page.locator("canvas.spine-brush").first.wait_for()
    page.locator(PICTURE).first.scroll_into_view_if_needed()
    status, (x, y) = page.get_by_role("status").first, spot(page, 0.3, 0.6)
    score = re.search(r"slice Dice [\d.]+", status.inner_text()).group()
    unpainted = picture(page)[0]
    page.mouse.move(x, y)
    with another_picture(page):
        page.mouse.down()
        page.mouse.move(x + 40, y + 10, steps=3)
        page.mouse.up()
    status.filter(has_not_text=score).wait_for()
    page.wait_for_timeout(300)
    page.keyboard.press("z")
    status.filter(has_text=score).wait_for()
    page.get_by_role("button", name="look").first.click()
    assert np.array_equal(picture(page)[0], unpainted)


@pytest.mark.parametrize("page", ["notebook", "saved"], indirect=True)
def test_a_view_is_saved_as_a_png_and_fills_the_screen(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").first.click()
    assert re.fullmatch(r".* CT, axial slice \d+ of \d+\.png", download.value.suggested_filename)
    page.get_by_role("button", name="full screen").first.click()
    page.wait_for_function(LARGE)
    page.get_by_role("button", name="full screen").first.click()
    page.wait_for_function(f"() => !({LARGE})()")


def test_planes_overlays_and_buttons_work_from_the_keyboard(notebook):
    notebook.get_by_label("plane").first.select_option("sagittal")
    wait_for_alt(notebook, "sagittal")
    notebook.get_by_label("overlay").first.select_option("outline")
    wait_for_alt(notebook, "outlined")
    notebook.get_by_label("colours by").first.select_option("vertebra")
    wait_for_alt(notebook, "by vertebra")
    handle(notebook, "slice").press("ArrowRight")  # the slider turned with the plane
    keep_screenshot(notebook, "slice-viewer-sagittal")
    with another_picture(notebook):
        notebook.get_by_role("button", name="Worst slice").press("Enter")
    with another_picture(notebook):  # the worst slice may have no mask, the next with spine has
        notebook.get_by_role("button", name="Next slice with spine").first.click()
    for name in ("none", "spine only"):
        with another_picture(notebook):
            notebook.get_by_role("button", name=name, exact=True).first.click()


@pytest.mark.parametrize(
    ("name", "slider", "key", "moved"),
    [
        ("planes", "I to S", "ArrowRight", {0}),
        ("comparison", "slice", "ArrowRight", {0, 1, 2}),
        ("window", "width HU", "ArrowRight", {0}),
        ("threshold", "threshold", "End", {0}),
        ("augmentation", "strength", "ArrowRight", {1}),
        ("receptive", "dilation", "ArrowRight", {0}),
    ],
)
def test_a_slider_changes_the_pictures_that_it_should(notebook, name, slider, key, moved):
    cell = output(notebook, name)
    canvases = cell.locator(PICTURE)
    before = [canvas.get_attribute("aria-label") for canvas in canvases.all()]
    with another_picture(cell, max(moved)):
        handle(cell, slider).press(key)
    for number in moved:
        changed = "([canvas, before]) => canvas.ariaLabel !== before"
        element = canvases.nth(number).element_handle()
        notebook.wait_for_function(changed, arg=[element, before[number]])
    after = [canvas.get_attribute("aria-label") for canvas in canvases.all()]
    assert {number for number, alt in enumerate(after) if alt != before[number]} == moved
    keep_screenshot(notebook, f"viewer-{name}")


def test_a_click_in_one_plane_moves_the_others(notebook):
    cell = output(notebook, "planes")
    with another_picture(cell, 1), another_picture(cell, 2):
        notebook.mouse.click(*spot(cell, 0.4, 0.6))
    cell.get_by_role("status").filter(has_text="Cursor at").first.wait_for()


def test_a_click_on_a_curve_goes_to_the_slice_or_the_prevalence(notebook):
    cell = output(notebook, "comparison")
    with another_picture(cell):
        cell.locator(".spine-chart").click(position={"x": 300, "y": 80})
    with another_picture(cell, 1):
        cell.get_by_label("models").select_option("checkerboard")
    cell = output(notebook, "prevalence")
    text = cell.get_by_role("status").first.inner_text()
    cell.locator(".spine-chart").click(position={"x": 300, "y": 80})
    cell.get_by_role("status").filter(has_not_text=text).first.wait_for()
    keep_screenshot(notebook, "viewer-prevalence")


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
    keep_screenshot(notebook, "viewer-quiz")
    cell.get_by_role("button", name="Next question").click()
    cell.get_by_text("Question 2 of 5").wait_for()


def test_the_spine_is_seen_in_3d_or_as_a_still(notebook):
    cell = output(notebook, "3d")
    stills = notebook.locator(".jp-CodeCell").last.locator(PICTURE)
    assert stills.count() == 3
    for still in stills.all():
        assert still.evaluate("canvas => canvas.width") > 50
        assert "Surface of the mask of case phantom" in still.get_attribute("aria-label")
    if cell.get_by_text("install ipyniivue").count() or not notebook.evaluate(WEBGL):
        print("3D: without ipyniivue or WebGL the still views are shown")
    else:
        turned = cell.locator("canvas:not([role=img])").first
        turned.wait_for()
        assert turned.evaluate(DRAWN)
    keep_screenshot(notebook, "viewer-3d")


def test_a_saved_page_has_planes_windows_overlay_and_structures(data, opened):
    case, *_ = data
    viewer = SliceViewer(case.ct, case.labels, case_id="saved")
    page, plane, index = opened(viewer), "axial", viewer.slice.value

    def check(window, mask=None, limit=4):
        wait_for_alt(page, f"Window: {window}")
        expected = render.render_slice(case.ct, index, plane, WINDOWS[window], mask)
        assert np.abs(picture(page)[0].astype(int) - expected).mean() < limit

    wait_for_alt(page, f"axial slice {index + 1} of 64")
    page.keyboard.press("ArrowRight")  # the picture has the focus
    index += 1
    wait_for_alt(page, f"axial slice {index + 1} of 64")
    assert f"slice {index + 1} of 64" in page.get_by_role("status").first.inner_text()
    for window in ("soft tissue", "bone"):
        centre, width = WINDOWS[window]
        option = f"{window} ({centre:g} / {width:g} HU)"
        page.get_by_role("combobox", name="window").select_option(label=option)
        check(window, case.labels, 6)
    painted = picture(page)[0].astype(int)
    with another_picture(page):
        page.get_by_role("slider", name="overlay opacity %").fill("40")
    plain = render.render_slice(case.ct, index, "axial", WINDOWS["bone"]).astype(int)
    spine, faded = np.abs(painted - plain).max(axis=2) > 20, picture(page)[0].astype(int)
    ratio = np.abs(faded - plain)[spine].mean() / np.abs(painted - plain)[spine].mean()
    assert 0.3 < ratio < 0.55
    with another_picture(page):
        page.get_by_role("button", name="none", exact=True).click()
    check("bone")
    with another_picture(page):
        page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("checkbox", name="overlay").uncheck()
    wait_for_alt(page, "without overlay")
    check("bone")
    page.get_by_role("combobox", name="plane").select_option("sagittal")
    wait_for_alt(page, "sagittal slice")
    index, plane = viewer.voxel[0], "sagittal"
    check("bone", limit=6)


def test_a_tall_saved_picture_leaves_its_slider_on_the_screen(data, opened):
    tall = Volume(data[0].ct.array, np.diag([1, 1, 3, 1]) @ data[0].ct.affine)
    page = opened(SliceViewer(tall, plane="coronal"))
    wait_for_alt(page, "coronal")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        box = page.get_by_role("slider", name="coronal slice").bounding_box()
        assert box["y"] + box["height"] < 800
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_the_mark_of_a_saved_comparison_follows_the_slice_and_a_click_moves_it(data, opened):
    case, guess, chance = data
    viewer = CompareViewer(case.ct, case.labels, guess, chance, ("one", "two"), case_id="saved")
    page, start, places = opened(viewer), viewer.slice.value, []
    chart = page.locator(".spine-chart:visible")
    for index in range(start, start + 3):
        wait_for_alt(page, f"two: CT of case saved, axial slice {index + 1} of 64")
        score = viewer.counts["two"].dice("axial")[index]
        label = chart.get_attribute("aria-label")
        assert f"slice {index + 1}: one" in label and f"two {score:.3f}" in label
        places.append(chart.locator(".spine-mark").bounding_box()["x"])
        page.keyboard.press("ArrowRight")
    assert places[0] < places[1] < places[2]
    with another_picture(page):
        chart.click(position={"x": 300, "y": 80})
    widths = [one.bounding_box()["width"] for one in page.locator(f"{PICTURE}:visible").all()]
    assert len(widths) == 3 and max(widths) - min(widths) < 2
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 1280  # side by side
    page.get_by_role("combobox", name="plane").select_option("coronal")
    wait_for_alt(page, "two: CT of case saved, coronal slice")
    assert "coronal" in chart.get_attribute("aria-label") and chart.count() == 1


def test_a_click_in_one_saved_plane_moves_the_others(data, opened):
    page = opened(OrthoViewer(data[0].ct, data[0].labels), max_slices=96)
    wait_for_alt(page, "sagittal slice")
    with another_picture(page, 1), another_picture(page, 2):
        page.mouse.click(*spot(page, 0.254, 0.404))
    wait_for_alt(page, f"sagittal slice {96 - int(0.254 * 96)} of 96")
    wait_for_alt(page, f"coronal slice {96 - int(0.404 * 96)} of 96")
    keep_screenshot(page, "saved-planes")


def test_nothing_went_wrong_and_nothing_left_the_machine(page, browser):
    assert page.evaluate(WEBGL) is False or page.errors == []
    for kind in ('="application/vnd.jupyter.stderr"', "*=error"):
        assert page.locator(f".jp-OutputArea-output[data-mime-type{kind}]").count() == 0
    assert browser.refused == []
