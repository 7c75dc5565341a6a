# %% [markdown]
# # U-Net: build it from blocks, and learn what its skips are for
#
# A segmentation network answers one question for every pixel of a slice: is this spine? For that it
# must see far enough to know a vertebra from a rib, and still say to the pixel where the vertebra
# ends. The U-Net does both with four small blocks. In this notebook you will
#
# - **build** a U-Net from its blocks: double convolution, down, up and skip,
# - **predict** its shapes and its parameters by formula, and confirm them,
# - **overfit** one batch on purpose, the first test of every new network,
# - **measure** what the skips add, at the boundary and in millimetres,
# - **match** your U-Net with the library's on a ResNet34 encoder, layer by layer.
#
# It takes about 80 minutes, six exercises included; the cells alone run in about one.

# %% [markdown]
# ## 1. How far must one look?
#
# We take the chest patient of lesson 1, cut to small squares of 128 mm around the spine: 64 pixels of
# 2 mm each.

# %%
from spine_lib.course import check, course_case, hint, progress, solution
from spine_lib.course.demonstrations import crop_slices

data = course_case("chest")
chest = crop_slices("chest", data, pixel_mm=2.0, size=64)
print(chest.images.shape, chest.images.dtype, chest.labels.dtype)

# %% [markdown]
# Images for networks have four axes: batch, channel, row, column. A CT slice has one channel. Now a
# small game. In the next four pictures somebody covers most of a slice. **Predict** from each alone: is
# the pixel in the middle spine?

# %%
import matplotlib.pyplot as plt
import numpy as np

plt.rcParams["figure.dpi"] = 80


def show(axes, image, *outlines, title="", pixel_mm=2.0):
    """Draw a slice, the outline of a mask in orange and that of a prediction in blue."""
    height, width = (pixel_mm * length for length in image.shape)
    extent = (0, width, height, 0)
    axes.imshow(image, cmap="gray", vmin=-1.5, vmax=2.5, extent=extent)
    for mask, colour in zip(outlines, ("#E69F00", "#56B4E9")):
        if mask.any():
            axes.contour(mask, [0.5], colors=colour, extent=extent, origin="upper")
    axes.set(title=title, xlabel="R to L, mm", ylabel="A to P, mm")
    axes.label_outer()


# %%
number = len(chest) // 2
image, label = chest.images[number, 0], chest.labels[number, 0]
spine = np.argwhere(label == 1)
row, column = spine[np.abs(spine - 32).sum(axis=1).argmin()]  # the pixel nearest to the middle
figure, axes = plt.subplots(1, 4, figsize=(7.2, 2.2), layout="constrained", dpi=60)
for one, reach in zip(axes, (1, 4, 9, 22)):
    part = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
    show(one, part, title=f"{2 * len(part)} mm")
    one.plot(len(part), len(part), "+", color="#E69F00")
plt.show()

# %% [markdown]
# *Figure: the same pixel of a slice of the chest, marked by a cross, with 6, 18, 38 and 90 mm of its
# surroundings. Only the widest view shows the vertebra whole.*
#
# Six millimetres of grey could be anything. Somewhere between 18 and 90 mm you were sure. A network
# needs the same: how much of the image one output pixel depends on is its *receptive field*. One
# convolution with a 3 x 3 kernel looks one pixel to each side. Let us do one by hand.

# %%
import torch
from torch.nn import functional

