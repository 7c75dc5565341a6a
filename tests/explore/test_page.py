"""A saved page holds all it needs."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from spine_lib import SpineError
from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import CompareViewer, SliceViewer, render
from spine_lib.explore.overlays import covers
from spine_lib.explore.page import level_hu, overlay_uri, page_pixel_mm, slice_levels
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene


def content(path):
    """Return the page's text and the pictures and texts in it."""
    page = path.read_text(encoding="utf-8")
    raw = re.search(r'<script id="content" type="application/json">(.*?)</script>', page, re.S)
    return page, json.loads(raw.group(1))


def decoded(source):
    kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", source).groups()
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGBA")).astype(int)


def windowed(levels, window):
    """Do what the page's script does."""
    centre, width = window
    grey = 255 * (level_hu() - (centre - width / 2)) / width
    return np.clip(grey, 0, 255)[levels]


def laid_over(grey, coded, colours):
    """Do what the page's script does with areas (red) and kinds of pixel (green)."""
    rgba = np.asarray(colours)[5 * coded[..., 0] + coded[..., 1]]
    return grey[..., None] * (1 - rgba[..., 3:]) + rgba[..., :3] * rgba[..., 3:]


@pytest.fixture(scope="module")
def guess(small_phantom):
    return small_phantom.ct.with_array(np.roll(small_phantom.labels.array > 0, 1, 0))


@pytest.mark.parametrize("window", WINDOWS)
def test_levels_show_every_window_as_the_library_does(small_phantom, window):
    levels = slice_levels(small_phantom.ct, 30, "axial", None)
    exact = render.render_slice(small_phantom.ct, 30, "axial", WINDOWS[window])[..., 0]
    apart = np.abs(windowed(levels, WINDOWS[window]) - exact)
    # Half the widest step of levels between -1024 and 1300 HU, in greys of this window.
    assert apart[exact < 255].max() <= 9 * 255 / WINDOWS[window].width + 1
    assert apart.mean() < 2


@pytest.mark.parametrize(
    "style",
    [Style(), Style("outline", "vertebra"), Style("error", opacity=0.7), Style("fill", "region")],
)
def test_an_overlay_laid_over_the_ct_is_what_the_library_draws(small_phantom, guess, style):
    scene = Scene(small_phantom.ct, small_phantom.labels, guess, style=style)
    for plane in planes.PLANES:
        volumes = small_phantom.labels, guess, style
        overlay = render.slice_overlay(small_phantom.ct, 32, plane, *volumes)
        colours = covers(overlay.swatches, overlay.opacity).reshape(-1, 4)
        grey = render.render_slice(small_phantom.ct, 32, plane, WINDOWS["bone"])[..., 0]
        expected = scene.draw(32, plane, WINDOWS["bone"])
        drawn = laid_over(grey, decoded(overlay_uri(overlay)), colours)
        assert np.abs(drawn - expected).max() <= 1 and not np.array_equal(expected[..., 0], grey)


def test_a_page_has_every_slice_with_its_overlay_and_its_words(small_phantom, tmp_path):
    viewer = SliceViewer(small_phantom.ct, small_phantom.labels, case_id="phantom")
    _, held = content(viewer.save_html(tmp_path / "viewer.html"))
    assert [one["plane"] for one in held["stacks"]] == list(planes.PLANES)
    assert held["choose"] and held["stacks"][0]["start"] == viewer.slice.value
    for number, plane in enumerate(planes.PLANES):
        stack = held["stacks"][number]
        (panel,) = stack["panels"]
        assert len(stack["slices"]) == len(panel["over"]) == 64
        for index in (0, 30, 63):
            labels = planes.cut_slice(small_phantom.labels, index, plane)
            assert bool(panel["over"][index]) == bool(labels.any())
            texts = (panel["alt"], panel["plain"], stack["texts"], panel["titles"])
            for text in (texts_of[index] for texts_of in texts):
                assert f"{plane} slice {index + 1} of 64" in text
            assert "painted by spine" in panel["alt"][index]
            assert "without overlay" in panel["plain"][index]


def test_a_page_begins_with_the_plane_window_and_overlay_that_are_shown(small_phantom, tmp_path):
    viewer = SliceViewer(small_phantom.ct, small_phantom.labels, plane="sagittal", window="lung")
    viewer.go_to((20, 30, 40))
    _, held = content(viewer.save_html(tmp_path / "one.html"))
    assert [one["plane"] for one in held["stacks"]] == ["sagittal", "axial", "coronal"]
    assert [one["start"] for one in held["stacks"]] == [20, 40, 30]
    assert held["windows"][0] == ["lung", *WINDOWS["lung"]]
    assert {name for name, *_ in held["windows"]} == set(WINDOWS)
    viewer.window.width.value = 777
    viewer.overlay.kind.value = "none"
    _, held = content(viewer.save_html(tmp_path / "two.html"))
    assert len(held["stacks"]) == 3 and held["choose"]
    assert held["windows"][0][::2] == ["as saved", 777]
    assert not any(held["stacks"][0]["panels"][0]["over"])


