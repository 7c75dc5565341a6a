# %% [markdown]
# # Training on GPU: from a loop by hand to one line for many processes
#
# Lessons 4 and 5 built networks; what was trained in them learned a single batch by heart. Here training
# is done in earnest. In this notebook you will
#
# - **write** the training loop by hand and know what each of its lines is for,
# - **choose** a loss where one pixel in a hundred is spine, by measurement over seeds,
# - **use** mixed precision, a memory layout, a schedule and accumulation, and say what each changes,
# - **find** what keeps a GPU waiting,
# - **stop** a run, resume it to the same numbers, and hand it to Lightning in one or many processes.
#
# It takes about 75 minutes, six exercises included; the cells alone run in one or two.
#
# No GPU is needed. Each cell asks what is there and takes it; what is said about speed is measured on
# the machine that ran the notebook, and a GPU would print other numbers.

# %% [markdown]
# ## 1. The loop, by hand
#
# Phantoms do for this lesson: training wants to be tried out, and what is tried out on test patients
# is no test any more. These are coarse, 64 by 64 pixels, so that a step takes a blink.

# %%
from spine_lib.course import check, hint, pick, progress, solution
from spine_lib.course.demonstrations import phantom_slices

slices = phantom_slices(400, pick(full=406, fast=402))
held_out = phantom_slices(500, pick(full=503, fast=501))
image, target, weight = slices
print(f"{len(image)} slices to train on, {len(held_out[0])} held out, of 64 x 64 pixels")
print(f"spine: {100 * target.mean():.2f} % of the pixels")

# %%
import matplotlib.pyplot as plt

plt.rcParams["figure.dpi"] = 80
figure, axes = plt.subplots(1, 3, figsize=(6.6, 2.4), layout="constrained")
for one, number in zip(axes, (8, 24, 40)):
    extent = (0, 384, 384, 0)
    one.imshow(image[number, 0], cmap="gray", extent=extent)
    one.contour(target[number, 0], [0.5], colors="#E69F00", extent=extent, origin="upper")
    one.set(title=f"slice {number}", xlabel="R to L, mm", ylabel="A to P, mm")
    one.label_outer()
plt.show()

# %% [markdown]
# *Figure: three axial slices of a coarse phantom, the whole body in view, each with a small orange
# outline around the vertebra.*
#
# Less than one pixel in a hundred is spine. Keep that in mind: it decides which loss works.
#
# Now one step, line by line. A batch goes through the network and comes out as **logits**, one number
# a pixel: above 0 means "rather spine".

# %%
import torch

from spine_lib.models import UNet

torch.manual_seed(0)
network = UNet(width=8, depth=2)
logits = network(image[:8])
print(tuple(logits.shape), f"from {logits.min():.2f} to {logits.max():.2f}")
print(f"called spine: {100 * (logits > 0).float().mean():.0f} % of the pixels")

# %% [markdown]
# The network knows nothing yet. The **loss** says how wrong it is, as one number that depends on every
# weight. Binary cross-entropy asks each pixel for the probability it gave to the right answer and takes
# the negative logarithm. **Predict** the loss of a network that always says 50 %.

# %% tags=["nbval-check-output"]
from torch.nn import functional

undecided = torch.zeros(1, 1, 64, 64)
print(f"{functional.binary_cross_entropy_with_logits(undecided, target[:1]):.4f}")

# %%
loss = functional.binary_cross_entropy_with_logits(logits, target[:8])
loss.backward()
first_layer = network.first[0].weight
print(f"loss {loss.item():.3f}; slope along the first weight: {first_layer.grad.flatten()[0]:.5f}")

# %% [markdown]
# log 2 is what ignorance costs. `backward` has found the **slope** of the loss along each weight (all
# slopes together are lesson 4's *gradient*) and left it in `.grad`. A positive slope says: make this
# weight smaller. The optimiser does that for all of them; AdamW's first step moves each weight by
# about the **learning rate**, however steep its slope.

# %%
optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
before = first_layer.detach().clone()
optimiser.step()
moved = (first_layer.detach() - before).abs().mean()
again = functional.binary_cross_entropy_with_logits(network(image[:8]), target[:8])
print(f"mean move of a weight: {moved:.4f}; loss {loss.item():.3f} -> {again.item():.3f}")

# %% [markdown]
# One step, and the loss of the same batch is lower. What happens to the slopes now? **Predict**: after
# another `backward`, does `.grad` hold the new slopes, or something else?


# %%
def find_slopes():
    functional.binary_cross_entropy_with_logits(network(image[:8]), target[:8]).backward()


old = first_layer.grad.clone()
find_slopes()
held = first_layer.grad.clone()
optimiser.zero_grad()
find_slopes()
print("old + new:", torch.allclose(held, old + first_layer.grad, atol=1e-6))

