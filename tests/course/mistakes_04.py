"""Typical mistakes in the exercises of lesson 4, each with words of the message meant for it."""

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional


def _look(inputs, outputs, bias=False, padding=1):
    return [
        nn.Conv2d(inputs, outputs, 3, padding=padding, bias=bias),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def looks_once(inputs, outputs):
    """Convolve once."""
    return nn.Sequential(*_look(inputs, outputs))


def forgets_to_pad(inputs, outputs):
    """Leave the padding at its default."""
    return nn.Sequential(*_look(inputs, outputs, padding=0), *_look(outputs, outputs, padding=0))


def keeps_the_bias(inputs, outputs):
    """Leave the bias at its default."""
    return nn.Sequential(*_look(inputs, outputs, bias=True), *_look(outputs, outputs, bias=True))


def grows_late(inputs, outputs):
    """Keep the channels in the first look."""
    return nn.Sequential(*_look(inputs, inputs), *_look(inputs, outputs))


def forgets_normalisation(inputs, outputs):
    """Convolve and cut off, no more."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
    )


def leaves_out_the_last_relu(inputs, outputs):
    """End with the normalisation."""
    return nn.Sequential(*_look(inputs, outputs), *_look(outputs, outputs)[:2])


def normalises_last(inputs, outputs):
    """Put the ReLU before the normalisation."""
    first, second = _look(inputs, outputs), _look(outputs, outputs)
    return nn.Sequential(first[0], first[2], first[1], second[0], second[2], second[1])


def interpolates_linearly(below, skip):
    """Enlarge bilinearly."""
    return torch.cat([functional.interpolate(below, scale_factor=2, mode="bilinear"), skip], dim=1)


def puts_the_skip_first(below, skip):
    """Join in the other order."""
    return torch.cat([skip, functional.interpolate(below, scale_factor=2)], dim=1)


def lays_tiles(below, skip):
    """Repeat the map instead of its pixels."""
    return torch.cat([below.repeat(1, 1, 2, 2), skip], dim=1)


def shrinks_the_skip(below, skip):
    """Make the large one small."""
    return torch.cat([below, functional.max_pool2d(skip, 2)], dim=1)


def forgets_the_skip(below, skip):
    """Enlarge only."""
    return functional.interpolate(below, scale_factor=2)


def adds_them(below, skip):
    """Add what has equally many channels, as a ResNet does."""
    enlarged = functional.interpolate(below, scale_factor=2)
    if enlarged.shape != skip.shape:
        return torch.cat([enlarged, skip], dim=1)
    return enlarged + skip


def _double(a, b, norm=4, bias=0):
    return 9 * a * b + 9 * b * b + (norm + bias) * b


def _total(in_channels, classes, width, depth, skips=True, head_bias=True, double=_double):
    levels = [width * 2**level for level in range(depth + 1)]
    total = double(in_channels, width) + classes * (width + head_bias)
    for above, below in zip(levels[:-1], levels[1:]):
        total += double(above, below) + double(below + above * skips, above)
    return total


def counts_no_skips(in_channels, classes, width, depth):
    """Forget the channels of the skips."""
    return _total(in_channels, classes, width, depth, skips=False)


def counts_no_normalisation(in_channels, classes, width, depth):
    """Count the convolutions only."""
    return _total(in_channels, classes, width, depth, double=lambda a, b: _double(a, b, norm=0))


def counts_a_bias(in_channels, classes, width, depth):
    """Give each convolution a bias."""
    return _total(in_channels, classes, width, depth, double=lambda a, b: _double(a, b, bias=2))


def counts_single_convolutions(in_channels, classes, width, depth):
    """One convolution a block."""
    return _total(in_channels, classes, width, depth, double=lambda a, b: 9 * a * b + 2 * b)


def counts_a_level_too_few(in_channels, classes, width, depth):
    """Take the depth for the number of levels."""
    return _total(in_channels, classes, width, depth - 1)


def counts_no_head_bias(in_channels, classes, width, depth):
    """Forget the one bias that there is."""
    return _total(in_channels, classes, width, depth, head_bias=False)


def divides_on_the_way(in_channels, classes, width, depth):
    """Let the number become a float."""
    return _total(in_channels, classes, width, depth) / 1


def _steps(network, image, target, steps, learning_rate, optimiser=torch.optim.AdamW):
    optimiser = optimiser(network.parameters(), learning_rate)
    for _ in range(steps):
        loss = functional.binary_cross_entropy_with_logits(network(image), target)
        yield loss, optimiser


def stays_in_evaluation_mode(network, image, target, steps, learning_rate):
    """Forget network.train()."""
    losses = []
    for loss, optimiser in _steps(network, image, target, steps, learning_rate):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def lets_gradients_add_up(network, image, target, steps, learning_rate):
    """Forget zero_grad."""
    losses = []
    for loss, optimiser in _steps(network.train(), image, target, steps, learning_rate):
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def squashes_twice(network, image, target, steps, learning_rate):
    """Apply the sigmoid before a loss that takes logits."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    losses = []
    for _ in range(steps):
        probability = torch.sigmoid(network(image))
        loss = functional.binary_cross_entropy_with_logits(probability, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def never_steps(network, image, target, steps, learning_rate):
    """Find the gradients and leave it at that."""
    losses = []
    for loss, optimiser in _steps(network.train(), image, target, steps, learning_rate):
        optimiser.zero_grad()
        loss.backward()
        losses.append(loss.item())
    return losses


def keeps_tensors(network, image, target, steps, learning_rate):
    """Append the loss itself."""
    losses = []
    for loss, optimiser in _steps(network.train(), image, target, steps, learning_rate):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return losses


def descends_plainly(network, image, target, steps, learning_rate):
    """Take SGD."""
    losses = []
    walk = _steps(network.train(), image, target, steps, learning_rate, torch.optim.SGD)
    for loss, optimiser in walk:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def _surface(mask):
    return mask & ~ndimage.binary_erosion(mask)


def _one_way(mask, other, spacing_mm):
    return ndimage.distance_transform_edt(~other, sampling=spacing_mm)[mask]


def measures_in_voxels(prediction, truth, spacing_mm):
    """Forget the spacing."""
    a, b = _surface(prediction), _surface(truth)
    return (_one_way(a, b, None).mean() + _one_way(b, a, None).mean()) / 2


def measures_one_way(prediction, truth, spacing_mm):
    """Ask the prediction only."""
    return _one_way(_surface(prediction), _surface(truth), spacing_mm).mean()


def measures_the_other_way(prediction, truth, spacing_mm):
    """Ask the truth only."""
    return _one_way(_surface(truth), _surface(prediction), spacing_mm).mean()


def takes_whole_masks(prediction, truth, spacing_mm):
    """Measure from all voxels."""
    there = _one_way(prediction, truth, spacing_mm).mean()
    return (there + _one_way(truth, prediction, spacing_mm).mean()) / 2


def takes_the_largest(prediction, truth, spacing_mm):
    """Give the Hausdorff distance."""
    a, b = _surface(prediction), _surface(truth)
    return max(_one_way(a, b, spacing_mm).max(), _one_way(b, a, spacing_mm).max())


def pools_both_ways(prediction, truth, spacing_mm):
    """Take one mean over all distances."""
    a, b = _surface(prediction), _surface(truth)
    return np.concatenate([_one_way(a, b, spacing_mm), _one_way(b, a, spacing_mm)]).mean()


def keeps_their_names(theirs, ours):
    """Return what was given."""
    return dict(theirs)


def drops_what_does_not_fit(theirs, ours):
    """Leave out pairs of different shapes."""
    pairs = zip(ours.items(), theirs.values())
    return {name: value for (name, own), value in pairs if value.shape == own.shape}


def copies_everything(theirs, ours):
    """Never look at the shapes."""
    return dict(zip(ours, theirs.values()))


def goes_by_the_alphabet(theirs, ours):
    """Sort both; 10 comes before 2 then."""
    pairs = dict(zip(sorted(ours), sorted(theirs)))
    return {
        name: theirs[pairs[name]] if theirs[pairs[name]].shape == own.shape else own
        for name, own in ours.items()
    }


def looks_for_equal_names(theirs, ours):
    """Take what has the same name, which is nothing."""
    return {name: theirs.get(name, own) for name, own in ours.items()}


def takes_the_first_that_fits(theirs, ours):
    """Go by shape alone."""
    return {
        name: next((v for v in theirs.values() if v.shape == own.shape), own)
        for name, own in ours.items()
    }


MISTAKES = {
    "4.1": [
        (looks_once, "and it should have two"),
        (forgets_to_pad, "loses a row and a column"),
        (keeps_the_bias, "bias=False"),
        (grows_late, "and it should go from"),
        (forgets_normalisation, "each convolution has its own"),
        (leaves_out_the_last_relu, "the last ReLU is missing"),
        (normalises_last, "normalise before the ReLU"),
    ],
    "4.2": [
        (interpolates_linearly, "you interpolated linearly"),
        (puts_the_skip_first, "behind, not before"),
        (lays_tiles, "the whole map down four times"),
        (shrinks_the_skip, "lost its detail again"),
        (forgets_the_skip, "the skip is missing"),
        (adds_them, "you added the two maps"),
    ],
    "4.3": [
        (counts_no_skips, "the skip's channels come in"),
        (counts_no_normalisation, "the normalisations are missing"),
        (counts_a_bias, "have no bias"),
        (counts_single_convolutions, "each block convolves twice"),
        (counts_a_level_too_few, "that is a network of depth"),
        (counts_no_head_bias, "has a bias, one for each class"),
        (divides_on_the_way, "parameters are whole numbers"),
    ],
    "4.4": [
        (stays_in_evaluation_mode, "call network.train() first"),
        (lets_gradients_add_up, "gradients add up"),
        (squashes_twice, "has its own sigmoid"),
        (never_steps, "weights are as they were"),
        (keeps_tensors, "loss.item()"),
        (descends_plainly, "plain gradient descent"),
    ],
    "4.5": [
        (measures_in_voxels, "that is in voxels"),
        (measures_one_way, "from the prediction to the truth"),
        (measures_the_other_way, "from the truth to the prediction"),
        (takes_whole_masks, "take the surfaces"),
        (takes_the_largest, "the largest distance"),
        (pools_both_ways, "the larger surface counts more"),
    ],
    "4.6": [
        (keeps_their_names, "these are their names"),
        (drops_what_does_not_fit, "our own tensor stays"),
        (copies_everything, "which our layer cannot take"),
        (goes_by_the_alphabet, "not in that of the alphabet"),
        (looks_for_equal_names, "nothing came over"),
        (takes_the_first_that_fits, "pair them in the order"),
    ],
}
