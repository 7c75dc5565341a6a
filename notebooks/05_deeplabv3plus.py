# %% [markdown]
# # DeepLabv3+: kernels with holes
#
# U-Net sees far because it halves its maps five times, and then needs skips to find the outlines
# again. DeepLabv3+, the paper's other network, goes another way: it puts holes into its kernels. In
# this notebook you will
#
# - **compute** an atrous convolution by hand, and find that it is PyTorch's,
# - **measure** what one pixel sees, by formula and by gradient,
# - **trade** stride for dilation, and see the grid that careless rates leave,
# - **choose** rates that reach something on your own patch size,
# - **compare** the paper's two networks: parameters, multiply-adds, memory and time.
#
# It takes about 75 minutes, six exercises included; the cells alone run in one or two.

# %% [markdown]
# ## 1. A kernel with holes
#
# A network decides on a pixel by what lies around it. Whether a bright spot is a vertebra or a rib
# shows in the centimetres around it, not in its nearest neighbours. Ordinary kernels of 3 x 3 widen
# the view by one pixel a layer. Try how far you get: five layers, then other kernels, then dilation.

# %%
from spine_lib.explore import ReceptiveFieldExplorer

ReceptiveFieldExplorer()

# %% [markdown]
# *Figure: the explorer, here as a still: a square of seven by seven pixels around the output pixel,
# which is what three ordinary layers see.*
#
# Five layers of 3 x 3 see 11 pixels; at 1.5 mm that is not even a vertebra. Dilation 2 nearly doubles
# it, with not one weight more, but look at the picture: holes. We come back to them in step 3. First,
# what is a dilated kernel? We pass a single bright pixel through one, at three rates.

# %%
import matplotlib.pyplot as plt
import numpy as np

from spine_lib.models import atrous_convolution

plt.rcParams["figure.dpi"] = 80
spot = np.zeros((9, 9))
spot[4, 4] = 1
kernel = np.arange(1.0, 10).reshape(3, 3)

# %%
figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained", dpi=66)
for one, rate in zip(axes, (1, 2, 4)):
    response = atrous_convolution(spot, kernel, rate)
    one.imshow(response, cmap="cividis")
    for row, column in np.argwhere(response):
        number = f"{response[row, column]:.0f}"
        ink = "black" if response[row, column] > 5 else "white"
        one.text(column, row, number, ha="center", va="center", color=ink)
    one.set(title=f"rate {rate}", xlabel="column", ylabel="row")
plt.show()

# %% [markdown]
# *Figure: what a kernel with the weights 1 to 9 makes of one bright pixel, at rates 1, 2 and 4: nine
# numbers, 9 at the top left and 1 at the bottom right, further and further apart.*
#
# Nine weights each time, `rate` pixels apart. (They come out turned round: 9 weighs what lies below
# and to the right, so the pixel above and to the left of the spot gets it.) French *à trous*, "with
# holes", gave the operation its name. Beyond the edge of the image there are zeros.
#
# ### Exercise 5.1: a kernel with holes


# %% tags=["exercise"]
def atrous_conv(image, kernel, rate):
    """Convolve an image with a kernel whose taps lie `rate` pixels apart, as conv2d does.

    image:  float array [row, column]; beyond its edges there are zeros.
    kernel: float array of shape (3, 3). Its middle tap lies on the pixel itself, and it is not
            turned round: kernel[0, 0] weighs the pixel above and to the left.
    rate:   1 for an ordinary kernel, 2 to leave out every second pixel, ...
    returns a float array of the image's shape.
    """
    raise NotImplementedError


# %%
from spine_lib.course import check, hint, progress, solution

check("5.1", atrous_conv)

# %% [markdown]
# The library's version is `atrous_convolution` in `spine_lib/models/atrous.py`. Now on a real image: a
# part of an axial slice of the chest patient, on pixels of 1.5 mm, once by hand and once by PyTorch.

# %%
from spine_lib.course import course_case
from spine_lib.slices import cut_slices

