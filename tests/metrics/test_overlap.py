"""Overlap scores, averagings, empty masks, ignore regions; MONAI and torchmetrics as witnesses."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spine_lib import SpineError
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics import surfaces
from spine_lib.metrics.overlap import Confusion, confusion, confusions_by_slice

SPACING_MM = (0.7, 1.3, 2.5)

counts = st.builds(Confusion, *[st.integers(0, 10**9)] * 4)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=7)


@st.composite
def masks(draw, number=2, shape=shapes):
    """Draw masks of one shape, often empty or full."""
    shape = draw(shape)
    fill = st.one_of(st.just(st.just(False)), st.just(st.just(True)), st.just(st.booleans()))
    return [draw(hnp.arrays(bool, shape, elements=draw(fill))) for _ in range(number)]


def ball(shape, centre, radius):
    """Make a ball-shaped mask."""
    grid = np.indices(shape)
    offsets = [(axis - middle) ** 2 for axis, middle in zip(grid, centre)]
    return sum(offsets) <= radius**2


def two_bodies():
    """Make a rough truth and a prediction that is off by a little, with a stray blob."""
    rng = np.random.default_rng(7)
    truth = ball((30, 28, 20), (14, 13, 9), 7.5)
    prediction = ball((30, 28, 20), (15, 12, 10), 7) | ball((30, 28, 20), (4, 22, 15), 2)
    return prediction ^ (rng.random(truth.shape) < 0.01), truth


# --- counts ---------------------------------------------------------------------------------------


def test_the_four_counts_of_a_worked_example_are_right():
    prediction = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    truth = np.array([1, 1, 0, 1, 0, 0], dtype=bool)
    assert confusion(prediction, truth) == Confusion(tp=2, fp=1, fn=1, tn=2)


@given(masks(3))
def test_counts_agree_with_counting_voxel_by_voxel(arrays):
    prediction, truth, ignore = arrays
    seen = [0, 0, 0, 0]
    for said, is_spine, left_out in zip(prediction.flat, truth.flat, ignore.flat):
        if not left_out:
            seen[{(1, 1): 0, (1, 0): 1, (0, 1): 2, (0, 0): 3}[int(said), int(is_spine)]] += 1
    assert confusion(prediction, truth, ignore) == Confusion(*seen)


@given(masks(3), st.data())
def test_slice_counts_are_those_of_each_slice_and_add_up_to_the_volume(arrays, data):
    axis = data.draw(st.integers(-arrays[0].ndim, arrays[0].ndim - 1))
    expected = [
        confusion(*(array.take(index, axis) for array in arrays))
        for index in range(arrays[0].shape[axis])
    ]
    by_slice = confusions_by_slice(*arrays, axis=axis)
    assert by_slice == expected
    assert sum(by_slice, Confusion(0, 0, 0, 0)) == confusion(*arrays)


@given(masks(3), st.data())
def test_what_lies_in_the_ignore_region_changes_no_count(arrays, data):
    prediction, truth, ignore = arrays
    noise = data.draw(hnp.arrays(bool, ignore.shape))
    assert confusion(prediction ^ (noise & ignore), truth ^ (noise & ignore), ignore) == confusion(
        prediction, truth, ignore
    )


def test_no_ignore_region_and_an_empty_one_count_the_same():
    prediction, truth = two_bodies()
    nowhere = np.zeros_like(truth)
    assert confusion(prediction, truth, nowhere) == confusion(prediction, truth)


def test_masks_of_zeros_and_ones_count_like_boolean_masks():
    prediction, truth = two_bodies()
    assert confusion(prediction.astype(np.uint8), truth.astype(np.float32)) == confusion(
        prediction, truth
    )


def test_counts_are_python_integers_that_json_can_hold():
    prediction, truth = two_bodies()
    assert {type(value) for value in vars(confusion(prediction, truth)).values()} == {int}
    assert {type(v) for v in vars(confusions_by_slice(prediction, truth)[9]).values()} == {int}


def test_counting_a_whole_body_scan_uses_little_memory_beside_the_masks():
    truth = np.zeros((256, 256, 150), dtype=bool)
    truth[100:150, 80:160] = True
    tracemalloc.start()
    confusions_by_slice(np.roll(truth, 2, 0), truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * truth.nbytes


@pytest.mark.parametrize(
    ("prediction", "truth", "words"),
    [
        (np.zeros((2, 3), bool), np.zeros((3, 2), bool), "same grid"),
        (np.full((2, 2), 0.7), np.zeros((2, 2), bool), "threshold probabilities"),
        (np.zeros((2, 2), bool), np.full((2, 2), 20), "choose labels"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), bool), "must be a mask"),
    ],
)
def test_arrays_that_are_no_matching_masks_are_refused_with_the_way_out(prediction, truth, words):
    with pytest.raises(SpineError, match=words):
        confusion(prediction, truth)


def test_an_ignore_region_of_another_shape_is_refused():
    with pytest.raises(SpineError, match="ignore region"):
        confusion(np.zeros((2, 2), bool), np.zeros((2, 2), bool), np.zeros((2, 3), bool))


def test_slices_along_an_axis_that_is_not_there_are_refused():
    with pytest.raises(SpineError, match="no slices along axis 2"):
        confusions_by_slice(np.zeros((2, 2), bool), np.zeros((2, 2), bool))


# --- scores ---------------------------------------------------------------------------------------


@given(counts)
def test_f1_is_dice_and_iou_follows_from_dice(c):
    dice, iou = metrics.dice(c), metrics.iou(c)
    assert metrics.f1(c) == pytest.approx(dice, nan_ok=True)
    assert iou == pytest.approx(dice / (2 - dice), nan_ok=True)
    assert not iou > dice


@given(counts)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(c):
    precision, recall = metrics.precision(c), metrics.recall(c)
    if c.tp:
        expected = 2 * precision * recall / (precision + recall)
        assert metrics.f1(c) == pytest.approx(expected)


@given(counts)
def test_accuracy_and_mean_iou_obey_their_definitions(c):
    if c.total:
        assert metrics.accuracy(c) == pytest.approx(1 - (c.fp + c.fn) / c.total)
    expected = (metrics.iou(c) + metrics.iou_background(c)) / 2
    assert metrics.iou_mean(c) == pytest.approx(expected, nan_ok=True)


@given(counts)
def test_swapping_prediction_and_truth_swaps_precision_and_recall_and_nothing_else(c):
    swapped = metrics.scores(Confusion(c.tp, c.fn, c.fp, c.tn))
    expected = metrics.scores(c)
    expected["precision"], expected["recall"] = expected["recall"], expected["precision"]
    assert swapped == pytest.approx(expected, nan_ok=True)


@given(counts)
def test_the_background_has_the_iou_of_the_swapped_classes(c):
    inverted = Confusion(tp=c.tn, fp=c.fn, fn=c.fp, tn=c.tp)
    assert metrics.iou_background(c) == pytest.approx(metrics.iou(inverted), nan_ok=True)


@given(counts)
def test_every_score_is_a_fraction_or_undefined(c):
    for value in metrics.scores(c).values():
        assert math.isnan(value) or 0 <= value <= 1


def test_scores_come_under_the_names_of_the_results_file():
    assert list(metrics.scores(Confusion(1, 1, 1, 1))) == [
        "dice",
        "iou",
        "iou_mean",
        "f1",
        "accuracy",
        "precision",
        "recall",
    ]


def test_two_empty_masks_are_undefined_but_accurate():
    found = metrics.scores(Confusion(0, 0, 0, 100))
    assert found.pop("accuracy") == 1
    assert all(math.isnan(value) for value in found.values())


def test_a_prediction_where_there_is_nothing_scores_zero():
    found = metrics.scores(Confusion(0, 5, 0, 95))
    assert (found["dice"], found["iou"], found["f1"], found["precision"]) == (0, 0, 0, 0)
    assert math.isnan(found["recall"])


def test_missing_everything_scores_zero():
    found = metrics.scores(Confusion(0, 0, 5, 95))
    assert (found["dice"], found["iou"], found["f1"], found["recall"]) == (0, 0, 0, 0)
    assert math.isnan(found["precision"])


def test_a_mean_leaves_out_what_is_undefined_and_counts_it():
    nothing, spurious = Confusion(0, 0, 0, 10), Confusion(0, 4, 0, 6)
    perfect, half, astray = Confusion(5, 0, 0, 5), Confusion(2, 1, 1, 6), Confusion(0, 2, 3, 5)
    mean = metrics.mean_scores([nothing, spurious, perfect, half, astray, nothing])
    assert mean["dice"] == pytest.approx((0 + 1 + 2 / 3 + 0) / 4)
    assert mean["recall"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert mean["accuracy"] == pytest.approx((1 + 0.6 + 1 + 0.8 + 0.5 + 1) / 6)
    assert (mean["defined"], mean["undefined"]) == (4, 2)
    assert (mean["false_positive_on_empty"], mean["false_positive_voxels_on_empty"]) == (1, 4)


def test_the_mean_of_nothing_is_undefined():
    mean = metrics.mean_scores([])
    assert math.isnan(mean["dice"]) and mean["defined"] == 0


# --- averagings -----------------------------------------------------------------------------------


def evaluated():
    """Evaluate a large good volume and a small bad one, so that the averagings differ."""
    good = ball((20, 20, 12), (10, 10, 6), 5)
    bad = np.zeros((8, 8, 6), dtype=bool)
    bad[2:4, 2:4, 1:3] = True
    return {
        "good": metrics.evaluate_volume(np.roll(good, 1, 0), good, SPACING_MM),
        "bad": metrics.evaluate_volume(np.roll(bad, 1, 0), bad, SPACING_MM),
        "missed": metrics.evaluate_volume(np.zeros_like(bad), bad, SPACING_MM),
    }


def test_pooled_scores_are_those_of_all_voxels_laid_end_to_end():
    good = ball((20, 20, 12), (10, 10, 6), 5)
    bad = np.zeros((8, 8, 6), dtype=bool)
    bad[2:4, 2:4, 1:3] = True
    truth = np.concatenate([good.ravel(), bad.ravel(), bad.ravel()])
    prediction = np.concatenate(
        [np.roll(good, 1, 0).ravel(), np.roll(bad, 1, 0).ravel(), np.zeros(bad.size, bool)]
    )
    pooled = metrics.aggregate(evaluated())["pooled"]
    expected = confusion(prediction, truth)
    assert {name: pooled[name] for name in metrics.SCORES} == metrics.scores(expected)
    assert [pooled[name] for name in ("tp", "fp", "fn", "tn")] == list(vars(expected).values())


def test_the_three_averagings_of_the_same_volumes_differ_as_they_should():
    volumes = evaluated()
    result = metrics.aggregate(volumes)
    by_volume = [volume["dice"] for volume in volumes.values()]
    by_slice = [
        metrics.dice(Confusion(*row)) for volume in volumes.values() for row in volume["slices"]
    ]
    assert result["per_volume"]["dice"] == pytest.approx(np.mean(by_volume))
    assert result["per_slice"]["dice"] == pytest.approx(np.nanmean(by_slice))
    assert result["per_slice"]["undefined"] == np.count_nonzero(np.isnan(by_slice)) > 0
    found = [result[kind]["dice"] for kind in ("pooled", "per_volume", "per_slice")]
    assert len({round(value, 3) for value in found}) == 3


def test_each_volume_is_listed_with_its_own_scores_and_counts():
    volumes = evaluated()
    listed = metrics.aggregate(volumes)["volumes"]
    assert list(listed) == ["good", "bad", "missed"]
    assert listed["bad"]["dice"] == pytest.approx(0.5)
    assert listed["bad"]["tolerance_mm"] == 2.0
    assert "slices" not in listed["bad"] and "slices" in volumes["bad"]
    counted = sum(listed["good"][name] for name in ("tp", "fp", "fn", "tn"))
    assert counted == 20 * 20 * 12


def test_an_infinite_distance_is_counted_rather_than_averaged():
    result = metrics.aggregate(evaluated())
    finite = [result["volumes"][case]["hd95"] for case in ("good", "bad")]
    assert result["volumes"]["missed"]["hd95"] == math.inf
    assert result["per_volume"]["hd95"] == pytest.approx(np.mean(finite))
    assert result["per_volume"]["hd95_infinite"] == 1


def test_an_evaluation_survives_a_trip_through_json():
    volumes = evaluated()
    del volumes["missed"]  # infinity is no JSON
    again = json.loads(json.dumps(volumes, allow_nan=False))
    assert metrics.aggregate(again) == metrics.aggregate(volumes)


def test_the_ignore_region_leaves_every_score_of_a_volume_untouched():
    prediction, truth = two_bodies()
    ignore = np.zeros_like(truth)
    ignore[:, :, :6] = True
    disturbed = prediction ^ (ignore & (np.random.default_rng(1).random(truth.shape) < 0.5))
    one = metrics.evaluate_volume(prediction, truth, SPACING_MM, ignore)
    two = metrics.evaluate_volume(disturbed, truth, SPACING_MM, ignore)
    without = metrics.evaluate_volume(disturbed, truth, SPACING_MM)
    assert one == two
    assert one != without


def test_recall_by_region_counts_each_region_by_itself():
    regions = np.zeros((4, 4, 8), dtype=np.uint8)
    regions[1:3, 1:3, 0:2], regions[1:3, 1:3, 2:4], regions[1:3, 1:3, 4:6] = 1, 2, 3
    prediction = regions > 0
    prediction[1, :, 2:4] = False
    prediction[:, :, 4:6] = False
    prediction[0] = True
    found = metrics.by_region(prediction, regions)
    assert [found[region] for region in (1, 2, 3)] == [1, 0.5, 0]
    assert math.isnan(found[4])


def test_recall_by_region_leaves_the_ignore_region_out():
    regions = np.repeat(np.array([1, 1, 2, 2], dtype=np.uint8), 3)
    ignore = np.arange(12) < 4
    found = metrics.by_region(np.arange(12) >= 4, regions, ignore, regions=iter([1, 2]))
    assert found == {1: 1.0, 2: 1.0}


# --- surface distances ----------------------------------------------------------------------------


def test_a_shift_by_one_voxel_is_that_voxel_in_mm_along_each_axis():
    truth = np.zeros((16, 16, 16), dtype=bool)
    truth[4:11, 4:11, 4:11] = True
    for axis, length_mm in enumerate(SPACING_MM):
        shifted = np.roll(truth, 1, axis)
        assert metrics.hd95(shifted, truth, SPACING_MM) == pytest.approx(length_mm)
        assert metrics.nsd(shifted, truth, SPACING_MM, tolerance_mm=length_mm) == 1
        assert metrics.nsd(shifted, truth, SPACING_MM, tolerance_mm=0.9 * length_mm) < 1


def test_three_voxels_of_a_length_that_binary_cannot_hold_are_within_their_sum():
    truth = np.zeros((20, 9, 9), dtype=bool)
    truth[4:9, 3:6, 3:6] = True
    shifted = np.roll(truth, 3, 0)
    assert metrics.nsd(shifted, truth, (0.7, 0.7, 0.7), tolerance_mm=2.1) == 1


def test_surface_scores_of_empty_masks_follow_the_stated_rules():
    empty = np.zeros((6, 6, 6), dtype=bool)
    full = ball((6, 6, 6), (3, 3, 3), 2)
    assert math.isnan(metrics.nsd(empty, empty, SPACING_MM, 2.0))
    assert math.isnan(metrics.hd95(empty, empty, SPACING_MM))
    for prediction, truth in ((full, empty), (empty, full)):
        assert metrics.nsd(prediction, truth, SPACING_MM, 2.0) == 0
        assert metrics.hd95(prediction, truth, SPACING_MM) == math.inf


@settings(max_examples=50, deadline=None)
@given(masks(2, st.tuples(*[st.integers(1, 6)] * 3)))
def test_surface_scores_are_symmetric_and_perfect_only_for_equal_surfaces(arrays):
    one, two = arrays
    nsd = metrics.nsd(one, two, SPACING_MM, 1.0)
    assert nsd == pytest.approx(metrics.nsd(two, one, SPACING_MM, 1.0), nan_ok=True)
    hd95 = metrics.hd95(one, two, SPACING_MM)
    assert hd95 == pytest.approx(metrics.hd95(two, one, SPACING_MM), nan_ok=True)
    if one.any():
        assert metrics.hd95(one, one, SPACING_MM) == 0
        assert metrics.nsd(one, one, SPACING_MM, 0) == 1


def test_cropping_to_the_masks_changes_no_distance():
    prediction, truth = two_bodies()
    padded = [np.pad(mask, 9) for mask in (prediction, truth)]
    inner = [np.pad(mask, 1) for mask in (prediction, truth)]
    assert metrics.hd95(*padded, SPACING_MM) == metrics.hd95(*inner, SPACING_MM)
    assert metrics.nsd(*padded, SPACING_MM, 1.0) == metrics.nsd(*inner, SPACING_MM, 1.0)


def test_a_prediction_that_goes_on_into_the_ignore_region_is_not_punished():
    truth = np.zeros((12, 12, 20), dtype=bool)
    truth[4:8, 4:8, 10:16] = True
    prediction = truth.copy()
    prediction[4:8, 4:8, 4:10] = True  # a vertebra that the truth leaves unlabelled
    ignore = np.zeros_like(truth)
    ignore[:, :, :10] = True
    assert metrics.hd95(prediction, truth, SPACING_MM) > 10
    assert metrics.hd95(prediction, truth, SPACING_MM, ignore) == 0
    assert metrics.nsd(prediction, truth, SPACING_MM, 0.0, ignore) == 1


def test_there_is_no_surface_where_a_mask_meets_the_ignore_region():
    mask = np.zeros((12, 12, 20), dtype=bool)
    mask[4:8, 4:8, 10:16] = True
    ignore = np.zeros_like(mask)
    ignore[:, :, :10] = True
    shell, open_shell = 4 * 4 * 6 - 2 * 2 * 4, 4 * 4 * 6 - 2 * 2 * 5
    assert metrics.surface_distances(mask, mask, SPACING_MM)[0].size == shell
    assert metrics.surface_distances(mask, mask, SPACING_MM, ignore)[0].size == open_shell


def test_very_many_surface_voxels_are_measured_by_a_map_to_the_same_distances(monkeypatch):
    random = np.random.default_rng(2)
    prediction, truth, ignore = random.random((3, 12, 14, 16)) < 0.3
    looked_up = metrics.surface_distances(prediction, truth, SPACING_MM, ignore)
    monkeypatch.setattr(surfaces, "MANY_POINTS", 5)
    mapped = metrics.surface_distances(prediction, truth, SPACING_MM, ignore)
    for one, other in zip(looked_up, mapped, strict=True):
        assert one.size > 100 and np.allclose(one, other, rtol=1e-12)
    nothing = np.zeros_like(truth)
    assert np.isinf(metrics.surface_distances(prediction, nothing, SPACING_MM)[0]).all()


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, -1.0, 1.0), 2.0])
def test_a_spacing_that_does_not_fit_is_refused(spacing_mm):
    mask = ball((6, 6, 6), (3, 3, 3), 2)
    with pytest.raises(SpineError, match="spacing_mm"):
        metrics.hd95(mask, mask, spacing_mm)


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_no_length_is_refused(tolerance_mm):
    mask = ball((6, 6, 6), (3, 3, 3), 2)
    with pytest.raises(SpineError, match="tolerance_mm"):
        metrics.evaluate_volume(mask, mask, SPACING_MM, tolerance_mm=tolerance_mm)


# --- against other libraries ----------------------------------------------------------------------


def one_hot(mask):
    """Turn a mask into MONAI's [batch, class, ...] with background first."""
    import torch

    return torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32))