# %% [markdown]
# `backward` *adds* to what is there. Forgetting `zero_grad` raises no error; the run just steers by a
# mix of all the batches it has ever seen. (Section 5 makes good use of it.)
#
# ### Exercise 6.1: a training step


# %% tags=["exercise"]
def training_step(network, optimiser, image, target):
    """Do one step of training: the weights change a little, so that the loss gets smaller.

    network:   maps images to logits; it may be in evaluation mode, and is to be in training mode.
    optimiser: holds the network's weights; gradients of an earlier step may still be there.
    image:     float32 tensor [batch, 1, row, column].
    target:    float32 tensor of the same shape, 0 or 1.
    returns the loss before the step, a Python number: the mean binary cross-entropy, which takes
    logits (torch.nn.functional.binary_cross_entropy_with_logits).
    """
    raise NotImplementedError


# %%
check("6.1", training_step)

# %% [markdown]
# A loop is that step, over and over, on batches drawn at random. The library's loss takes one thing more,
# `weight`: 1 where the label of a pixel is known and 0 where nobody knows it.

# %%
import numpy as np

from spine_lib.training import segmentation_loss


def train(network, kind, steps, rate=3e-3):
    """Train on random batches; return the loss of every step."""
    random, losses = np.random.default_rng(0), []
    optimiser = torch.optim.AdamW(network.parameters(), rate)
    for _ in range(steps):
        rows = random.choice(len(image), 8, replace=False)
        loss = segmentation_loss(network(image[rows]), target[rows], weight[rows], kind)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


# %%
torch.manual_seed(0)
network = UNet(width=8, depth=2)
losses = train(network, "bce", steps=pick(full=60, fast=10))
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")

# %%
from spine_lib import metrics

network.eval()
with torch.inference_mode():
    prediction = network(held_out[0]) > 0  # a logit above 0: a probability above 0.5
counts = metrics.confusion(prediction.numpy(), held_out[1].numpy() > 0, held_out[2].numpy() == 0)
background = 1 - held_out[1].mean()
print(f"Dice on held-out phantoms: {metrics.dice(counts):.3f}")
print(f"accuracy of 'background everywhere': {100 * background:.1f} %")

# %% [markdown]
# The loss has fallen a long way, and the Dice tells how much of the spine that found. A network that
# answers "background" everywhere has an accuracy above 99 % and a Dice of 0.
#
# Every few steps a loop stops to validate. Here is such a function, as somebody wrote it. It runs, and
# its number is far from the one above, although the network is the same. It has four faults.


# %%
import copy


def validate(network, batches):
    scores = []
    for image, target in batches:
        prediction = torch.sigmoid(network(image)) > 0
        overlap = (prediction * target).sum()
        scores.append(2 * overlap / (prediction.sum() + target.sum()))
    return np.mean(scores)


twin = copy.deepcopy(network).train()  # as within a loop
batches = list(zip(held_out[0].split(16), held_out[1].split(16)))
print(f"Dice on held-out phantoms: {validate(twin, batches):.3f}")

# %% [markdown]
# ### Exercise 6.2: four faults in a validation


# %% tags=["exercise"]
def validate(network, batches):
    """Return the Dice of a network on held-out batches, all their pixels pooled, a Python number.

    network: maps images to logits; it comes and leaves in training mode, and predicts in
             evaluation mode, without a graph for gradients.
    batches: list of pairs: image and target, float32 tensors [batch, 1, row, column].
    A pixel is spine where its probability is above one half.
    """
    raise NotImplementedError


# %%
check("6.2", validate)

# %% [markdown]
# Now the question is what the loss asks for.

# %% [markdown]
# ## 2. A loss for one pixel in a hundred
#
# Three candidates, and sums of them:
#
# - **cross-entropy**: every pixel counts alike;
# - **soft Dice**: one minus the overlap, of probabilities instead of a mask, so that it has a slope;
# - **focal loss**: cross-entropy, with the pixels that are nearly right turned down.
#
# Imagine a network that sees nothing and gives *every* pixel the same probability of being spine.
# **Predict** which probability each loss likes best.

# %%
share = float(slices[1].mean())
answers = torch.linspace(0.002, 0.998, 250)
truth = torch.zeros(8, 1, 64, 64)
truth.view(-1)[: round(share * truth.numel())] = 1
curves = {}
for kind in ("bce", "focal", "dice"):
    constant = (torch.full_like(truth, float(p)).logit() for p in answers)
    losses = [segmentation_loss(one, truth, truth * 0 + 1, kind).item() for one in constant]
    curves[kind] = losses
    print(
        f"{kind:6} likes {answers[np.argmin(losses)]:.3f} best, and costs {min(losses):.3f} there"
    )