chest = course_case("chest")
slices = cut_slices(chest, "axial", spacing_mm=1.5)
number = int(np.median(np.nonzero(chest.labels.array)[2]))
row, column = (int(np.median(where)) for where in np.nonzero(slices[number]["label"]))
patch = slices[number][row - 48 : row + 48, column - 48 : column + 48]
image = patch["hu"].astype(np.float64)
print("a patch of", image.shape, "pixels")

# %% tags=["nbval-check-output"]
import torch
from torch.nn import functional

image_bchw = torch.from_numpy(image)[None, None]
weight = torch.from_numpy(kernel)[None, None]
for rate in (1, 3, 12):
    theirs = functional.conv2d(image_bchw, weight, padding=rate, dilation=rate)[0, 0].numpy()
    ours = atrous_convolution(image, kernel, rate)
    print(f"rate {rate:2}: the same as conv2d: {np.allclose(ours, theirs)}")

# %% [markdown]
# So there is no magic in `dilation=`. Note the padding: for a result of the same size it must grow with
# the rate. That is the first thing that breaks when somebody changes rates by hand.

# %% [markdown]
# ## 2. How far does a network see?
#
# A kernel of k taps at rate r spans r (k - 1) + 1 pixels: its *effective kernel*. **Predict** it for 3
# taps at rates of 1, 2, 3, 12, 24 and 36. The last three are the ones the library chooses.

# %% tags=["nbval-check-output"]
from spine_lib.models.atrous import effective_kernel

print({rate: effective_kernel(3, rate) for rate in (1, 2, 3, 12, 24, 36)})

# %% [markdown]
# Nine weights that span 73 x 73. Layers add up: each adds what its kernel reaches beyond its own
# pixel. After a stride of 2, though, one step on the map is two pixels of the image, after two
# strides four. So whatever comes *after* a stride counts twice.
#
# ### Exercise 5.2: receptive field by formula


# %% tags=["exercise"]
def receptive_field(layers):
    """Return the side of the square of input pixels that one output pixel depends on.

    layers: list of (kernel, stride, rate), from the image on; for example [(7, 2, 1), (3, 1, 2)]
            is a 7 x 7 convolution of stride 2, then a 3 x 3 one of rate 2.
    returns a whole number of input pixels; 1 for no layers at all.
    """
    raise NotImplementedError


# %%
check("5.2", receptive_field)

# %% [markdown]
# Now the encoder of both of the paper's networks, ResNet-34. It is written out in
# `spine_lib/models/resnet.py`; read it, it is a short one. **Predict** what a pixel of its last map
# sees: a vertebra, the width of a body, or more?

# %% tags=["nbval-check-output"]
from spine_lib.models.atrous import encoder_layers, receptive_field

for stages in range(5):
    side = receptive_field(encoder_layers(stages=stages))
    name = f"stage {stages}" if stages else "first layers"
    print(f"{name:12} {side:4} pixels, {1.5 * side:5.0f} mm at 1.5 mm a pixel")

# %% [markdown]
# After the last stage 899 pixels: wider than any slice is. A formula is easily wrong, so we measure.
# If an output pixel depends on an input pixel, then moving the input moves the output: there is a
# *gradient*. PyTorch computes it for all input pixels at once.
#
# ### Exercise 5.3: receptive field by gradient


# %% tags=["exercise"]
def field_by_gradient(network, size):
    """Measure what one output pixel of a network depends on, by its gradient.

    network: maps a float tensor [1, 1, row, column] to one [1, channel, row, column], whose rows
             and columns may be fewer; in training mode, as it was made.
    size:    rows and columns of the input to try, more than what the network sees.
    returns the side of the smallest square of input pixels around all that have a gradient.
    """
    raise NotImplementedError


# %%
check("5.3", field_by_gradient)

# %% [markdown]
# The library has it in two parts, `pixel_gradient` and `side_seen`. We look at the encoder up to stage
# 2. A ReLU that is shut lets no gradient through, so we also try a copy in which every path is open.

# %%
from spine_lib.models import ResNet34
from spine_lib.models.atrous import open_all_paths, pixel_gradient, side_seen

encoder = ResNet34().eval()
encoder.stages = encoder.stages[:2]
sights = {
    "random weights": pixel_gradient(encoder, 224),
    "all paths open": pixel_gradient(open_all_paths(encoder), 224),
}
for name, sight in sights.items():
    print(f"{name}: {side_seen(sight)} pixels")

