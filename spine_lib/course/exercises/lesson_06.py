"""Exercises of lesson 6: a training step, two losses, a schedule, accumulation, a checkpoint."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from spine_lib.course.exercise import Wrong, declare, describe, raise_known
from spine_lib.training.losses import segmentation_loss

# --- 6.1 a step --------------------------------------------------------------------------------


def a_network(seed: int, normalised: bool = True, dropout: float = 0.0) -> nn.Sequential:
    """Make a tiny network that maps [batch, 1, row, column] to logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)]
    if normalised:
        layers.insert(1, nn.BatchNorm2d(4))
    if dropout:
        layers.insert(2, nn.Dropout(dropout))
    return nn.Sequential(*layers)


def a_batch(seed: int, count: int = 4, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Make images with a bright square each, and where it is."""
    random = torch.Generator().manual_seed(seed)
    target = torch.zeros(count, 1, size, size)
    for item in target:
        row, column = torch.randint(0, size - 4, (2,), generator=random).tolist()
        item[0, row : row + 4, column : column + 4] = 1
    return target + 0.5 * torch.randn(target.shape, generator=random), target


def a_training(seed: int, training: bool = True) -> tuple:
    """Make network, optimiser, image and target of a step."""
    network = a_network(seed).train(training)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9)
    return (network, optimiser, *a_batch(seed))


def _right_step(network: nn.Module, optimiser, image, target) -> float:
    network.train()
    optimiser.zero_grad()
    loss = functional.binary_cross_entropy_with_logits(network(image), target)
    loss.backward()
    optimiser.step()
    return loss.item()


def judge_step(function: Callable, network, optimiser, image, target) -> None:
    """Judge one step, then a second one on another batch."""
    before = copy.deepcopy(network)
    twin, twin_optimiser = copy.deepcopy((network, optimiser))
    wanted = _right_step(twin, twin_optimiser, image, target)
    loss = _number(function(network, optimiser, image, target))
    _judge_loss(loss, wanted, before, image, target)
    if not network.training:
        raise Wrong(
            "the network came in evaluation mode and stayed in it: BatchNorm then uses old means "
            "and learns no new ones; call network.train() first"
        )
    if _same_weights(network, before):
        raise Wrong(_why_unchanged(network))
    if not _same_weights(network, twin):
        raise Wrong(
            "the weights changed, but not by one step down this loss: backward once, then "
            "optimiser.step() once"
        )
    images, targets = a_batch(99)
    _right_step(twin, twin_optimiser, images, targets)
    function(network, optimiser, images, targets)
    if not _same_weights(network, twin):
        raise Wrong(
            "the first step is right and the second is not: gradients of the first are still there "
            "and are added to; call optimiser.zero_grad() before backward"
        )


def _judge_loss(loss: float, wanted: float, network: nn.Module, image, target) -> None:
    if math.isclose(loss, wanted, rel_tol=1e-4):
        return
    with torch.no_grad():
        evaluated = copy.deepcopy(network).eval()(image)
        logits = copy.deepcopy(network).train()(image)
        entropy = functional.binary_cross_entropy_with_logits
        mistakes = {
            "this is the loss in evaluation mode: call network.train() first": entropy(
                evaluated, target
            ),
            "a sigmoid was applied twice: binary_cross_entropy_with_logits has it inside and "
            "takes the logits as they are": entropy(torch.sigmoid(logits), target),
            "this is the sum over pixels: take the mean": entropy(logits, target, reduction="sum"),
        }
    beginning = f"your loss is {loss:.4g} instead of {wanted:.4g}: "
    raise_known(loss, mistakes, rtol=1e-4, atol=0, beginning=beginning)
    raise Wrong(
        f"{beginning}return that before the step, of the logits (given first) and the target"
    )


def _why_unchanged(network: nn.Module) -> str:
    gradients = [weight.grad for weight in network.parameters()]
    if all(gradient is None or not gradient.any() for gradient in gradients):
        return (
            "the weights did not change and have no gradients: loss.backward() finds them (and "
            "zero_grad after it would throw them away)"
        )
    return (
        "the weights did not change though their gradients are there: optimiser.step() changes "
        "them, after loss.backward()"
    )


def _same_weights(a: nn.Module, b: nn.Module, tolerance: float = 1e-5) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.allclose(x, y, atol=tolerance) for x, y in pairs)


def _number(answer: object) -> float:
    if isinstance(answer, torch.Tensor):
        raise Wrong(
            "return a number, loss.item(), and not a tensor: a tensor holds on to the whole step, "
            "and a list of such losses fills the memory"
        )
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise Wrong(f"return the loss, a number, and not {describe(answer)}")
    return float(answer)


# --- a batch in parts -----------------------------------------------------------------------------


def an_accumulation(seed: int, count: int, parts: int) -> tuple:
    """Make network, optimiser, a batch and a number of parts."""
    network = a_network(seed, normalised=False)
    optimiser = torch.optim.SGD(network.parameters(), lr=2.0)
    image, target = a_batch(seed, count)
    target[: count // 3] = 0  # so that no part is like the whole
    functional.binary_cross_entropy_with_logits(network(image), 1 - target).backward()
    return network, optimiser, image, target, parts


def judge_accumulate(function: Callable, *arguments) -> None:
    """Judge a step on a batch in parts against one on the whole batch."""
    network, optimiser, image, target, parts = arguments
    before = _copies(network, optimiser)
    twin, twin_optimiser = _copies(*before)
    wanted = _right_step(twin, twin_optimiser, image, target)
    loss, sizes, together = _watched(function, arguments)
    if sizes and max(sizes) > math.ceil(len(image) / parts):
        raise Wrong(
            f"{max(sizes)} images went through the network at once: the memory holds "
            f"{math.ceil(len(image) / parts)}; cut the batch into {parts} parts"
        )
    loss = _number(loss)
    if not _same_weights(network, twin):
        raise Wrong(_why_accumulated(network, before, image, target, parts))
    if not math.isclose(loss, wanted, rel_tol=1e-4):
        raise Wrong(
            f"the step is right, but you return {loss:.4g} instead of {wanted:.4g}, the mean over "
            "the whole batch"
        )
    if together:
        raise Wrong(
            "the step is right, but no part had its backward before all had gone in, so the maps "
            "of all lie in memory together: call backward for each part, which frees its maps"
        )


def _watched(function: Callable, arguments: tuple) -> tuple[object, list[int], bool]:
    """Return the answer, the images of each forward, and whether no backward came in between."""
    sizes: list[int] = []
    backwards: list[torch.Tensor] = []
    together = False

    def watch(module, given, out) -> None:
        nonlocal together
        sizes.append(len(given[0]))
        together = not backwards
        if out.requires_grad:
            out.register_hook(backwards.append)

    hook = arguments[0].register_forward_hook(watch)
    answer = function(*arguments)
    hook.remove()
    return answer, sizes, together


def _copies(network: nn.Module, optimiser) -> tuple:
    """Copy both and the gradients, which a copy of a weight leaves behind."""
    copies = copy.deepcopy((network, optimiser))
    for new, old in zip(copies[0].parameters(), network.parameters(), strict=True):
        new.grad = None if old.grad is None else old.grad.clone()
    return copies


def _why_accumulated(network: nn.Module, before: tuple, image, target, parts: int) -> str:
    pieces = list(zip(image.tensor_split(parts), target.tensor_split(parts), strict=True))
    whole, even = [1.0] * parts, [1 / parts] * parts
    shares = [len(item) / len(image) for item, _ in pieces]
    mistakes = {
        "the parts' gradients were added up whole: each part's loss counts only as much as its "
        "share of the batch": [{"shares": whole}],
        "the parts are not equally large, and their losses count equally: weight each with its "
        "share of the images": [{"shares": even}],
        "gradients from before are still in: zero_grad first": [{"shares": shares, "clear": False}],
        "only the last part counts: zero_grad before the first part, not before each": [
            {"shares": shares, "clear_each": True},
            {"shares": whole, "clear_each": True},
        ],
        "the weights moved after every part: one step, after the last": [
            {"shares": whole, "clear_each": True, "step_each": True},
            {"shares": shares, "clear_each": True, "step_each": True},
            {"shares": shares, "step_each": True},
        ],
    }
    for message, ways in mistakes.items():
        for way in ways:
            if _same_weights(network, _accumulate(*_copies(*before), pieces, **way)):
                return message
    if _same_weights(network, before[0]):
        return _why_unchanged(network)
    return "the weights are not where one step on the whole batch would bring them"


def _accumulate(network, optimiser, pieces, shares, clear=True, clear_each=False, step_each=False):
    """Do it in a way that may be wrong, to know which way it was."""
    if clear:
        optimiser.zero_grad()
    for (image, target), share in zip(pieces, shares, strict=True):
        if clear_each:
            optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(network(image), target)
        (share * loss).backward()
        if step_each:
            optimiser.step()
    if not step_each:
        optimiser.step()
    return network


# --- a checkpoint ---------------------------------------------------------------------------------

CHECKPOINT_KEYS = ("network", "optimiser", "schedule", "random", "step")


def a_run(seed: int, step: int) -> tuple:
    """Make a run that has done some steps: network, optimiser, schedule, number of steps."""
    network = a_network(seed, dropout=0.5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _go_on(network, optimiser, schedule, 0, step)
    return network, optimiser, schedule, step


def _go_on(network, optimiser, schedule, step: int, count: int) -> nn.Module:
    for number in range(step, step + count):
        _right_step(network, optimiser, *a_batch(1000 + number))
        schedule.step()
    return network


def judge_checkpoint(function: Callable, *arguments) -> None:
    """Judge a checkpoint: save, read, resume, and compare with the run that went on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77 + arguments[-1])
        random = torch.get_rng_state()
        answer = function(*arguments)
        torch.set_rng_state(random)  # a function that seeds must not seed the unbroken run too
        unbroken = _go_on(*copy.deepcopy(arguments), 3)
        state = _read_again(answer)
        resumed = _go_on(*_resume(state), 3)
    if not _same_weights(unbroken, resumed):
        raise Wrong(_why_not_resumed(state, arguments))