# %%
figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
for (kind, values), dash in zip(curves.items(), ("-", "--", ":")):
    axes.plot(answers, values, dash, label=kind)
axes.set(xlabel="probability given to every pixel", ylabel="loss", ylim=(0, 2))
axes.legend()
plt.show()

# %% [markdown]
# *Figure: three losses over the one probability that a blind network gives every pixel. Cross-entropy
# and focal loss are lowest at the left and rise; Dice lies close to 1 everywhere.*
#
# Cross-entropy is content with "1 % everywhere", which finds nothing, and its cost there is small
# already: little is left to gain. Dice stays near 1 whatever a blind network says: only *where* pays.
# The slopes tell the same story:

# %%
start = torch.zeros(8, 1, 64, 64, requires_grad=True)
for kind in ("bce", "focal", "dice", "bce_dice", "focal_dice"):
    (slope,) = torch.autograd.grad(segmentation_loss(start, target[:8], weight[:8], kind), start)
    on_spine = slope.abs()[target[:8] > 0].sum() / slope.abs().sum()
    print(f"{kind:10} {100 * on_spine:5.1f} % of the first push comes from spine")

# %% [markdown]
# At the start, with 50 % everywhere, cross-entropy pulls every pixel equally hard: the push from spine
# is its share of the pixels. Dice weighs the two sides against each other, and half of its push comes
# from the few spine pixels. In the sums the other part still pushes harder, at first.
#
# With probabilities $p$, targets $t$ and weights $w$ (0 where nobody knows the label), all sums over the
# pixels of the whole batch, the soft Dice loss is
#
# $$1 - \\frac{2 \\sum p\\,t\\,w + 10}{\\sum p\\,w + \\sum t\\,w + 10}.$$
#
# The 10 keeps a batch without spine from dividing 0 by 0.

# %% [markdown]
# The focal loss (Lin and others, 2017, doi:10.1109/ICCV.2017.324) goes another way. A pixel that is
# right with 99 % has a cross-entropy of 0.01; but there are thousands of them. Multiplied by the
# square of how wrong it is, 0.01², such a pixel falls silent.
#
# ### Exercise 6.3: focal loss


# %% tags=["exercise"]
def focal_loss(logits, target, weight):
    """Return the focal loss of a batch, a tensor that has a slope.

    logits: float32 tensor [batch, 1, row, column], sometimes as large as 200.
    target: float32 tensor of the same shape, 0 or 1.
    weight: float32 tensor of the same shape, 1 where the label is known and 0 elsewhere.
    Each pixel's cross-entropy is multiplied by the square of how wrong the pixel is: of one minus
    the probability that the network gives to the right answer. The loss is the mean of that over
    the pixels whose label is known.
    """
    raise NotImplementedError


# %%
check("6.3", focal_loss)

# %% tags=["nbval-check-output"]
sure = torch.tensor([4.6, 0.0, -4.6]).view(3, 1, 1, 1)
spine = torch.ones(1, 1, 1, 1)
for logit in sure:
    both = [segmentation_loss(logit[None], spine, spine, kind).item() for kind in ("bce", "focal")]
    print(f"probability {torch.sigmoid(logit).item():.2f}: bce {both[0]:.3f}, focal {both[1]:.6f}")

# %% [markdown]
# A pixel that is right and sure counts a ten-thousandth of what it did; one that is wrong and sure
# keeps nearly all of it. Both losses are in `spine_lib/training/losses.py`, with their sums `bce_dice` and
# `focal_dice`.
#
# Which is best? Opinions are cheap. The same network was trained with each, from the same first
# weights, on the same batches in the same order, and scored on held-out phantoms. Three seeds; the
# numbers were kept. **Predict** the order.

# %%
from spine_lib.course import lesson_result

kept = lesson_result("losses")
kinds = kept["settings"]["kinds"]
print(f"{kept['made']}, {kept['device']}, {kept['seconds']:.0f} s")
spine = kept["seeds"][0]["foreground"]
print(f"{kept['settings']['steps']} steps; spine: {100 * spine:.2f} % of the pixels")
for kind in kinds:
    dice = [row[kind] for row in kept["seeds"]]
    print(f"{kind:10} Dice at 0.5: {np.mean(dice):.3f}  by seed {np.round(dice, 3)}")

# %%
colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
dashes = ("-", "--", ":", "-.", (0, (6, 2)))
figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.7), layout="constrained", sharey=True)
for one, row in zip(axes, kept["seeds"]):
    for kind, colour, dash in zip(kinds, colours, dashes):
        steps, dice = np.transpose(row["losses"][kind]["curve"])
        one.plot(steps, dice, color=colour, linestyle=dash, label=kind)
    one.set(title=f"seed {row['seed']}", xlabel="step", ylim=(0, 1))