# %% [markdown]
# With all paths open it is the formula's number to the pixel. With random weights it can be a little
# less, where the outermost paths are shut. But *how much* does each pixel count? We draw both, summed
# over the rows.

# %%
figure, axes = plt.subplots(figsize=(5.6, 2.6), layout="constrained")
looks = {"random weights": ("#0072B2", "-"), "all paths open": ("#D55E00", "--")}
for name, sight in sights.items():
    profile = sight.sum(axis=0) / sight.sum()
    colour, dash = looks[name]
    axes.plot(np.arange(224) - 112, profile, dash, color=colour, label=name)
axes.set(xlabel="pixels from the middle", ylabel="share of the gradient")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# *Figure: the share of the gradient over the distance from the middle, a bell in both cases. Nearly
# all of it lies within some 60 pixels; the receptive field reaches to 90 on either side.*
#
# A bell: to the middle lead many paths, to the rim a single one. So a receptive field of 899 pixels is
# an upper bound, of which a fraction counts (Luo et al. 2016 call it the effective receptive field).
# What do *trained* networks use? Two come with the library: a small U-Net and a small DeepLabv3+.

# %%
from spine_lib.training import load_pretrained

distance = np.abs(np.indices((256, 256)) - 128).max(axis=0)
trained = {}
for name, key in (("U-Net", "unet_light"), ("DeepLabv3+", "deeplabv3plus_light")):
    sight = pixel_gradient(load_pretrained(key)[0], size=256)
    trained[name] = sight / sight.sum()
    within = [trained[name][distance <= far].sum() for far in (8, 32, 64, 128)]
    print(f"{name:10} " + ", ".join(f"{share:4.0%}" for share in within))

# %%
figure, axes = plt.subplots(1, 2, figsize=(6.6, 3), layout="constrained", dpi=66)
for one, (name, sight) in zip(axes, trained.items()):
    coarse = sight.reshape(64, 4, 64, 4).sum(axis=(1, 3))
    picture = one.imshow(
        np.log10(coarse), cmap="cividis", vmin=-6, vmax=-2, extent=(-192, 192, 192, -192)
    )
    one.set(title=name, xlabel="mm from the pixel", ylabel="mm")
figure.colorbar(picture, ax=axes, label="log10 of the share of the gradient")
plt.show()

# %% [markdown]
# *Figure: how much each place of the image moves the pixel in the middle. In U-Net it fades evenly
# with distance; in DeepLabv3+ there is a sharp bright middle and beyond it a wide plain that hardly
# fades.*
#
# The printed shares lie within 8, 32, 64 and 128 pixels (12, 48, 96 and 192 mm; the last is the whole
# input, so it must be 100 %). U-Net looks mostly at its surroundings. DeepLabv3+ has two views: a near
# one, which step 5 explains, and a far one over the whole slice, which step 4 does. (One input of noise,
# one pixel; other inputs differ in detail.)

# %% [markdown]
# ## 3. Dilation instead of stride
#
# The encoder's last map is 32 times smaller than the image, too coarse for outlines. Leaving out its
# last stride keeps the map twice as large; but then each later kernel spans half as much of the image.
# Unless it gets holes. The *output stride* says how many pixels of the image one of the last map stands
# for.

# %% tags=["nbval-check-output"]
slice_bchw = torch.zeros(1, 1, 256, 256)
for output_stride in (32, 16, 8):
    with torch.inference_mode():
        maps = ResNet34(output_stride=output_stride).eval()(slice_bchw)
    sides = [one.shape[-1] for one in maps]
    print(f"output stride {output_stride:2}: maps of {sides}")

# %% [markdown]
# No weight is added or lost: only `stride`, `dilation` and `padding` change, so weights that were
# trained for photographs at an output stride of 32 still fit. This is how the library makes any encoder
# a DeepLab encoder. Now you.
#
# ### Exercise 5.4: dilation instead of stride


