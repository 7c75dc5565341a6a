# %% [markdown]
# # DeepLabv3+: atrous convolution, ASPP and a decoder
#
# A U-Net halves its maps to see far, and needs skips to find the outlines again. DeepLabv3+
# ([Chen et al. 2018](https://doi.org/10.1007/978-3-030-01234-2_49)), the paper's other network, spreads
# the weights of its kernels instead. In this notebook you will
#
# - **compute** an atrous convolution, its span and the size of its output,
# - **measure** receptive fields, by formula and by gradient,
# - **trade** stride for dilation, and see the grid that equal rates leave,
# - **build** ASPP and the decoder, assemble DeepLabv3+, and match it with `smp.DeepLabV3Plus`,
# - **choose** atrous rates for a patch size, and say what image pooling does on a whole slice.
#
# It takes about 70 minutes, five exercises included; the cells alone run in one.

# %% [markdown]
# ## 1. Atrous convolution (16 min)
#
# Try with the sliders how far five layers of 3 x 3 see, then other kernels, then dilation.

# %%
import matplotlib.pyplot as plt
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional

from spine_lib.course import check, course_case, hint, progress, solution
from spine_lib.explore import ReceptiveFieldExplorer

torch.set_num_threads(1)
plt.style.use("spine_lib.course.lesson")
ReceptiveFieldExplorer()

# %% [markdown]
# *Figure: the pixels that one output pixel sees through a stack of layers.*
# <!-- alt: the explorer, here as a still: a square of seven by seven pixels around the output pixel, which
# is what three ordinary layers see. -->
#
# Five layers see 11 pixels; at 1.5 mm that is less than a vertebra. Dilation widens the view without one
# more weight, and leaves holes (French *à trous*, "with holes"). At rate $r$ the weights lie $r$ pixels
# apart:
#
# $$y[i, j] = \sum_{u=-1}^{1} \sum_{v=-1}^{1} w[u, v] \, x[i + r u, j + r v]$$
#
# ![One kernel of 3 x 3 at three rates on a pixel grid: at rate 1 its nine weights fill a square of 3 x 3,
# at rate 2 they are spread over 5 x 5 and at rate 4 over 9 x 9.](figures/atrous_convolution.svg)
#
# *The same nine weights at three rates.*
#
# **Predict** where the numbers 1 to 9 of a kernel end up when it passes over one bright pixel, at rate 2.

# %% tags=["nbval-check-output"]
spot, kernel = torch.zeros(1, 1, 7, 7), torch.arange(1.0, 10).reshape(1, 1, 3, 3)
spot[..., 3, 3] = 1
print(functional.conv2d(spot, kernel, padding=2, dilation=2)[0, 0].int().numpy())

# %% [markdown]
# They come out rotated by 180 degrees: weight 9 lies below and to the right, so it meets the spot from the pixel above
# and to the left.
#
# ### Exercise 5.1 ★★☆: a kernel with holes


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
check("5.1", atrous_conv)

# %% [markdown]
# A kernel of $k$ weights at rate $r$ spans $r (k - 1) + 1$ pixels, its *effective kernel*. With padding $p$
# and stride $s$ a map of $n$ pixels becomes one of
#
# $$n_\mathrm{out} = \left\lfloor \frac{n + 2p - r (k - 1) - 1}{s} \right\rfloor + 1$$
#
# Which padding keeps 64 pixels at rate 12?

# %% tags=["nbval-check-output"]
image = torch.zeros(1, 1, 64, 64)
for rate, padding, stride in ((1, 1, 1), (12, 1, 1), (12, 12, 1), (12, 12, 2)):
    layer = nn.Conv2d(1, 1, 3, stride, padding, dilation=rate)  # the weights do not matter
    formula = (64 + 2 * padding - 2 * rate - 1) // stride + 1
    print(f"{rate=:2} {padding=:2} {stride=}: {layer(image).shape[-1]}, by formula {formula}")

# %% [markdown]
# To keep the size, padding must equal the rate: the first thing that breaks when rates are changed by hand.

