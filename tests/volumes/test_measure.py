"""Volumes in millilitres by vertebra and region, and the pieces that errors fall into."""

import numpy as np
import pytest
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.ct.volume import Volume
from spine_lib.volumes.measure import (
    NOWHERE,
    Amount,
    borrow_names,
    by_region,
    compare_volumes,
    error_pieces,
    voxel_ml,
)

AFFINE = np.diag([2.0, 1.0, 5.0, 1.0])  # a voxel of 10 cubic millimetres


def volume(array) -> Volume:
    return Volume(np.asarray(array), AFFINE)


def spine() -> Volume:
    labels = np.zeros((20, 30, 16), np.uint8)
    labels[5:15, 8:20, 2:6] = 21
    labels[5:15, 8:20, 9:13] = 19
    return volume(labels)


def test_a_perfect_prediction_has_no_error_anywhere():
    labels = spine()
    rows = compare_volumes(labels.with_array(labels.array > 0), labels)
    assert voxel_ml((2, 1, 5)) == pytest.approx(0.01)
    assert [row.name for row in rows] == ["T12", "L2", NOWHERE]
    assert [row.truth_ml for row in rows] == pytest.approx([4.8, 4.8, 0])
    assert all(row.predicted_ml == row.truth_ml for row in rows)
    assert np.isnan(rows[-1].error_percent)


def test_every_predicted_voxel_counts_once():
    labels, rng = spine(), np.random.default_rng(0)
    prediction = labels.with_array(rng.random(labels.shape) < 0.2)
    rows = compare_volumes(prediction, labels)
    total_ml = prediction.array.sum() * voxel_ml(labels.spacing_mm)
    assert sum(row.predicted_ml for row in rows) == pytest.approx(total_ml)
    assert rows[-1].predicted_ml > 0


def test_names_come_from_the_nearest_vertebra_in_mm():
    labels = np.zeros((9, 30, 4), np.uint8)
    labels[0], labels[:, 0] = 20, 23
    labels[0, 0] = 20
    prediction = np.zeros(labels.shape, bool)
    prediction[3, 5] = True  # 6 mm from 20 along x, 5 mm from 23 along y; fewer voxels from 20
    named = borrow_names(volume(prediction), volume(labels))
    assert (named.array[prediction] == 23).all()


def test_what_is_out_of_reach_belongs_to_no_vertebra():
    labels, far = spine(), np.zeros((20, 30, 16), bool)
    far[0, 0, 15] = far[10, 10, 3] = True
    named = borrow_names(labels.with_array(far), labels, reach_mm=4.0).array
    assert named[0, 0, 15] == 0 and named[10, 10, 3] == 21
    lost = compare_volumes(labels.with_array(far), labels)[-1]
    assert lost.name == NOWHERE and lost.predicted_ml == pytest.approx(0.01)


def test_nothing_predicted_and_nothing_labelled_give_no_names():
    labels = spine()
    nothing = labels.with_array(np.zeros(labels.shape, bool))
    assert not borrow_names(nothing, labels).array.any()
    everything = labels.with_array(np.ones(labels.shape, bool))
    bare = labels.with_array(np.zeros(labels.shape, np.uint8))
    assert not borrow_names(everything, bare).array.any()


def test_what_is_ignored_is_not_measured():
    labels = spine()
    ignore = labels.with_array(labels.array == 21)
    rows = compare_volumes(labels.with_array(labels.array > 0), labels, ignore)
    assert [row.name for row in rows] == ["T12", NOWHERE]
    assert rows[0].predicted_ml == pytest.approx(rows[0].truth_ml)


def test_regions_add_up_their_vertebrae():
    rows = [Amount("T12", 10.0, 12.0), Amount("L1", 20.0, 19.0), Amount("L2", 5.0, 5.0)]
    regions = by_region([*rows, Amount(NOWHERE, 0.0, 1.5)])
    assert [(r.name, r.truth_ml, r.predicted_ml) for r in regions] == [
        ("thoracic", 10.0, 12.0),
        ("lumbar", 25.0, 24.0),
        (NOWHERE, 0.0, 1.5),
    ]
    assert regions[0].error_percent == pytest.approx(20)


def test_error_pieces_are_found_where_they_were_put():
    labels = spine()
    found = labels.array > 0
    found[1:3, 22:28, 3:5] = True  # 24 voxels too many
    found[6:9, 10:14, 3:5] = False  # 24 voxels missing, and one more
    found[9, 10, 3] = False
    pieces = error_pieces(labels.with_array(found), labels)
    assert [piece.kind for piece in pieces] == ["false negative", "false positive"]
    assert [piece.ml for piece in pieces] == pytest.approx([0.25, 0.24])
    for piece in pieces:
        x, y, z = piece.voxel
        assert found[x, y, z] != (labels.array[x, y, z] > 0)
        wrong = np.zeros(found.shape, bool)
        wrong[piece.box] |= piece.inside
        assert np.count_nonzero(wrong) * 0.01 == pytest.approx(piece.ml)


def test_small_and_ignored_errors_are_no_pieces():
    labels = spine()
    found = labels.array > 0
    found[0, 0, 0] = True
    found[1:4, 24:28, 8:12] = True
    ignore = np.zeros(found.shape, bool)
    ignore[:, 24:] = True
    assert error_pieces(labels.with_array(found), labels, labels.with_array(ignore)) == []
    assert len(error_pieces(labels.with_array(found), labels, smallest_ml=0.0)) == 2


def test_peeling_takes_rims_away_and_leaves_what_is_thick():
    truth = np.zeros((40, 40, 20), bool)
    truth[10:30, 10:30, 5:15] = True
    found = ndimage.binary_dilation(truth)  # a rim of one voxel
    found[30:38, 15:23, 6:14] = True  # and a block of 8 mm
    cube = np.diag([1.0, 1.0, 1.0, 1.0])
    args = Volume(found, cube), Volume(truth.astype(np.uint8), cube)
    (joined,) = error_pieces(*args)
    (block,) = error_pieces(*args, thinnest_mm=4.0)
    assert joined.ml > 2 and 0.25 < block.ml <= 0.512  # a ball does not reach a cube's corners
    assert 6 <= block.thickness_mm <= 9
    assert 30 <= block.voxel[0] < 38
    assert error_pieces(*args, thinnest_mm=20.0) == []


def test_another_grid_is_refused():
    labels = spine()
    other = Volume(labels.array > 0, np.diag([2.0, 1.0, 4.0, 1.0]))
    for ask in (borrow_names, compare_volumes, error_pieces):
        with pytest.raises(SpineError, match="differ in spacing"):
            ask(other, labels)
