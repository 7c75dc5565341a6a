"""Overlap scores, averagings, empty masks, ignore regions; compared with MONAI and torchmetrics."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mask_pairs import SPACING_MM, ball, masks, one_hot, pairs, two_bodies

from spine_lib import SpineError, metrics
from spine_lib.metrics import Confusion, confusion, confusions_by_slice

counts = st.builds(Confusion, *[st.integers(0, 10**9)] * 4)


# --- counts ---------------------------------------------------------------------------------------


@given(masks(3))
def test_counts_agree_with_counting_voxel_by_voxel(arrays):
    prediction, truth, ignore = arrays
    voxels = [0, 0, 0, 0]
    for predicted, true, ignored in zip(prediction.flat, truth.flat, ignore.flat):
        if not ignored:
            voxels[{(1, 1): 0, (1, 0): 1, (0, 1): 2, (0, 0): 3}[int(predicted), int(true)]] += 1
    assert confusion(prediction, truth, ignore) == Confusion(*voxels)


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


def test_masks_of_zeros_and_ones_count_like_boolean_ones_in_integers_that_json_can_hold():
    prediction, truth = two_bodies()
    numbers = confusion(prediction.astype(np.uint8), truth.astype(np.float32))
    assert numbers == confusion(prediction, truth)
    assert {type(value) for value in vars(numbers).values()} == {int}
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
        (np.zeros((2, 3), bool), np.zeros((3, 2), bool), "the truth has.*same grid"),
        (np.full((2, 2), 0.7), np.zeros((2, 2), bool), "threshold probabilities"),
        (np.zeros((2, 2), bool), np.full((2, 2), 20), "choose labels"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), bool), "must be a mask"),
    ],
)
def test_arrays_that_are_no_matching_masks_are_refused_with_the_way_out(prediction, truth, words):
    with pytest.raises(SpineError, match=words):
        confusion(prediction, truth)
    with pytest.raises(SpineError, match="no slices along axis 2"):
        confusions_by_slice(prediction, prediction)


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "zero", "undefined"),
    [
        ((0, 0, 0, 100), "", "dice iou iou_mean f1 precision recall"),
        ((0, 5, 0, 95), "dice iou f1 precision", "recall"),
        ((0, 0, 5, 95), "dice iou f1 recall", "precision"),
    ],
    ids=["both empty", "truth empty", "prediction empty"],
)
def test_empty_masks_score_zero_or_nothing(counts, zero, undefined):
    scores = metrics.scores(Confusion(*counts))
    assert all(scores[name] == 0 for name in zero.split())
    assert {name for name, value in scores.items() if math.isnan(value)} == set(undefined.split())


@given(counts)
def test_f1_is_dice_and_iou_follows_from_dice(c):
    dice, iou = metrics.dice(c), metrics.iou(c)
    assert metrics.f1(c) == pytest.approx(dice, nan_ok=True)
    assert iou == pytest.approx(dice / (2 - dice), nan_ok=True)
    assert not iou > dice
    assert all(math.isnan(value) or 0 <= value <= 1 for value in metrics.scores(c).values())


def test_a_mean_leaves_out_what_is_undefined_and_counts_it():
    nothing, spurious = Confusion(0, 0, 0, 10), Confusion(0, 4, 0, 6)
    perfect, half, astray = Confusion(5, 0, 0, 5), Confusion(2, 1, 1, 6), Confusion(0, 2, 3, 5)
    mean = metrics.mean_scores([nothing, spurious, perfect, half, astray, nothing])
    assert mean["dice"] == pytest.approx((0 + 1 + 2 / 3 + 0) / 4)
    assert mean["recall"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert math.isnan(metrics.mean_scores([])["dice"])
    assert mean["accuracy"] == pytest.approx((1 + 0.6 + 1 + 0.8 + 0.5 + 1) / 6)
    assert (mean["defined"], mean["undefined"]) == (4, 2)
    assert (mean["false_positive_on_empty"], mean["false_positive_voxels_on_empty"]) == (1, 4)


# --- averagings -----------------------------------------------------------------------------------


def mask_pairs():
    """Return prediction and truth of a large good volume and two small bad ones."""
    good = ball((20, 20, 12), (10, 10, 6), 5)
    bad = np.zeros((8, 8, 6), dtype=bool)
    bad[2:4, 2:4, 1:3] = True
    return {
        "good": (np.roll(good, 1, 0), good),
        "bad": (np.roll(bad, 1, 0), bad),
        "missed": (np.zeros_like(bad), bad),
    }


def evaluated():
    return {case: metrics.evaluate_volume(*p, SPACING_MM) for case, p in mask_pairs().items()}


def test_pooled_scores_are_those_of_all_voxels_laid_end_to_end():
    pooled = metrics.aggregate(evaluated())["pooled"]
    both = zip(*mask_pairs().values())
    expected = confusion(*(np.concatenate([mask.ravel() for mask in masks]) for masks in both))
    assert {name: pooled[name] for name in metrics.scores(expected)} == metrics.scores(expected)
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


def test_an_infinite_distance_is_counted_rather_than_averaged():
    result = metrics.aggregate(evaluated())
    finite = [result["volumes"][case]["hd95"] for case in ("good", "bad")]
    assert result["volumes"]["missed"]["hd95"] == math.inf
    assert result["per_volume"]["hd95"] == pytest.approx(np.mean(finite))
    assert result["per_volume"]["hd95_infinite"] == 1


# --- against other libraries ----------------------------------------------------------------------


def test_a_real_vertebra_scores_as_in_monai(sample_root):
    monai = pytest.importorskip("monai.metrics")
    from spine_lib.datasets import sample_cases

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