# %% [markdown]
# ## 2. The receptive field, by formula and by gradient (16 min)
#
# Each layer $l$ adds what its effective kernel reaches beyond its own pixel, times the product of all
# earlier strides: $r = 1 + \sum_l r_l (k_l - 1) \prod_{m < l} s_m$.
#
# ### Exercise 5.2 ★☆☆: receptive field by formula


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
# Now a ResNet34, from lesson 4. (The paper's abstract names it as the encoder of its U-Net only; what its
# DeepLabv3+ had we do not know, and assume the same.) What does a pixel of its last map see: a vertebra, the
# width of a body, or more?

# %% tags=["nbval-check-output"]
from spine_lib.models import encoder_layers, receptive_field

for stages in range(5):
    side = receptive_field(encoder_layers(stages=stages))
    print(f"after {stages} stages: {side:4} pixels, {1.5 * side:5.0f} mm at 1.5 mm a pixel")

# %% [markdown]
# More than any slice has. A formula is easily wrong, so we measure: where an output pixel depends on an input
# pixel, its *gradient* by that pixel is not zero. PyTorch computes it for all input pixels at once.
#
# ### Exercise 5.3 ★★☆: receptive field by gradient


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
# The size says where the gradient is not zero, not how large it is. How is it distributed in *trained*
# networks? The library ships two, small ones.

# %%
from spine_lib.training.pretrained import load_pretrained, weights_path

trained = {"U-Net": "unet_light", "DeepLabv3+": "deeplabv3plus_light"}
trained = {name: load_pretrained(key)[0] for name, key in trained.items()}
noise = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
distance, influence = np.abs(np.indices((256, 256)) - 128).max(axis=0), {}
for name, network in trained.items():
    (gradient,) = torch.autograd.grad(network(noise)[0, 0, 128, 128], noise)
    influence[name] = (gradient.abs() / gradient.abs().sum())[0, 0].numpy()
    shares = [influence[name][distance <= pixels].sum() for pixels in (8, 32, 64, 128)]
    print(f"{name:10} within 12, 48, 96, 192 mm:", *(f"{share:4.0%}" for share in shares))

# %%
figure, axes = plt.subplots(1, 2, figsize=(5.2, 2.4))
for panel, (name, share) in zip(axes, influence.items()):
    coarse = np.log10(share.reshape(64, 4, 64, 4).sum(axis=(1, 3)))
    drawn = panel.imshow(coarse, cmap="cividis", vmin=-6, vmax=-2, extent=(-192, 192, 192, -192))
    panel.set(title=name, xlabel="mm from the pixel", ylabel="mm")
figure.colorbar(drawn, ax=axes, label="log10 of the share")
plt.show()

# %% [markdown]
# *Figure: the share of each part of the image in the gradient of the middle pixel.*
# <!-- alt: two maps of 384 mm to a side. In U-Net the share fades evenly with distance; in DeepLabv3+ there
# is a sharp bright middle, and beyond it a wide plain that hardly fades. -->
#
# The receptive field is an upper bound, of which a part counts, the *effective* receptive field
# ([Luo et al. 2016](https://doi.org/10.48550/arXiv.1701.04128)). U-Net uses mostly the surroundings.
# DeepLabv3+ has a near view, which section 5 explains, and a far one over the whole image, which
# section 4 does. (One input of noise, one pixel.)

# %% [markdown]
# ## 3. Dilation instead of stride (13 min)
#
# The encoder's last map is 32 times smaller than the image, too coarse for outlines. Without its last
# stride the map is twice as large, but each later kernel spans half as much of the image, unless it is
# dilated. The *output stride* is the number of image pixels for one pixel of the last map.
#
# ### Exercise 5.4 ★★☆: dilation instead of stride


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
# No weight is added or lost, so pretrained weights still fit. `smp` does the same with `output_stride`
# ([documentation](https://smp.readthedocs.io/en/latest/encoders.html)). What does it cost? PyTorch's
# `FlopCounterMode` counts. **Predict**: how many times the multiply-adds at output stride 16, and at 8?

# %% tags=["nbval-check-output"]
from torch.utils.flop_counter import FlopCounterMode

image = torch.zeros(1, 1, 256, 256)
for stride in (32, 16, 8):
    encoder = smp.encoders.get_encoder("resnet34", 1, weights=None, output_stride=stride).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        sides = [maps.shape[-1] for maps in encoder(image)]
    billions = counter.get_total_flops() / 2e9
    print(f"output stride {stride:2}: maps of {sides}, {billions:4.1f} billion multiply-adds")

