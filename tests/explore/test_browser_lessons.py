"""The explorers of the lessons and the 3D view in JupyterLab: each shows, and each answers."""

import pytest
from browser_lab import PICTURE, handle, keep_screenshot, open_browser, run_notebook, serve_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CASE = """
import numpy as np
from spine_lib.datasets import make_phantom
from spine_lib.explore import *

data = make_phantom(0, shape=(96, 96, 64), spacing_mm=4.0)
chance = data.ct.with_array(np.roll(data.labels.array > 0, 1, axis=0) * np.float32(0.7))
"""
EXPLORERS = {
    "window": ("WindowExplorer(data.ct, case_id='phantom')", 1),
    "threshold": ("ThresholdExplorer(data.ct, data.labels, chance, case_id='phantom')", 1),
    "augmentation": ("AugmentationExplorer(data.ct, data.labels, case_id='phantom')", 2),
    "receptive": ("ReceptiveFieldExplorer()", 1),
    "quiz": ("AnnotationQuiz(data.ct, data.labels, case_id='phantom')", 1),
    "3d": ("view_3d(data.ct, data.labels, case_id='phantom')", 3),
}
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
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="module")
def notebook(browser, tmp_path_factory):
    cells = (CASE, *(code for code, _ in EXPLORERS.values()))
    with serve_lab(tmp_path_factory.mktemp("lab"), cells) as address:
        pictures = sum(count for _, count in EXPLORERS.values())
        page = run_notebook(browser, address, pictures)
        yield page
        page.close()


def output(notebook, name):
    """Return the output of one explorer, scrolled to, and its last picture."""
    cells = notebook.locator(".jp-Notebook .jp-CodeCell")
    cell = cells.nth(1 + list(EXPLORERS).index(name))
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
    assert notebook.locator('[data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
    assert notebook.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
    assert notebook.locator(PICTURE).count() == sum(count for _, count in EXPLORERS.values())
    assert browser.refused == []