# %% tags=["exercise"]
def dilate_stage(stage, rate):
    """Make a stage of an encoder keep the size of its map: dilation instead of stride.

    stage: nn.Module of residual blocks with convolutions of 3 x 3, and one of 1 x 1 in the
           shortcut of the first block. Its first 3 x 3 and the 1 x 1 have a stride of 2.
    rate:  for all its 3 x 3 convolutions; no convolution keeps a stride.
    returns the changed stage, with the weights that it had. `stride`, `dilation` and `padding` of
    an nn.Conv2d are pairs that may be set.
    """
    raise NotImplementedError


# %%
check("5.4", dilate_stage)

# %% [markdown]
# What does it cost? Every place of a map is one more place at which all kernels are computed. **Predict**
# for the encoder: how many times the multiplications at output stride 16, and at 8?

# %% tags=["nbval-check-output"]
from spine_lib.models import cost

for output_stride in (32, 16, 8):
    encoder = ResNet34(output_stride=output_stride)
    billions = cost.count_multiply_adds(encoder, 256, 256) / 1e9
    side = receptive_field(encoder_layers(output_stride))
    print(f"output stride {output_stride:2}: {billions:5.1f} billion, sees {side} pixels")

# %% [markdown]
# Stage 4 has most of the weights, stage 3 most of the layers. So 16 costs half as much again, 8 nearly
# five times as much, and what is seen stays nearly the same. The paper by Chen et al. trains at 16;
# so does the library, and so do we.
#
# ### The grid
#
# Now the holes. Three kernels of rate 4 in a row reach 12 pixels to each side; so do rates of 1, 3
# and 8. As kernels we take means, so that nothing but the holes makes a difference.


# %%
def mean_of_means(image, rates):
    for rate in rates:
        image = atrous_convolution(image, np.full((3, 3), 1 / 9), rate)
    return image


results = {"the slice": image, "rates 4, 4, 4": None, "rates 1, 3, 8": None}
for rates in ((4, 4, 4), (1, 3, 8)):
    results[f"rates {', '.join(map(str, rates))}"] = mean_of_means(image, rates)

# %% tags=["picture"]
from spine_lib.ct import Window, apply_window
from spine_lib.explore import figures

figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.7), layout="constrained")
for one, (title, values) in zip(axes, results.items()):
    window = "bone" if values is image else Window(75, 750)
    grey = (255 * apply_window(values, window)).astype(np.uint8)
    figures.show_slice(one, np.repeat(grey[..., None], 3, axis=2), "axial", 1.5)
    one.set_title(title)
plt.show()

# %% [markdown]
# *Figure: an axial slice around a vertebra, and its means over 25 x 25 pixels. At rates 4, 4, 4 the
# mean is covered by a grid of ghosts, four pixels apart; at rates 1, 3, 8 it is smooth.*
#
# Both see the same square. But with equal rates a pixel sees only every fourth pixel of it, and its
# neighbour sees *others*: sixteen pictures that know nothing of each other are woven into one. This is
# called **gridding**. How much of the square is really seen?

# %% tags=["nbval-check-output"]
from spine_lib.explore import count_paths

for rates in ((4, 4, 4), (2, 2, 2), (1, 3, 8), (1, 2, 3)):
    paths = count_paths(3, rates)
    print(f"rates {rates}: {np.count_nonzero(paths):3} of {paths.size} pixels")

# %% [markdown]
# Rates with a common divisor above 1 leave holes, always. If the first is 1 and no later rate is larger
# than the side of the square filled before it, none are left: 3, then 9, then 25. And our encoder? At
# output stride 16 its stage 4 is six layers of rate 2 in a row. **Predict** what a pixel of its last map
# sees of stage 3's.

# %%
stage_4 = open_all_paths(ResNet34(output_stride=16).stages[3])
sight = pixel_gradient(stage_4, 32, in_channels=256)
print(f"{np.count_nonzero(sight)} pixels in a square of {side_seen(sight)} x {side_seen(sight)}")

# %%
figure, axes = plt.subplots(figsize=(2.6, 2.6), layout="constrained", dpi=66)
axes.imshow(sight > 0, cmap="gray", extent=(-16, 16, 16, -16))
axes.set(xlabel="pixels of stage 3's map", ylabel="pixels", title="what one pixel sees")
plt.show()