# %% [markdown]
# Half as much again at 16, nearly five times as much at 8. Chen et al. train at 16; so does the library,
# and so do we.
#
# ### The grid
#
# Now the holes. Three kernels of rate 4 in a row reach 12 pixels to each side; so do rates of 1, 3 and 8.
# We take means as kernels, so that nothing but the holes makes a difference.


# %%
def mean_of_means(maps, rates):
    for rate in rates:
        mean = torch.full((1, 1, 3, 3), 1 / 9)
        maps = functional.conv2d(maps, mean, padding=rate, dilation=rate)
    return maps


spot = torch.zeros(1, 1, 65, 65)
spot[..., 32, 32] = 1
for rates in ((4, 4, 4), (1, 3, 8), (2, 2, 2, 2, 2, 2)):
    reached = (mean_of_means(spot, rates) > 0).sum()
    print(f"rates {rates}: {reached:3} of {(1 + 2 * sum(rates)) ** 2} pixels")

# %% tags=["picture"]
from spine_lib.course.demonstrations import crop_slices

chest = crop_slices("chest", course_case("chest"), pixel_mm=1.5, size=96)
number = (chest.labels == 1).sum(axis=(1, 2, 3)).argmax()  # the slice with the most spine
image = torch.from_numpy(chest.images[number][None])
figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.5), sharey=True)
axes[0].imshow(image[0, 0], vmin=-1.5, vmax=2.5, extent=(0, 144, 144, 0))
for panel, rates in zip(axes[1:], ((4, 4, 4), (1, 3, 8))):
    panel.imshow(mean_of_means(image, rates)[0, 0], vmin=-1, vmax=1, extent=(0, 144, 144, 0))
    panel.set_title(f"mean at rates {rates}")
axes[0].set(title="the slice", ylabel="A to P, mm")
for panel in axes:
    panel.set_xlabel("R to L, mm")
plt.show()

# %% [markdown]
# *Figure: a slice, and its mean over squares of 25 x 25 pixels by two stacks of kernels.*
# <!-- alt: an axial slice around a vertebra, and its means over 25 x 25 pixels. At rates 4, 4, 4 the mean is
# covered by a grid of copies, four pixels apart; at rates 1, 3, 8 it is smooth. -->
#
# With equal rates a pixel uses only every fourth pixel of the square, and its neighbour uses *others*:
# **gridding**. Rates with a common divisor above 1 always leave holes. The last line is the encoder's stage 4
# at output stride 16, six layers of rate 2: the grid is built in. It does less harm there, since each pixel of
# stage 3 already sees hundreds of pixels of the image.

# %% [markdown]
# ## 4. ASPP: several rates side by side (16 min)
#
# *Atrous spatial pyramid pooling* applies several rates beside each other: a 1 x 1 convolution, three 3 x 3
# ones, and the mean of the whole map (*image pooling*). A 1 x 1 projection mixes the five.
#
# ![ASPP: the deep map of 512 channels goes through five branches in parallel, a 1 x 1 convolution, three
# 3 x 3 convolutions of rates 1, 2 and 3, and image pooling, each to 256 channels; they are concatenated to
# 1280 channels and projected to 256.](figures/aspp.svg)
#
# *ASPP with the rates of our recipe for small patches.*
#
# Its 3 x 3 kernels are *separable*: each channel by itself, then a mixture of channels, which takes
# $9 a + a b$ weights instead of $9 a b$ from $a$ channels to $b$.


# %%
class Pointwise(nn.Sequential):
    def __init__(self, inputs, outputs):
        convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Separable(nn.Sequential):
    def __init__(self, inputs, outputs, rate=1):
        settings = {"padding": rate, "dilation": rate, "groups": inputs, "bias": False}
        super().__init__(nn.Conv2d(inputs, inputs, 3, **settings), *Pointwise(inputs, outputs))


class ImagePooling(Pointwise):
    def forward(self, x):
        mean = super().forward(x.mean(dim=(2, 3), keepdim=True))
        return mean.expand(-1, -1, *x.shape[2:])  # the same at every pixel