axes[0].set_ylabel("Dice, held-out phantoms")
axes[0].legend(loc="upper left", fontsize=7, ncols=2)
plt.show()

# %% [markdown]
# *Figure: Dice on held-out phantoms over 200 steps for five losses, a panel for each of three seeds. With
# the first two seeds all losses rise, cross-entropy and focal loss to less than the others; with the third
# only Dice and cross-entropy plus Dice do.*
#
# With two of the seeds, cross-entropy and focal loss end at 0.52 to 0.65 and whatever holds Dice at about
# 0.7. The third seed is the surprise: from *those* first weights cross-entropy, focal loss and even focal
# plus Dice have found next to nothing after 200 steps. A single seed would have told another story,
# whichever one it was. And where do the losses go wrong?

# %%
for kind in kinds:
    last = [row["losses"][kind] for row in kept["seeds"]]
    at = {
        name: np.median([one["at 0.5"][name] for one in last]) for name in ("precision", "recall")
    }
    dice = {t: np.median([one["thresholds"][t] for one in last]) for t in last[0]["thresholds"]}
    best = max(dice, key=dice.get)
    told = f"precision {at['precision']:.2f}, recall {at['recall']:.2f}"
    print(
        f"{kind:10} {told}; Dice {dice['0.5']:.2f}, and {dice[best]:.2f} at a threshold of {best}"
    )

# %% [markdown]
# (Medians over the seeds.) Cross-entropy and focal loss are cautious: they miss spine, and do better with
# a lower threshold. Dice and its sums are generous: they find nearly all and paint too much. A threshold
# is a choice as well, and it is made on validation data, never on the test.
#
# The recipes of this course take `bce_dice`, which was among the best with every seed. Read it with its
# limits: a tiny network, 200 steps, phantoms. Longer training should bring the losses closer together;
# that was not measured here.

# %% [markdown]
# ## 3. Fewer bits, another order in memory
#
# A float32 has 32 bits. Half of them do for most of a network's sums, and a GPU's matrix units take
# 16-bit numbers several times as fast. There are two kinds of 16 bits.

# %% tags=["nbval-check-output"]
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    info = torch.finfo(dtype)
    name = str(dtype).removeprefix("torch.")
    print(f"{name:9} largest {info.max:.0e}, smallest {info.tiny:.0e}, step at 1: {info.eps:.0e}")

# %% [markdown]
# float16 has fine steps and a short range; bfloat16 has the range of float32 and steps of nearly 1 %.
# **Predict** what becomes of a slope of 0.00000002 in each, and of 1 + 0.001.

# %% tags=["nbval-check-output"]
for dtype in (torch.float16, torch.bfloat16):
    slope, near_one = torch.tensor([2e-8, 1.001]).to(dtype)
    scaled = (torch.tensor(2e-8) * 2**16).to(dtype).float() / 2**16
    print(f"{dtype}: slope {slope:.1e}, scaled first {scaled:.1e}; 1.001 is {near_one:.4f}")

# %% [markdown]
# In float16 small slopes vanish, so the loss is multiplied by a large number before `backward` and the
# slopes divided by it afterwards (a *gradient scaler*). bfloat16 needs none, but 1.001 is 1: weights
# moved by small steps would never move. So **mixed** precision keeps weights and sums in float32 and
# does the multiplications in bfloat16. The recipes of this course use that where the hardware has it.

# %%
from spine_lib.models import build_model
from spine_lib.reproduce import device_name
from spine_lib.training import choose_device, choose_precision

device = choose_device()
print(device_name(device))
print("a recipe with precision 'auto' takes", choose_precision("auto", device))

# %% [markdown]
# The second switch is the **order in memory**. PyTorch stores one channel after the other; convolutions
# prefer all channels of a pixel side by side, *channels last*. The values are the same, the shape is
# the same; only the strides differ.

# %% tags=["nbval-check-output"]
plain = torch.zeros(8, 64, 32, 32)
last = plain.contiguous(memory_format=torch.channels_last)
print(tuple(plain.shape), plain.stride())
print(tuple(last.shape), last.stride(), torch.equal(plain, last))

# %%
import time


def step_ms(network, image, target, half, steps=4):
    """Return the milliseconds of a training step; the first is not counted."""
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = functional.binary_cross_entropy_with_logits(network(image), target)
        network.zero_grad()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()  # a GPU answers before it has finished
    return 1000 * (time.perf_counter() - started) / steps


# %%
batch = image[:8].to(device), target[:8].to(device)
layouts = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
for name, layout in layouts.items():
    resnet = build_model("unet_resnet18").to(device, memory_format=layout)
    for half in (False, True):
        inputs = [part.contiguous(memory_format=layout) for part in batch]
        ms = step_ms(resnet, *inputs, half, steps=pick(full=4, fast=1))
        print(f"{name:14} {'bfloat16 mixed' if half else 'float32':14} {ms:6.0f} ms a step")