def test_a_page_reaches_for_nothing_outside_of_it(small_phantom, tmp_path):
    viewer = SliceViewer(small_phantom.ct, small_phantom.labels)
    page, _ = content(viewer.save_html(tmp_path / "viewer.html", max_slices=3))
    assert "default-src 'none'" in page
    outside = page
    assert not re.findall(r"https?://|<link|@import|fetch\(|XMLHttpRequest", outside)
    assert not re.findall(r'src="(?!data:)', page)


def test_a_page_of_a_hundred_large_slices_takes_a_few_megabytes(tmp_path):
    random = np.random.default_rng(0)
    x, y = np.ogrid[:512, :512]
    body = np.where((x - 256) ** 2 / 1.6 + (y - 256) ** 2 < 30000, 40, -1000)
    bone = (x - 256) ** 2 + (y - 150) ** 2 < 1200
    hu = np.where(bone, 400, body)[:, :, None] + random.normal(0, 15, (512, 512, 4))
    ct = Volume(np.asfortranarray(np.repeat(hu, 25, 2)[:, :, :100].astype(np.int16)), np.eye(4))
    labels = np.zeros(ct.shape, np.uint8)
    labels[bone] = 20
    viewer = SliceViewer(ct, ct.with_array(labels), window="soft tissue")
    path = viewer.save_html(tmp_path / "viewer.html", max_slices=10)
    assert path.stat().st_size * 100 / 10 < 6e6


def test_no_picture_of_a_page_is_finer_than_512_pixels():
    ct = Volume(np.zeros((900, 700, 2), np.int16), np.diag([0.3, 0.3, 2, 1]))
    pixel_mm = page_pixel_mm(ct, "axial")
    assert max(planes.picture_shape(ct, "axial", pixel_mm)) in (511, 512, 513)
    levels = slice_levels(ct, 0, "axial", pixel_mm)
    assert levels.shape == planes.picture_shape(ct, "axial", pixel_mm)
    assert page_pixel_mm(Volume(np.zeros((90, 70, 2), np.int16), np.eye(4)), "axial") == 1


def test_of_many_slices_every_second_or_third_is_kept(small_phantom, tmp_path):
    viewer = SliceViewer(small_phantom.ct, index=40)
    _, held = content(viewer.save_html(tmp_path / "viewer.html", max_slices=30))
    assert len(held["stacks"][0]["slices"]) == 22 and held["stacks"][0]["start"] == 13
    assert "slice 40 of 64" in held["stacks"][0]["texts"][13]
    with pytest.raises(SpineError, match="shows nothing"):
        viewer.save_html(tmp_path / "other.html", max_slices=0)
    assert [one.name for one in tmp_path.iterdir()] == ["viewer.html"]


def test_a_comparison_has_three_pictures_and_a_marked_curve_on_each_slider(
    small_phantom, guess, tmp_path
):
    ct = small_phantom.ct
    chances = [ct.with_array(guess.array * np.float32(one)) for one in (0.8, 0.6)]
    viewer = CompareViewer(ct, small_phantom.labels, *chances, ("one", "two"))
    _, held = content(viewer.save_html(tmp_path / "compare.html", max_slices=8))
    for stack in held["stacks"]:
        assert [one["titles"][0] for one in stack["panels"]] == ["truth", "one", "two"]
        assert stack["panels"][1]["alt"][3].startswith("one: CT of")
    for plane, stack in zip(planes.PLANES, held["stacks"]):
        assert (
            f"Dice of each {plane} slice" in stack["chart"]["alt"]
            and "<path" in stack["chart"]["svg"]
        )
        for at, index in enumerate(range(0, 64, 8)):
            score = viewer.counts["one"].dice(plane)[index]
            said = "undefined" if np.isnan(score) else f"{score:.3f}"
            assert f"marked slice {index + 1}: one {said}" in stack["chart_alts"][at]


def test_a_name_cannot_break_out_of_the_page(small_phantom, tmp_path):
    bad = '</script><b>"&'
    viewer = SliceViewer(small_phantom.ct, small_phantom.labels, case_id=bad)
    page, held = content(viewer.save_html(tmp_path / "viewer.html", max_slices=2))
    assert "<b>" not in page and bad in held["stacks"][0]["panels"][0]["alt"][0]