# %% tags=["nbval-check-output"]
class ASPP(nn.Module):
    def __init__(self, inputs, outputs, rates, dropout=0.5):
        super().__init__()
        atrous = (Separable(inputs, outputs, rate) for rate in rates)
        branches = (Pointwise(inputs, outputs), *atrous, ImagePooling(inputs, outputs))
        self.branches = nn.ModuleList(branches)
        self.project = Pointwise(5 * outputs, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        joined = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.dropout(self.project(joined))


aspp = ASPP(512, 256, rates=(1, 2, 3))
print(tuple(aspp(torch.rand(2, 512, 16, 16)).shape))

# %% [markdown]
# smp's default rates are 12, 24 and 36 (Chen et al. take 6, 12 and 18 at this output stride), for photographs
# of about 512 pixels, whose map is 32 x 32. The recipe `sample` of this project has patches of 64 pixels:
# maps of 4 x 4. **Predict**: which weights of a kernel of rate 12 ever meet such a map?
#
# ### Exercise 5.5 ★★☆: what a rate reaches


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
taps = torch.ones(1, 1, 3, 3)
print("mean number of nine weights on the map; rates", *(f"{rate:4}" for rate in (1, 2, 3, 6, 12)))
for side in (4, 8, 16, 32):
    ones = torch.ones(1, 1, side, side)
    counts = [functional.conv2d(ones, taps, padding=r, dilation=r).mean() for r in (1, 2, 3, 6, 12)]
    print(
        f"patch of {16 * side:3}, map of {side:2} x {side:2}".ljust(45),
        *(f"{c:4.1f}" for c in counts),
    )

# %% [markdown]
# At 1.0 a 3 x 3 kernel has become one of 1 x 1: its eight outer weights multiply zeros, always. Do they ever
# learn?

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
for rates in ((12, 24, 36), (1, 2, 3)):
    aspp = ASPP(512, 256, rates)
    aspp(torch.rand(4, 512, 4, 4)).square().mean().backward()
    gradients = [branch[0].weight.grad.abs().sum(dim=(0, 1)) for branch in aspp.branches[1:4]]
    print(f"rates {rates}: weights with a gradient: {[int((g > 0).sum()) for g in gradients]} of 9")

# %% [markdown]
# On patches of 64 pixels 24 of 27 weights learn nothing at the default rates. Rates are not constants of an
# architecture; they are chosen for a map size.
#
# ### Image pooling: a patch is not a slice
#
# The network is trained on patches around the spine and predicts whole slices. The 3 x 3 branches do the
# same on both. Image pooling does not: the mean of a slice contains lungs, arms and air. **Predict**: does it
# matter? We predict a whole slice of the DICOM patient twice: with the mean of one patch of 144 mm around the
# spine, as in training, and with its own mean.

# %%
from spine_lib.slices import cut_slices, network_input

stored = cut_slices(course_case("dicom"), "axial", 1.5)
stored = stored[(stored["label"] > 0).sum(axis=(1, 2)).argmax()]
known = torch.from_numpy((stored["label"] > 0) & (stored["label"] != 255))
row, column = (int(where.median()) // 16 for where in torch.nonzero(known, as_tuple=True))
image, (rows, columns) = torch.from_numpy(network_input(stored["hu"]))[None, None], known.shape
padded = functional.pad(image, (0, -columns % 16, 0, -rows % 16), value=-1.5)


class PatchMean(nn.Module):
    def forward(self, x):
        return x[..., row - 3 : row + 3, column - 3 : column + 3].mean(dim=(2, 3), keepdim=True)


# %%
network = trained["DeepLabv3+"]
pooling = network.decoder.aspp[0].convs[4]  # in smp: mean, 1 x 1 convolution, batch norm, ReLU
with torch.inference_mode():
    deep = network.encoder(padded)[-1]
    means = [mean(deep).flatten() for mean in (nn.AdaptiveAvgPool2d(1), PatchMean())]
    print(f"correlation of the two means: {torch.corrcoef(torch.stack(means))[0, 1]:.2f}")
    for name, pooling[0] in (("patch", PatchMean()), ("whole slice", nn.AdaptiveAvgPool2d(1))):
        found = network(padded)[0, 0, :rows, :columns] > 0
        dice = 2 * (found & known).sum() / (found.sum() + known.sum())
        print(f"mean of the {name:11}: {found.sum()} pixels found, Dice {dice:.3f}")

# %% [markdown]
# The two means differ much, and with the mean of the whole slice, which is what prediction uses, Dice is lower.
# Training on larger patches, or predicting in windows of the training size, makes the two alike. (One slice of
# one patient: elsewhere it may matter less.)

# %% [markdown]
# ## 5. The decoder, and the whole network (4 min)
#
# ASPP's map is 16 times smaller than the image. How well can so coarse a map hold an outline? As a thought
# experiment, we bring a true mask to maps of 1/4, 1/8 and 1/16 and enlarge it again.

# %%
mask = torch.from_numpy((chest.labels[number] == 1)[None].astype(np.float32))
figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.5), sharey=True)
for panel, stride in zip(axes, (4, 8, 16)):
    coarse = functional.avg_pool2d(mask, stride)
    again = functional.interpolate(coarse, (96, 96), mode="bilinear", align_corners=True) > 0.5
    dice = 2 * (again * mask).sum() / (again.sum() + mask.sum())
    panel.imshow(chest.images[number, 0], vmin=-1.5, vmax=2.5, extent=(0, 144, 144, 0))
    for outline, colour, dash in ((mask, "#56B4E9", "solid"), (again, "#E69F00", "dashed")):
        extent = (0, 144, 0, 144)
        panel.contour(outline[0, 0], [0.5], colors=colour, linestyles=dash, extent=extent)
    panel.set(title=f"via 1/{stride}: Dice {dice:.2f}", xlabel="R to L, mm")
