"""Exercises of lesson 6: a training step, two losses, a schedule, accumulation, a checkpoint."""

import io
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spine_lib.course.exercise import Exercise, Wrong, describe

entropy = functional.binary_cross_entropy_with_logits


def training_step(network, optimiser, image, target):
    network.train()
    loss = functional.binary_cross_entropy_with_logits(network(image), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def generator_of(rng: np.random.Generator) -> torch.Generator:
    """Return PyTorch's generator, seeded from NumPy's."""
    return torch.Generator().manual_seed(int(rng.integers(10**6)))


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
    if isinstance(loss, torch.Tensor):
        raise Wrong(
            "return a number, loss.item(), and not a tensor: a tensor holds on to the whole step, "
            "and a list of such losses fills the memory"
        )
    if isinstance(loss, bool) or not isinstance(loss, int | float):
        raise Wrong(f"return the loss, a number, and not {describe(loss)}")
    return float(loss)


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


def _step(order, sigmoid=False, keep=torch.Tensor.item, **options):
    """Return a step in an order: train, forward, zero_grad, backward, step."""

    def run(network, optimiser, image, target):
        loss = None
        for letter in order:
            if letter == "t":
                network.train()
            elif letter == "f":
                logits = torch.sigmoid(network(image)) if sigmoid else network(image)
                loss = entropy(logits, target, **options)
            elif letter == "z":
                optimiser.zero_grad()
            elif letter == "b":
                loss.backward()
            else:
                optimiser.step()
        return keep(loss)

    return run


STEP = Exercise(
    "6.1",
    reference=training_step,
    wrong={
        "no zero_grad": (_step("tfbs"), _step("tfbsz")),
        "evaluation mode": _step("fzbs"),
        "no step": (_step("tfzsb"), _step("tfzb")),
        "no gradients": (_step("tfbzs"), _step("tfzs")),
        "sigmoid": _step("tfzbs", sigmoid=True),
        "sum": _step("tfzbs", reduction="sum"),
        "after the step": _step("tfzbsf"),
        "two steps": (_step("tfzbss"), _step("tfzbsfzbs")),
    },
    inputs=lambda rng: [a_training(rng, training) for training in (True, False)],
    observe=_observe_step,
    changes_inputs=True,
    atol=1e-5,
)


def focal_loss(logits, target, weight):
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong_by = (torch.sigmoid(logits) - target).abs()
    return (weight * wrong_by**2 * each).sum() / weight.sum()


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


def _validated(
    evaluate=True, graph=False, above=lambda logits: logits > 0, pooled=True, train=True
):
    """Return a validation in which some of the faults are left."""

    def run(network, batches):
        network.train(not evaluate)
        counts = []
        with torch.set_grad_enabled(graph):
            for image, target in batches:
                mask = above(network(image))
                counts.append(
                    [2 * (mask * target).sum().item(), (mask.sum() + target.sum()).item()]
                )
        network.train(train or not evaluate)
        above_line, below = np.array(counts).T
        return float(above_line.sum() / below.sum() if pooled else np.mean(above_line / below))

    return run


def _any_probability(logits: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(logits) > 0


VALIDATION = Exercise(
    "6.2",
    reference=validate,
    wrong={
        "training mode": (
            _validated(evaluate=False),
            _validated(evaluate=False, graph=True),
            _validated(evaluate=False, pooled=False),
            _validated(False, True, pooled=False),
            _validated(False, True, above=_any_probability),
            _validated(False, True, above=_any_probability, pooled=False),
        ),
        "gradients": (
            _validated(graph=True),
            _validated(graph=True, pooled=False),
            _validated(graph=True, train=False),
        ),
        "every pixel": (
            _validated(above=_any_probability),
            _validated(above=_any_probability, pooled=False),
        ),
        "half a logit": _validated(above=lambda logits: logits > 0.5),
        "mean of batches": (_validated(pooled=False), _validated(pooled=False, train=False)),
        "probabilities": _validated(above=torch.sigmoid),
        "left in evaluation mode": _validated(train=False),
    },
    inputs=lambda rng: [a_validation(rng) for _ in range(3)],
    observe=_observe_validation,
    changes_inputs=True,
    atol=1e-5,
)


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
    leaf = logits.clone().requires_grad_()
    loss = function(leaf, target, weight)
    if not isinstance(loss, torch.Tensor):
        raise Wrong(f"return a tensor, from which backward can start, and not {describe(loss)}")
    if loss.shape != ():
        raise Wrong(f"return one number, and not {describe(loss)}: sum over all pixels")
    if loss.requires_grad:
        loss.backward()
    return {
        "whether a gradient leads from your loss to the logits": leaf.grad is not None,
        "your loss": loss.item(),
        "the gradient of your loss": torch.zeros(0) if leaf.grad is None else leaf.grad,
    }


def _focal(factor=lambda p, t: (p - t).abs() ** 2, mean=lambda each, w: (w * each).sum() / w.sum()):
    """Return a loss with another factor of each pixel, or another mean."""
    return lambda logits, target, weight: mean(
        factor(torch.sigmoid(logits), target) * entropy(logits, target, reduction="none"), weight
    )


def _by_logarithm(more: float):
    def loss(logits, target, weight):
        right = torch.where(target > 0, torch.sigmoid(logits), 1 - torch.sigmoid(logits))
        return (weight * -torch.log(right + more) * (1 - right) ** 2).sum() / weight.sum()

    return loss


def _clamped(logits, target):
    return functional.binary_cross_entropy(torch.sigmoid(logits), target, reduction="none")


FOCAL = Exercise(
    "6.3",
    reference=focal_loss,
    wrong={
        "logarithm": tuple(_by_logarithm(more) for more in (0, 1e-12, 1e-8, 1e-7, 1e-6)),
        "cross-entropy": _focal(lambda p, t: 1),
        "not squared": _focal(lambda p, t: (p - t).abs()),
        "one class": _focal(lambda p, t: (1 - p) ** 2),
        "turned round": _focal(lambda p, t: (1 - (p - t).abs()) ** 2),
        "mean over all": _focal(mean=lambda each, w: (w * each).mean()),
        "weights left out": _focal(mean=lambda each, w: each.mean()),
        "sum": _focal(mean=lambda each, w: (w * each).sum()),
        "clamped logarithm": lambda x, t, w: (
            (w * _clamped(x, t) * (torch.sigmoid(x) - t) ** 2).sum() / w.sum()
        ),
    },
    inputs=lambda rng: [some_logits(rng), some_logits(rng), some_logits(rng, extreme=True)],
    observe=_observe_loss,
    changes_inputs=True,  # a copy of the logits would get the gradient
    rtol=1e-3,
    atol=1e-7,
)


def learning_rate(step, steps, highest, warm_up):
    if step < warm_up:
        return highest * (step + 1) / warm_up
    way = (step - warm_up) / (steps - warm_up)
    return highest * (1 + math.cos(math.pi * way)) / 2


def _rate(up=lambda s, w: (s + 1) / w, down=lambda x: (1 + math.cos(math.pi * x)) / 2,
          way=lambda s, n, w: (s - w) / (n - w), last=0):  # fmt: skip
    """Return a schedule with another line, wave, way along it or last step of the warm-up."""

    def rate(step, steps, highest, warm_up):
        if step < warm_up + last:
            return highest * up(step, warm_up)
        return highest * down(way(step, steps, warm_up))

    return rate


RATE = Exercise(
    "6.4",
    reference=learning_rate,
    wrong={
        "line from 0": _rate(lambda s, w: s / w),
        "no warm-up": (_rate(lambda s, w: 1), lambda s, n, highest, w: _rate()(s, n, highest, 0)),
        "warm-up of 0": (
            lambda s, n, highest, w: min((s + 1) / w, 1) * _rate()(max(s, w), n, highest, w),
            lambda s, n, highest, w: _rate()(s, n, highest, w) if w else 0.0,
        ),
        "long line": (_rate(last=1), _rate(lambda s, w: s / w, last=1)),
        "straight": _rate(down=lambda x: 1 - x),
        "wave from 0": _rate(way=lambda s, n, w: s / n),
        "long wave": _rate(way=lambda s, n, w: (s - w) / n),
        "early end": (
            _rate(way=lambda s, n, w: (s - w) / (n - w - 1)),
            _rate(way=lambda s, n, w: (s - w + 1) / (n - w)),
        ),
        "upwards": _rate(down=lambda x: (1 - math.cos(math.pi * x)) / 2),
        "whole wave": _rate(down=lambda x: (1 + math.cos(2 * math.pi * x)) / 2),
        "below 0": _rate(down=lambda x: math.cos(math.pi * x)),
        "quarter wave": _rate(down=lambda x: math.cos(math.pi / 2 * x)),
        "degrees": _rate(down=lambda x: (1 + math.cos(180 * x)) / 2),
        "no wave": _rate(down=lambda x: 1),
    },
    inputs=lambda rng: [
        *((step, 100, 1e-3, 10) for step in (0, 4, 9, 10, 40, 80, 99)),
        *((step, 60, 0.02, 20) for step in (0, int(rng.integers(2, 19)), 25, 40, 59)),
        *((step, 50, 0.01, 0) for step in (0, int(rng.integers(2, 40)))),
    ],
    rtol=1e-6,
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


def _parts(share=lambda part, whole, parts: part / whole, zero=True, zero_each=False,
           step_each=False, once=False, total=None, backward=True, step=True):  # fmt: skip
    """Return a step in parts that weights, clears, steps or goes backward otherwise."""

    def run(network, optimiser, image, target, parts):
        if zero:
            optimiser.zero_grad()
        mean, waiting = 0.0, 0.0
        for images, targets in zip(image.tensor_split(parts), target.tensor_split(parts)):
            if zero_each:
                optimiser.zero_grad()
            loss = entropy(network(images), targets)
            mean += loss.item() * (total or share)(len(images), len(image), parts)
            loss = loss * share(len(images), len(image), parts)
            waiting = waiting + loss
            if backward and not once:
                loss.backward()
            if step_each:
                optimiser.step()
        if once:
            waiting.backward()
        if step and not step_each:
            optimiser.step()
        return mean

    return run


def _one(part: int, whole: int, parts: int) -> float:
    return 1.0


def _even(part: int, whole: int, parts: int) -> float:
    return 1 / parts


PARTS = Exercise(
    "6.5",
    reference=accumulated_step,
    wrong={
        "all at once": lambda network, optimiser, image, target, parts: _parts()(
            network, optimiser, image, target, 1
        ),
        "whole losses": (_parts(_one), _parts(_one, total=_even)),
        "equal parts": _parts(_even),
        "no zero_grad": (_parts(zero=False), _parts(_even, zero=False)),
        "zero_grad each": (
            _parts(zero_each=True),
            _parts(_one, zero_each=True),
            _parts(_even, zero_each=True),
        ),
        "step each": (
            _parts(step_each=True),
            _parts(step_each=True, zero_each=True),
            _parts(_one, step_each=True, zero_each=True, total=lambda n, whole, parts: n / whole),
            _parts(_one, step_each=True, zero_each=True, total=_even),
        ),
        "no step": (_parts(backward=False), _parts(step=False)),
        "backward late": _parts(once=True),
        "mean of means": (_parts(total=_even), _parts(total=_one)),
    },
    inputs=lambda rng: [an_accumulation(rng, 8, 2), an_accumulation(rng, 7, 3)],
    observe=_observe_parts,
    changes_inputs=True,
    atol=1e-5,
)


CHECKPOINT_KEYS = ("network", "optimiser", "schedule", "random", "step")


def make_checkpoint(network, optimiser, schedule, step):
    return {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
    }


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
        random = torch.get_rng_state()
        answer = function(network, optimiser, schedule, step)
    if not isinstance(answer, dict):
        raise Wrong(f"return a dict, and not {describe(answer)}")
    missing = [key for key in CHECKPOINT_KEYS if key not in answer]
    if missing:
        raise Wrong(f"the checkpoint lacks {', '.join(missing)}: see the docstring for its keys")
    objects = [key for key in CHECKPOINT_KEYS if hasattr(answer[key], "state_dict")]
    if objects:
        raise Wrong(
            f"{objects[0]} is the object itself, which torch.load refuses since it could run code: "
            "its state_dict() holds the numbers"
        )
    file = io.BytesIO()
    try:
        torch.save(answer, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds
        raise Wrong(
            f"the checkpoint cannot be written and read again ({type(error).__name__}): it may "
            "hold tensors, numbers, strings and containers of these"
        ) from error
    kept = state["random"]
    is_state = torch.is_tensor(kept) and (kept.shape, kept.dtype) == (random.shape, random.dtype)
    return {
        "the weights under the key network": flat(state["network"]),
        "the memory under the key optimiser": flat(state["optimiser"]),
        "what lies under the key schedule": flat(state["schedule"]),
        "whether random is a state of PyTorch's": is_state,
        "whether random is the state as it was": is_state and torch.equal(kept, random),
        "the number under the key step": state["step"],
    }


def flat(state: object) -> np.ndarray:
    """Return all numbers of a nested state in one row."""
    if isinstance(state, dict | list | tuple):
        values = state.values() if isinstance(state, dict) else state
        return np.concatenate([np.zeros(0), *map(flat, values)])
    if isinstance(state, torch.Tensor):
        return state.detach().double().numpy().ravel()
    return np.array([state], float) if isinstance(state, int | float) else np.zeros(0)


def _fresh(network):
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.05)
    return optimiser, torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.7)


def _kept(**others):
    """Return a checkpoint in which some entries are made otherwise, from the same arguments."""
    return lambda *run: make_checkpoint(*run) | {key: make(*run) for key, make in others.items()}


def _reseeded(network, optimiser, schedule, step):
    torch.manual_seed(0)
    return make_checkpoint(network, optimiser, schedule, step)


CHECKPOINT = Exercise(
    "6.6",
    reference=make_checkpoint,
    wrong={
        "new optimiser": _kept(optimiser=lambda n, o, s, step: _fresh(n)[0].state_dict()),
        "new schedule": _kept(schedule=lambda n, o, s, step: _fresh(n)[1].state_dict()),
        "seeded": _reseeded,
        "no random state": (
            _kept(random=lambda *run: 0),
            _kept(random=lambda *run: torch.initial_seed()),
        ),
        "another step": (
            _kept(step=lambda n, o, s, step: step + 1),
            _kept(step=lambda n, o, s, step: step - 1),
        ),
    },
    inputs=lambda rng: [a_run(rng, 3), a_run(rng, 5)],
    observe=_observe_checkpoint,
    changes_inputs=True,
)