# %% [markdown]
# *Figure: a grid of single white pixels on black, every second in each direction.*
#
# A quarter of the square: the grid is built in, in the library's network too. It does less harm here than
# in the picture above, since a pixel of stage 3 already sees hundreds of pixels of the image. At output
# stride 8, with rates of 2 and then 4, it is worse. Look for it when a prediction shows a fine pattern.

# %% [markdown]
# ## 4. ASPP: several rates side by side
#
# Rather than one rate after another, DeepLabv3+ takes several *beside* each other: atrous spatial
# pyramid pooling. A 1 x 1 kernel, three kernels of three rates, and the mean of the whole map look at
# the last map; their five answers are put in one pile and mixed.

# %% tags=["nbval-check-output"]
from spine_lib.models import ASPP

aspp = ASPP(in_channels=512, out_channels=256, rates=(1, 2, 3), dropout=0.1).eval()
deep = torch.randn(1, 512, 16, 16)
with torch.inference_mode():
    for branch in aspp.branches:
        print(f"{type(branch).__name__:12} {tuple(branch(deep).shape)}")
    print(f"{'mixed':12} {tuple(aspp(deep).shape)}")

# %% [markdown]
# The last branch, the mean, is why a pixel of DeepLabv3+ sees the whole image, at any distance. The
# kernels are *separable*: first each channel by itself, then a mixture of channels. **Predict** how
# many weights that saves for 512 channels to 256.

# %% tags=["nbval-check-output"]
from torch import nn

from spine_lib.models.deeplab import SeparableConv

ordinary = nn.Conv2d(512, 256, 3, bias=False)
separable = SeparableConv(512, 256)
print(f"ordinary:  9 * 512 * 256 = {cost.count_parameters(ordinary):9,}")
print(f"separable: 9 * 512 + 512 * 256 = {cost.count_parameters(separable):,}")

# %% [markdown]
# Nearly nine times fewer. The library's rates are 12, 24 and 36 (Chen et al. take 6, 12 and 18 at this
# output stride), for photographs of about 512 pixels, whose map is 32 x 32. The recipe `sample` of this
# project has patches of 64 pixels: maps of 4 x 4. **Predict** where on such a map a tap lies that is 12
# to the side.
#
# ### Exercise 5.5: what a rate reaches


# %% tags=["exercise"]
def tap_share(size, rate):
    """Return the share of a 3 x 3 kernel's taps that lie on a map, not on the zeros around it.

    size: rows and columns of the map.
    rate: distance of the taps.
    returns the mean over all places of the kernel's middle on the map: 1 if all nine taps always
    lie inside, 1/9 if ever only the middle one does.
    """
    raise NotImplementedError


# %%
check("5.5", tap_share)

# %%
from spine_lib.models.atrous import tap_share

rates = (1, 2, 3, 6, 12, 24, 36)
sides = (4, 8, 16, 32)
shares = np.array([[9 * tap_share(side, rate) for rate in rates] for side in sides])
figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained", dpi=72)
axes.imshow(shares, cmap="cividis", vmin=1, vmax=9)
for (row, column), taps in np.ndenumerate(shares):
    ink = "black" if taps > 5 else "white"
    axes.text(column, row, f"{taps:.1f}", ha="center", va="center", color=ink)
axes.set_xticks(range(len(rates)), rates)
axes.set_yticks(range(len(sides)), [f"{16 * side} px: {side}x{side}" for side in sides])
axes.set(xlabel="rate", ylabel="patch and its map")
plt.show()

# %% [markdown]
# *Figure: how many of nine taps lie on the map, for four sizes of patch and seven rates. On a map of
# 4 x 4 it is about six at rate 1 and exactly one from rate 6 on; on 32 x 32 it is about five at rate
# 12 and one at rate 36.*
#
# At 1.0 a kernel of 3 x 3 has become one of 1 x 1: its eight outer taps multiply zeros, always. They
# are in the file, they count as parameters, and they never learn. Is that so? We ask for their gradients.

# %%
from spine_lib.models import DeepLabV3Plus

