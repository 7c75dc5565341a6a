"""Exercises of lesson 6: a training step, two losses, a schedule, accumulation, a checkpoint."""

import io
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spine_lib.course.exercise import Wrong, describe, exercise, expect
from spine_lib.course.exercises.lesson_04 import generator_of
from spine_lib.course.mistakes import edit, edits

entropy = functional.binary_cross_entropy_with_logits


def a_network(rng, normalised: bool = True, dropout: float = 0.0) -> nn.Sequential:
    """Make a tiny network that maps [batch, 1, row, column] to logits."""
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)]
    if normalised:
        layers.insert(1, nn.BatchNorm2d(4))
    if dropout:
        layers.insert(2, nn.Dropout(dropout))
    network, random = nn.Sequential(*layers), generator_of(rng)
    for weight in network.parameters():
        nn.init.uniform_(weight, -0.4, 0.4, generator=random)
    return network


def a_batch(random: torch.Generator, count: int = 4, size: int = 12) -> tuple:
    """Make images with a bright square each, and where it is."""
    target = torch.zeros(count, 1, size, size)
    for item in target:
        row, column = torch.randint(0, size - 4, (2,), generator=random).tolist()
        item[0, row : row + 4, column : column + 4] = 1
    return target + 0.5 * torch.randn(target.shape, generator=random), target


def a_training(rng: np.random.Generator, training: bool) -> tuple:
    """Make network, optimiser, image and target of a step."""
    network = a_network(rng).train(training)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9)
    return (network, optimiser, *a_batch(generator_of(rng)))


def weights_of(network: nn.Module) -> np.ndarray:
    """Return all weights of a network in one row."""
    return nn.utils.parameters_to_vector(network.parameters()).detach().numpy().copy()


def number_of(loss: object) -> float:
    """Return a loss; raise `Wrong` where it is not a number of Python's."""
    number = "a number, such as loss.item() (a tensor keeps the whole step in memory)"
    return float(expect(loss, float | int, number))


def _observe_step(function, network, optimiser, image, target):
    before = weights_of(network)
    entropy(network(image), 1 - target).backward()  # gradients of an earlier step
    loss = number_of(function(network, optimiser, image, target))
    after = weights_of(network)
    changed = not np.array_equal(before, after)
    graded = changed or any(weight.grad is not None for weight in network.parameters())
    second = number_of(function(network, optimiser, image.flip(2), target.flip(2)))
    return {
        "the loss that you return": loss,
        "whether the network is in training mode": network.training,
        "whether the weights change": changed,
        "whether weights that do not change have gradients": graded,
        "the weights after the step": after,
        "the loss that you return in a second step": second,
        "the weights after a second step": weights_of(network),
    }


