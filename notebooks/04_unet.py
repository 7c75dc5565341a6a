# %% [markdown]
# # U-Net: build it from blocks, then start it from pretrained weights
#
# A segmentation network decides for every pixel: spine or not. It needs a wide view, to tell a vertebra
# from a rib, and full resolution, to place the outline. The U-Net
# ([Ronneberger et al. 2015](https://doi.org/10.1007/978-3-319-24574-4_28)) has both. In this notebook
# you will
#
# - **build** a U-Net in PyTorch from its blocks: convolution, batch norm, down, up and skip,
# - **overfit** one batch on purpose, the first test of every new network,
# - **measure** what skip connections add, in Dice and in millimetres,
# - **write** residual blocks and ResNet34, and match them with `smp.Unet` to the last bit,
# - **transfer** pretrained weights, and measure what they save.
#
# It takes about 70 minutes, five exercises included; the cells alone run in two to three.

# %% [markdown]
# ## 1. Convolution and receptive field (6 min)
#
# We take the chest patient, cut to squares of 128 mm around the spine: 64 pixels of 2 mm each. Images
# for networks have four axes: batch, channel, row, column. A CT slice has one channel.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spine_lib.course import check, course_case, hint, lesson_result, pick, progress, solution
from spine_lib.course.demonstrations import crop_slices, draw_batch, phantom_crops, train_small

torch.set_num_threads(1)  # the fastest for images this small
plt.style.use("spine_lib.course.lesson")
chest = crop_slices("chest", course_case("chest"), pixel_mm=2.0, size=64)
slices = torch.from_numpy(chest.images[:: len(chest) // 8][:8])
print(len(chest), "slices; a batch of eight:", tuple(slices.shape), slices.dtype)

# %% [markdown]
# **Predict** from each of the next three pictures alone: is the pixel in the middle spine? From which
# size on are you sure?


# %%
def show(axes, image, title):
    extent = (0, 2 * image.shape[1], 2 * image.shape[0], 0)
    axes.imshow(image, vmin=-1.5, vmax=2.5, extent=extent)
    axes.set(title=title, xlabel="R to L, mm", ylabel="A to P, mm")
    axes.label_outer()


# %%
number = (chest.labels == 1).sum(axis=(1, 2, 3)).argmax()  # the slice with the most spine
image, label = chest.images[number, 0], chest.labels[number, 0]
spine = np.argwhere(label == 1)
row, column = spine[np.abs(spine - 32).sum(axis=1).argmin()]  # the pixel nearest to the middle
figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.5))
for panel, reach in zip(axes, (1, 4, 22)):
    part = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
    show(panel, part, f"{2 * len(part)} mm")
    panel.plot(len(part), len(part), "+", color="#E69F00")
plt.show()

# %% [markdown]
# *Figure: the same pixel (cross) in 6, 18 and 90 mm of its surroundings.*
# <!-- alt: three squares of an axial slice around the same pixel, marked by a cross: 6 mm of grey, 18 mm
# with a bright corner, and 90 mm that show the arch of a vertebra with its spinous process. -->
#
# Six millimetres of grey could be anything; 90 mm show the vertebra. The part
# of the image on which one output pixel depends is its *receptive field*. A 3 x 3 convolution reaches
# one pixel to each side. It has nine weights $w$ for each pair of an input channel $c$ and an output
# channel $o$, the same at every pixel:
#
# $$y_o[i, j] = b_o + \sum_c \sum_{u=-1}^{1} \sum_{v=-1}^{1} w_{o,c}[u, v] \, x_c[i + u, j + v]$$

# %%
kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
pixels = torch.from_numpy(image)
by_hand = (pixels[row - 1 : row + 2, column - 1 : column + 2] * kernel).sum()
edges = functional.conv2d(pixels[None, None], kernel[None, None], padding=1)
print(f"by hand {by_hand:.4f}, by conv2d {edges[0, 0, row, column]:.4f}")

