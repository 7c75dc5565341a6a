"""Lesson 5: DeepLabv3+, written out to be read.

Source: Chen et al. 2018, doi:10.1007/978-3-030-01234-2_49. Kernels of several rates and the mean of
the whole image are applied to the coarse map side by side (ASPP); the decoder enlarges the result
four-fold, joins it with an early, fine map, and enlarges once more.

The layers come in the order of segmentation_models_pytorch's network with the encoder resnet34, and
with its weights they give its logits. Both start alike, too: the encoder's stages as He et al. draw
them, the rest as PyTorch does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from spine_lib import SpineError
from spine_lib.models.resnet import STAGE_CHANNELS, ResNet34

ATROUS_RATES = (12, 24, 36)
DECODER_CHANNELS = 256
LOW_LEVEL_CHANNELS = 48


class DeepLabV3Plus(nn.Module):
    """DeepLabv3+: a ResNet-34 encoder, ASPP, and a decoder of one step.

    ::

      image -> encoder -- last map ------> ASPP --> 3x3 --> enlarged --> join --> 3x3 --> 1x1 --> x4
                  |                                                       |
                  +------ stage 1's map, a 4th of the image --> 1x1 ------+

    Args:
        in_channels: of the image, 1 for a CT slice.
        classes: channels of the output, 1 for spine or not.
        atrous_rates: of the three dilated branches of ASPP, in pixels of the coarse map.
        aspp_dropout: share of ASPP's channels that training blanks.
        output_stride: pixels of the image for one of the coarse map: 16, or 8 at a higher price.

    Example:
        >>> network = DeepLabV3Plus(atrous_rates=(1, 2, 3)).eval()
        >>> network(torch.zeros(1, 1, 64, 96)).shape
        torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 1,
        atrous_rates: tuple[int, ...] = ATROUS_RATES,
        aspp_dropout: float = 0.5,
        output_stride: int = 16,
    ) -> None:
        super().__init__()
        self.output_stride = output_stride
        channels = DECODER_CHANNELS
        self.encoder = ResNet34(in_channels, output_stride)
        self.aspp = ASPP(STAGE_CHANNELS[-1], channels, atrous_rates, aspp_dropout)
        self.after_aspp = norm_relu(SeparableConv(channels, channels))
        self.reduce_low = norm_relu(nn.Conv2d(STAGE_CHANNELS[0], LOW_LEVEL_CHANNELS, 1, bias=False))
        self.fuse = norm_relu(SeparableConv(channels + LOW_LEVEL_CHANNELS, channels))
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes, row, column] for [batch, in_channels, row, column]."""
        rows, columns = image.shape[-2:]
        if rows % self.output_stride or columns % self.output_stride:
            raise SpineError(
                f"an image of {rows} x {columns} pixels does not fit DeepLabv3+: rows and columns "
                f"must be multiples of {self.output_stride}, so pad it"
            )
        maps = self.encoder(image)
        low, deep = maps[1], maps[-1]
        context = self.after_aspp(self.aspp(deep))
        joined = torch.cat([enlarge(context, low.shape[-2:]), self.reduce_low(low)], dim=1)
        return enlarge(self.head(self.fuse(joined)), image.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: branches of several scales side by side, then mixed.

    Five branches: a 1 x 1 convolution, a separable 3 x 3 for each of three rates, and the mean of
    the whole map.

    Args:
        in_channels, out_channels: of the maps; each branch makes out_channels.
        rates: three dilations, in pixels of the map.
        dropout: share of channels that training blanks after mixing.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rates: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        if len(rates) != 3 or min(rates) < 1:
            raise SpineError(f"ASPP takes three atrous rates of 1 or more, not {tuple(rates)}")
        self.branches = nn.ModuleList(
            [
                norm_relu(nn.Conv2d(in_channels, out_channels, 1, bias=False)),
                *(norm_relu(SeparableConv(in_channels, out_channels, rate)) for rate in rates),
                ImagePooling(in_channels, out_channels),
            ]
        )
        self.mix = norm_relu(nn.Conv2d(5 * out_channels, out_channels, 1, bias=False))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, row, column] to out_channels of the same size."""
        joined = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.dropout(self.mix(joined))


class ImagePooling(nn.Module):
    """The mean of the whole map at every pixel, after a 1 x 1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = norm_relu(nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, row, column] to out_channels, the same value everywhere."""
        mean = self.conv(x.mean(dim=(-2, -1), keepdim=True))
        return mean.expand(-1, -1, *x.shape[-2:])


class SeparableConv(nn.Sequential):
    """A 3 x 3 convolution in two steps: each channel by itself, dilated, then their mixture.

    It takes 9 * in + in * out weights instead of 9 * in * out.
    """

    def __init__(self, in_channels: int, out_channels: int, rate: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, 1, rate, rate, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )


def norm_relu(convolution: nn.Conv2d | SeparableConv) -> nn.Sequential:
    """Append batch normalisation and ReLU to a convolution."""
    last = convolution if isinstance(convolution, nn.Conv2d) else convolution[-1]
    return nn.Sequential(convolution, nn.BatchNorm2d(last.out_channels), nn.ReLU())


def enlarge(x: Tensor, shape_hw: tuple[int, int] | torch.Size) -> Tensor:
    """Enlarge maps [batch, channel, row, column] bilinearly; corner pixels stay in the corners."""
    return functional.interpolate(x, tuple(shape_hw), mode="bilinear", align_corners=True)