@exercise(
    "6.1",
    wrong={
        "no zero_grad": (
            edit("optimiser.zero_grad()", "pass"),
            edit("optimiser.zero_grad()", "pass", "return", "optimiser.zero_grad()\n    return"),
        ),
        "evaluation mode": edit("network.train()", "pass"),
        "no step": (
            edit("optimiser.step()", "pass"),
            edit("loss.backward()\n    optimiser.step()", "optimiser.step()\n    loss.backward()"),
        ),
        "no gradients": (
            edit("loss.backward()", "pass"),
            edit("optimiser.step()", "optimiser.zero_grad()\n    optimiser.step()"),
        ),
        "sigmoid": edit("network(image)", "network(image).sigmoid()"),
        "sum": edit("target)\n", 'target, reduction="sum")\n'),
        "after the step": edit("return loss", "return entropy(network(image), target)"),
        "two steps": edit("optimiser.step()", "optimiser.step()\n    optimiser.step()"),
    },
    inputs=lambda rng: [a_training(rng, training) for training in (True, False)],
    observe=_observe_step,
    changes_inputs=True,
    atol=1e-5,
)
def training_step(network, optimiser, image, target):
    network.train()
    loss = functional.binary_cross_entropy_with_logits(network(image), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def a_validation(rng: np.random.Generator) -> tuple:
    """Make a network that has seen a batch, and batches with ever more spine."""
    network = a_network(rng)
    network[-1].bias.data[:] = network[-1].bias.data * 0.1
    batches = [a_batch(generator_of(rng), count) for count in (2, 3, 4)]
    for image, target in batches[:1]:
        target[1:] = 0
        network.train()(image)
    return network, batches


def _observe_validation(function, network, batches):
    watched = {"train": False, "graph": False}

    def watch(module, given, out):
        watched["train"] |= module.training
        watched["graph"] |= out.requires_grad

    hook = network.register_forward_hook(watch)
    dice = number_of(function(network, batches))
    hook.remove()
    return {
        "whether the network predicts in training mode": watched["train"],
        "whether gradients are prepared for": watched["graph"],
        "the Dice": dice,
        "whether the network is in training mode afterwards": network.training,
    }


@exercise(
    "6.2",
    wrong={
        "training mode": edit("network.eval()", "pass"),
        "gradients": edit("torch.inference_mode()", "torch.enable_grad()"),
        "every pixel": edit("network(image) > 0", "network(image).sigmoid() > 0"),
        "half a logit": edit("> 0", "> 0.5"),
        "mean of batches": edit(
            "size += (prediction.sum() + target.sum()).item()",
            "size += 1",
            "+= (prediction *",
            "+= 1 / (prediction.sum() + target.sum()).item() * (prediction *",
        ),
        "probabilities": edit("network(image) > 0", "network(image).sigmoid()"),
        "left in evaluation mode": edit("network.train()", "pass"),
    },
    inputs=lambda rng: [a_validation(rng) for _ in range(3)],
    observe=_observe_validation,
    changes_inputs=True,
    atol=1e-5,
)
def validate(network, batches):
    network.eval()
    overlap = size = 0
    with torch.inference_mode():
        for image, target in batches:
            prediction = network(image) > 0
            overlap += (prediction * target).sum().item()
            size += (prediction.sum() + target.sum()).item()
    network.train()
    return 2 * overlap / size


def some_logits(rng: np.random.Generator, extreme: bool = False) -> tuple[torch.Tensor, ...]:
    """Make logits, a target in some of the images and weights of 0 and 1."""
    random = generator_of(rng)
    _, target = a_batch(random, 3, 16)
    target[0] = 0  # one image shows no spine
    logits = 3 * torch.randn(target.shape, generator=random) + 2 * target - 1
    weight = (torch.rand(target.shape, generator=random) > 0.2).float()
    if extreme:
        logits[1, 0, 0, :4] = torch.tensor([200.0, -200.0, 120.0, -120.0])
        weight[1, 0, 0, :4] = 1
    return logits, target, weight


def _observe_loss(function, logits, target, weight):
    leaf, far = logits.clone().requires_grad_(), (logits * (1 - 2 * target)) > 100
    loss = function(leaf, target, weight)
    expect(loss, torch.Tensor, "a tensor, from which backward can start")
    if loss.shape != ():
        raise Wrong(f"return one number, and not {describe(loss)}: sum over all pixels")
    if loss.requires_grad:
        loss.backward()
    return {
        "whether a gradient leads from your loss to the logits": leaf.grad is not None,
        "whether a logit of 200 on the wrong side has a gradient (a clamp takes it away, as does "
        "the logarithm of a sigmoid)": leaf.grad is None or bool(leaf.grad[far].all()),
        "your loss": loss.item(),
        "the gradient of your loss": torch.zeros(0) if leaf.grad is None else leaf.grad,
    }


_EACH = 'functional.binary_cross_entropy_with_logits(logits, target, reduction="none")'


@exercise(
    "6.3",
    wrong={
        "logarithm": tuple(
            edit(
                _EACH,
                f"-torch.log((target * p + (1 - target) * (1 - p)) + {more})",
                "    each",
                "    p = torch.sigmoid(logits); each",
            )
            for more in (0, 1e-8, 1e-7, 1e-6)
        ),
        "cross-entropy": edit(" * wrong_by**2", ""),
        "not squared": edit("**2", ""),
        "one class": edit("(torch.sigmoid(logits) - target).abs()", "1 - torch.sigmoid(logits)"),
        "turned round": edit("= (torch", "= 1 - (torch"),
        "mean over all": edit(".sum() / weight.sum()", ".mean()"),
        "weights left out": edit("weight * ", "", ".sum() / weight.sum()", ".mean()"),
        "sum": edit(" / weight.sum()", ""),
        "clamped logarithm": edit("_with_logits(logits", "(torch.sigmoid(logits)"),
    },
    inputs=lambda rng: [some_logits(rng), some_logits(rng), some_logits(rng, extreme=True)],
    observe=_observe_loss,
    changes_inputs=True,  # a copy of the logits would get the gradient
    rtol=1e-3,
    atol=1e-7,
)
def focal_loss(logits, target, weight):
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong_by = (torch.sigmoid(logits) - target).abs()
    return (weight * wrong_by**2 * each).sum() / weight.sum()


@exercise(
    "6.4",
    wrong={
        "line from 0": edit("(step + 1)", "step"),
        "no warm-up": (
            edit(" * (step + 1) / warm_up", ""),
            edit("    if", "    warm_up = 0\n    if"),
        ),
        "warm-up of 0": edit("    if", "    1 / warm_up\n    if"),
        "long line": (edit("<", "<="), edit("<", "<=", "(step + 1)", "step")),
        "straight": edit("(1 + math.cos(math.pi * way)) / 2", "(1 - way)"),
        "wave from 0": edit("(step - warm_up) / (steps - warm_up)", "step / steps"),
        "long wave": edit("(steps - warm_up)", "steps"),
        "early end": (
            edit("(steps - warm_up)", "(steps - warm_up - 1)"),
            edit("(step - warm_up)", "(step - warm_up + 1)"),
        ),
        "upwards": edit("1 + math", "1 - math"),
        "whole wave": edit("math.pi", "2 * math.pi"),
        "below 0": edit("(1 + math.cos(math.pi * way)) / 2", "math.cos(math.pi * way)"),
        "quarter wave": edit("(1 + math.cos(math.pi * way)) / 2", "math.cos(math.pi * way / 2)"),
        "degrees": edit("math.pi", "180"),
        "no wave": edit("math.cos(math.pi * way)", "1"),
    },
    inputs=lambda rng: [
        *((step, 100, 1e-3, 10) for step in (0, 4, 9, 10, 40, 80, 99)),
        *((step, 60, 0.02, 20) for step in (0, int(rng.integers(2, 19)), 25, 40, 59)),
        *((step, 50, 0.01, 0) for step in (0, int(rng.integers(2, 40)))),
    ],
    rtol=1e-6,
)
def learning_rate(step, steps, highest, warm_up):
    if step < warm_up:
        return highest * (step + 1) / warm_up
    way = (step - warm_up) / (steps - warm_up)
    return highest * (1 + math.cos(math.pi * way)) / 2


def an_accumulation(rng: np.random.Generator, count: int, parts: int) -> tuple:
    """Make network, optimiser, a batch and a number of parts."""
    network = a_network(rng, normalised=False)
    optimiser = torch.optim.SGD(network.parameters(), lr=2.0)
    image, target = a_batch(generator_of(rng), count)
    target[: count // 3] = 0  # so that no part is like the whole
    return network, optimiser, image, target, parts


def _observe_parts(function, network, optimiser, image, target, parts):
    entropy(network(image), 1 - target).backward()  # gradients of an earlier step
    sizes, waiting, most = [], set(), 0

    def watch(module, given, out):
        nonlocal most
        number = len(sizes)
        sizes.append(len(given[0]))
        waiting.add(number)
        most = max(most, len(waiting))
        out.register_hook(lambda gradient: waiting.discard(number))

    hook = network.register_forward_hook(watch)
    loss = number_of(function(network, optimiser, image, target, parts))
    hook.remove()
    return {
        "whether a part is larger than the memory": max(sizes, default=0) > -(-len(image) // parts),
        "the weights after the step": weights_of(network),
        "the loss that you return": loss,
        "the number of parts whose maps lie in memory together": most,
    }


_SHARE = " * len(images) / len(image)"


@exercise(
    "6.5",
    wrong={
        "all at once": edit("tensor_split(parts)", "tensor_split(1)"),
        "whole losses": (edit(_SHARE, ""), edit(_SHARE, "", "loss.item()", "loss.item() / parts")),
        "equal parts": edit(_SHARE, " / parts"),
        "no zero_grad": edit("optimiser.zero_grad()", "pass"),
        "zero_grad each": tuple(
            edit("        loss.b", "        optimiser.zero_grad()\n        loss.b", _SHARE, share)
            for share in (_SHARE, "", " / parts")
        ),
        "step each": tuple(
            edit(
                *("    optimiser.step()", "", "loss.b", f"{before}loss.b", _SHARE, share),
                *("loss.item()", f"loss.item(){divided}; optimiser.step()"),
            )
            for before in ("", "optimiser.zero_grad(); ")
            for share, divided in ((_SHARE, ""), ("", ""), ("", " / parts"))
        ),
        "no step": (edit("loss.backward()", "pass"), edit("optimiser.step()", "pass")),
        "mean of means": edit(
            "mean += loss.item()", "mean += loss.item() * len(image) / len(images) / parts"
        ),
    },
    inputs=lambda rng: [an_accumulation(rng, 8, 2), an_accumulation(rng, 7, 3)],
    observe=_observe_parts,
    changes_inputs=True,
    atol=1e-5,
)
def accumulated_step(network, optimiser, image, target, parts):
    optimiser.zero_grad()
    mean = 0.0
    for images, targets in zip(image.tensor_split(parts), target.tensor_split(parts)):
        loss = functional.binary_cross_entropy_with_logits(network(images), targets)
        loss = loss * len(images) / len(image)
        loss.backward()
        mean += loss.item()
    optimiser.step()
    return mean


def a_run(rng: np.random.Generator, steps: int) -> tuple:
    """Make a run that has done some steps: network, optimiser, schedule, number of steps."""
    network = a_network(rng, dropout=0.5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(steps)
        for _ in range(steps):
            training_step(network, optimiser, *a_batch(generator_of(rng)))
            schedule.step()
    return network, optimiser, schedule, steps


def _observe_checkpoint(function, network, optimiser, schedule, step):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77 + step)
        answer = expect(function(network, optimiser, schedule, step), dict, "a dict")
    file = io.BytesIO()
    try:
        torch.save(answer, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds
        raise Wrong(
            f"torch.load refuses your checkpoint ({type(error).__name__}): it may hold tensors, "
            "numbers, strings and containers of these, and no object that could run code: keep "
            "an object's state_dict()"
        ) from error
    if isinstance(state.get("optimiser"), dict):
        state["optimiser"] = state["optimiser"].get("state")  # its memory
    if np.shape(state.get("random")) != torch.get_rng_state().shape:
        state["random"] = None  # not a state of PyTorch's
    return {key: flat(value) for key, value in state.items()}


def flat(state: object) -> np.ndarray:
    """Return all numbers of a nested state in one row."""
    if isinstance(state, dict | list | tuple):
        values = state.values() if isinstance(state, dict) else state
        return np.concatenate([np.zeros(0), *map(flat, values)])
    if isinstance(state, torch.Tensor):
        return state.detach().double().numpy().ravel()
    return np.array([state], float) if isinstance(state, int | float) else np.zeros(0)


@exercise(
    "6.6",
    wrong={
        "new optimiser": edit("optimiser.state_dict()", '{"state": {}}'),
        "new schedule": edit(
            "schedule.state_dict()", "type(schedule)(optimiser, 0.7).state_dict()"
        ),
        "seeded": edit("    return", "    torch.manual_seed(0)\n    return"),
        "no random state": edits("torch.get_rng_state()", "0", "torch.initial_seed()"),
        "part of the schedule": edit("schedule.state_dict()", "schedule.get_last_lr()"),
        "another step": edits('"step": step', '"step": step + 1', '"step": step - 1'),
    },
    inputs=lambda rng: [a_run(rng, 3), a_run(rng, 5)],
    observe=_observe_checkpoint,
    changes_inputs=True,
)
def make_checkpoint(network, optimiser, schedule, step):
    return {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
    }