# %% [markdown]
# Here we chose the nine weights; a network learns them. Layers add up. A layer with a kernel of $k_l$
# adds $k_l - 1$ pixels, each as large as the product of all earlier strides $s_m$
# ([Araujo et al. 2019](https://doi.org/10.23915/distill.00021)):
#
# $$r = 1 + \sum_l (k_l - 1) \prod_{m < l} s_m$$
#
# **Predict**: how many 3 x 3 layers does it take to see 90 mm, 45 of our pixels? And how far do ten
# layers see if the map is halved after every second?

# %%
from spine_lib.models import receptive_field

twice = [(3, 1, 1)] * 2  # kernel, stride and dilation, which is for lesson 5
halving = twice + ([(2, 2, 1)] + twice) * 4
print(f"22 layers: {receptive_field(twice * 11)} pixels")
print(f"10 layers with four halvings: {receptive_field(halving)} pixels")

# %% [markdown]
# Halving is the cheaper way: it is the way down of a U-Net.

# %% [markdown]
# ## 2. Batch norm, and the double convolution (9 min)
#
# After each convolution comes *batch normalisation*
# ([Ioffe and Szegedy 2015](https://doi.org/10.48550/arXiv.1502.03167)). It brings every channel $c$ to
# mean 0 and standard deviation 1 and applies a learnt scale $\gamma_c$ and shift $\beta_c$. Mean
# $\mu_c$ and variance $\sigma_c^2$ are those of all pixels of all images of the batch:
#
# $$y_c = \gamma_c \, \frac{x_c - \mu_c}{\sqrt{\sigma_c^2 + \varepsilon}} + \beta_c$$

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
maps = functional.conv2d(slices, torch.randn(4, 1, 3, 3), padding=1)
mean = maps.mean(dim=(0, 2, 3), keepdim=True)
variance = maps.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
norm = nn.BatchNorm2d(4)  # scale 1 and shift 0 at first
by_hand = (maps - mean) / (variance + norm.eps).sqrt()
print("the same:", torch.allclose(norm(maps), by_hand, atol=1e-5))

# %% [markdown]
# In evaluation mode running averages of $\mu$ and $\sigma^2$, collected during training, take their
# place. There are alternatives: *instance norm* takes mean and variance of each channel of each image,
# *group norm* ([Wu and He 2018](https://doi.org/10.1007/978-3-030-01261-8_1)) of a few channels of each.
# **Predict**: for which of the three does the result for one slice depend on the other slices?

# %%
for norm in (nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)):
    for size in (4, 2, 1):
        result = torch.cat([norm(batch) for batch in maps.split(size)])
        change = (result - norm(maps)).abs().mean()
        print(f"{type(norm).__name__:14} batches of {size}: changed by {change:.3f}")

# %% [markdown]
# Only batch norm depends on the batch: compared with a batch of eight, the result for the same slice
# changes the more, the smaller the batch. Networks trained on two large patches at a time, such as
# [nnU-Net](https://doi.org/10.1038/s41592-020-01008-z), therefore use instance norm. With our eight
# slices batch norm works.
#
# Then comes a *ReLU*, max(0, x). In PyTorch: `nn.Conv2d`, `nn.BatchNorm2d`, `nn.ReLU`; `nn.Sequential`
# runs layers one after the other ([documentation](https://docs.pytorch.org/docs/stable/nn.html)).
#
# ### Exercise 4.1 ★☆☆: a double convolution


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
# Stuck? Run `hint("4.1")` in a cell of your own; `solution("4.1")` shows one way. From here on we use
# our own, with the kind of norm as an argument.


# %% tags=["nbval-check-output"]
class DoubleConvolution(nn.Sequential):
    def __init__(self, inputs, outputs, norm=nn.BatchNorm2d):
        super().__init__(
            *(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.ReLU()),
        )


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


block = DoubleConvolution(1, 4)
print(tuple(block(slices).shape), count(block))

# %% [markdown]
# Rows and columns stay, one channel became four. 9 weights for each of 1 x 4 pairs of channels, 9 for
# each of 4 x 4, and 2 a channel for both norms: 36 + 144 + 8 + 8 = 196. The count does not depend on
# image size.