axes[0].set_ylabel("A to P, mm")
plt.show()

# %% [markdown]
# *Figure: the outline of a mask (solid), and after maps of 1/4, 1/8 and 1/16 (dashed).*
# <!-- alt: an axial slice with the true outline of the vertebra (solid blue) and what remains of it (dashed
# orange) on maps of 1/4, 1/8 and 1/16: almost all of it; the body and a part of the arch; a coarse piece of
# the body. -->
#
# A map of 256 channels could hold more than a mask does, so this is no bound. But it shows what the decoder
# is for: it enlarges ASPP's map four-fold and joins the map of **stage 1**, reduced to 48 channels, so that it does not
# outweigh the 256 deep ones. That is the near view of section 2.
#
# ![DeepLabv3+: image, encoder, ASPP, a 3 x 3 convolution and enlargement by 4 lead to a join; the map of
# stage 1 comes on a dashed way through a 1 x 1 convolution to 48 channels; after the join a 3 x 3 and a
# 1 x 1 convolution and another enlargement by 4 give the logits.](figures/deeplabv3plus.svg)
#
# *DeepLabv3+. The dashed way is the decoder's one skip.*

# %% [markdown]
# Now the whole network. The encoder is smp's ResNet34 (lesson 4 wrote it out) at output stride 16; it gives
# the image itself and five maps.


# %%
class DeepLabV3Plus(nn.Module):
    def __init__(self, rates=(12, 24, 36)):
        super().__init__()
        self.encoder = smp.encoders.get_encoder("resnet34", 1, weights=None, output_stride=16)
        self.context = nn.Sequential(ASPP(512, 256, rates), Separable(256, 256))
        self.reduce = Pointwise(64, 48)
        self.fuse = Separable(256 + 48, 256)
        self.head = nn.Conv2d(256, 1, 1)
        self.enlarge = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True)

    def forward(self, image):
        maps = self.encoder(image)
        low, deep = maps[2], maps[-1]
        context = self.enlarge(self.context(deep))
        joined = torch.cat([context, self.reduce(low)], dim=1)
        return self.enlarge(self.head(self.fuse(joined)))


# %% [markdown]
# Is it the network that everybody uses? In
# [segmentation_models_pytorch](https://smp.readthedocs.io/en/latest/models.html) it is one line. We copy
# its weights, in their order, and compare the logits.

# %%
settings = {"encoder_weights": None, "in_channels": 1, "classes": 1}
library = smp.DeepLabV3Plus("resnet34", decoder_atrous_rates=(1, 2, 3), **settings).eval()
ours = DeepLabV3Plus(rates=(1, 2, 3)).eval()
with torch.inference_mode():
    before = (ours(image := torch.from_numpy(chest.images[:2])) - library(image)).abs().max()
    ours.load_state_dict(dict(zip(ours.state_dict(), library.state_dict().values(), strict=True)))
    after = (ours(image) - library(image)).abs().max()
