"""Losses over several classes: those of a NumPy reference, of torch and of MONAI, masked alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn import functional

from spine_lib.slices.patches import TARGETS, class_map, spine_logit
from spine_lib.training.losses import FOCUS, LOSSES, SMOOTHING, segmentation_loss

CLASSES = TARGETS["regions"]


def batch_of(seed, classes=CLASSES, shape=(3, 6, 5), known=0.7):
    random = np.random.default_rng(seed)
    batch, *hw = shape
    logits = random.normal(0, 2, (batch, classes, *hw)).astype(np.float32)
    target = random.integers(0, max(classes, 2), (batch, 1, *hw)).astype(np.float32)
    weight = (random.random((batch, 1, *hw)) < known).astype(np.float32)
    return tuple(map(torch.from_numpy, (logits, target, weight)))


def reference(logits, target, weight, kind):
    """Write the losses out in float64, pixel by pixel and class by class."""
    logits, target, weight = (
        array.numpy().astype(np.float64) for array in (logits, target, weight)
    )
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = raised / raised.sum(axis=1, keepdims=True)
    entropy, focal, known = 0.0, 0.0, weight.sum()
    for b, r, c in np.ndindex(target.shape[0], *target.shape[2:]):
        right = probability[b, int(target[b, 0, r, c]), r, c]
        entropy -= weight[b, 0, r, c] * np.log(right)
        focal -= weight[b, 0, r, c] * (1 - right) ** FOCUS * np.log(right)
    missed = []
    for one in range(1, logits.shape[1]):
        guessed, true = probability[:, [one]] * weight, (target == one) * weight
        overlap = (guessed * true).sum()
        whole = guessed.sum() + true.sum()
        missed.append(1 - (2 * overlap + SMOOTHING) / (whole + SMOOTHING))
    parts = {"bce": entropy / max(1, known), "focal": focal / max(1, known)}
    parts["dice"] = np.mean(missed)
    return sum(parts[name] for name in kind.split("_"))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 7), st.sampled_from(LOSSES))
def test_every_loss_is_that_of_the_reference(seed, classes, kind):
    batch = batch_of(seed, classes)
    assert segmentation_loss(*batch, kind).item() == pytest.approx(
        reference(*batch, kind), rel=1e-4
    )


@pytest.mark.parametrize("kind", LOSSES)
def test_background_and_spine_as_two_classes_are_the_binary_loss(kind):
    """A softmax over the logits 0 and z is the sigmoid of z, so the numbers must not differ."""
    logits, target, weight = batch_of(3, classes=1)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    binary = segmentation_loss(logits, target, weight, kind)
    assert torch.isclose(segmentation_loss(two, target, weight, kind), binary, rtol=1e-5)


def test_soft_dice_is_that_of_monai():
    losses = pytest.importorskip("monai.losses")
    logits, target, _ = batch_of(5)
    monai = losses.DiceLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=True,
        smooth_nr=SMOOTHING,
        smooth_dr=SMOOTHING,
    )
    ours = segmentation_loss(logits, target, torch.ones_like(target), "dice")
    assert torch.isclose(ours, monai(logits, target), rtol=1e-5)


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    arrays.arrays(np.float32, (3, CLASSES, 6, 5), elements=st.floats(-5, 5, width=32)),
    st.sampled_from(LOSSES),
)
def test_what_a_network_says_of_unknown_pixels_changes_nothing(seed, noise, kind):
    logits, target, weight = batch_of(seed)
    other = logits + torch.from_numpy(noise) * (1 - weight)
    one, two = (segmentation_loss(some, target, weight, kind) for some in (logits, other))
    assert torch.isclose(one, two, rtol=1e-5)


def test_a_region_that_the_batch_does_not_show_is_still_not_to_be_invented():
    target, weight = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    target[..., :4] = 3
    logits = 20.0 * functional.one_hot(target[:, 0].long(), CLASSES).movedim(-1, 1)
    invented = logits.clone()
    invented[:, 1, :, 8:] = 40.0
    right, wrong = (segmentation_loss(some, target, weight, "dice") for some in (logits, invented))
    assert right < 0.01 and wrong > 0.2


@pytest.mark.parametrize("kind", LOSSES)
def test_slopes_are_finite_where_a_network_is_sure(kind):
    logits, target, weight = batch_of(6)
    logits = (50 * logits).requires_grad_()
    segmentation_loss(logits, target, weight, kind).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0


def test_the_logit_of_spine_is_that_of_every_class_but_the_background():
    logits, _, _ = batch_of(7)
    spine = torch.sigmoid(spine_logit(logits))
    assert torch.allclose(spine, 1 - logits.softmax(1)[:, :1], atol=1e-6)
    assert spine_logit(logits[:, :1]).equal(logits[:, :1])


def test_a_pixel_is_spine_if_its_regions_together_outweigh_the_background():
    unsure = torch.tensor([1.0, 0.0, 0.9, 0.8, 0.0]).view(1, CLASSES, 1, 1)
    assert unsure.argmax(1).item() == 0 and class_map(unsure).item() == 2
    sure = torch.tensor([3.0, 0.0, 0.9, 0.8, 0.0]).view(1, CLASSES, 1, 1)
    assert class_map(sure).item() == 0
    assert class_map(torch.tensor([2.0, -2.0]).view(2, 1, 1, 1)).flatten().tolist() == [1, 0]