# %% [markdown]
# ## 3. Down, up and skip (12 min)
#
# ![U-Net: on the left four blocks, each half as high and twice as wide as the one before, with arrows
# down to a bottom block; on the right four blocks with arrows up; a dashed arrow, the skip, goes from
# each block on the left to the one of its height on the right.](figures/unet.svg)
#
# *The U-Net that we build: channels x rows x columns at each level.*
#
# `Down` keeps the largest of each 2 x 2 pixels and convolves twice, to twice as many channels.


# %%
class Down(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.MaxPool2d(2), DoubleConvolution(inputs, outputs))


# %% [markdown]
# What happens to an *outline* on the way? We halve the mask itself, as pooling does, and enlarge it
# again.

# %% tags=["picture"]
mask = torch.from_numpy((label == 1).astype(np.float32))[None, None]
figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.5))
for panel, halvings in zip(axes, (0, 1, 3)):
    small = functional.max_pool2d(mask, 2**halvings)
    enlarged = functional.interpolate(small, scale_factor=2**halvings)[0, 0]
    show(panel, image, f"pixels of {2 * 2**halvings} mm")
    panel.contour(enlarged, [0.5], colors="#E69F00", extent=(0, 128, 0, 128))
plt.show()

# %% [markdown]
# *Figure: the outline of a mask, at full size and after one and three halvings.*
# <!-- alt: an axial slice with the outline of a vertebra, its canal and its processes, at pixels of 2, 4
# and 16 mm: after three halvings it consists of coarse steps, and the canal is gone. -->
#
# The many channels may encode how the parts of a pixel were arranged, but this has to be learnt.
# The *skip connection* is the direct way: on the way up, each level gets the map that the way down had
# at that size. `functional.interpolate` enlarges, as above; `torch.cat` joins tensors.

# %% [markdown]
# `Up` enlarges, joins and convolves twice (the original enlarges by a transposed convolution; many U-Nets
# of today repeat pixels). The whole network is then one cell; compare `forward` with the drawing.


# %%
class Up(nn.Module):
    def __init__(self, inputs, skip, outputs):
        super().__init__()
        self.convolve = DoubleConvolution(inputs + skip, outputs)

    def forward(self, below, skip=None):
        maps = functional.interpolate(below, scale_factor=2.0)
        return self.convolve(maps if skip is None else torch.cat([maps, skip], dim=1))


