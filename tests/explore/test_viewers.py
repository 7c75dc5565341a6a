"""Sliders draw what they say: set a value, read what is drawn."""

import base64
import inspect
import io

import numpy as np
import pytest
from PIL import Image

from spine_lib import SpineError
from spine_lib.ct import geometry as planes
from spine_lib.ct.geometry import PLANES
from spine_lib.ct.volume import WINDOWS, Volume, save_nifti
from spine_lib.explore import CompareViewer, OrthoViewer, SliceViewer, render
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene, share_in_slice, voxel_at_share
from spine_lib.metrics import overlap as metrics


@pytest.fixture(scope="module")
def chance(small_phantom):
    """A probability that is the spine moved by one voxel, 0.8 sure."""
    moved = np.roll(small_phantom.labels.array > 0, 1, axis=0).astype(np.float32)
    return small_phantom.ct.with_array(moved * np.float32(0.8))


@pytest.fixture
def viewer(small_phantom, chance):
    return SliceViewer(small_phantom.ct, small_phantom.labels, chance, case_id="phantom")


def shown(picture):
    """Decode what the page shows."""
    with Image.open(io.BytesIO(picture.image)) as image:
        return np.asarray(image.convert("RGB")), picture.alt


def point(picture, kind, across, down):
    """Do what the front end does where a pointer is over a picture."""
    picture.pointer = [kind, across, down, len(picture.pointer) and picture.pointer[3] + 1]


def test_the_picture_is_what_render_slice_draws_after_every_change(viewer, small_phantom, chance):
    changes = [
        ("slice", 20), ("plane", "sagittal"), ("slice", 31), ("plane", "coronal"),
        ("window.preset", "lung"), ("window.centre", 100), ("window.width", 500),
        ("overlay.kind", "outline"), ("overlay.colouring", "vertebra"), ("overlay.opacity", 0.9),
        ("overlay.threshold", 0.85), ("overlay.kind", "fill"), ("overlay.structures", (20, 21)),
        ("overlay.kind", "error"),
    ]  # fmt: skip
    for name, value in changes:
        *path, last = name.split(".")
        holder = viewer
        for step in path:
            holder = getattr(holder, step)
        getattr(holder, last).value = list(value) if name == "overlay.structures" else value
        expected = render.render_slice(
            small_phantom.ct, viewer.slice.value, viewer.plane.value, viewer.window.window,
            small_phantom.labels, chance, viewer.overlay.style,
        )  # fmt: skip
        assert np.array_equal(shown(viewer.picture)[0], expected), name
    assert viewer.overlay.style == Style("error", "vertebra", 0.9, threshold=0.85, labels=(20, 21))
    viewer.overlay.kind.value = "none"
    plain = render.render_slice(small_phantom.ct, viewer.slice.value, "coronal", (100, 500))
    assert np.array_equal(shown(viewer.picture)[0], plain)
    assert viewer.caption.swatches == [] and "without overlay" in viewer.picture.alt


def test_a_preset_sets_both_sliders_and_draws_once(viewer, monkeypatch):
    drawn = []
    monkeypatch.setattr(viewer.picture, "show", lambda *args, **more: drawn.append(args))
    viewer.window.preset.value = "soft tissue"
    assert (viewer.window.centre.value, viewer.window.width.value) == (40, 400)
    assert len(drawn) == 1
    viewer.window.width.value = 300
    assert viewer.window.preset.value == "own" and viewer.window.window == (40, 300)
    assert len(drawn) == 2
    viewer.window.preset.value = "full"  # which the sliders cannot show exactly
    assert viewer.window.preset.value == "full" and viewer.window.window == WINDOWS["full"]


def test_turning_the_plane_keeps_the_voxel_and_changes_marks_scale_bar_and_words(viewer):
    viewer.axes[0].value, viewer.axes[1].value = 30, 25
    before = viewer.voxel
    for plane in ("sagittal", "coronal", "axial"):
        viewer.plane.value = plane
        assert viewer.voxel == before
        assert viewer.slice.value == before[planes.plane_axes(plane)[0]]
        assert viewer.slice.description == "slice" and viewer.picture.index == viewer.slice.value
        picture = viewer.picture
        assert picture.marks == list(render.orientation_marks(plane).values())
        width_mm = picture.rgb.shape[1] * render.pixel_size_mm(viewer.scene.ct, plane)
        length_mm = render.scale_bar_mm(width_mm)
        assert picture.bar == [length_mm, length_mm / width_mm]
        assert picture.title == f"Phantom CT, {plane} slice {viewer.slice.value + 1} of 64"
        assert all(word in picture.alt for word in ("phantom", plane, "mm", "errors"))


