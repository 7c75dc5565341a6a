"""Typical mistakes in the exercises of lesson 6, each with words of the message meant for it."""

import math

import torch
from torch.nn import functional

entropy = functional.binary_cross_entropy_with_logits


def forgets_zero_grad(network, optimiser, image, target):
    """Let the gradients add up."""
    network.train()
    loss = entropy(network(image), target)
    loss.backward()
    optimiser.step()
    return loss.item()


def steps_before_backward(network, optimiser, image, target):
    """Step first, with no gradients."""
    network.train()
    loss = entropy(network(image), target)
    optimiser.zero_grad()
    optimiser.step()
    loss.backward()
    return loss.item()


def clears_after_backward(network, optimiser, image, target):
    """Throw the gradients away before they are used."""
    network.train()
    loss = entropy(network(image), target)
    loss.backward()
    optimiser.zero_grad()
    optimiser.step()
    return loss.item()


def stays_in_evaluation(network, optimiser, image, target):
    """Take the network as it comes."""
    loss = entropy(network(image), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def returns_the_tensor(network, optimiser, image, target):
    """Hold on to the graph."""
    network.train()
    loss = entropy(network(image), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss


def takes_two_sigmoids(network, optimiser, image, target):
    """Give probabilities to a loss that takes logits."""
    network.train()
    loss = entropy(torch.sigmoid(network(image)), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def _dice(p, target, weight, smoothing=10.0):
    overlap = 2 * (p * target * weight).sum() + smoothing
    return overlap / ((p * weight).sum() + (target * weight).sum() + smoothing)


def returns_the_dice(logits, target, weight):
    """Make what is good large."""
    return _dice(torch.sigmoid(logits), target, weight)


def ignores_the_weights(logits, target, weight):
    """Count unknown pixels."""
    return 1 - _dice(torch.sigmoid(logits), target, torch.ones_like(weight))


def weighs_the_overlap_alone(logits, target, weight):
    """Leave unknown pixels out of the upper sum only."""
    p = torch.sigmoid(logits)
    return 1 - (2 * (p * target * weight).sum() + 10) / (p.sum() + target.sum() + 10)


def thresholds(logits, target, weight):
    """Take the Dice of the mask."""
    return 1 - _dice((logits > 0).float(), target, weight)


def forgets_the_sigmoid(logits, target, weight):
    """Take logits for probabilities."""
    return 1 - _dice(logits, target, weight)


def averages_over_images(logits, target, weight):
    """Take the mean of the images' losses."""
    parts = zip(torch.sigmoid(logits), target, weight)
    return 1 - torch.stack([_dice(*one) for one in parts]).mean()


def returns_a_number(logits, target, weight):
    """Cut the slope off."""
    return (1 - _dice(torch.sigmoid(logits), target, weight)).item()


def takes_the_logarithm_itself(logits, target, weight):
    """Compute log(p), which is log(0) for large logits."""
    p = torch.sigmoid(logits)
    right = torch.where(target > 0, p, 1 - p)
    return (weight * -torch.log(right) * (1 - right) ** 2).sum() / weight.sum()


def forgets_the_factor(logits, target, weight):
    """Take plain cross-entropy."""
    return (weight * entropy(logits, target, reduction="none")).sum() / weight.sum()


def takes_one_minus_p(logits, target, weight):
    """Treat background as if it were spine."""
    each = (1 - torch.sigmoid(logits)) ** 2 * entropy(logits, target, reduction="none")
    return (weight * each).sum() / weight.sum()


def does_not_square(logits, target, weight):
    """Take the factor as it is."""
    wrong = (torch.sigmoid(logits) - target).abs()
    return (weight * wrong * entropy(logits, target, reduction="none")).sum() / weight.sum()


def divides_by_all(logits, target, weight):
    """Take the mean over all pixels."""
    wrong = (torch.sigmoid(logits) - target).abs()
    return (weight * wrong**2 * entropy(logits, target, reduction="none")).mean()


def has_no_warm_up(step, steps, highest, warm_up):
    """Start at the top."""
    way = max(0.0, (step - warm_up) / (steps - warm_up))
    return highest * (1 + math.cos(math.pi * way)) / 2


def starts_at_nothing(step, steps, highest, warm_up):
    """Begin the line at 0."""
    if step < warm_up:
        return highest * step / warm_up
    return highest * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2


def _warm(step, highest, warm_up):
    return highest * (step + 1) / warm_up


def counts_the_wave_from_the_start(step, steps, highest, warm_up):
    """Forget that the warm-up took time."""
    if step < warm_up:
        return _warm(step, highest, warm_up)
    return highest * (1 + math.cos(math.pi * step / steps)) / 2


def goes_down_straight(step, steps, highest, warm_up):
    """Take a line instead of a wave."""
    if step < warm_up:
        return _warm(step, highest, warm_up)
    return highest * (1 - (step - warm_up) / (steps - warm_up))


def takes_the_bare_cosine(step, steps, highest, warm_up):
    """Go below zero."""
    if step < warm_up:
        return _warm(step, highest, warm_up)
    return highest * math.cos(math.pi * (step - warm_up) / (steps - warm_up))


def _pieces(image, target, parts):
    return zip(image.tensor_split(parts), target.tensor_split(parts))


def adds_whole_losses(network, optimiser, image, target, parts):
    """Forget that a mean was meant."""
    optimiser.zero_grad()
    total = 0.0
    for images, targets in _pieces(image, target, parts):
        loss = entropy(network(images), targets)
        loss.backward()
        total += loss.item()
    optimiser.step()
    return total / parts


def divides_by_the_parts(network, optimiser, image, target, parts):
    """Take the mean of means of unequal parts."""
    optimiser.zero_grad()
    total = 0.0
    for images, targets in _pieces(image, target, parts):
        loss = entropy(network(images), targets) / parts
        loss.backward()
        total += loss.item()
    optimiser.step()
    return total


def clears_in_the_loop(network, optimiser, image, target, parts):
    """Keep the last part's gradients."""
    total = 0.0
    for images, targets in _pieces(image, target, parts):
        optimiser.zero_grad()
        loss = entropy(network(images), targets) * len(images) / len(image)
        loss.backward()
        total += loss.item()
    optimiser.step()
    return total


def steps_in_the_loop(network, optimiser, image, target, parts):
    """Train on small batches after all."""
    total = 0.0
    for images, targets in _pieces(image, target, parts):
        optimiser.zero_grad()
        loss = entropy(network(images), targets)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(images) / len(image)
    return total


def takes_it_all_at_once(network, optimiser, image, target, parts):
    """Ignore the memory."""
    optimiser.zero_grad()
    loss = entropy(network(image), target)
    loss.backward()
    optimiser.step()
    return loss.item()


def never_clears(network, optimiser, image, target, parts):
    """Add to what an earlier step left."""
    total = 0.0
    for images, targets in _pieces(image, target, parts):
        loss = entropy(network(images), targets) * len(images) / len(image)
        loss.backward()
        total += loss.item()
    optimiser.step()
    return total


def goes_backward_once(network, optimiser, image, target, parts):
    """Add up the losses and go backward through all parts at the end."""
    optimiser.zero_grad()
    total = 0.0
    for images, targets in _pieces(image, target, parts):
        total = total + entropy(network(images), targets) * len(images) / len(image)
    total.backward()
    optimiser.step()
    return total.item()


def _checkpoint(network, optimiser, schedule, step):
    return {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
    }


def keeps_the_weights_alone(network, optimiser, schedule, step):
    """Save what a prediction needs."""
    return {"network": network.state_dict(), "step": step}


def keeps_objects(network, optimiser, schedule, step):
    """Pickle the network itself."""
    return _checkpoint(network, optimiser, schedule, step) | {"network": network}


def starts_the_optimiser_anew(network, optimiser, schedule, step):
    """Save the state of a fresh optimiser."""
    fresh = torch.optim.AdamW(network.parameters(), lr=0.05)
    fresh.param_groups[0]["initial_lr"] = 0.05
    return _checkpoint(network, fresh, schedule, step)


def seeds_anew(network, optimiser, schedule, step):
    """Start the random numbers again."""
    torch.manual_seed(0)
    return _checkpoint(network, optimiser, schedule, step)


def keeps_a_seed(network, optimiser, schedule, step):
    """Keep what the run was started with."""
    return _checkpoint(network, optimiser, schedule, step) | {"random": 0}


def counts_one_more(network, optimiser, schedule, step):
    """Name the next step."""
    return _checkpoint(network, optimiser, schedule, step + 1)


MISTAKES = {
    "6.1": [
        (forgets_zero_grad, "call optimiser.zero_grad()"),
        (steps_before_backward, "after loss.backward()"),
        (clears_after_backward, "have no gradients"),
        (stays_in_evaluation, "call network.train() first"),
        (returns_the_tensor, "not a tensor"),
        (takes_two_sigmoids, "a sigmoid was applied twice"),
    ],
    "6.2": [
        (returns_the_dice, "this is the Dice itself"),
        (ignores_the_weights, "pixels of weight 0 count"),
        (weighs_the_overlap_alone, "below the line"),
        (thresholds, "no slope leads"),
        (forgets_the_sigmoid, "these are logits"),
        (averages_over_images, "mean over images"),
        (returns_a_number, "from which backward can start"),
    ],
    "6.3": [
        (takes_the_logarithm_itself, "the logarithm of a sigmoid"),
        (forgets_the_factor, "nothing turned down"),
        (takes_one_minus_p, "where there is none, that is p"),
        (does_not_square, "comes squared"),
        (divides_by_all, "divide by the number of those that are known"),
    ],
    "6.4": [
        (has_no_warm_up, "there is no warm-up"),
        (starts_at_nothing, "the first step would do nothing"),
        (counts_the_wave_from_the_start, "count from the end of the warm-up"),
        (goes_down_straight, "in a straight line"),
        (takes_the_bare_cosine, "a cosine runs from 1 to -1"),
    ],
    "6.5": [
        (adds_whole_losses, "were added up whole"),
        (divides_by_the_parts, "not equally large"),
        (clears_in_the_loop, "only the last part counts"),
        (steps_in_the_loop, "one step, after the last"),
        (takes_it_all_at_once, "went through the network at once"),
        (never_clears, "zero_grad first"),
        (goes_backward_once, "call backward for each part"),
    ],
    "6.6": [
        (keeps_the_weights_alone, "the checkpoint lacks optimiser"),
        (keeps_objects, "the object itself"),
        (starts_the_optimiser_anew, "optimiser's memory is empty"),
        (seeds_anew, "other random numbers"),
        (keeps_a_seed, "no state of PyTorch's random"),
        (counts_one_more, "after 3 steps"),
    ],
}