# %%
class UNet(nn.Module):
    def __init__(self, width=32, depth=4, skips=True):
        super().__init__()
        self.skips = skips
        levels = [width * 2**n for n in range(depth + 1)]  # channels, from full size down
        self.first = DoubleConvolution(1, width)
        self.downs = nn.ModuleList(Down(levels[n], levels[n + 1]) for n in range(depth))
        self.ups = nn.ModuleList(
            Up(levels[n + 1], skips * levels[n], levels[n]) for n in reversed(range(depth))
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, image):
        maps = [self.first(image)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        x = maps.pop()  # the bottom; the others are the skips
        for up in self.ups:
            skip = maps.pop()
            x = up(x, skip if self.skips else None)
        return self.head(x)


# %% tags=["nbval-check-output"]
network = UNet()
print(tuple(network(slices).shape), f"{count(network):,} parameters")

# %% [markdown]
# The head, a 1 x 1 convolution, mixes the channels of each pixel into one number, the *logit*: above 0
# means spine. The library's tested version is `spine_lib.models.UNet`. An image that cannot be halved
# four times is padded with air (`functional.pad`) to the next multiple of 16, and the result is cut back.
#
# Where do the parameters sit? Level $n$ has $32 \cdot 2^n$ channels and $64 / 2^n$ rows.
#
# ### Exercise 4.3 ★★☆: count the parameters


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

# %% [markdown]
# Twice the width takes four times the parameters, and so does one more level: most of them sit at the
# bottom, where channels are many.

# %% [markdown]
# ## 4. Overfit one batch (13 min)
#
# Before anyone trains for hours: can the network learn *one* batch by heart? If not, something is broken.
# Lesson 6 explains training; what you need of it here:
#
# - the *loss* says how wrong the logits $z$ are for the target $t$ (0 or 1); ours is the cross-entropy
#   $-t \log \sigma(z) - (1 - t) \log(1 - \sigma(z))$ with the sigmoid $\sigma$, 0.69 at $z = 0$;
# - `loss.backward()` **adds** its *gradient* to the `.grad` of the weights; `zero_grad()` clears it;
# - the *optimiser*, `torch.optim.AdamW(network.parameters(), learning_rate)`, changes the weights in
#   `step()`;
# - `network.train()` selects training mode, in which batch norm uses the batch.
#
# ### Exercise 4.4 ★★☆: overfit one batch


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
# Our version has two more arguments, for two typical mistakes: the optimiser, and a function applied to
# the logits before the loss.


# %%
def fit(network, steps, optimiser=torch.optim.AdamW, activation=None):
    """Train on the eight slices and return the loss of each step."""
    optimiser, losses = optimiser(network.train().parameters(), 1e-2), []
    for _ in range(steps):
        logits = network(slices)
        logits = activation(logits) if activation else logits
        loss = functional.binary_cross_entropy_with_logits(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


# %% [markdown]
# **Predict** which of the three curves fall: with the right settings, with plain gradient descent (SGD),
# and with a sigmoid before a loss that has its own.

# %%
known = chest.labels[:: len(chest) // 8][:8] == 1
target = torch.from_numpy(known.astype(np.float32))
mistakes = {
    "second sigmoid": {"activation": torch.sigmoid},
    "SGD": {"optimiser": torch.optim.SGD},
    "right": {},
}
curves = {}
for name, settings in mistakes.items():
    torch.manual_seed(0)
    network, steps = UNet(width=8, depth=3), pick(full=150, fast=4)
    curves[name] = fit(network, steps if settings else 2 * steps, **settings)

# %%
figure, axes = plt.subplots()
for (name, losses), style in zip(curves.items(), (":", "--", "-")):
    axes.plot(losses, style, label=f"{name}: {losses[-1]:.3f} at the end")
axes.set(xlabel="step", ylabel="cross-entropy", ylim=(0, 1.05))
axes.legend()
plt.show()

# %% [markdown]
# *Figure: cross-entropy over the steps of three trainings on one batch.*
# <!-- alt: three curves over the steps of training on one batch. With the right settings the
# cross-entropy falls to nearly 0; with SGD it falls more slowly; with a second sigmoid it stays near
# 0.7. -->
#
# SGD learns too, but slowly at this learning rate. The second sigmoid is a common bug: there is no error,
# and the loss falls for a while, but each background pixel costs at least $\log 2 = 0.69$. Now the test
# itself, in evaluation mode.

# %%
with torch.inference_mode():
    predicted = (network.eval()(slices) > 0).numpy()
dice = 2 * (predicted & known).sum() / (predicted.sum() + known.sum())
print(f"Dice on the batch that was learnt: {dice:.4f}")
assert dice >= pick(full=0.99, fast=0.0), "the network does not learn one batch: find out why"

# %% [markdown]
# Passed: network, loss and step *can* learn. This says nothing about other patients, and a batch with
# wrong masks would be learnt just as well.

# %% [markdown]
# ## 5. What the skips add (10 min)
#
# Most pixels of a vertebra lie inside, so overlap hardly shows how good the outline is. We measure that
# too.
#
# ### Exercise 4.5 ★★☆: the boundary in mm


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
# Now the comparison: the same small U-Net with and without skips, trained on the same batches of
# phantoms, whose outlines are exact. `train_small` is the loop of section 4 with a new batch each step.

# %%
training, (held_out,) = phantom_crops(100, pick(full=4, fast=1)), phantom_crops(200, 1)
networks, steps = {}, pick(full=100, fast=4)
for name, skips in (("with skips", True), ("without skips", False)):
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    networks[name] = UNet(width=12, depth=3, skips=skips)
    batches = (draw_batch(training, 8, random) for _ in range(steps))
    losses = list(train_small(networks[name], batches, steps, learning_rate=3e-3))

# %%
from spine_lib import metrics

truth, ignore = held_out.labels[:, 0] == 1, held_out.labels[:, 0] == 255
for name, network in networks.items():
    with torch.inference_mode():
        mask = (network.eval()(torch.from_numpy(held_out.images))[:, 0] > 0).numpy()
    dice = metrics.dice(metrics.confusion(mask, truth, ignore))
    sides = metrics.surface_distances(mask, truth, held_out.spacing_mm, ignore)
    distance_mm = np.mean([side.sum() / max(len(side), 1) for side in sides])
    print(f"{name:14} {count(network):7,} parameters, Dice {dice:.3f}, {distance_mm:.2f} mm off")

# %% [markdown]
# One seed, one phantom, few steps: that could be chance. So it was repeated with three seeds, four
# held-out phantoms and more steps (`benchmarks/lessons/skips.py`), and with a third network: without
# skips, but wider, so that it has more parameters than the first.

# %%
import pandas as pd

kept = pd.DataFrame([row["arms"] for row in lesson_result("skips")["seeds"]])
table = pd.concat({arm: pd.json_normalize(kept[arm]) for arm in kept}, names=["network", "seed"])
table[["parameters", "dice", "mean distance mm"]].unstack("seed").round(3)

# %% [markdown]
# On average Dice falls by less than a tenth without skips, and the outline is more than twice as far off.
# Both are worse for every seed, and more parameters do not make up for it. The limits: short trainings of
# tiny networks on phantoms.

# %% [markdown]
# ## 6. Residual blocks and ResNet34 (10 min)
#
# The paper's U-Net has a *ResNet34* as its way down: a network made to classify photographs, of 34 layers
# in *residual blocks* ([He et al. 2016](https://doi.org/10.1109/CVPR.2016.90)). Such a block does not
# replace its input $x$ but adds to it, $y = \mathrm{ReLU}(F(x) + S(x))$. Where the shape stays,
# $S(x) = x$, so before the ReLU the derivative is $1 + F'(x)$: the gradient reaches early layers even
# where $F'$ is small.
#
# ![Residual block: x passes convolution, batch norm, ReLU, convolution and batch norm, then x itself is
# added on a dashed way around, through a 1 x 1 convolution where the shape changes, and a ReLU gives
# y.](figures/residual_block.svg)
#
# *A residual block. The dashed way is the shortcut.*


# %%
class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1:
            resize = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(resize, nn.BatchNorm2d(outputs))

    def forward(self, x):
        residual = functional.relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        return functional.relu(residual + self.shortcut(x))


# %% [markdown]
# ResNet34 is a 7 x 7 convolution of stride 2, a pooling, and four stages of 3, 4, 6 and 3 blocks. The
# first block of each stage but the first halves the map and doubles the channels.


# %% tags=["nbval-check-output"]
class ResNet34(nn.Module):
    def __init__(self):
        super().__init__()
        first = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(64), nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        for inputs, outputs, blocks in ((64, 64, 3), (64, 128, 4), (128, 256, 6), (256, 512, 3)):
            first = ResidualBlock(inputs, outputs, stride=outputs // inputs)
            others = (ResidualBlock(outputs, outputs) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *others))

    def forward(self, image):
        maps = [self.stem(image)]
        x = self.pool(maps[0])
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


print([tuple(x.shape[1:]) for x in ResNet34()(slices)])

# %% [markdown]
# [segmentation_models_pytorch](https://smp.readthedocs.io/en/latest/models.html) (`smp`) puts a U-Net's way up behind any of
# hundreds of encoders. This is the paper's U-Net in one line:

# %% tags=["nbval-check-output"]
import segmentation_models_pytorch as smp

unet = smp.Unet(encoder_name="resnet34", encoder_weights=None, in_channels=1, classes=1).eval()
print(f"smp.Unet {count(unet):,} parameters, its encoder {count(unet.encoder):,}")
print(f"our encoder {count(ResNet34()):,}")

# %% [markdown]
# The encoders have the same number of parameters. Are they the same function? To find out, our code must
# take their weights.
#
# ### Exercise 4.6 ★☆☆: take other people's weights


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
# Now everything at once: our ResNet34, five of our `Up` blocks (the last without a skip) and a head take
# the weights of `smp.Unet`, in their order. `strict=True` makes sure that none is left over.

# %% tags=["nbval-check-output"]
sizes = ((512, 256, 256), (256, 128, 128), (128, 64, 64), (64, 64, 32), (32, 0, 16))
encoder, ups = ResNet34(), nn.ModuleList(Up(*channels) for channels in sizes)
head = nn.Conv2d(16, 1, 3, padding=1)
ours = nn.ModuleList([encoder, ups, head]).eval()
ours.load_state_dict(dict(zip(ours.state_dict(), unet.state_dict().values(), strict=True)))
with torch.inference_mode():
    *skips, x = encoder(slices)
    for up, skip in zip(ups, [*reversed(skips), None], strict=True):
        x = up(x, skip)
    print("same logits:", torch.equal(head(x), unet(slices)))

# %% [markdown]
# Equal in every bit: `smp.Unet` *is* your blocks behind a ResNet34. One difference from section 3 remains.
# The encoder's finest map has half the size of the image, so the last `Up` has no skip at full size.

# %% [markdown]
# ## 7. Transfer learning (6 min)
#
# A classifier of photographs serves as the encoder because of its weights. *ImageNet* has 1.28 million photographs of 1000
# kinds of things ([Russakovsky et al. 2015](https://doi.org/10.1007/s11263-015-0816-y)); filters learnt
# on them, for edges and textures, can be a better start than random numbers, even for CT.
# `encoder_weights="imagenet"` downloads them once (some 80 MB), the decoder stays random:
#
# ```python
# smp.Unet(encoder_name="resnet34", encoder_weights="imagenet", in_channels=1, classes=1)
# ```
#
# But photographs have three channels, CT one. What does smp do with the first convolution? It sums the
# weights of red, green and blue:

# %% tags=["nbval-check-output"]
encoder = smp.encoders.get_encoder("resnet34", in_channels=3, weights=None)
rgb = encoder.conv1.weight.detach().clone()
encoder.set_in_channels(1, pretrained=True)
print("the sum over colours:", torch.equal(encoder.conv1.weight, rgb.sum(dim=1, keepdim=True)))
grey_as_rgb = functional.conv2d(slices.repeat(1, 3, 1, 1), rgb, stride=2, padding=3)
print("as a grey photograph:", torch.allclose(encoder.conv1(slices), grey_as_rgb, atol=1e-5))

# %% [markdown]
# So a CT slice enters as a grey photograph. How much do pretrained weights save? The library ships a small
# U-Net, `unet_light`, whose encoder began with ImageNet's weights and which was then trained on two
# patients and phantoms (`spine_lib/training/pretrained/MODEL_CARD.md`). We start one
# architecture in three ways: from random weights, with its encoder, and with all of its weights.

# %%
from spine_lib.training.pretrained import load_pretrained, weights_path

donor, recipe = load_pretrained("unet_light")


def start(weights):
    torch.manual_seed(0)
    name = "timm-tf_efficientnet_lite0"
    network = smp.Unet(name, encoder_weights=None, in_channels=1, classes=1)
    if weights == "encoder":
        network.encoder.load_state_dict(donor.encoder.state_dict())
    if weights == "all":
        network.load_state_dict(donor.state_dict())
    return network


# %% [markdown]
# We train on one patient that `unet_light` has never seen (the crop patient) and score on another (the DICOM
# patient). Where all weights are pretrained, the learning rate is a tenth. **Predict** the order after 40
# steps.

# %%
crop, dicom = (crop_slices(name, course_case(name), 1.5, 96) for name in ("crop", "dicom"))
truth, unknown = torch.from_numpy(dicom.labels == 1), torch.from_numpy(dicom.labels == 255)


@torch.inference_mode()
def dice_on_dicom(network):
    mask = (network.eval()(torch.from_numpy(dicom.images)) > 0) & ~unknown
    return (2 * (mask & truth).sum() / (mask.sum() + truth.sum())).item()


# %%
arms = {"random weights": ("none", 1e-3), "its encoder": ("encoder", 1e-3), "all": ("all", 1e-4)}
scores = {}
for name, (weights, learning_rate) in arms.items():
    network, random = start(weights), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    scores[name] = [dice_on_dicom(network)]
    for step in range(1, pick(full=40, fast=1) + 1):
        image, target, weight = draw_batch([crop], 8, random)
        loss = functional.binary_cross_entropy_with_logits(network.train()(image), target, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0:
            scores[name].append(dice_on_dicom(network))
    print(f"{name:15}", " ".join(f"{score:.2f}" for score in scores[name]))

# %%
figure, axes = plt.subplots()
for (name, values), style in zip(scores.items(), (":", "--", "-")):
    axes.plot(10 * np.arange(len(values)), values, style, marker="o", markersize=3, label=name)
axes.set(xlabel="step", ylabel="Dice on the other patient", ylim=(0, 1))
axes.legend(title="starts from", loc="lower right")
plt.show()

# %% [markdown]
# *Figure: Dice on a patient that none of the three was trained on, over the steps.*
# <!-- alt: three curves over 40 steps. From random weights Dice rises from 0.17 to 0.54, with the pretrained
# encoder from 0.15 to 0.68; with all pretrained weights it starts at 0.80 and hardly changes. -->
#
# With the pretrained encoder Dice passes 0.6 after 20 steps; from random weights 40 do not suffice. All
# weights together start at 0.80, and training on one other patient adds nothing: transfer saves training,
# and fine-tuning on too little data can lose what was there. The limits: one seed, one patient to train on
# and one to score, whose mask is coarse; and `unet_light` had learnt this very task, which ImageNet has not.

# %% [markdown]
# ## 8. Without the library (2 min)
#
# Last, the pretrained U-Net with nibabel, torch, smp and safetensors alone: read, orient, cut the middle
# axial slice, scale -250 to 1000 HU to -1.5 to 2.5, pad with air, predict.

# %%
from spine_lib.datasets import sample_root

folder, weights = sample_root() / "crop", weights_path("unet_light")

# %%
import nibabel as nib
from safetensors.torch import load_file

network = smp.Unet("timm-tf_efficientnet_lite0", encoder_weights=None, in_channels=1, classes=1)
network.load_state_dict(load_file(weights))
scans = (nib.load(folder / name) for name in ("ct.nii.gz", "mask.nii.gz"))
ct, mask = (nib.as_closest_canonical(scan).get_fdata(dtype=np.float32) for scan in scans)
middle = ct.shape[2] // 2
hu, known = (array[::-1, ::-1, middle].T for array in (ct, mask))  # rows A to P, columns R to L
image = torch.from_numpy((hu.clip(-250, 1000) + 250) / 1250 * 4 - 1.5)[None, None]
rows, columns = hu.shape
padded = functional.pad(image, (0, -columns % 32, 0, -rows % 32), value=-1.5)
with torch.inference_mode():
    logits = network.eval()(padded)[0, 0, :rows, :columns]
found = (logits > 0).numpy()
print(
    f"Dice of the slice: {2 * (found & (known > 0)).sum() / (found.sum() + (known > 0).sum()):.2f}"
)

# %% [markdown]
# The same with the library's functions:

# %%
from spine_lib.ct import to_slices
from spine_lib.slices import network_input

image_hw = network_input(to_slices(course_case("crop").ct.array, "axial")[middle])
image = torch.from_numpy(image_hw)[None, None]
padded = functional.pad(image, (0, -columns % 32, 0, -rows % 32), value=-1.5)
with torch.inference_mode():
    assert torch.allclose(donor(padded)[0, 0, :rows, :columns], logits, atol=1e-4)

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Build** a U-Net: double convolutions with batch norm, or group or instance norm for small batches;
#   halve on the way down, enlarge and join the skip on the way up.
# - **Overfit** one batch before anything longer, and recognise a wrong loss by its curve.
# - **Measure** what skips add: mostly at the outline, in millimetres, with seeds and a wider control.
# - **Write** residual blocks and ResNet34, and prove with equal logits that `smp.Unet` is the same.
# - **Transfer** weights: ImageNet's through `encoder_weights`, or a whole network's; and measure it.
#
# Next: lesson 5 builds DeepLabv3+, which sees far without halving so often.