def test_the_pointer_tells_the_voxel_under_it_and_sets_the_probe(viewer, small_phantom):
    index, before = viewer.slice.value, viewer.voxel
    affine, hu = small_phantom.ct.affine, small_phantom.ct.array
    point(viewer.picture, "hover", 0.50001, 0.24999)
    # 64 columns from the patient's right: column 32 is voxel 31; row 15 from the front is 48.
    under = (31, 48, index)
    place = affine[:3] @ [*under, 1]
    told = f"Mouse at R {place[0]:+.1f}, A {place[1]:+.1f}, S {place[2]:+.1f} mm: {hu[under]} HU"
    assert told in viewer.caption.text and "slice Dice" in viewer.caption.text
    assert viewer.voxel == before
    point(viewer.picture, "leave", 1.0, 0.0)
    assert f"Probe at {viewer.scene.voxel_text(before)}" in viewer.caption.text
    point(viewer.picture, "press", 0.50001, 0.24999)
    assert viewer.voxel == under
    assert f"Probe at {viewer.scene.voxel_text(under)}" in viewer.caption.text


def test_wheel_and_drag_move_slice_and_window_within_their_limits(viewer):
    viewer.picture.index = 12  # what wheel, keys and swipes set
    assert viewer.slice.value == 12 and viewer.picture.title == "Phantom CT, axial slice 13 of 64"
    assert viewer.picture.last == 63
    viewer.picture.window = [122.4, 1e6]
    assert viewer.window.window == (122, 5000) and viewer.window.preset.value == "own"
    assert viewer.picture.window == [122, 5000]


@pytest.mark.parametrize("plane", PLANES)
def test_the_place_of_a_voxel_and_the_voxel_at_a_place_agree(plane):
    shape = (5, 7, 3)
    for voxel in np.ndindex(shape):
        index = voxel[planes.plane_axes(plane)[0]]
        assert voxel_at_share(shape, plane, index, *share_in_slice(shape, plane, voxel)) == voxel
    assert voxel_at_share(shape, plane, 0, 1.0, 1.0)[planes.plane_axes(plane)[1]] == 0


def test_the_pointer_on_a_comparison_tells_what_both_models_say(small_phantom, chance):
    ct, labels = small_phantom.ct, small_phantom.labels
    other = ct.with_array(chance.array * np.float32(0.5))
    viewer = CompareViewer(ct, labels, chance, other, ("U-Net", "DeepLab"))
    voxel = tuple(np.argwhere((labels.array > 0) & (chance.array > 0))[0].tolist())
    viewer.slice.value = voxel[2]
    point(viewer.pictures[1], "hover", *share_in_slice(ct.shape, "axial", voxel))
    for words in (f"{ct.array[voxel]} HU", "U-Net 0.80 (spine)", "DeepLab 0.40 (background)"):
        assert words in viewer.caption.text
    point(viewer.pictures[1], "leave", 0.0, 0.0)
    assert "Mouse" not in viewer.caption.text


def test_the_buttons_lead_to_spine_errors_and_the_worst_slice(viewer, small_phantom, chance):
    spine = small_phantom.labels.array > 0
    cases = metrics.confusions_by_slice(chance.array >= 0.5, spine, axis=2)
    viewer.slice.value = 0
    viewer.next_spine.click()
    assert viewer.slice.value == next(k for k in range(1, 64) if spine[..., k].any())
    here = viewer.slice.value
    viewer.next_error.click()
    assert viewer.slice.value == next(k for k in range(here + 1, 64) if cases[k].fp + cases[k].fn)
    viewer.slice.value = 63
    viewer.next_spine.click()  # starts over
    assert viewer.slice.value == next(k for k in range(64) if spine[..., k].any())
    viewer.worst.click()
    lowest = np.nanmin([metrics.dice(one) for one in cases])
    assert metrics.dice(cases[viewer.slice.value]) == lowest


def test_the_legend_names_all_that_is_in_the_slice_and_how_it_is_hatched(small_phantom):
    labels = np.zeros(small_phantom.ct.shape, np.uint8)
    for number in range(28):
        labels[2 * number, :, 5:9] = number + 1
    viewer = SliceViewer(small_phantom.ct, small_phantom.ct.with_array(labels))
    viewer.overlay.colouring.value = "vertebra"
    names = [name for name, *_ in viewer.caption.swatches]
    assert len(names) == 28 and {"T11", "L3", "sacrum", "T13"} <= set(names)
    legend = viewer.figure().legends[0]
    assert [text.get_text() for text in legend.get_texts()] == names