kernel = torch.tensor(
    [[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]
)  # bright on the right, dark on the left
pixels = torch.from_numpy(image)
by_hand = (pixels[row - 1 : row + 2, column - 1 : column + 2] * kernel).sum()
edges = functional.conv2d(pixels[None, None], kernel[None, None], padding=1)
print(f"by hand {by_hand:.4f}, by conv2d {edges[0, 0, row, column]:.4f}")

# %% [markdown]
# Nine products and a sum, the same nine numbers at each pixel. Here we chose them; a network learns
# them. Now stack several: with the slider, **how many** 3 x 3 layers does it take to see 90 mm, 45 of
# our pixels?

# %%
from spine_lib.explore import ReceptiveFieldExplorer

ReceptiveFieldExplorer()

# %% [markdown]
# *Figure: the explorer, here as a still: the pixels that one output pixel sees through three layers of
# 3 x 3 kernels, a square of 7 x 7.*
#
# The slider ends at five layers and 11 pixels, for each layer adds only two. Forty-five would take 22
# layers. There is a cheaper way: make the *image* smaller. After one halving a kernel spans twice as
# many millimetres, after four halvings sixteen times as many.

# %% [markdown]
# ## 2. The double convolution
#
# Between two halvings a U-Net looks twice. After each convolution comes a *batch normalisation*, which
# brings every channel to mean 0 and spread 1 and then applies a scale and a shift that it learns, and
# a *ReLU*, which replaces negative numbers by 0. In PyTorch they are `torch.nn.Conv2d`,
# `torch.nn.BatchNorm2d` and `torch.nn.ReLU`; `torch.nn.Sequential` runs layers one after the other.
#
# ### Exercise 4.1: a double convolution


# %% tags=["exercise"]
def double_convolution(inputs, outputs):
    """Build the block that a U-Net is made of: two looks at each pixel's 3 x 3 neighbourhood.

    A look is a convolution that keeps rows and columns and has no bias, a batch normalisation and
    a ReLU, in this order. The second look takes what the first one gives.

    inputs:  channels that come in.
    outputs: channels that go out, of both looks.
    returns a torch.nn.Module that maps [batch, inputs, row, column] to
    [batch, outputs, row, column].
    """
    raise NotImplementedError


# %%
check("4.1", double_convolution)

# %% [markdown]
# Stuck? Run `hint("4.1")` in a cell of your own; `solution("4.1")` shows one way. The library's version
# is `DoubleConvolution` in `spine_lib/models/unet.py`, a file that is written to be read beside this
# lesson. **Predict** the shape that it makes, and its number of parameters.

# %% tags=["nbval-check-output"]
from spine_lib.models.unet import DoubleConvolution, Down, UNet, Up


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


block = DoubleConvolution(1, 4)
print(tuple(block(torch.zeros(2, 1, 64, 64)).shape), count(block))

# %% [markdown]
# Rows and columns stay, one channel became four. The first convolution has 9 weights for each of the 4
# channels, the second 9 for each of 4 x 4 pairs, and each normalisation 2 a channel:
# 36 + 144 + 8 + 8 = 196. How large the image is plays no role.

# %% [markdown]
# ## 3. Down, up, and what is lost between
#
# `Down` halves first: of each 2 x 2 pixels it keeps the largest. Then it looks twice, with twice as
# many channels: fewer places, and more to say about each.

# %% tags=["nbval-check-output"]
maps = DoubleConvolution(1, 8)(torch.zeros(1, 1, 64, 64))
for channels in (8, 16, 32):
    maps = Down(channels, 2 * channels)(maps)
    print(tuple(maps.shape), maps.numel(), "numbers")

# %% [markdown]
# Each step halves the total: a quarter of the places, twice the channels. At the bottom one place stands
# for 8 x 8 pixels. What becomes of an *outline* meanwhile? We halve the mask itself, as pooling does,
# and enlarge it again.

# %%
mask = torch.from_numpy((label == 1).astype(np.float32))[None, None]
figure, axes = plt.subplots(1, 4, figsize=(7.2, 2.2), layout="constrained", dpi=60)
for one, halvings in zip(axes, range(4)):
    small = functional.max_pool2d(mask, 2**halvings)
    again = functional.interpolate(small, scale_factor=2**halvings)[0, 0]
    show(one, image, again > 0, title=f"pixels of {2 * 2**halvings} mm")
plt.show()

# %% [markdown]
# *Figure: a slice of the chest at the edge of a disc, with the outline of its mask, which leaves the disc
# out, and with the same after one, two and three halvings: the outline turns into coarse steps.*
#
# After three halvings nobody could cut bone along that line. A network is not *quite* as badly off: it
# may write into its many channels what was where within a place. But it has to learn this detour. The
# skip takes the direct way: on the way up, each level gets the map that the way down had at that size.
#
# Enlarging is what `functional.interpolate` did to the mask above; `torch.cat` joins tensors, as
# `np.concatenate` joins arrays.
#
# ### Exercise 4.2: enlarge and join


# %% tags=["exercise"]
def enlarge_and_join(below, skip):
    """Bring a map to twice its size and put the skip's channels behind its own.

    below: float tensor [batch, channel, row, column] from the level below.
    skip:  float tensor [batch, other channel, 2 row, 2 column] from the way down.
    returns a tensor [batch, channel + other channel, 2 row, 2 column]. Each pixel of `below`
    becomes a block of 2 x 2 equal ones.
    """
    raise NotImplementedError


# %%
check("4.2", enlarge_and_join)

# %% [markdown]
# The library's `Up` does this and then looks twice. **Predict**: a map of 64 channels comes from below,
# the skip has 32, and 32 go out. From how many channels to how many does its first convolution go?

# %% tags=["nbval-check-output"]
up = Up(64, 32, 32)
print(tuple(up(torch.zeros(1, 64, 8, 8), torch.zeros(1, 32, 16, 16)).shape))
print(up.convolve[0])

# %% [markdown]
# From 96 to 32. The U-Net of the original paper enlarges by a *transposed convolution* with weights of its
# own; many U-Nets of today, ours and the library's, repeat pixels and leave the rest to the convolutions.

# %% [markdown]
# ## 4. The whole letter
#
# Now put the blocks together. With two halvings it fits into one cell; read `forward` from top to
# bottom and draw the U with a pencil.


# %%
class TwoLevelUNet(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = DoubleConvolution(1, width)
        self.down1, self.down2 = Down(width, 2 * width), Down(2 * width, 4 * width)
        self.up1, self.up0 = Up(4 * width, 2 * width, 2 * width), Up(2 * width, width, width)
        self.head = torch.nn.Conv2d(width, 1, 1)

    def forward(self, image):
        full = self.first(image)
        half = self.down1(full)
        quarter = self.down2(half)
        half = self.up1(quarter, half)
        return self.head(self.up0(half, full))


# %% [markdown]
# The head mixes the channels of each pixel into one number, the *logit*: above 0 means "spine". The
# library's `UNet` is the same with any depth. Is it? We give it the weights of ours, in their order.

# %% tags=["nbval-check-output"]
ours, library = TwoLevelUNet(width=8).eval(), UNet(width=8, depth=2).eval()
library.load_state_dict(dict(zip(library.state_dict(), ours.state_dict().values(), strict=True)))
slices = torch.from_numpy(chest.images[:4])
with torch.inference_mode():
    print("same logits:", torch.equal(ours(slices), library(slices)))
print(count(ours), count(library))

# %% [markdown]
# The same to the last bit. Now a network of usual size: `width` 32 and four halvings. **Predict** the
# shape of the bottom for an image of 64 x 64, and where the most numbers are. Then let each block report
# what it gives, with a *forward hook*: a function that PyTorch calls whenever the block was run.


# %%
def trace(network, image, names):
    """Return the shape [channel, row, column] that each named part of a network gives."""
    shapes, hooks = {}, []
    for name in names:

        def report(module, given, found, name=name):
            shapes[name] = tuple(found.shape[1:])

        hooks.append(network.get_submodule(name).register_forward_hook(report))
    with torch.inference_mode():
        network.eval()(image)
    for hook in hooks:
        hook.remove()
    return shapes


# %% tags=["nbval-check-output"]
width, depth = 32, 4
network = UNet(width=width, depth=depth)
names = [
    "first",
    *(f"downs.{n}" for n in range(depth)),
    *(f"ups.{n}" for n in range(depth)),
    "head",
]
shapes = trace(network, slices[:1], names)
levels = [0, *range(1, depth + 1), *reversed(range(depth))]
for name, level in zip(names, levels):
    shape = shapes[name]
    formula = (width * 2**level, 64 // 2**level, 64 // 2**level)
    print(f"{name:8} level {level}  {shape!s:14}", "as predicted" if shape == formula else formula)
print(f"head              {shapes['head']}")

# %% [markdown]
# Level n has `width * 2**n` channels and 64 / 2**n rows and columns, down as well as up. Only the head
# differs: one channel, the logits. The formula also says which images do not fit.

# %% tags=["nbval-check-output"]
from spine_lib import SpineError

try:
    network(torch.zeros(1, 1, 100, 100))
except SpineError as error:
    print(error)

# %% [markdown]
# 100 halves to 50, 25, and then no further. In practice an image is padded with air up to the next
# multiple and the result is cut back, as `spine_lib/volumes/masks.py` does.
#
# ### Exercise 4.3: count the parameters
#
# **Predict** first, as a number: how many parameters has this network, about?


# %% tags=["exercise"]
def count_parameters(in_channels, classes, width, depth):
    """Predict how many parameters a U-Net has, without building it.

    Level 0 is the full size and has `width` channels; each level down has twice as many.
    Down:  a double convolution for each level, 0 (from in_channels) to `depth`.
    Up:    a double convolution for each level but the last. It takes the channels of the level
           below and those of the skip, and gives the channels of its own level.
    Head:  a 1 x 1 convolution with bias, from level 0 to `classes`.
    A double convolution has two 3 x 3 convolutions without bias; each is followed by a batch
    normalisation, which learns a scale and a shift for every channel.
    returns a whole number.
    """
    raise NotImplementedError


# %%
check("4.3", count_parameters)

# %% tags=["nbval-check-output"]
from spine_lib.models.unet import unet_parameters

print(f"counted {count(network):,}, by formula {unet_parameters(1, 1, width, depth):,}")
print("depth  ", *(f"{depth:>12}" for depth in (2, 3, 4, 5)))
for width in (16, 24, 32, 64):
    row_of = [unet_parameters(width=width, depth=depth) for depth in (2, 3, 4, 5)]
    print(f"width {width}", *(f"{parameters:12,}" for parameters in row_of))

# %% [markdown]
# Doubling the width costs four times the parameters, and so does one more level, for nearly all of them
# sit at the bottom, where channels are many. Width 64 and depth 4 are those of the original paper. How
# far does one pixel of such a network see?

# %%
from spine_lib.models import pixel_gradient

torch.manual_seed(0)
for depth in (1, 2, 3):
    seen = pixel_gradient(UNet(width=8, depth=depth), size=128) > 0
    rows = np.flatnonzero(seen.any(axis=1))
    print(f"depth {depth}: about {rows[-1] - rows[0] + 1} of 128 rows")

# %% [markdown]
# Each halving roughly doubles the reach. Three of them see about 90 pixels, 180 of our millimetres, with
# only 14 convolutions of 3 x 3 from top to top. This is what the way down is for.

# %% [markdown]
# ## 5. One batch by heart
#
# Before anyone trains a network for hours: can it learn *one* batch by heart? If not, something is
# broken, and it shows within seconds. This runs ahead of lesson 6, which explains each line of a step.
# What you need of it here:
#
# - the *loss* is one number that says how wrong the logits are, and training lowers it; ours is the
#   *cross-entropy*, about 0.69 for a network that calls every pixel a coin toss;
# - `loss.backward()` finds for every weight in which direction the loss grows, its *gradient*, and
#   **adds** it to what an earlier call left there; the *optimiser's* `zero_grad()` clears that;
# - the optimiser, here `torch.optim.AdamW(network.parameters(), learning_rate)`, then changes every
#   weight a little in `step()`;
# - `network.train()` puts the network into training mode, in which a normalisation uses the mean and the
#   spread of the batch at hand.
#
# ### Exercise 4.4: overfit one batch


# %% tags=["exercise"]
def fit_one_batch(network, image, target, steps, learning_rate):
    """Train a network on one batch, again and again, to see whether it can learn at all.

    network: torch.nn.Module, image -> logits; comes in evaluation mode, is trained in place.
    image:   float tensor [batch, 1, row, column].
    target:  float tensor of the same shape, 1 is spine.
    steps:   how often the weights are changed.
    learning_rate: of torch.optim.AdamW, whose other settings stay as they are.
    returns a list of `steps` floats: the loss before each change of the weights, which is
    torch.nn.functional.binary_cross_entropy_with_logits.
    """
    raise NotImplementedError


# %%
check("4.4", fit_one_batch)

# %% [markdown]
# The library's version is in `spine_lib/course/one_batch.py`. It can also make typical mistakes on
# purpose. Eight slices of the chest, one small U-Net, three ways to train it. **Predict** which of
# the curves fall.

# %%
from spine_lib import metrics
from spine_lib.course import pick
from spine_lib.course.demonstrations import one_thread
from spine_lib.course.one_batch import fit_one_batch

chosen = np.linspace(0, len(chest) - 1, 8).astype(int)
batch, known = torch.from_numpy(chest.images[chosen]), chest.labels[chosen] == 1
target = torch.from_numpy(known.astype(np.float32))

# %%
curves = {}
for mistake in ("sigmoid", "sgd", ""):
    torch.manual_seed(0)
    network = UNet(width=8, depth=3)
    with one_thread():
        curves[mistake] = fit_one_batch(network, batch, target, pick(100, 6), 1e-2, mistake)
learnt = network  # the last one, still in training mode

# %%
names = {"": "as it should be", "sgd": "plain gradient descent", "sigmoid": "a second sigmoid"}
figure, axes = plt.subplots(figsize=(5.2, 2.6), layout="constrained")
for (mistake, losses), style in zip(curves.items(), (":", "--", "-")):
    axes.plot(losses, style, label=f"{names[mistake]}: {losses[-1]:.3f} at the end")
axes.set(xlabel="step", ylabel="cross-entropy", ylim=(0, 1.05))
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *Figure: cross-entropy over the steps of three trainings on one batch. As it should be it falls towards
# 0; with plain gradient descent more slowly; with a second sigmoid it stays high.*
#
# The lowest curve passes the test. Plain gradient descent learns too, but slowly: that is the optimiser,
# not the network. The second sigmoid is a common bug: probabilities where the loss expects logits.
# No error, and a loss that falls for a while; but each pixel of background costs at least
# log 2 = 0.69, whatever the network says.

# %%
with torch.inference_mode():
    predicted = (learnt(batch) > 0).numpy()
print(f"Dice on the batch that was learnt: {metrics.dice(metrics.confusion(predicted, known)):.3f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(7.2, 2.2), layout="constrained", dpi=60)
for one, index in zip(axes, range(0, 8, 2)):
    show(one, batch[index, 0], known[index, 0], predicted[index, 0])
plt.show()

# %% [markdown]
# *Figure: four slices of the batch with the outline of the mask (orange) and of the prediction (blue),
# which nearly coincide.*
#
# Passed. Note what this says and what not: the network, the loss and the step *can* learn. It says
# nothing about other patients, and a batch with the wrong masks would be learnt by heart just as well.

# %% [markdown]
# ## 6. Take the skips away
#
# What are they worth? Overlap alone does not tell: a vertebra is thick, and Dice counts its inside. So we
# measure where the skips should help, at the outline.
#
# ### Exercise 4.5: the boundary in mm


# %% tags=["exercise"]
def boundary_distance_mm(prediction, truth, spacing_mm):
    """Return how far the outlines of two masks are apart on average.

    A surface voxel is one of the mask of which a neighbour (by a face) is background; beyond the
    array all is background. For each surface voxel of one mask take the distance to the nearest
    surface voxel of the other, and their mean; then the mean of this and of the same the other way.

    prediction, truth: boolean arrays [x, y, z], neither empty.
    spacing_mm:        size of a voxel along x, y and z in mm.
    returns a number in mm.
    """
    raise NotImplementedError


# %%
check("4.5", boundary_distance_mm)

# %% [markdown]
# The library's `surface_distances` measures both ways for a volume of any size. Do overlap and distance
# say different things? We spoil the chest's own mask in two ways. **Predict** which is worse for which.

# %%
from scipy import ndimage


def mean_distance_mm(prediction, truth, spacing_mm, ignore=None):
    """Return the mean distance of two outlines, both ways."""
    both = metrics.surface_distances(prediction, truth, spacing_mm, ignore)
    return np.mean([side.mean() for side in both])


truth = chest.labels[:, 0] == 1
crumb = truth.copy()
crumb[len(crumb) // 2, 2:6, 2:6] = True
thinner = ndimage.binary_erosion(truth, np.ones((1, 2, 2)))
for name, spoilt in (("a crumb far away", crumb), ("a little thinner", thinner)):
    dice = metrics.dice(metrics.confusion(spoilt, truth))
    both = (spoilt, truth, chest.spacing_mm)
    print(f"{name}: Dice {dice:.3f}, {mean_distance_mm(*both):.2f} mm on average, ", end="")
    print(f"{max(side.max() for side in metrics.surface_distances(*both)):.0f} mm at worst")

# %% [markdown]
# Dice calls the crumb nothing and the thinner mask a disaster. In millimetres the thinner one is off by
# less than half a pixel on average and by a few pixels at the tips; the crumb hardly moves the average,
# but at worst it is a hand's breadth away. No single number is the truth, and lesson 7 says more.
#
# Now the comparison: the same small U-Net with and without skips, on the same batches of phantoms, whose
# outlines are exact. **Predict** the two distances for a phantom that neither has seen.

# %%
import time

from spine_lib.course.demonstrations import phantom_crops, train_arm

training = phantom_crops(100, pick(full=4, fast=1))
(held_out,) = phantom_crops(200, 1)
started = time.process_time()
trained = {
    arm: train_arm(arm, training, pick(full=100, fast=4), seed=0)
    for arm in ("with skips", "without skips")
}
print(f"took {time.process_time() - started:.0f} s of one core")

# %%
from spine_lib.slices.cut import IGNORE

labels, predicted = held_out.labels[:, 0], {}
truth, ignore = labels == 1, labels == IGNORE
for arm, network in trained.items():
    with torch.no_grad():
        predicted[arm] = (network(torch.from_numpy(held_out.images)) > 0).numpy()[:, 0]
    dice = metrics.dice(metrics.confusion(predicted[arm], truth, ignore))
    distance_mm = mean_distance_mm(predicted[arm], truth, held_out.spacing_mm, ignore)
    print(f"{arm:13} {count(network):7,} parameters: Dice {dice:.3f}, ", end="")
    print(f"outline {distance_mm:.2f} mm off")

# %% tags=["picture"]
figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.8), layout="constrained", dpi=66)
number = len(held_out) // 2
for one, (arm, mask) in zip(axes, predicted.items()):
    scored = mask[number] & ~ignore[number]
    show(one, held_out.images[number, 0], truth[number], scored, title=arm)
plt.show()

# %% [markdown]
# *Figure: a slice of a held-out phantom with the true outline (orange) and the predicted one (blue),
# with skips and without. With them blue keeps closer to orange; without them it is coarser. The black
# strip lies outside the scan, and nothing is scored there.*
#
# One seed, one phantom, few steps: that could be chance. So it was measured with three seeds, four
# held-out phantoms and more steps. And since a U-Net without skips has fewer weights, a third network
# without skips is wider, and has more of them than the first.

# %%
from spine_lib.course import lesson_result

kept = lesson_result("skips")
arms = list(kept["settings"]["arms"])
figure, axes = plt.subplots(1, 2, figsize=(6.8, 2.1), layout="constrained", sharey=True)
for one, (key, title) in zip(
    axes, {"dice": "Dice", "mean distance mm": "mean distance, mm"}.items()
):
    for place, arm in enumerate(arms):
        values = [row["arms"][arm][key] for row in kept["seeds"]]
        one.plot(values, [place] * len(values), "o", color="#0072B2", alpha=0.7)
    one.set(xlabel=title, yticks=range(len(arms)), yticklabels=arms, ylim=(2.5, -0.5))
    one.grid(axis="x", alpha=0.4)
plt.show()

# %% [markdown]
# *Figure: Dice and mean distance of the outlines for three networks, one dot a seed. With skips, Dice is
# highest and the distance smallest for each seed.*

# %%
print(f"{kept['settings']['steps']} steps, {len(kept['seeds'])} seeds; {kept['made']}")
for arm in arms:
    rows = [row["arms"][arm] for row in kept["seeds"]]
    means = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    print(
        f"{arm:15} {means['parameters']:9,.0f} parameters, Dice {means['dice']:.3f}, "
        f"{means['mean distance mm']:.2f} mm, within 2 mm: {means['nsd']:.0%}"
    )

# %% [markdown]
# On average Dice loses less than a tenth without skips, and the outline is more than twice as far off.
# Both are worse for every seed, and more weights do not make up for it: the *way* counts, not the
# number. Read it with its limits: short trainings of tiny networks on phantoms. One without skips that
# trains much longer would learn more of the detour; how much, we did not measure.

# %% [markdown]
# ## 7. The library's U-Net
#
# The paper's U-Net has a *ResNet34* as its way down: a network that was made to name what is on a
# photograph. The library segmentation_models_pytorch puts a U-Net's way up behind it. Both side by side:

# %% tags=["nbval-check-output"]
from spine_lib.models import build_model

own, resnet = build_model("unet_own").eval(), build_model("unet_resnet34").eval()
ways = {
    "own": (own, ["first", *(f"downs.{n}" for n in range(4)), *(f"ups.{n}" for n in range(4))]),
    "resnet34": (
        resnet,
        [f"encoder.{name}" for name in ("relu", *(f"layer{n}" for n in (1, 2, 3, 4)))]
        + [f"decoder.blocks.{n}" for n in range(5)],
    ),
}
for title, (network, parts) in ways.items():
    print(f"{title}, {count(network) / 1e6:.1f} million parameters")
    for part, shape in trace(network, slices[:1], parts).items():
        print(f"   {64 // shape[1]:3} x smaller  {part:20} {shape}")

# %% [markdown]
# Read it by the first column. Both go down, gain channels, and come up again. In words:
#
# | one pixel is | own way down | ResNet34's | own way up | the library's |
# |---|---|---|---|---|
# | 1 x 1 | `first` | nothing but the image | `ups.3` | `blocks.4`, without a skip |
# | 2 x 2 | `downs.0` | `relu`: one 7 x 7, stride 2 | `ups.2` | `blocks.3` |
# | 4 x 4 | `downs.1` | `layer1`: 3 residual blocks | `ups.1` | `blocks.2` |
# | 8 x 8 | `downs.2` | `layer2`: 4 | `ups.0` | `blocks.1` |
# | 16 x 16 | `downs.3`, the bottom | `layer3`: 6 | | `blocks.0` |
# | 32 x 32 | | `layer4`: 3, the bottom | | |
#
# Three differences: the library's halves five times; it halves by strides, but for one pooling; and its
# finest skip has half the size of the image, so nothing hands on the finest detail. The blocks on the way
# up, however, look alike. How alike? To find out, our code would have to work with their weights.
#
# ### Exercise 4.6: take other people's weights


# %% tags=["exercise"]
def take_weights(theirs, ours):
    """Give another network's weights our names, so that ours can load them.

    Both dictionaries list the same layers in the same order; only the names differ.

    theirs: names and tensors of their network, as state_dict() gives them.
    ours:   the same of ours.
    returns a new dictionary with all names of `ours`, in their order, and the tensors of
    `theirs`. Where the shapes of a pair differ (another number of channels), our tensor stays.
    """
    raise NotImplementedError


# %%
check("4.6", take_weights)

# %% [markdown]
# This is also how one starts from a network that others trained. Here we build the library's whole way
# up from five of our `Up` blocks, and give each the library's weights. `strict=True` makes sure that
# none is left over.

# %% tags=["nbval-check-output"]
ups = [Up(512, 256, 256), Up(256, 128, 128), Up(128, 64, 64), Up(64, 64, 32), Up(32, 0, 16)]
for up, block in zip(ups, resnet.decoder.blocks, strict=True):
    theirs, names = block.state_dict(), up.eval().state_dict()
    up.load_state_dict(dict(zip(names, theirs.values(), strict=True)))
with torch.inference_mode():
    features = resnet.encoder(slices)
    found = features[-1]
    for up, skip in zip(ups, [*features[-2:0:-1], None], strict=True):
        found = up(found, skip)
    print("same logits:", torch.equal(resnet.segmentation_head(found), resnet(slices)))

# %% [markdown]
# Equal in every bit. The library's way up *is* the block that you wrote, five times: enlarge, join, look
# twice. Only the encoder is another one, and lesson 5 writes that out as well. What does it look like
# inside when it has learnt something? We look into the trained U-Net that comes with the library.

# %%
from spine_lib.ct import to_slices
from spine_lib.slices import network_input
from spine_lib.training import load_pretrained

crop = course_case("crop")
pretrained, recipe = load_pretrained("unet_light")
middle = to_slices(crop.ct.array, "axial")[crop.ct.shape[2] // 2]
rows, columns = middle.shape
padded = np.full((96, 96), -1024, np.int16)
padded[:rows, :columns] = middle
inside = {}
for number, block in enumerate(pretrained.decoder.blocks):
    block.register_forward_hook(lambda _, __, maps, n=number: inside.update({n: maps[0]}))
with torch.inference_mode():
    logits = pretrained(torch.from_numpy(network_input(padded))[None, None])[0, 0]

# %%
figure, axes = plt.subplots(1, 5, figsize=(7.4, 2.0), layout="constrained", dpi=66)
extent = (0, 1.5 * 96, 1.5 * 96, 0)
for one, (number, maps) in zip(axes, inside.items()):
    one.imshow(maps.std(0), cmap="cividis", extent=extent)
    if (logits > 0).any():
        one.contour(logits > 0, [0.5], colors="w", linewidths=0.8, extent=extent, origin="upper")
    one.set(title=f"blocks.{number}", xlabel="R to L, mm", xlim=(0, 1.5 * columns))
    one.set(ylabel="A to P, mm", ylim=(1.5 * rows, 0))
    one.label_outer()
plt.show()

# %% [markdown]
# *Figure: how strongly the channels differ at each place, after each of the five blocks on the way up, in
# an axial slice of the crop patient, with the outline of the prediction in white. A few coarse squares
# become a sharp vertebra.*
#
# From a handful of squares that say "somewhere here" to an outline, one skip after the other. That patient
# was not in its training.
#
# One question remains. Is the written-out U-Net a toy? Both were trained with the same recipe on the same
# phantoms and scored on others, with three seeds (`benchmarks/lessons/twins.py`).

# %%
try:
    rows = lesson_result("twins")["seeds"]
    for name in ("unet_own", "unet_resnet34"):
        values = [row["networks"][name]["dice"] for row in rows]
        print(f"{name:14} Dice {np.mean(values):.3f}, by seed {np.round(values, 3)}")
except SpineError:
    print("The twins have not been measured here yet.")

# %% [markdown]
# `unet_own` has less than a fifth of the parameters and takes about as much arithmetic for a slice. The
# course claims that the two lie within 0.03 of each other, and its test suite holds it to that. What
# this does not show: the ResNet34 can also start from weights that have seen a million photographs.

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Build** a U-Net: two looks a level, halve and double the channels on the way down, enlarge and join
#   the skip on the way up, and mix into a logit at the end.
# - **Predict** its shapes, `width * 2**n` channels at 1 / 2**n of the size, and its parameters, most of
#   which sit at the bottom; and say which images fit.
# - **Overfit** one batch before anything longer, and know what a wrong loss looks like.
# - **Measure** what the skips add: in millimetres at the outline, both ways, with seeds and with a wider
#   network as a control.
# - **Match** your U-Net with the library's: the same way up, to the last bit, behind another encoder.
#
# Next: lesson 5 builds DeepLabv3+, which looks far without going so far down.