def pairs():
    """Give mask pairs: smooth with a stray blob, touching the array's edge, pure noise."""
    rng = np.random.default_rng(3)
    prediction, truth = two_bodies()
    yield prediction, truth
    yield truth[14:, :, 8:], prediction[14:, :, 8:]
    yield rng.random((9, 8, 7)) < 0.3, rng.random((9, 8, 7)) < 0.2


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), SPACING_MM])
def test_surface_dice_and_hausdorff_distance_agree_with_monai(spacing_mm):
    monai = pytest.importorskip("monai.metrics")
    for prediction, truth in pairs():
        hats = one_hot(prediction), one_hot(truth)
        hd95 = monai.compute_hausdorff_distance(*hats, percentile=95, spacing=spacing_mm)
        assert metrics.hd95(prediction, truth, spacing_mm) == pytest.approx(hd95.item(), rel=1e-5)
        for tolerance_mm in (0.5, 1.1, 2.6):
            nsd = monai.compute_surface_dice(*hats, [tolerance_mm], spacing=spacing_mm)
            ours = metrics.nsd(prediction, truth, spacing_mm, tolerance_mm)
            assert ours == pytest.approx(nsd.item(), rel=1e-5)


def test_a_real_vertebra_scores_as_in_monai(sample_root):
    monai = pytest.importorskip("monai.metrics")
    from spine_lib.datasets.sample import sample_cases

    (crop,) = [case for case in sample_cases(sample_root) if case.case_id == "crop"]
    labels = crop.load().labels
    truth, spacing_mm = labels.array > 0, labels.spacing_mm
    prediction = np.roll(truth, (1, -2, 0), (0, 1, 2))
    hats = one_hot(prediction), one_hot(truth)
    found = metrics.evaluate_volume(prediction, truth, spacing_mm, tolerance_mm=2.0)
    hd95 = monai.compute_hausdorff_distance(*hats, percentile=95, spacing=spacing_mm)
    nsd = monai.compute_surface_dice(*hats, [2.0], spacing=spacing_mm)
    assert 0.3 < found["dice"] < 0.95
    assert found["dice"] == pytest.approx(monai.compute_dice(*hats)[0, 1].item(), rel=1e-5)
    assert found["hd95"] == pytest.approx(hd95.item(), rel=1e-5)
    assert found["nsd"] == pytest.approx(nsd.item(), rel=1e-5)


