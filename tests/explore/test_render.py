"""A drawn slice is the right way up, in proportion, and tells areas apart without colour."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from spine_lib import SpineError
from spine_lib.annotations import CANONICAL, REGIONS, to_regions
from spine_lib.ct.geometry import PLANES
from spine_lib.ct.volume import WINDOWS, Volume, apply_window
from spine_lib.explore import render
from spine_lib.explore.overlays import (
    OKABE_ITO,
    UNKNOWN_SWATCH,
    compare_masks,
    label_swatches,
    outline,
)
from spine_lib.explore.render import Style, render_slice

WINDOW = (0, 2000)
SHAPE = (8, 10, 6)


def volume(array, spacing_mm=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin
    return Volume(np.asarray(array), affine)


def marked(voxel, shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0)):
    """A dark volume with one bright voxel."""
    array = np.full(shape, -1000, np.int16)
    array[voxel] = 1000
    return volume(array, spacing_mm)


def _colours(rgb):
    return {tuple(map(int, colour)) for colour in np.unique(rgb.reshape(-1, 3), axis=0)}


def brightest(rgb):
    return np.unravel_index(rgb[..., 0].argmax(), rgb.shape[:2])


@pytest.mark.parametrize(
    ("plane", "voxel", "index", "corner"),
    [
        # The most right, anterior, superior voxel of RAS+ has the highest indices.
        ("axial", (7, 9, 2), 2, (0, 0)),
        ("axial", (0, 0, 2), 2, (9, 7)),
        ("coronal", (7, 4, 5), 4, (0, 0)),
        ("coronal", (0, 4, 5), 4, (0, 7)),
        ("sagittal", (3, 9, 5), 3, (0, 0)),
        ("sagittal", (3, 0, 5), 3, (0, 9)),
    ],
)
def test_right_anterior_and_superior_lie_where_a_radiologist_looks_for_them(
    plane, voxel, index, corner
):
    assert brightest(render_slice(marked(voxel), index, plane, WINDOW)) == corner


@given(
    st.sampled_from(PLANES),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.floats(0.4, 6.0)] * 3),
    st.floats(0.3, 8.0),
)
def test_every_spacing_and_pixel_size_keeps_the_extent_in_mm(plane, shape, spacing_mm, pixel_mm):
    one = volume(np.zeros(shape, np.int16), spacing_mm)
    rgb = render_slice(one, 0, plane, WINDOW, one, style=Style(pixel_mm=pixel_mm))
    for pixels, axis in zip(rgb.shape[:2], render.plane_axes(plane)[1:]):
        assert abs(pixels * pixel_mm - shape[axis] * spacing_mm[axis]) <= pixel_mm / 2 * 1.01 or (
            pixels == 1
        )


def test_images_are_interpolated_and_masks_are_not():
    array = np.zeros((2, 1, 1), np.int16)
    array[1] = 1000
    ramp = render_slice(volume(array), 0, "axial", (500, 1000), style=Style(pixel_mm=0.1))
    assert len(np.unique(ramp)) > 5
    assert np.all(np.diff(ramp[0, :, 0].astype(int)) <= 0)
    labels = volume(np.array([1, 5], np.uint8).reshape(2, 1, 1))
    flat = volume(np.zeros((2, 1, 1), np.int16))
    style = Style("fill", "vertebra", opacity=1, outline_px=0, pixel_mm=0.1)
    drawn = _colours(render_slice(flat, 0, "axial", WINDOW, labels, style=style))
    assert drawn == {label_swatches("vertebra")[label - 1].rgb for label in (1, 5)}


@pytest.mark.parametrize("name", list(WINDOWS))
def test_grey_values_are_those_of_the_window(name):
    hu = np.arange(-2048, 3072, dtype=np.int16).reshape(64, 80, 1)
    grey = render_slice(volume(hu), 0, "axial", WINDOWS[name])[..., 0]
    expected = 255 * apply_window(hu[:, :, 0], WINDOWS[name]).T[::-1, ::-1]
    assert np.abs(grey - expected).max() <= 0.51


def test_errors_are_true_and_false_positives_and_false_negatives_and_differ_in_all():
    assert len({swatch.rgb for swatch in render.ERROR_SWATCHES}) == 4
    assert len({swatch.hatch for swatch in render.ERROR_SWATCHES}) == 4
    rows = ([[1, 1, 0, 0, 1]], [[1, 0, 1, 0, 1]], [[0, 0, 0, 0, 1]])
    truth, guess, skip = (np.array(row, np.uint8) for row in rows)
    assert compare_masks(truth, guess).tolist() == [[1, 3, 2, 0, 1]]
    assert compare_masks(truth, guess, skip).tolist() == [[1, 3, 2, 0, 4]]


def _error_picture(**style):
    truth, guess = np.zeros((60, 60, 1), np.uint8), np.zeros((60, 60, 1), np.float32)
    truth[:40], guess[20:] = 20, 1.0
    ct = volume(np.full((60, 60, 1), -2000, np.int16))
    skip = volume(np.zeros((60, 60, 1), bool))
    style = Style("error", **style)
    return render_slice(ct, 0, "axial", WINDOW, volume(truth), volume(guess), style, skip)


def test_the_error_overlay_uses_the_colours_that_its_legend_names():
    rgb = _error_picture(opacity=0, outline_px=1)
    assert _colours(rgb) == {(0, 0, 0), *(swatch.rgb for swatch in render.ERROR_SWATCHES[:3])}


def test_errors_stay_apart_without_colour():
    grey = _error_picture(opacity=0.4, outline_px=0).mean(axis=2)
    # The right of the patient, the false positives, is on the left of the picture.
    false_positive, true_positive, false_negative = grey[:, 2:18], grey[:, 22:38], grey[:, 42:58]
    assert np.ptp(true_positive) == 0
    for hatched in (false_positive, false_negative):
        assert np.ptp(hatched) > 20
    assert not np.array_equal(false_positive > 40, false_negative > 40)


def test_the_error_overlay_leaves_hidden_labels_and_the_ignored_region_alone():
    ct = volume(np.full((6, 1, 1), -2000, np.int16))
    truth = volume(np.array([20, 20, 21, 21, 0, 0], np.uint8).reshape(6, 1, 1))
    guess = volume(np.array([1, 0, 1, 0, 1, 0], bool).reshape(6, 1, 1))
    style = Style("error", opacity=1, outline_px=0, labels=(20,))
    row = render_slice(ct, 0, "axial", WINDOW, truth, guess, style)[0, ::-1]
    painted = row.any(axis=1).tolist()
    assert painted == [True, True, False, False, True, False]


def test_region_colours_are_those_of_the_annotations():
    swatches = label_swatches("region")
    named = {label for label in range(1, 256) if swatches[label - 1] != UNKNOWN_SWATCH}
    assert named == set(CANONICAL) - {0}
    for label in named:
        region = int(to_regions(np.array([label], np.uint8))[0])
        assert swatches[label - 1].name == REGIONS[region - 1]


def test_neighbouring_vertebrae_differ_in_colour_and_in_hatching():
    swatches = label_swatches("vertebra")[:26]
    for upper, lower in zip(swatches, swatches[1:]):
        assert upper.rgb != lower.rgb and upper.hatch != lower.hatch


def _seen_by_a_deuteranope(rgb):
    """Viénot, Brettel and Mollon (1999): what is left of a colour without green cones."""
    linear = (np.array(rgb) / 255) ** 2.2
    matrix = [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]
    return np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2) * 255


def test_error_colours_stay_apart_for_the_colour_blind():
    seen = [_seen_by_a_deuteranope(swatch.rgb) for swatch in render.ERROR_SWATCHES[:3]]
    for one in range(3):
        for other in range(one):
            assert np.linalg.norm(seen[one] - seen[other]) > 60


def test_a_probability_is_spine_from_the_threshold_on_and_knows_no_region():
    ct = volume(np.full((2, 1, 1), -2000, np.int16))
    guess = volume(np.array([0.4, 0.6], np.float32).reshape(2, 1, 1))
    for threshold, painted in ((0.5, [True, False]), (0.3, [True, True]), (0.7, [False, False])):
        style = Style("fill", "region", opacity=1, threshold=threshold)
        row = render_slice(ct, 0, "axial", WINDOW, prediction=guess, style=style)[0]
        assert row.any(axis=1).tolist() == painted
        assert _colours(row[None]) <= {(0, 0, 0), OKABE_ITO["sky blue"]}


def test_the_outline_leaves_the_inside_as_it_was():
    labels = np.zeros((20, 20, 1), np.uint8)
    labels[5:15, 5:15] = 20
    ct = volume(np.zeros((20, 20, 1), np.int16))
    plain = render_slice(ct, 0, "axial", WINDOW)
    drawn = render_slice(ct, 0, "axial", WINDOW, volume(labels), style="outline")
    changed = (plain != drawn).any(axis=2)
    assert changed.sum() == 36 and not changed[6:14, 6:14].any()
    thick = outline(labels[..., 0], 3)
    assert thick.sum() == 100 - 16


def test_a_prediction_beside_a_mask_is_dashed():
    labels = np.zeros((40, 40, 1), np.uint8)
    labels[5:35, 5:35] = 20
    ct, mask = volume(np.full((40, 40, 1), 300, np.int16)), volume(labels)
    guess = volume(labels[:, ::-1] > 0)
    alone = render_slice(ct, 0, "axial", WINDOW, mask)
    both = render_slice(ct, 0, "axial", WINDOW, mask, guess)
    added = _colours(both[(alone != both).any(axis=2)][None])
    assert added == {(0, 0, 0), OKABE_ITO["yellow"]}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (volume(np.zeros((8, 10, 7), np.uint8)), r"differ in shape, \(8, 10, 6\) and \(8, 10, 7\)"),
        (volume(np.zeros(SHAPE, np.uint8), origin=(0, 3, 4)), "up to 5 mm apart"),
    ],
    ids=["shape", "origin"],
)
@pytest.mark.parametrize("role", ["mask", "prediction", "ignore"])
def test_another_grid_is_refused_with_the_reason_and_never_stretched(other, reason, role):
    with pytest.raises(SpineError, match=reason):
        render_slice(volume(np.zeros(SHAPE, np.int16)), 0, "axial", WINDOW, **{role: other})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index": 6}, "choose 0 to 5"),
        ({"index": -1}, "choose 0 to 5"),
        ({"index": 1.5}, "not a whole number"),
        ({"plane": "oblique"}, "axial, coronal, sagittal"),
        ({"window": (400, 0)}, "shows nothing"),
        ({"window": (400, float("nan"))}, "shows nothing"),
        ({"window": "bone"}, "centre and a width"),
        ({"style": "error"}, "a mask and a prediction"),
        ({"style": "glow"}, "fill, outline, error"),
        ({"style": {"opacity": 1.1}}, "from 0 to 1"),
        ({"style": {"outline_px": 9}}, "0 to 8"),
        ({"style": {"pixel_mm": 0}}, "more than 0"),
        ({"style": {"colouring": "x"}}, "spine, region, vertebra"),
        ({"mask": volume(np.full(SHAPE, 300, np.int16))}, "label 300"),
        ({"mask": volume(np.full(SHAPE, -1, np.int16))}, "label -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(change, reason):
    given_args = {"index": 0, "plane": "axial", "window": WINDOW} | change
    with pytest.raises(SpineError, match=reason) as caught:
        if isinstance(given_args.get("style"), dict):
            Style(**given_args["style"])
        render_slice(volume(np.zeros(SHAPE, np.int16)), **given_args)
    assert "\n" not in str(caught.value)


def test_drawing_needs_numpy_alone():
    code = (
        "import sys; import numpy, spine_lib; "
        "known = set(sys.modules); import spine_lib.explore.render; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - known}))"
    )
    root = Path(render.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert loaded <= {"spine_lib", "lazy_loader"}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_png_keeps_every_pixel(rows, columns, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(render.encode_png(rgb))) as image:
        image.load()
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), rgb)


@given(st.floats(0.1, 5000))
@example(0.3)
@example(np.nextafter(0.3, 0))
@example(3000.0)
def test_the_scale_bar_is_round_and_fits(width_mm):
    length = render.scale_bar_mm(width_mm)
    assert width_mm / 7.6 < length <= width_mm / 3 * (1 + 1e-8)
    assert f"{length:.0e}"[0] in "125"