# %% [markdown]
# Read these for *your* machine, and run the cell twice: whatever else the machine does is measured, too.
# bfloat16 helps where the processor multiplies in it (AMX); elsewhere it is emulated and may
# be slower. No datacentre GPU was at hand when this was written, so no numbers of one are kept here; run
# the cell on one and it prints them.

# %%
with torch.no_grad():
    resnet.eval()
    full = torch.sigmoid(resnet(inputs[0]))
    with torch.autocast(device, torch.bfloat16):
        mixed = torch.sigmoid(resnet(inputs[0]).float())
print(f"largest difference of a probability: {(full - mixed).abs().max():.4f}")
crossed = int(((full > 0.5) != (mixed > 0.5)).sum())
print(f"pixels on the other side of 0.5: {crossed} of {full.numel()}")

# %% [markdown]
# This network is untrained: many probabilities lie close to 0.5, and some cross it though they move by a
# few hundredths at most. A trained network is surer. Still, it is not nothing: compare runs of one
# precision with runs of the same.

# %% [markdown]
# ## 4. How long a step?
#
# Too short a step and training takes for ever; too long and it goes astray. Raise the learning rate
# from step to step, a little more each time, and watch.

# %%
torch.manual_seed(0)
network = UNet(width=8, depth=2)
optimiser = torch.optim.AdamW(network.parameters())
rates, losses = np.geomspace(1e-5, 10, pick(full=60, fast=12)), []
random = np.random.default_rng(0)
for rate in rates:
    optimiser.param_groups[0]["lr"] = rate
    rows = random.choice(len(image), 8, replace=False)
    loss = segmentation_loss(network(image[rows]), target[rows], weight[rows])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())

# %%
figure, axes = plt.subplots(figsize=(5, 2.5), layout="constrained")
axes.semilogx(rates, losses, color="#0072B2")
axes.set(xlabel="learning rate", ylabel="loss of the step")
plt.show()

# %% [markdown]
# *Figure: the loss of each step while the learning rate rises from 0.00001 to 10 on a logarithmic axis:
# flat at first, then falling, then jumping up and down.*
#
# Up to some rate nothing happens within a few steps; then the loss falls; beyond, it jumps. A good highest
# rate lies well to the left of the first jump, where the loss has begun to fall: the recipes of this
# course take 0.001 to 0.0015. It need not be kept: most runs start small, since the first slopes lead
# astray, and end small, so that the weights come to rest.
#
# ### Exercise 6.4: a schedule


# %% tags=["exercise"]
def learning_rate(step, steps, highest, warm_up):
    """Return the learning rate of one step: a straight line up, then half a cosine wave down.

    step:    number of the step, from 0.
    steps:   how many there are; the wave would reach 0 at a step of that number.
    highest: reached in the last step of the warm-up, and still there in the one after it.
    warm_up: number of steps that the line takes; the first of them has highest / warm_up.
    """
    raise NotImplementedError


# %%
check("6.4", learning_rate)

# %%
some = torch.optim.AdamW(network.parameters(), lr=1e-3)
one_cycle = torch.optim.lr_scheduler.OneCycleLR(some, 1e-3, total_steps=100, pct_start=0.2)
rates = []
for _ in range(100):
    rates.append(some.param_groups[0]["lr"])
    some.step()
    if len(rates) < 100:
        one_cycle.step()
top = np.argmax(rates)
print(f"first {rates[0]:.1e}, highest {rates[top]:.1e} in step {top}, last {rates[-1]:.1e}")

# %% [markdown]
# The library takes PyTorch's own: *one cycle* (Smith and Topin, doi:10.1117/12.2520589), up along a
# cosine for a fifth of the run and down for the rest. The idea is that of your line and wave. A
# schedule must know how long the run is, which is why recipes count **steps** and never seconds.

# %% [markdown]
# ## 5. A batch that does not fit
#
# Slopes add up, as you saw. So a batch of 16 that does not fit into a GPU's memory can go through it in
# four parts of 4, with one optimiser step after the last. **Predict**: exactly the same step, or nearly?
#
# ### Exercise 6.5: a batch in parts


# %% tags=["exercise"]
def accumulated_step(network, optimiser, image, target, parts):
    """Do one step on a batch that does not fit into memory, in several parts.

    network:   maps images to logits; it has no BatchNorm.
    optimiser: holds its weights; gradients of an earlier step may still be there.
    image:     float32 tensor [batch, 1, row, column]; target is of the same shape.
    parts:     how many parts to cut the batch into (torch.tensor_split makes them nearly equal).
    The weights end where one step on the mean binary cross-entropy of the whole batch would bring
    them. returns that mean, a Python number.
    """
    raise NotImplementedError


