"""Masks that the tests of overlap and surfaces share."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SPACING_MM = (0.7, 1.3, 2.5)

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