torch.manual_seed(0)
for rates in ((12, 24, 36), (1, 2, 3)):
    network = DeepLabV3Plus(atrous_rates=rates)
    network(torch.rand(4, 1, 64, 64)).square().mean().backward()
    first_steps = [branch[0][0].weight.grad for branch in network.aspp.branches[1:4]]
    alive = [int((grad.abs().sum(dim=(0, 1)) > 0).sum()) for grad in first_steps]
    print(f"rates {rates}: taps that learn in each branch: {alive} of 9")

# %% [markdown]
# On patches of 64 pixels, 24 of the 27 taps learn nothing at the library's rates; at 1, 2 and 3 all do,
# and so that recipe has these. Rates are no constants of an architecture but a
# choice for a map. (`benchmarks/tuning.md` tells what other rates were tried, and with what else.)

# %% [markdown]
# ## 5. The decoder: one early map
#
# ASPP answers on a map 16 times smaller than the image. How well can so coarse a map hold an outline?
# As a thought experiment, we bring the true mask of our slice to maps of a 4th, an 8th and a 16th and
# enlarge them again.

# %%
from spine_lib import metrics
from spine_lib.models.deeplab import enlarge

mask = np.isin(patch["label"], (0, 255), invert=True)
mask_bchw = torch.from_numpy(mask.astype(np.float32))[None, None]
returned = {}
for stride in (4, 8, 16):
    coarse = functional.avg_pool2d(mask_bchw, stride)
    returned[stride] = enlarge(coarse, mask.shape)[0, 0].numpy() > 0.5
    dice = metrics.dice(metrics.confusion(returned[stride], mask))
    print(f"by way of a map of 1/{stride}: Dice {dice:.2f} with itself")

# %%
figure, axes = plt.subplots(1, 3, figsize=(7, 2.7), layout="constrained", dpi=66)
grey = (255 * apply_window(image, "bone")).astype(np.uint8)
for one, (stride, outline) in zip(axes, returned.items()):
    figures.show_slice(one, np.repeat(grey[..., None], 3, axis=2), "axial", 1.5)
    one.contour(mask, [0.5], colors="#56B4E9", linewidths=1)
    one.contour(outline, [0.5], colors="#E69F00", linewidths=1.4, linestyles="--")
    one.set_title(f"by way of 1/{stride}")
plt.show()

# %% [markdown]
# *Figure: an axial slice with the true outline of the vertebra (solid blue) and what remains of it
# (dashed orange) on maps of a 4th, an 8th and a 16th: almost all of it; the body and a part of the
# arch; a cornered piece of the body.*
#
# A network's maps have 256 channels and could say more than a mask does, so this is no bound. But it
# shows what the decoder is for: it enlarges ASPP's answer four-fold and joins the map of **stage 1**,
# where a pixel is 4 x 4 of the image. That is the near view of step 2.
#
# Stage 1 has little to say, 64 channels of edges; they are reduced to 48, lest they drown the 256 deep
# ones. Then a 3 x 3 kernel mixes both.
#
# ### Exercise 5.6: the decoder's step


# %% tags=["exercise"]
def decode(deep, low, fuse):
    """Do the step of DeepLabv3+'s decoder: enlarge, join, fuse.

    deep: float tensor [batch, channel, row, column], coarse; what ASPP made.
    low:  float tensor of the same batch, 2 or 4 times as many rows and columns, other channels.
    fuse: nn.Module that takes the channels of deep, then those of low, on the grid of low.
    returns what fuse makes of the two. deep is enlarged bilinearly with align_corners=True.
    """
    raise NotImplementedError


# %%
check("5.6", decode)

# %% [markdown]
# That is all there is. The whole network is one page, `spine_lib/models/deeplab.py`; its `forward` has
# five lines. We follow an image through its parts.

# %% tags=["nbval-check-output"]
network = DeepLabV3Plus(atrous_rates=(1, 2, 3)).eval()
with torch.inference_mode():
    maps = network.encoder(slice_bchw)
    context = network.after_aspp(network.aspp(maps[-1]))
    low = network.reduce_low(maps[1])
    joined = torch.cat([enlarge(context, low.shape[-2:]), low], dim=1)
    logits = network(slice_bchw)
