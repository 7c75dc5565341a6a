"""A saved page holds all it needs."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from spine_lib import planes, render
from spine_lib.ct import Volume
from spine_lib.errors import SpineError
from spine_lib.explore import CompareViewer, OrthoViewer, SliceViewer
from spine_lib.explore.page import encode_layer
from spine_lib.render import Style


def content(path):
    """Return the page's text and the pictures and texts in it."""
    page = path.read_text(encoding="utf-8")
    raw = re.search(r'<script id="content" type="application/json">(.*?)</script>', page, re.S)
    return page, json.loads(raw.group(1))


def decoded(source):
    kind, data = re.fullmatch(r"data:image/(\w+);base64,(.+)", source).groups()
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGBA")).astype(int)


def test_a_page_has_every_slice_with_its_overlay_and_its_words(small_phantom, tmp_path):
    viewer = SliceViewer(small_phantom.ct, small_phantom.labels, case_id="phantom")
    path = viewer.save_html(tmp_path / "viewer.html", quality=95)
    page, held = content(path)
    assert len(held["bases"]) == 1 and len(held["bases"][0]) == 64
    panel, stack = held["panels"][0], held["stacks"][0]
    assert stack["start"] == viewer.slice.value
    for index in (0, 30, 63):
        ct, labels, window = small_phantom.ct, small_phantom.labels, (400, 1800)
        plain = render.render_slice(ct, index, "axial", window)
        over = render.render_slice(ct, index, "axial", window, labels, style=Style())
        base = decoded(held["bases"][0][index])[..., :3]
        assert np.abs(base - plain).mean() < 6
        assert f"slice {index + 1} of 64" in panel["alt"][index]
        assert f"slice {index + 1} of 64" in stack["texts"][index]
        changed = (plain != over).any(axis=2)
        assert bool(panel["over"][index]) == bool(changed.any())
        if changed.any():
            layer = decoded(panel["over"][index])
            assert np.array_equal(layer[..., 3] > 127, changed)
            assert np.abs(layer[changed][:, :3] - over[changed]).mean() < 25


def test_a_page_reaches_for_nothing_outside_of_it(small_phantom, tmp_path):
    viewer = SliceViewer(small_phantom.ct, small_phantom.labels)
    page, _ = content(viewer.save_html(tmp_path / "viewer.html", max_slices=3))
    assert "default-src 'none'" in page
    assert not re.findall(r"https?://|<link|@import|fetch\(|XMLHttpRequest", page)
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
    path = viewer.save_html(tmp_path / "viewer.html", max_slices=20)
    assert path.stat().st_size * 100 / 20 < 6e6


def test_of_many_slices_every_second_or_third_is_kept(small_phantom, tmp_path):
    viewer = SliceViewer(small_phantom.ct, index=40)
    _, held = content(viewer.save_html(tmp_path / "viewer.html", max_slices=30))
    assert len(held["bases"][0]) == 22 and held["stacks"][0]["start"] == 13
    assert "slice 40 of 64" in held["stacks"][0]["texts"][13]
    with pytest.raises(SpineError, match="shows nothing"):
        viewer.save_html(tmp_path / "other.html", max_slices=0)
    with pytest.raises(SpineError, match="quality"):
        viewer.save_html(tmp_path / "other.html", quality=0)
    assert [one.name for one in tmp_path.iterdir()] == ["viewer.html"]


def test_pictures_of_one_slider_share_their_ct(small_phantom, tmp_path):
    guess = small_phantom.ct.with_array(np.roll(small_phantom.labels.array > 0, 1, 0))
    viewer = CompareViewer(small_phantom.ct, small_phantom.labels, guess, guess, ("one", "two"))
    _, held = content(viewer.save_html(tmp_path / "compare.html", max_slices=4))
    assert len(held["bases"]) == 1 and [one["base"] for one in held["panels"]] == [0, 0, 0]
    assert [one["title"] for one in held["panels"]] == ["truth", "one", "two"]


def test_three_planes_have_three_sliders(small_phantom, tmp_path):
    viewer = OrthoViewer(small_phantom.ct, small_phantom.labels)
    _, held = content(viewer.save_html(tmp_path / "ortho.html", max_slices=5))
    assert [one["name"] for one in held["stacks"]] == list(planes.PLANES)
    assert [(one["stack"], one["base"]) for one in held["panels"]] == [(0, 0), (1, 1), (2, 2)]


def test_a_name_cannot_break_out_of_the_page(small_phantom, tmp_path):
    bad = '</script><b>"&'
    viewer = SliceViewer(small_phantom.ct, small_phantom.labels, case_id=bad)
    assert bad not in viewer.picture.value
    page, held = content(viewer.save_html(tmp_path / "viewer.html", max_slices=2))
    assert "<b>" not in page and bad in held["panels"][0]["alt"][0]


def test_a_layer_that_changes_nothing_is_left_out():
    grey = np.full((8, 8, 3), 90, np.uint8)
    assert encode_layer(grey, grey, 70) == ""
    changed = grey.copy()
    changed[2, 3] = (255, 0, 0)
    alpha = decoded(encode_layer(grey, changed, 90))[..., 3]
    assert alpha[2, 3] == 255 and alpha.sum() == 255