def test_dice_and_iou_agree_with_monai_on_each_volume():
    monai = pytest.importorskip("monai.metrics")
    for prediction, truth in pairs():
        hats, c = (one_hot(prediction), one_hot(truth)), confusion(prediction, truth)
        assert metrics.dice(c) == pytest.approx(monai.compute_dice(*hats)[0, 1].item(), rel=1e-5)
        background, spine = monai.compute_iou(*hats)[0].tolist()
        assert metrics.iou(c) == pytest.approx(spine, rel=1e-5)
        assert metrics.iou_background(c) == pytest.approx(background, rel=1e-5)


def test_an_empty_pair_is_undefined_in_monai_too():
    monai = pytest.importorskip("monai.metrics")
    nothing = np.zeros((4, 4, 4), dtype=bool)
    c = confusion(nothing, nothing)
    assert math.isnan(metrics.dice(c))
    assert math.isnan(monai.compute_dice(one_hot(nothing), one_hot(nothing))[0, 1].item())


def test_pooled_scores_agree_with_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    for prediction, truth in pairs():
        tensors = torch.from_numpy(prediction.ravel()), torch.from_numpy(truth.ravel()).int()
        tensors = tensors[0].int(), tensors[1]
        theirs = {
            "dice": torchmetrics.binary_f1_score(*tensors),
            "f1": torchmetrics.binary_f1_score(*tensors),
            "iou": torchmetrics.binary_jaccard_index(*tensors),
            "iou_mean": torchmetrics.multiclass_jaccard_index(*tensors, num_classes=2),
            "accuracy": torchmetrics.binary_accuracy(*tensors),
            "precision": torchmetrics.binary_precision(*tensors),
            "recall": torchmetrics.binary_recall(*tensors),
        }
        ours = metrics.scores(confusion(prediction, truth))
        assert ours == pytest.approx({k: v.item() for k, v in theirs.items()}, rel=1e-5)