def test_chips_switch_structures_off_alone_and_in_groups(viewer, small_phantom):
    chips = viewer.overlay.structures
    groups = dict(chips.groups)
    assert groups["all"] == chips.value and groups["none"] == []
    chips.value = groups["none"]
    assert viewer.overlay.style.labels == ()
    labels = small_phantom.labels.array.copy()
    labels[0, 0, 0] = 200
    other = SliceViewer(small_phantom.ct, small_phantom.ct.with_array(labels)).overlay.structures
    assert 200 in other.value and 200 not in dict(other.groups)["spine only"]


def test_a_path_is_loaded_wherever_a_volume_is_taken(small_phantom, tmp_path):
    ct, mask = (
        save_nifti(volume, tmp_path / f"{name}.nii.gz")
        for name, volume in (("neck", small_phantom.ct), ("mask", small_phantom.labels))
    )
    viewer = OrthoViewer(str(ct), mask)
    assert viewer.pictures[0].title.startswith("Neck CT, axial slice")
    assert np.array_equal(viewer.scene.mask.array, small_phantom.labels.array)
    with pytest.raises(SpineError, match="no such file|not exist|no file"):
        SliceViewer(tmp_path / "other.nii.gz")
    with pytest.raises(SpineError, match="not a Volume"):
        OrthoViewer(ct, np.zeros(small_phantom.ct.shape, np.uint8))


def test_a_scan_without_a_mask_is_shown_from_its_middle(small_phantom):
    viewer = SliceViewer(small_phantom.ct)
    assert viewer.slice.value == 32 and viewer.caption.swatches == []
    assert "HU" in viewer.caption.text and "Dice" not in viewer.caption.text
    for reason, options in (("needs a mask", {"style": "error"}), ("0 to 63", {"index": 64})):
        with pytest.raises(SpineError, match=reason):
            SliceViewer(small_phantom.ct, **options)
    names = list(inspect.signature(SliceViewer).parameters)  # what help and the reference show
    assert names[:3] == ["ct", "mask", "prediction"] and "truth" in names


def test_a_boolean_mask_is_spine_and_no_vertebra(small_phantom):
    spine = small_phantom.labels.array > 0
    for array in (spine, spine.astype(np.uint8)):  # the second is what to_mask returns
        mask = small_phantom.ct.with_array(array)
        viewer = SliceViewer(small_phantom.ct, mask, mask, style=Style("fill", "vertebra"))
        assert viewer.caption.swatches[0] == ["spine", [86, 180, 233], "solid"]
        assert viewer.caption.swatches[-1][0] == "prediction (dashed line)"
        assert "mask spine, prediction spine" in viewer.caption.text


def test_counts_by_slice_are_those_of_the_metrics(small_phantom, chance):
    skip = np.zeros(small_phantom.ct.shape, bool)
    skip[:, :, 20:24] = True
    for order in ("C", "F"):
        mask = small_phantom.ct.with_array(np.asarray(small_phantom.labels.array, order=order))
        counts = Scene(mask, mask, chance, mask.with_array(skip)).count_slices()
        for plane in PLANES:
            axis = planes.plane_axes(plane)[0]
            cases = metrics.confusions_by_slice(chance.array >= 0.5, mask.array > 0, skip, axis)
            assert counts.by_plane[plane].tolist() == [[c.tp, c.fp, c.fn] for c in cases]
            assert np.array_equal(
                counts.dice(plane), [metrics.dice(c) for c in cases], equal_nan=True
            )
    present = np.unique(small_phantom.labels.array[:, :, :])[1:]
    assert counts.labels == tuple(present.tolist())


def test_without_a_kernel_a_meaningful_picture_is_shown(viewer):
    data, metadata = viewer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    png = base64.b64decode(data["image/png"])
    with Image.open(io.BytesIO(png)) as image:
        assert image.width >= 300 and len(image.convert("RGB").getcolors(1 << 20)) > 20
    assert len(png) < 100_000
    assert metadata["image/png"]["alt"] == data["text/plain"] == viewer.alt


