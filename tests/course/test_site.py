"""The site: built without a warning, whole without a network, read and moved in a real browser."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from browser_lab import keep_screenshot, open_browser

from spine_lib import SpineError
from spine_lib.book import build, films, lessons, pages, reference
from spine_lib.book.docstrings import to_rst
from spine_lib.book.viewers import can_move, save_viewer, viewer_of

LESSONS = ("00", "03")
EXTERNAL = re.compile(r"(https?:)?//", re.I)


# --- what is gathered -----------------------------------------------------------------------------


def notebook(*cells):
    """An executed notebook of ("markdown", text) or (code, outputs)."""
    made = []
    for kind, content in cells:
        if kind == "markdown":
            made.append(nbformat.v4.new_markdown_cell(content))
        else:
            made.append(nbformat.v4.new_code_cell(kind, outputs=content))
    return nbformat.v4.new_notebook(cells=made)


def picture(alt=None):
    metadata = {"image/png": {"alt": alt}} if alt else {}
    return nbformat.v4.new_output("display_data", {"image/png": "AAAA"}, metadata=metadata)


def test_a_figure_gets_the_alt_text_of_the_line_that_describes_it():
    page = lessons.lesson_page(
        notebook(
            ("plot()", [picture()]),
            ("markdown", "*Figure: two bars,\nthe left one higher.*\n\nRead them."),
        ),
        {},
        lambda address: address,
    )
    assert page.cells[0].metadata["mystnb"]["image"]["alt"] == "two bars, the left one higher."


def test_a_description_is_not_taken_from_beyond_the_next_picture():
    figures = notebook(
        ("one()", [picture()]), ("two()", [picture()]), ("markdown", "*Figure: the second.*")
    )
    assert lessons.figure_line(figures, 0) == ""
    assert lessons.figure_line(figures, 1) == "the second."


def test_a_viewer_gets_its_own_alt_text_and_a_button_below_it():
    page = lessons.lesson_page(
        notebook(("viewer", [picture("a slice")]), ("markdown", "*Figure: a viewer.*")),
        {0: "../viewers/00-1.html"},
        lambda address: address,
    )
    assert page.cells[0].metadata["mystnb"]["image"]["alt"] == "a slice"
    assert 'href="../viewers/00-1.html"' in page.cells[1].source
    assert page.cells[2].source.endswith("*Figure: a viewer.*")


def test_a_control_that_needs_python_is_told_in_a_sentence():
    plain = nbformat.v4.new_output(
        "execute_result", {"text/plain": "VBox(children=(IntSlider(value=0),))"}, execution_count=1
    )
    figure = nbformat.v4.new_output("display_data", {"text/plain": "spacing_mm=(1, 1, 2)"})
    page = lessons.lesson_page(
        notebook(("slider", [plain]), ("text", [figure])), {}, lambda address: address
    )
    assert lessons.WIDGET_NOTE in page.cells[0].outputs[0].data["text/markdown"]
    assert page.cells[1].outputs[0].data == figure.data


def test_links_lead_to_where_the_files_are_on_the_site():
    link = pages.linker(build.ROOT, "notebooks", {"spine_lib.ct.volume", "01_ct_loading"})
    assert link("01_ct_loading.ipynb") == "/lessons/01_ct_loading.ipynb"
    assert link("02_annotation_inspection.ipynb") is None  # not built this time
    assert link("../README.md#data-and-licences") == "/project/readme.md#data-and-licences"
    assert link("../spine_lib/ct/volume.py") == "/reference/modules/spine_lib.ct.volume.rst"
    assert link("../LICENSE") == "/project/files/LICENSE"
    text = "[a](../tests/conftest.py), [b](https://example.org/b), [c](gone.md), `spine_lib/ct/volume.py`"
    assert lessons.relink(text, link, "../") == (
        "a, [b](https://example.org/b), c, [`spine_lib/ct/volume.py`](/reference/modules/spine_lib.ct.volume.rst)"
    )


def test_a_viewer_is_made_from_its_cell_and_what_that_needs_alone():
    lesson = notebook(
        ("from spine_lib.datasets import make_phantom\nsize = 1", []),
        ("size = 40\nnever = 1 / 0\nlong = {}", []),
        ("for axis in range(3):\n    long[axis] = size\n    case = axis", []),
        ("def shape():\n    return tuple(long.values())", []),
        ("case = make_phantom(0, shape=shape(), spacing_mm=6.0)", []),
        ("from spine_lib.explore import SliceViewer\nSliceViewer(case.ct, case.labels)", []),
        ("SliceViewer(other.ct)", []),
    )
    assert viewer_of(lesson, 5).scene.ct.shape == (40, 40, 40)
    with pytest.raises(NameError, match="other"):
        viewer_of(lesson, 6)
    with pytest.raises(LookupError, match="no viewer"):
        viewer_of(lesson, 0)


def test_a_film_holds_what_the_viewer_shows_at_each_position(small_phantom, tmp_path):
    from spine_lib.explore import AugmentationExplorer

    viewer = AugmentationExplorer(small_phantom.ct, small_phantom.labels, case_id="small")
    path = save_viewer(viewer, tmp_path / "film.html")
    content = film_content(path)
    step, strength = content["axes"]
    assert step["values"][0] == "rotation" and not step["slider"]
    assert strength["values"][strength["start"]] == "0.5"
    assert len(content["frames"]) == len(step["values"]) * len(strength["values"])
    viewer.step.value, viewer.strength.value = "blur", 1.0
    place = step["values"].index("blur") * len(strength["values"]) + len(strength["values"]) - 1
    shown = [content["parts"][part] for part in content["frames"][place]]
    assert shown[2] == viewer.text.value and "blur of strength 1.00" in shown[2]
    assert re.search('alt="([^"]+)"', shown[1])[1] == viewer.after.alt


def test_a_viewer_with_nothing_to_move_gets_no_page(small_phantom):
    from spine_lib.explore import SliceViewer, WindowExplorer, view_3d

    assert not can_move(view_3d(small_phantom.ct, small_phantom.labels))
    assert can_move(SliceViewer(small_phantom.ct)) and can_move(WindowExplorer(small_phantom.ct))


def film_content(path):
    text = path.read_text(encoding="utf-8")
    match = re.search(r'type="application/json">(.*?)</script>', text, re.S)
    return json.loads(match[1])


def test_a_film_of_any_viewer_takes_its_first_two_controls(small_phantom):
    from spine_lib.explore import ReceptiveFieldExplorer, WindowExplorer

    window = films.axes_of(WindowExplorer(small_phantom.ct))
    assert [axis.name for axis in window] == ["centre HU", "width HU"]

    class Other(ReceptiveFieldExplorer):
        """A viewer that the films know nothing of."""

    other = films.axes_of(Other())
    assert [axis.name for axis in other] == ["dilation is", "layers"]
    frames = np.prod([len(axis.values) for axis in other])
    assert 10 <= frames <= films.FRAMES


def test_a_quiz_on_a_page_hides_its_answers_until_they_are_asked_for(small_phantom, tmp_path):
    from spine_lib.explore import AnnotationQuiz

    quiz = AnnotationQuiz(small_phantom.ct, small_phantom.labels, rounds=2, seed=1)
    content = film_content(save_viewer(quiz, tmp_path / "quiz.html"))
    assert [axis["name"] for axis in content["axes"]] == ["question", "answer", "sagittal slice"]
    slices = len(content["axes"][2]["values"])
    for question in range(2):
        quiz.round = question - 1
        quiz._ask()
        hidden, told = (
            "".join(content["parts"][part] for part in content["frames"][place])
            for place in (2 * question * slices, (2 * question + 1) * slices)
        )
        assert quiz.question.told not in hidden and quiz.question.told in told
        assert f"Question {question + 1} of 2" in hidden


def test_markdown_of_docstrings_becomes_what_sphinx_reads():
    lines = ["Say *what*, of [slice, *shape].", "", "| a | b |", "|---|---|", "| 1 | `x` |", ""]
    new = to_rst([*lines, "```", "in --> out", "```"])
    assert new[0] == r"Say *what*, of [slice, \*shape]."
    assert [".. list-table::", "   :header-rows: 1"] == new[3:5]
    assert "   * - 1" in new and "     - `x`" in new
    assert new[-4:] == [".. code-block:: text", "", "   in --> out", ""]


def test_the_reference_lists_every_public_module_once_and_none_that_is_gone():
    text = (build.ROOT / "docs" / build.REFERENCE).read_text(encoding="utf-8")
    modules = reference.public_modules(build.ROOT)
    named = reference.named_modules(reference.complete(text, modules))
    assert len(named) == len(set(named)) and set(modules) <= set(named)
    for name in named:
        path = build.ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name


def test_a_new_module_comes_into_the_room_that_its_docstring_names():
    page = (
        "# All\n\n## Lessons 4 and 5: nets\n\n   spine_lib.a\n\n## Beside all\n\n   spine_lib.b\n"
    )
    new = reference.complete(page, {"spine_lib.c": "Lesson 5: c.", "spine_lib.d": "Say d."})
    assert new.index("spine_lib.a") < new.index("spine_lib.c") < new.index("Beside all")
    assert new.endswith("   spine_lib.b\n   spine_lib.d\n")


def test_what_sphinx_complains_of_stops_the_build(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "gather", lambda *rest: [])
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "conf.py").write_text("", encoding="utf-8")
    (tmp_path / "source" / "index.rst").write_text("Long title\n====\n", encoding="utf-8")
    with pytest.raises(SpineError, match="correct what they name"):
        build.build_site(out=tmp_path, say=lambda _: None)


# --- what is built --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(sample_root, tmp_path_factory) -> Path:
    """Two lessons and all else, built as `spine site` does it."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "spine_lib", "site", *LESSONS, "--out", str(out)]
    done = subprocess.run(command, cwd=build.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr and "no sliders" not in done.stdout, done.stdout
    return out / "html"


class Page(HTMLParser):
    """What a page links to, loads and names."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.names, self.images = [], [], set(), []
        self.path = path
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names |= {found.get("id"), found.get("name") if tag == "a" else None}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found)
        if tag in ("img", "script", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(found["href"])


@pytest.fixture(scope="module")
def all_pages(site) -> dict[Path, Page]:
    # What the theme keeps in _static are files of its own, one of them a template.
    found = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    return {path.resolve(): Page(path) for path in found}


slow = pytest.mark.slow


@slow
def test_every_lesson_and_room_has_its_page(site):
    for name in ("00_start_here", "03_slices_and_augmentation"):
        assert (site / "lessons" / f"{name}.html").is_file()
    for name in reference.public_modules(build.ROOT):
        text = (site / "reference" / "modules" / f"{name}.html").read_text(encoding="utf-8")
        assert f'id="module-{name}"' in text
    text = (site / "reference" / "modules" / "spine_lib.metrics.overlap.html").read_text(
        encoding="utf-8"
    )
    assert (
        "Parameters" in text and "Returns" in text and "spine_lib.metrics.overlap.Confusion" in text
    )
    first = (site / "index.html").read_text(encoding="utf-8")
    assert "10.33889/IJMEMS.2025.10.6.099" in first and "Quick start" in first
    assert not [path for path in site.rglob("*.html") if "course/solutions" in path.as_posix()]


@slow
def test_every_link_inside_the_site_leads_somewhere(all_pages):
    broken = []
    for path, page in all_pages.items():
        for address in page.links:
            if re.match(r"[a-z]+:", address) or address == "#":
                continue
            file, _, place = unquote(address).partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.exists():
                broken.append(f"{path.name}: {address}")
            elif place and target in all_pages and place not in all_pages[target].names:
                broken.append(f"{path.name}: {address} (no such place)")
    assert broken == []


@slow
def test_every_picture_has_an_alt_text_that_says_something(site, all_pages):
    seen = 0
    for path, page in all_pages.items():
        if "viewers" in path.parts:
            continue  # their pictures are drawn by their script
        for image in page.images:
            alt = image.get("alt") or ""
            assert len(alt) > 15 and not alt.endswith(".png"), f"{path.name}: {image}"
            seen += 1
    assert seen > 20


@slow
def test_no_page_asks_for_anything_outside_of_the_site(site, all_pages):
    for path, page in all_pages.items():
        for address in page.loads:
            assert not EXTERNAL.match(address), f"{path.name} loads {address}"
            if not address.startswith(("data:", "#")):
                assert (path.parent / address.partition("?")[0]).exists(), f"{path.name}: {address}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"]?http", text), style


@slow
def test_a_lesson_shows_no_broken_widget_and_marks_what_is_to_be_written(site):
    text = (site / "lessons" / "00_start_here.html").read_text(encoding="utf-8")
    assert "VBox(" not in text and "widget-view" not in text
    assert lessons.WIDGET_NOTE.split("`")[0].strip() in text
    assert text.count("tag_exercise") == 5
    assert text.count("sliders-link") == 1 and "not yet" in text


# --- what a reader sees ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as context:
        context.asked = []
        context.on("request", lambda request: context.asked.append(request.url))
        yield context


@pytest.fixture
def page(browser):
    """A tab; what goes wrong in it, or is asked for outside of the disk, fails the test."""
    opened, errors = browser.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda one: errors.append(one.text) if one.type == "error" else None)
    yield opened
    opened.close()
    outside = [url for url in browser.asked if not url.startswith(("file:", "data:", "about:"))]
    assert errors == [] and outside == [] and browser.refused == []


def open_page(page, site, path, query=""):
    page.goto((site / path).as_uri() + query)


@pytest.mark.browser
@slow
def test_the_sliders_of_an_embedded_viewer_react(site, page):
    open_page(page, site, "lessons/00_start_here.html")
    still = page.locator(".cell_output img[alt*='axial slice 71']")
    assert still.is_visible()
    page.get_by_role("button", name="Move the sliders here").click()
    frame = page.frame_locator("iframe.sliders-frame")
    frame.locator("canvas[aria-label*='axial slice 71 of 112']").wait_for()
    assert not still.is_visible()
    slider = frame.get_by_role("slider", name="axial slice")
    slider.focus()
    page.keyboard.press("ArrowRight")
    frame.locator("canvas[aria-label*='axial slice 73 of 112']").wait_for()  # every second is kept
    frame.get_by_role("combobox", name="plane").select_option("coronal")
    frame.locator("canvas[aria-label*='coronal slice']:visible").wait_for()
    keep_screenshot(page, "site-viewer")
    inside = frame.locator("html").evaluate("one => one.getBoundingClientRect().height")
    page.wait_for_function(
        "high => Math.abs(document.querySelector('iframe').clientHeight - high) < 8", arg=inside
    )
    page.get_by_role("button", name="Back to the still picture").click()
    assert still.is_visible() and page.locator("iframe").count() == 0


@pytest.mark.browser
@slow
def test_the_film_of_an_explorer_reacts(site, page):
    open_page(page, site, "lessons/03_slices_and_augmentation.html")
    page.get_by_role("button", name="Move the sliders here").click()
    frame = page.frame_locator("iframe.sliders-frame")
    frame.get_by_text("after rotation of strength 0.50").wait_for()
    before = frame.locator("img").nth(1).get_attribute("src")
    frame.get_by_role("slider", name="strength").press("ArrowRight")
    frame.get_by_text("after rotation of strength 0.75").wait_for()
    assert frame.locator("img").nth(1).get_attribute("src") != before
    frame.get_by_role("combobox", name="step").select_option("noise")
    frame.locator("img[alt*='noise of strength 0.75']").wait_for()
    keep_screenshot(page, "site-film")


@pytest.mark.browser
@slow
def test_the_search_finds_a_function_and_a_lesson(site, page):
    open_page(page, site, "search.html", "?q=window")
    results = page.locator("#search-results")
    results.get_by_text("apply_window").first.wait_for()
    page.goto((site / "search.html").as_uri() + "?q=scoliosis")
    page.locator("#search-results").get_by_text("Start here").first.wait_for()


@pytest.mark.browser
@slow
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(site, page, width):
    page.set_viewport_size({"width": width, "height": 844})
    for path in ("index.html", "explore.html", "lessons/00_start_here.html", "project/readme.html"):
        open_page(page, site, path)
        wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, path
    keep_screenshot(page, f"site-{width}")