print(f"largest difference of two logits: {before:.2f} before, {after:.0e} after")
assert after < 1e-5

# %% [markdown]
# The same network, within the rounding of float32. The library's tested version, with messages for wrong
# sizes, is `spine_lib/models/deeplab.py`.

# %% [markdown]
# ## 6. What the two networks cost (2 min)
#
# Which of the paper's networks is the more expensive one, with the same encoder? **Predict** parameters and
# multiply-adds for a slice of 256 x 256.

# %% tags=["nbval-check-output"]
networks = {
    "U-Net": smp.Unet("resnet34", **settings),
    "DeepLabv3+": smp.DeepLabV3Plus("resnet34", **settings),
    "DeepLabv3+ at 8": smp.DeepLabV3Plus("resnet34", encoder_output_stride=8, **settings),
}
for name, network in networks.items():
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 1, 256, 256))
    millions = sum(weight.numel() for weight in network.parameters()) / 1e6
    billions = counter.get_total_flops() / 2e9
    print(f"{name:16} {millions:4.1f} million parameters, {billions:4.1f} billion multiply-adds")

# %% [markdown]
# All but equal: most of both is the encoder. An output stride of 8 triples the multiply-adds without one more
# parameter. So cost does not decide between the two. The paper gives U-Net 0.951 and DeepLabv3+ 0.920 in Dice;
# lesson 8 asks what we find.

# %% [markdown]
# ## 7. Without the library (2 min)
#
# Last, the shipped DeepLabv3+ on the crop patient, which it has never seen, with nibabel, torch, smp and
# safetensors alone: the middle axial slice, from -250..1000 HU to -1.5..2.5, padded with air.

# %%
from spine_lib.datasets import sample_root

folder, weights = sample_root() / "crop", weights_path("deeplabv3plus_light")

# %%
import nibabel as nib
from safetensors.torch import load_file

rates = {"decoder_atrous_rates": (2, 4, 6)}
network = smp.DeepLabV3Plus("timm-tf_efficientnet_lite0", **settings, **rates)
network.load_state_dict(load_file(weights))
scans = (nib.load(folder / name) for name in ("ct.nii.gz", "mask.nii.gz"))
ct, mask = (nib.as_closest_canonical(scan).get_fdata(dtype=np.float32) for scan in scans)
middle = ct.shape[2] // 2
hu, known = (array[::-1, ::-1, middle].T for array in (ct, mask))  # rows A to P, columns R to L
image = torch.from_numpy((hu.clip(-250, 1000) + 250) / 1250 * 4 - 1.5)[None, None]
rows, columns = hu.shape
padded = functional.pad(image, (0, -columns % 16, 0, -rows % 16), value=-1.5)
with torch.inference_mode():
    logits = network.eval()(padded)[0, 0, :rows, :columns]
found, known = (logits > 0).numpy(), known > 0
print(f"Dice of the slice: {2 * (found & known).sum() / (found.sum() + known.sum()):.2f}")

# %% [markdown]
# The same with the library's functions:

# %%
from spine_lib.ct import to_slices

image_hw = network_input(to_slices(course_case("crop").ct.array, "axial")[middle])
image = torch.from_numpy(image_hw)[None, None]
padded = functional.pad(image, (0, -columns % 16, 0, -rows % 16), value=-1.5)
with torch.inference_mode():
    assert torch.allclose(trained["DeepLabv3+"](padded)[0, 0, :rows, :columns], logits, atol=1e-4)

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Compute** an atrous convolution: nine weights, $r$ pixels apart, and padding that grows with the rate.
# - **Measure** what a pixel sees: by formula an upper bound, by gradient what counts.
# - **Trade** stride for dilation, which costs multiplications and no weights, and avoid the grid that equal
#   rates leave.
# - **Build** ASPP, the decoder and DeepLabv3+, and prove with equal logits that it is smp's.
# - **Choose** rates for the map that you have, and remember that image pooling takes another mean on a slice
#   than on a patch.
#
# Next: lesson 6 trains both.
