"""Lesson 3's measurement of leakage: what it holds apart, and what it holds equal."""

import numpy as np
import pytest
import torch

from spine_lib.course.boxes import Boxes, cut_boxes
from spine_lib.course.experiments import leakage
from spine_lib.course.label_maps import file_labels
from spine_lib.datasets import sample_cases
from spine_lib.slices.cut import IGNORE


@pytest.fixture
def patients():
    rng = np.random.default_rng(0)
    found = []
    for name, count in (("a", 9), ("b", 12), ("c", 30)):
        labels = rng.integers(0, 2, (count, 1, 32, 32)).astype(np.uint8)
        images = labels + rng.normal(0, 0.1, labels.shape)
        found.append(Boxes(name, images.astype(np.float32), labels, (1.0, 4.0, 4.0)))
    return found


@pytest.fixture
def trained(monkeypatch):
    """Replace training by a network that knows nothing; list what each would have trained on."""
    slices = []

    def train(patients, names, steps, seed):
        slices.append({tuple(pair) for pair in names.pairs.tolist()})
        return torch.nn.Conv2d(1, 1, 1)

    monkeypatch.setattr(leakage, "train", train)
    return slices


def test_no_slice_that_is_scored_is_ever_trained_on(patients, trained):
    leakage.compare_splits(patients, ["a", "b", "c"], seed=3, steps=1)
    scored = {tuple(pair) for pair in leakage.split_slices(patients, 3)[1].pairs.tolist()}
    assert len(trained) == 4
    assert all(not scored & slices for slices in trained)


def test_only_the_split_by_slice_trains_on_the_patient_that_is_scored(patients, trained):
    leakage.compare_splits(patients, ["b"], seed=0, steps=1)
    by_slice, by_patient = ({patient for patient, _ in slices} for slices in trained)
    assert by_slice == {0, 1, 2}
    assert by_patient == {0, 2}


def test_both_splits_train_on_equally_many_slices_and_score_the_same_ones(patients, trained):
    results = leakage.compare_splits(patients, ["c", "a"], seed=1, steps=1)
    counts = {len(slices) for slices in trained}
    assert counts == {results["c"]["training slices"]} == {results["a"]["training slices"]}
    assert results["c"]["scored slices"] == round(0.25 * 30)


def test_another_seed_scores_other_slices_and_the_same_seed_the_same(patients):
    first, again, other = (leakage.split_slices(patients, seed)[1].pairs for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_network_learns_what_is_on_the_slices_it_sees(patients):
    kept, scored = leakage.split_slices(patients, 0)
    network = leakage.train(patients, kept, steps=20, seed=0)
    assert leakage.score(network, patients, scored) > 0.8  # all spine would give 0.67


def test_boxes_hold_the_spine_and_count_nothing_outside_the_image(small_phantom):
    patient = cut_boxes("phantom", small_phantom, leakage.PIXEL_MM, leakage.BOX)
    assert patient.images.shape[1:] == (1, leakage.BOX, leakage.BOX)
    assert (patient.labels == 1).any(axis=(1, 2, 3)).mean() > 0.9
    air = patient.images == patient.images.min()
    assert air[patient.labels == IGNORE].all()


def test_the_kept_result_comes_from_real_patients_and_five_seeds():
    from spine_lib.course.results import lesson_result, settings_of

    kept = lesson_result("leakage")
    assert kept["profile"] == "full"
    assert [row["seed"] for row in kept["seeds"]] == list(leakage.SEEDS)
    assert kept["settings"] == settings_of(leakage) and kept["versions"]["spine_lib"]
    for row in kept["seeds"]:
        scores = row["patients"].values()
        assert row["gap"] == pytest.approx(
            np.mean([one["by slice"] - one["by patient"] for one in scores])
        )


def test_file_labels_are_the_ids_of_the_file_and_total_ids_of_a_phantom(sample_root, small_phantom):
    (crop,) = (case for case in sample_cases(sample_root) if case.case_id == "crop")
    assert set(np.unique(file_labels(crop.load()).array)) == {0, 21, 22, 23}
    translated = file_labels(small_phantom).array
    vertebrae = small_phantom.labels.array
    assert (translated[vertebrae == 24] == 27).all() and (vertebrae == 24).any()
    assert (translated[vertebrae == 0] == 0).all()