def _read_again(answer: object) -> dict:
    """Write and read a checkpoint as a run would."""
    if not isinstance(answer, dict):
        raise Wrong(f"return a dict, and not {describe(answer)}")
    missing = [key for key in CHECKPOINT_KEYS if key not in answer]
    if missing:
        raise Wrong(f"the checkpoint lacks {', '.join(missing)}: see the docstring for its keys")
    for key in ("network", "optimiser", "schedule"):
        if hasattr(answer[key], "state_dict"):
            raise Wrong(
                f"{key} is the object itself, which torch.load refuses since it could run code: "
                "its state_dict() holds the numbers"
            )
    file = io.BytesIO()
    try:
        torch.save(answer, file)
        file.seek(0)
        return torch.load(file, weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds
        raise Wrong(
            f"the checkpoint cannot be written and read again ({type(error).__name__}): it may "
            "hold tensors, numbers, strings and containers of these"
        ) from error


def _resume(state: dict) -> tuple:
    network = a_network(5, dropout=0.5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.7)
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    for key, part in parts.items():
        try:
            part.load_state_dict(state[key])
        except Exception as error:  # each part complains in its own way
            raise Wrong(
                f"{key} cannot be restored from what the checkpoint holds under that name "
                f"({describe(state[key])}): take its state_dict()"
            ) from error
    try:
        torch.set_rng_state(state["random"])
    except (TypeError, RuntimeError) as error:
        raise Wrong(
            f"random is {describe(state['random'])}, which is no state of PyTorch's random "
            "numbers: torch.get_rng_state() returns it"
        ) from error
    if isinstance(state["step"], bool) or not isinstance(state["step"], int):
        raise Wrong(f"step is {describe(state['step'])}: keep the number of steps")
    return network, optimiser, schedule, state["step"]


def _why_not_resumed(state: dict, arguments: tuple) -> str:
    network, optimiser, schedule, step = arguments
    if state["step"] != step:
        return f"step is {state['step']} after {step} steps: the run would draw other batches"
    rates = [group["lr"] for group in state["optimiser"]["param_groups"]]
    if not state["optimiser"]["state"]:
        return "the optimiser's memory is empty: take the state_dict() of the one that was given"
    if not math.isclose(rates[0], optimiser.param_groups[0]["lr"]):
        return "the learning rate starts anew: take the state of the optimiser that was given"
    if state["schedule"] != schedule.state_dict():
        return "the schedule starts anew: take the state_dict() of the one that was given"
    restored = a_network(5, dropout=0.5)
    restored.load_state_dict(state["network"])
    if not _same_weights(restored, network):
        return "the weights are not those of the network that was given"
    return (
        "the run goes on with other random numbers than an unbroken one, so dropout drops other "
        "units: keep torch.get_rng_state() as it is now, and seed nothing"
    )


# --- 6.2 ------------------------------------------------------------------------------------------


def some_logits(seed: int, extreme: bool = False) -> tuple[torch.Tensor, ...]:
    """Make logits, a target in some of the images and weights of 0 and 1."""
    random = torch.Generator().manual_seed(600 + seed)
    _, target = a_batch(seed, 3, 16)
    target[0] = 0  # one image shows no spine
    logits = 3 * torch.randn(target.shape, generator=random) + 2 * target - 1
    weight = (torch.rand(target.shape, generator=random) > 0.2).float()
    if extreme:
        logits[1, 0, 0, :4] = torch.tensor([200.0, -200.0, 120.0, -120.0])
        weight[1, 0, 0, :4] = 1
    return logits, target, weight


def _judge_dice(function: Callable, logits, target, weight) -> None:
    loss = _loss_with_slope(function, logits, target, weight)
    right = segmentation_loss(logits, target, weight, "dice").item()
    if math.isclose(loss.item(), right, abs_tol=1e-4):
        return
    p, hard = torch.sigmoid(logits), (logits > 0).float()
    each = torch.stack([_dice(*parts) for parts in zip(p, target, weight, strict=True)])
    mistakes = {
        "this is the Dice itself: a loss is small where it is good": _dice(p, target, weight),
        "pixels of weight 0 count: they must leave all three sums": 1 - _dice(p, target, 1),
        "pixels of weight 0 still count below the line: they must leave all three sums": (
            1 - (2 * (p * target * weight).sum() + 10) / (p.sum() + target.sum() + 10)
        ),
        "these are logits: a sigmoid makes probabilities": 1 - _dice(logits, target, weight),
        "a threshold has no slope: take the probabilities": 1 - _dice(hard, target, weight),
        "this is the mean over images of their own losses: sum over the whole batch, so that "
        "images with little spine count little": 1 - each.mean(),
        "the 10 is missing, above and below the line": 1 - _dice(p, target, weight, 0),
    }
    beginning = f"your loss is {loss.item():.4f} instead of {right:.4f}: "
    raise_known(loss, mistakes, rtol=0, atol=1e-4, beginning=beginning)
    raise Wrong(f"{beginning}compare your three sums with the formula, one by one")


def _dice(p, target, weight, smoothing: float = 10.0) -> torch.Tensor:
    overlap = 2 * (p * target * weight).sum() + smoothing
    return overlap / ((p * weight).sum() + (target * weight).sum() + smoothing)


def _loss_with_slope(function: Callable, logits, target, weight) -> torch.Tensor:
    """Call a loss and make sure that it leads back to the logits."""
    leaf = logits.clone().requires_grad_()
    loss = function(leaf, target, weight)
    if not isinstance(loss, torch.Tensor):
        raise Wrong(f"return a tensor, from which backward can start, and not {describe(loss)}")
    if loss.shape != ():
        raise Wrong(f"return one number, and not {describe(loss)}: sum over all pixels")
    if not loss.requires_grad:
        raise Wrong(
            "no slope leads from your loss back to the logits: a threshold, .item() or .detach() "
            "cuts it off"
        )
    return loss.detach()


# --- 6.3 ------------------------------------------------------------------------------------------


def _judge_focal(function: Callable, logits, target, weight) -> None:
    loss = _loss_with_slope(function, logits, target, weight).item()
    right = segmentation_loss(logits, target, weight, "focal").item()
    if math.isclose(loss, right, rel_tol=1e-3):
        return
    if not math.isfinite(loss):
        raise Wrong(
            f"your loss is {loss}: the logarithm of a sigmoid of -200 is that of 0; take "
            "binary_cross_entropy_with_logits(..., reduction='none'), which never leaves the logits"
        )
    p = torch.sigmoid(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = (p - target).abs()
    known, pixels = weight.sum(), weight.numel()
    mistakes = {
        "this is the cross-entropy, with nothing turned down": (weight * entropy).sum() / known,
        "how wrong a pixel is comes squared": (weight * missed * entropy).sum() / known,
        "1 - p is how wrong a pixel is where there is spine; where there is none, that is p": (
            (weight * (1 - p) ** 2 * entropy).sum() / known
        ),
        "this turns down the pixels that are wrong: the factor is one minus the probability of "
        "the right answer": (weight * (1 - missed) ** 2 * entropy).sum() / known,
        "the mean runs over all pixels: divide by the number of those that are known": (
            (weight * missed**2 * entropy).sum() / pixels
        ),
        "pixels of weight 0 count: leave them out": (missed**2 * entropy).mean(),
        "this is the sum: take the mean": (weight * missed**2 * entropy).sum(),
    }
    beginning = f"your loss is {loss:.4g} instead of {right:.4g}: "
    raise_known(loss, mistakes, rtol=1e-3, atol=0, beginning=beginning)
    raise Wrong(
        f"{beginning}each pixel has its own cross-entropy and its own factor; the mean comes last"
    )


# --- 6.4 ------------------------------------------------------------------------------------------


def warm_up_cosine(step: int, steps: int, highest: float, warm_up: int) -> float:
    """Return the learning rate of a step; see the exercise."""
    if step < warm_up:
        return highest * (step + 1) / warm_up
    gone = (step - warm_up) / (steps - warm_up)
    return highest * (0.5 + 0.5 * math.cos(math.pi * gone))


def _judge_schedule(function: Callable, *arguments) -> None:
    step, steps, highest, warm_up = arguments
    right = warm_up_cosine(step, steps, highest, warm_up)
    rate = function(step, steps, highest, warm_up)
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise Wrong(f"return a number, and not {describe(rate)}")
    if math.isclose(rate, right, rel_tol=1e-6, abs_tol=1e-9 * highest):
        return
    raise Wrong(f"step {step} has {rate:.4g} instead of {right:.4g}: {_why_rate(rate, *arguments)}")


def _why_rate(rate: float, step: int, steps: int, highest: float, warm_up: int) -> str:
    way = (step - warm_up) / (steps - warm_up)
    whole = step / steps
    rising = {
        "the first step would do nothing: the line starts one up": highest * step / warm_up,
        "there is no warm-up: the first steps of a run are the ones that go astray": highest,
    }
    falling = {
        "this falls in a straight line: take half a cosine wave": highest * (1 - way),
        "the wave starts at step 0: count from the end of the warm-up": (
            highest * (1 + math.cos(math.pi * whole)) / 2
        ),
        "the wave is too long: it has steps - warm_up steps to go": (
            highest * (1 + math.cos(math.pi * (step - warm_up) / steps)) / 2
        ),
        "this is a whole wave, down and up again: half a wave goes from 0 to pi": (
            highest * (1 + math.cos(2 * math.pi * way)) / 2
        ),
        "a cosine runs from 1 to -1: bring it to 1 to 0": highest * math.cos(math.pi * way),
        "math.cos takes radians: half a wave is pi": highest * (1 + math.cos(180 * way)) / 2,
        "it stays at its highest: the wave starts after the warm-up": highest,
        "this is a quarter of a wave: half a wave goes from 0 to pi, between 1 and -1": (
            highest * math.cos(math.pi / 2 * way)
        ),
        "the wave reaches 0 one step too early: it would do so at step number `steps`": (
            highest * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up - 1))) / 2
        ),
        "the line goes on for too long: its last step is number warm_up - 1": (
            highest * (step + 1) / warm_up
        ),
    }
    for message, value in (rising if step < warm_up else falling).items():
        if math.isclose(rate, value, rel_tol=1e-6, abs_tol=1e-9 * highest):
            return message
    return "draw the rates of all steps, and look where the line ends and the wave starts and ends"


EXERCISES = declare(
    __file__,
    {
        "6.1": (lambda: [a_training(0), a_training(1, training=False), a_training(2)], judge_step),
        "6.2": (lambda: [some_logits(0), some_logits(1), some_logits(2)], _judge_dice),
        "6.3": (
            lambda: [some_logits(3), some_logits(4), some_logits(5, extreme=True)],
            _judge_focal,
        ),
        "6.4": (
            lambda: [
                *((step, 100, 1e-3, 10) for step in (0, 4, 9, 10, 40, 80, 99)),
                *((step, 60, 0.02, 20) for step in (0, 25, 40, 59)),
            ],
            _judge_schedule,
        ),
        "6.5": (
            lambda: [an_accumulation(0, 8, 2), an_accumulation(1, 12, 4), an_accumulation(2, 7, 3)],
            judge_accumulate,
        ),
        "6.6": (lambda: [a_run(0, 3), a_run(1, 5)], judge_checkpoint),
    },
)