# %%
check("6.5", accumulated_step)


# %%
everywhere = torch.ones_like(weight)


def slopes(network, parts, kind):
    """Return all slopes of a batch of 16 that went through in some parts."""
    network.zero_grad()
    for some in torch.arange(16).tensor_split(parts):
        logits = network(image[some].double())
        loss = segmentation_loss(logits, target[some], everywhere[some], kind)
        (loss * len(some) / 16).backward()
    return torch.cat([weights.grad.flatten() for weights in network.parameters()])


def difference(network, kind):
    """Return how far four parts are from the whole, relative to its length."""
    whole, parted = slopes(network, 1, kind), slopes(network, 4, kind)
    return float((whole - parted).norm() / whole.norm())


# %%
torch.manual_seed(0)
network = UNet(width=8, depth=2).double()
network.eval()  # BatchNorm takes its stored means: no image sees another
print(f"cross-entropy, BatchNorm asleep: {difference(network, 'bce'):.1e}")
print(f"Dice,          BatchNorm asleep: {difference(network, 'dice'):.1e}")
print(f"cross-entropy, BatchNorm awake:  {difference(network.train(), 'bce'):.1e}")

# %% [markdown]
# Equal up to rounding for cross-entropy, a mean over equally many pixels in each part. (The network
# computes in 64 bits here. In 32 bits PyTorch may convolve small batches in another way than large
# ones, and rounding then shows much earlier.) Not so with **Dice**: a mean of four overlaps is not the
# overlap of all. And not with **BatchNorm**: it subtracts the mean of *its*
# batch, and a part's mean is another. Accumulating makes a batch larger for the optimiser, never for
# BatchNorm. The same holds when processes share a batch, in section 9.

# %% [markdown]
# ## 6. What keeps a GPU waiting
#
# So far all slices lay in memory. Real training cuts, turns and noises patches while it goes. Where
# that takes longer than the step, the GPU waits. Here is a store as lesson 3 made it, and a loader.

# %%
import tempfile
from pathlib import Path

from spine_lib.datasets import phantom_cases
from spine_lib.slices import Augmentation, prepare
from spine_lib.training import Recipe, training_loader

work = Path(tempfile.mkdtemp(prefix="lesson-06-"))
grid = {"shape": (64, 64, 32), "spacing_mm": 4.0}
train_store = prepare(phantom_cases(2, 400, **grid), work / "train", spacing_mm=4.0)
validation_store = prepare(phantom_cases(1, 500, **grid), work / "validation", spacing_mm=4.0)
patches = Recipe(batch=8, steps_per_epoch=20, workers=0, augmentation=Augmentation(size=64))