steps = {"last map": maps[-1], "ASPP": context, "low": low, "joined": joined, "logits": logits}
for name, tensor in steps.items():
    print(f"{name:9} {tuple(tensor.shape)}")

# %% [markdown]
# From 16 x 16 to 64 x 64 with one early map, then to 256 x 256 with none. U-Net joins an early map at
# *each* size. **Predict** which of the two draws finer outlines; the last step lets you look.

# %% [markdown]
# ## 6. The library's network is this one
#
# Results come from segmentation_models_pytorch's network, which many people have tested. Is ours the
# same? If so, its weights must fit, layer by layer, and then the logits must agree.

# %% tags=["nbval-check-output"]
from spine_lib.models import build_model
from spine_lib.models.deeplab import copy_from_library, paired_layers

library = build_model("deeplabv3plus_resnet34", atrous_rates=(1, 2, 3)).eval()
pairs = paired_layers(network, library)
for own_name, library_name in [pairs[n] for n in (0, 2, 40, 72, 74, 83, 87, 90, 95)]:
    print(f"{own_name:28} {library_name}")
print(len(pairs), "layers with weights")

# %%
part = (image_bchw[..., :96, :96].float() - 375) / 312  # the recipe's range, about -2 to 2
with torch.inference_mode():
    before = (network(part) - library(part)).abs().max()
    copy_from_library(network, library)
    after = (network(part) - library(part)).abs().max()
print(f"largest difference of two logits: {before:.2f} before, {after:.0e} after")

# %% [markdown]
# Every layer has its partner, and with the same weights the logits differ by no more than float32
# rounds. From here on it makes no difference which of the two you read, train or change. And from random
# weights of their own? Lesson 4's experiment trained these two as well, on phantoms, with three seeds.

# %%
from spine_lib import SpineError
from spine_lib.course import lesson_result

try:
    rows = lesson_result("twins")["seeds"]
    for name in ("deeplabv3plus_own", "deeplabv3plus_resnet34"):
        values = [row["networks"][name]["dice"] for row in rows]
        print(f"{name:22} Dice {np.mean(values):.3f}, by seed {np.round(values, 3)}")
except SpineError:
    print("The twins have not been measured here yet.")

# %% [markdown]
# Dice on held-out phantoms. The two draw other first weights, so the scores cannot be equal; the course
# claims that their means lie within 0.03 of each other, and its test suite holds it to that.

# %% [markdown]
# ## 7. What the two networks cost
#
# Which of the paper's networks is the more expensive one? Four things can be asked, and they need not
# agree. First, what follows from the architecture alone: parameters, and the multiply-adds for one
# slice of 256 x 256. PyTorch's `FlopCounterMode` follows the shapes through the network. **Predict**.

# %% tags=["nbval-check-output"]
networks = {
    "U-Net": build_model("unet_resnet34"),
    "DeepLabv3+": build_model("deeplabv3plus_resnet34"),
    "DeepLabv3+ at 8": DeepLabV3Plus(output_stride=8),
}
for name, network in networks.items():
    millions = cost.count_parameters(network) / 1e6
    billions = cost.count_multiply_adds(network, 256, 256) / 1e9
    print(f"{name:16} {millions:5.1f} million parameters, {billions:5.1f} billion multiply-adds")

# %% [markdown]
# The paper's two are all but equal: most of both is the same encoder. An output stride of 8 triples the
# multiply-adds without a single new parameter, so parameters say nothing about time. Now time, on this
# machine: one slice predicted, and one training step on a batch of patches.

# %%
from spine_lib.course import pick

batch, side = pick(full=(8, 128), fast=(2, 64))
patches = torch.rand(batch, 1, side, side)
seconds = {}
for name, network in networks.items():
    predict = cost.forward_seconds(network, slice_bchw, at_least_s=pick(full=1.0, fast=0.1))
    step = cost.step_seconds(network, patches, at_least_s=pick(full=1.0, fast=0.1))
    seconds[name] = (predict, step)
    print(f"{name:16} predict {1000 * predict:5.0f} ms, training step {1000 * step:5.0f} ms")