def test_ortho_slices_go_through_one_cursor(small_phantom):
    viewer = OrthoViewer(small_phantom.ct, small_phantom.labels, case_id="phantom", size_px=64)
    for number, value in enumerate((20, 30, 40)):
        viewer.axes[number].value = value
    assert viewer.voxel == (20, 30, 40)
    for plane, picture in zip(PLANES, viewer.pictures):
        index, ct = viewer.voxel[planes.plane_axes(plane)[0]], small_phantom.ct
        expected = render.render_slice(ct, index, plane, WINDOWS["bone"], small_phantom.labels)
        assert np.array_equal(shown(picture)[0], expected)
        assert f"{plane} slice {index + 1} of 64" in shown(picture)[1]
    # The patient's right is on the left: voxel 20 of 64 from the left side is seen on the right.
    axial, coronal, sagittal = (np.round(one.cursor, 4).tolist() for one in viewer.pictures)
    assert axial == [0.6797, 0.5234] and coronal == [0.6797, 0.3672]
    assert sagittal == [0.5234, 0.3672]


def test_compare_shows_truth_and_both_models_and_marks_the_slice(small_phantom, chance):
    ct, labels = small_phantom.ct, small_phantom.labels
    other = ct.with_array(np.roll(labels.array > 0, 2, axis=1))
    viewer = CompareViewer(ct, labels, chance, other, ("U-Net", "DeepLab"), case_id="phantom")
    viewer.slice.value = 25
    window = WINDOWS["bone"]
    style = Style("error", opacity=0.5)
    for picture, guess in zip(viewer.pictures[1:], (chance, other)):
        expected = render.render_slice(ct, 25, "axial", window, labels, guess, style)
        assert np.array_equal(shown(picture)[0], expected)
    truth = render.render_slice(ct, 25, "axial", window, labels, None, Style(opacity=0.5))
    assert np.array_equal(shown(viewer.pictures[0])[0], truth)
    for name, guess in (("U-Net", chance.array >= 0.5), ("DeepLab", other.array)):
        score = metrics.dice(metrics.confusion(guess[..., 25], labels.array[..., 25] > 0))
        assert f"{name}: slice Dice {score:.3f}" in viewer.caption.text
        assert f"{name} {score:.3f}" in viewer.chart.alt


def test_a_comparison_blends_its_models_or_shows_them_as_a_checkerboard(small_phantom, chance):
    ct, labels = small_phantom.ct, small_phantom.labels
    viewer = CompareViewer(ct, labels, chance, ct.with_array(labels.array > 0), ("one", "two"))
    first, second = (picture.rgb.astype(int) for picture in viewer.pictures[1:])
    viewer.mix.value, viewer.share.value = "blended", 0.25
    assert np.abs(viewer.pictures[1].rgb - (0.75 * first + 0.25 * second)).max() <= 0.5
    assert len(viewer.figure().axes) == 2 and "one and two, blended" in viewer.alt
    viewer.mix.value = "checkerboard"
    rows, columns = np.indices(first.shape[:2]) // 8
    expected = np.where(((rows + columns) % 2 == 1)[..., None], second, first)
    assert np.array_equal(viewer.pictures[1].rgb, expected) and (expected != first).any()
    viewer.mix.value = "side by side"
    assert np.array_equal(viewer.pictures[1].rgb, first) and len(viewer.figure().axes) == 3


def test_the_mark_and_a_button_move_the_slice_of_a_comparison(small_phantom, chance):
    worse = chance.array.copy()
    worse[..., 30] = 0
    volumes = small_phantom.ct, small_phantom.labels, chance, chance.with_array(worse)
    viewer = CompareViewer(*volumes)
    viewer.slice.value = 21
    assert viewer.chart.mark == 22
    viewer.disagree.click()
    assert viewer.slice.value == 30 and viewer.chart.mark == 31
    viewer.chart.mark = 20.6  # what a click does
    assert viewer.slice.value == 20 and viewer.chart.mark == 21
    viewer.threshold.value = 0.9  # above the 0.8 of the probability: nothing is predicted
    assert "slice Dice 0.000" in viewer.caption.text


@pytest.mark.slow
def test_a_large_scan_adds_little_memory():
    import psutil

    shape = (512, 512, 800)
    ct = Volume(np.zeros(shape, np.int16, order="F"), np.diag([0.7, 0.7, 1, 1]))
    labels = np.zeros(shape, np.uint8, order="F")
    ct.array[:], labels[:] = -1000, 0  # touch every page, or it would count as the viewer's
    for z in range(0, 800, 20):
        labels[200:300, 150:250, z : z + 18] = 1 + z // 40
    mask = ct.with_array(labels)
    SliceViewer(Volume(ct.array[:, :, :9], ct.affine))  # imports and first uses
    before = psutil.Process().memory_info().rss
    viewer = SliceViewer(ct, mask, case_id="large")
    viewer.next_spine.click()
    viewer.plane.value = "sagittal"
    assert psutil.Process().memory_info().rss - before < 100e6