# %%
def watch(loader, network, steps):
    """Return seconds of waiting for a batch and of computing, a row for each step."""
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    rows, batches = [], iter(loader)
    for _ in range(steps):
        started = time.perf_counter()
        image, target, weight = (part.to(device) for part in next(batches))
        arrived = time.perf_counter()
        loss = segmentation_loss(network(image), target, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the device
        rows.append((arrived - started, time.perf_counter() - arrived))
    return np.array(rows)


# %%
torch.manual_seed(0)
nets = {"small U-Net": UNet(width=8, depth=2), "U-Net, ResNet18": build_model("unet_resnet18")}
for name, network in nets.items():
    loader = training_loader(train_store, patches)
    times = watch(loader, network.to(device), steps=pick(full=8, fast=3))[1:]
    waiting, computing = 1000 * times.mean(axis=0)
    part = waiting / (waiting + computing)
    print(f"{name:16} waits {waiting:4.0f} ms, computes {computing:4.0f} ms a step: {part:.0%}")

# %% [markdown]
# The loader takes about the same time for both networks; what share of a step that is depends on the
# network and the device. Divide the second line's computing by twenty, as for a fast GPU: now it waits
# for a large part of its time. This is why "the GPU is at 30 %" is nearly always a question about the loader.
#
# The cure: **workers**, processes that make the next batches while this one is computed.

# %%
beside = training_loader(train_store, patches.changed(workers=1))
times = watch(beside, nets["U-Net, ResNet18"], pick(full=10, fast=4))[1:]
waiting, computing = 1000 * times.mean(axis=0)
print(f"one worker: waits {waiting:.0f} ms, computes {computing:.0f} ms a step")

# %% [markdown]
# Most of the waiting should be gone. On a machine with few cores the step may take longer instead: a
# worker needs a core, too. How many workers? As many as it takes until the waiting is near 0, and no more.
#
# And where does the *step* spend its time? A profiler lists its operations.

# %%
import os

from torch.profiler import ProfilerActivity, profile

os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler's own messages
wanted = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
with profile(activities=wanted) as profiler:
    watch(training_loader(train_store, patches), nets["U-Net, ResNet18"], steps=2)
rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
total = sum(row.self_cpu_time_total for row in rows)
for row in rows[:6]:
    print(f"{row.self_cpu_time_total / total:5.0%}  {row.count:5} times  {row.key[:50]}")

# %% [markdown]
# Convolutions and their slopes should lead the list. Where copies, `item` or something of NumPy's stand
# high up, something is moved that need not be. On a GPU, sort by `row.self_device_time_total`; an idle
# GPU beside a busy CPU means that it waits for the loader or for being told what to do.

# %% [markdown]
# ## 7. Killed, and resumed to the same numbers
#
# Runs end early: a cluster's time limit, a full disk, a laptop's lid. What has to be kept so that the
# run can go on as if nothing had happened? More than the weights.
#
# ### Exercise 6.6: a checkpoint


# %% tags=["exercise"]
def make_checkpoint(network, optimiser, schedule, step):
    """Gather all that a run needs to go on after a stop as if there had been none.

    network:   with dropout, which draws from PyTorch's random numbers (torch.get_rng_state).
    optimiser: AdamW, which remembers a mean gradient for every weight.
    schedule:  of the learning rate.
    step:      number of steps done.
    returns a dict with the keys "network", "optimiser", "schedule", "random" and "step". It is
    written by torch.save and read by torch.load(..., weights_only=True), which takes tensors,
    numbers and containers of them, and refuses objects that could run code.
    """
    raise NotImplementedError


# %%
check("6.6", make_checkpoint)

# %% [markdown]
# Now for real. A recipe says everything that a run depends on; a short script trains with it, in a
# process of its own, so that it can be killed.

# %%
recipe_text = """\
dataset: phantom
models: [unet_resnet18]
steps: 12
steps_per_epoch: 4
batch: 4
workers: 0
averaging: 0.5
precision: 32-true
augmentation: {size: 32}
"""
_ = (work / "small.yaml").write_text(recipe_text, encoding="utf-8")

# %%
script = """\
import sys
from spine_lib.training import Processes
from spine_lib.training import load_recipe
from spine_lib.slices import SliceStore
from spine_lib.training import load_or_train

if __name__ == "__main__":
    name, devices = sys.argv[1], int(sys.argv[2])
    data = SliceStore("train"), SliceStore("validation")
    load_or_train("unet_resnet18", load_recipe("small.yaml"), *data, name, "cpu", False,
                  processes=Processes(devices))
"""
_ = (work / "train.py").write_text(script, encoding="utf-8")

# %%
import subprocess
import sys


def start(*arguments):
    """Start train.py in a process of its own."""
    command = [sys.executable, "train.py", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=work, text=True, **pipes)


process = start("killed", "1")
while process.poll() is None and not (work / "killed" / "last.ckpt").is_file():
    time.sleep(0.02)
process.kill()
process.communicate()
print(sorted(path.name for path in (work / "killed").glob("[!.]*")))

# %% [markdown]
# No warning, no chance to tidy up: the process is gone in the middle of an epoch. There is a
# `last.ckpt`, of the end of an epoch, and no `weights.safetensors`, which only a finished run has. Two
# runs now: one that is never interrupted, and the killed one, called again.

# %%
from spine_lib.training import load_or_train, load_recipe

recipe = load_recipe(work / "small.yaml")
stores = (train_store, validation_store)
checkpoint = torch.load(work / "killed" / "last.ckpt", weights_only=True)
print(f"killed after step {checkpoint['global_step']} at the earliest")
unbroken = load_or_train("unet_resnet18", recipe, *stores, work / "unbroken", "cpu", progress=False)
resumed = load_or_train("unet_resnet18", recipe, *stores, work / "killed", "cpu", progress=False)

# %%
pairs = zip(unbroken.network.state_dict().values(), resumed.network.state_dict().values())
largest = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
print(f"largest difference of any weight: {largest}")

# %% [markdown]
# Zero, not "about zero". For that the run must draw the same patches in the same order and change them
# in the same way: each patch here is seeded by run, epoch and place (lesson 3). The checkpoint adds
# weights, their moving average over the steps (which is what gets scored), optimiser, schedule, random
# numbers, which dropout draws from, and the place in the epoch. On a GPU some sums come out in another
# order each time, so there it is "nearly".

# %%
for name in ("last.ckpt", "weights.safetensors"):
    print(f"{name:20} {(work / 'unbroken' / name).stat().st_size / 1e6:6.1f} MB")

# %% [markdown]
# The checkpoint is several times as large: AdamW keeps two more numbers for each weight, and the moving
# average a third. To go on, keep the checkpoint; to pass a network on, the safetensors file, which
# holds numbers only and cannot run code when it is opened. A `.ckpt` from a stranger can; here it is
# loaded with `weights_only=True`.

# %% [markdown]
# ## 8. The same in Lightning
#
# The loop by hand has grown: device, precision, schedule, clipping, averaging, logs, checkpoints. You
# have just used a library that does all this, and it has no loop in it. It tells *Lightning* what is
# special about its training.

# %%
import inspect

from spine_lib.training import Segmenter

print(inspect.getsource(Segmenter.training_step))
print(inspect.getsource(Segmenter.configure_optimizers))

# %% [markdown]
# No `backward`, no `zero_grad`, no `.to(device)`: the trainer does these, and always in the right order.
# What is left is what a reader wants to know: loss, optimiser, schedule. A loss that is no number stops
# the run and names the cases of the batch. The log is a table.

# %%
for row in unbroken.curve:
    print({key: round(value, 4) for key, value in row.items()})

# %% [markdown]
# ## 9. Two processes, and then many
#
# Many GPUs train like this: each has a copy of the network and takes its share of the batch; then the
# slopes are averaged over all, so that every copy takes the same step. The rules are those of section
# 5. Here with two processes on this machine; the script is the same, only called with a 2.

# %%
process = start("two", "2")
output, errors = process.communicate()
print("exit code", process.returncode, errors[-500:])
print(sorted(path.name for path in (work / "two").iterdir()))

# %%
from spine_lib.training import read_log

for name in ("unbroken", "two"):
    rows = [row for row in read_log(work / name / "metrics.csv") if "val_loss" in row]
    told = [f"step {row['step'] + 1:.0f}: {row['val_loss']:.3f}" for row in rows]
    print(f"{name:9} validation loss at", ", ".join(told))

# %% [markdown]
# One folder, one log, one set of weights: the first process writes, the second only computes. The batch
# is still 4, two patches for each, and they are the *same* patches that one process draws. The loss is
# that of the whole batch, Dice included, since the processes add up its sums before they divide.
#
# Still the numbers differ. BatchNorm is why: each process has the statistics of its own two small patches,
# which are poor ones. Without BatchNorm the two runs agree up to rounding (`tests/test_many_processes.py`
# proves it). On GPUs the library shares the statistics too (`sync_batchnorm`); on CPUs PyTorch cannot.

# %%
from spine_lib.training import PatchSampler

one = [draw.place for draw in PatchSampler(train_store, recipe)][:4]
shares = [[d.place for d in PatchSampler(train_store, recipe, rank, 2)][:2] for rank in (0, 1)]
print("one process draws", one)
print("two processes draw", shares)

# %% [markdown]
# The command of the main job does the same with one option, and nothing else changes from one GPU to
# many machines:
#
# ```
# spine reproduce                                       one GPU, or the CPU
# spine reproduce --devices 8                           eight GPUs of one machine
# srun spine reproduce --devices 8 --nodes 4            inside a SLURM job of 4 nodes, 8 tasks each
# torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
#     -m spine_lib reproduce --devices 8 --nodes 4      the same without SLURM, on each machine
# ```
#
# Folder and data must be on a disk that all machines see. The recipe's batch is shared by all, so it
# has to be divisible by their number; with 32 GPUs a batch of 8 makes no sense, and a larger batch is
# another experiment, with another learning rate. The command says so before anything starts:

# %% tags=["nbval-check-output"]
from spine_lib import SpineError
from spine_lib.training import Processes

try:
    Processes(devices=8, nodes=4).require_fit(batch=8, device="cpu")
except SpineError as error:
    print(error)

# %% [markdown]
# ## 10. Load or train
#
# Nobody should wait twice. A folder with finished weights is loaded, one with a checkpoint goes on, an
# empty one is trained, and one that holds *another* recipe or saw other data is refused.

# %%
again = load_or_train("unet_resnet18", recipe, *stores, work / "unbroken", "cpu", progress=False)
print(f"trained for {again.seconds:.0f} s now, {again.trained_seconds:.0f} s when it was trained")
try:
    larger = recipe.changed(batch=8)
    load_or_train("unet_resnet18", larger, *stores, work / "unbroken", "cpu", False)
except SpineError as error:
    print(str(error).replace(str(work), "."))

# %%
import shutil

shutil.rmtree(work)
progress()

# %% [markdown]
# ## What you can do now
#
# - **Write** the loop: mode, loss, clear, backward, step.
# - **Choose** a loss for one pixel in a hundred by measuring several, over seeds.
# - **Use** bfloat16 and channels last where they pay, a schedule with a warm-up, and accumulation, and
#   know where BatchNorm and Dice make it unequal.
# - **Find** what keeps a GPU waiting: time the loader and the step apart, then look into the step.
# - **Stop** a run and resume it to the same numbers; hand it to Lightning, in one or many processes.
#
# Next: lesson 7 asks what the numbers on the validation curve are worth.