# %% [markdown]
# Memory can be asked in two ways. What training must *keep*, from the forward to the backward pass,
# PyTorch tells exactly, through a hook on every saved map. What a program *needs in all* is the peak of
# its memory; we start each network in a fresh process, so that nothing else is counted.

# %%
kept = {name: cost.kept_for_backward_mb(one.train(), patches) for name, one in networks.items()}
paper_names = {"unet_resnet34": "U-Net", "deeplabv3plus_resnet34": "DeepLabv3+"}
peaks = cost.peak_memory_mb(paper_names, batch, side)
peak = {paper_names[name]: found for name, found in peaks.items()}

# %%
rows = {
    "parameters, million": {n: cost.count_parameters(networks[n]) / 1e6 for n in peak},
    "multiply-adds, 256 x 256, billion": {
        n: cost.count_multiply_adds(networks[n], 256, 256) / 1e9 for n in peak
    },
    "predict 256 x 256, ms": {n: 1000 * seconds[n][0] for n in peak},
    "training step, ms": {n: 1000 * seconds[n][1] for n in peak},
    "kept for backward, MB": kept,
    "peak, predicting a batch, MB": {n: peak[n]["predict"] for n in peak},
    "peak, training, MB": {n: peak[n]["train"] for n in peak},
}

# %%
import platform

print(f"{platform.machine()}, threads: {torch.get_num_threads()}; batch {batch} of {side} x {side}")
print(f"{'':34}" + "".join(f"{name:>12}" for name in peak))
for title, values in rows.items():
    print(f"{title:34}" + "".join(f"{values[name]:12.1f}" for name in peak))

# %% [markdown]
# "Peak" is the most that the process held, less what it held before the network was made: weights,
# their gradients and the optimiser's two averages (about 4 x 98 and 4 x 90 MB), and maps. U-Net keeps
# more maps, because its decoder works at full size; DeepLabv3+ leaves the last four-fold enlargement to
# interpolation. Times depend on the machine and on what else it does.
#
# So cost does not decide between the two. The paper gives U-Net 0.951 and DeepLabv3+ 0.920 in Dice (the
# paper's figures); lesson 8 asks what we find.

# %% [markdown]
# ## 8. Look
#
# Last, the question of step 5. Both of the library's small networks, on a patient that neither has
# seen. Go through the slices and watch the outlines of the processes, and where the two disagree.

# %%
from spine_lib.explore import compare_shipped

compare_shipped("crop", size_px=300)

# %% [markdown]
# *Figure: the viewer, here as a still: a slice of the lumbar spine with its mask, and with the errors of
# U-Net and of DeepLabv3+ beside it: blue was found, orange is too much, yellow was missed.*
#
# Both know where the vertebrae are; most of what differs lies along their outlines. In numbers, on the whole
# scan: *precision* is the share of what was found that is spine, *recall* the share of the spine that
# was found.

# %%
from spine_lib.training import load_probability

crop = course_case("crop")
known = ~crop.ignore.array
shipped = {"U-Net": "unet_light", "DeepLabv3+": "deeplabv3plus_light"}
for name, key in shipped.items():
    found = load_probability(key, "crop", crop.ct).array > 0.5
    counts = metrics.confusion(found[known], crop.labels.array[known] > 0)
    precision, recall = metrics.precision(counts), metrics.recall(counts)
    print(f"{name:10} precision {precision:.2f}, recall {recall:.2f}")

# %% [markdown]
# DeepLabv3+ finds as much of the spine and paints more beyond it: a rim around the bone, about what a
# map of a 4th would make you expect. But this is one patient, two small networks and one training of
# each: an illustration and no ranking.

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Compute** an atrous convolution by hand: nine moved copies of the image, `rate` pixels apart.
# - **Measure** what a pixel sees: by formula an upper bound, by gradient what counts.
# - **Trade** stride for dilation, which costs multiplications and no weights, and avoid the grid that
#   equal rates leave.
# - **Choose** rates for the map that you have; beyond its size a kernel of 3 x 3 is one of 1 x 1.
# - **Compare** networks by parameters, multiply-adds, memory and time, which are four questions.
#
# Next: lesson 6 trains both.
