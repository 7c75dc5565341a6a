"""Lesson 5: the ResNet-34 encoder, written out to be read.

Four stages of residual blocks follow a first 7 x 7 convolution (He et al. 2016,
doi:10.1109/CVPR.2016.90).  For an output stride below 32 the last stages are dilated instead, so
that their maps stay larger while each kernel spans as much of the image (Chen et al. 2018,
doi:10.1109/TPAMI.2017.2699184).
"""

from torch import Tensor, nn

from spine_lib import SpineError

STAGE_CHANNELS = (64, 128, 256, 512)
STAGE_BLOCKS = (3, 4, 6, 3)
OUTPUT_STRIDES = (8, 16, 32)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions whose result is added to what came in.

    Where the shape changes on the way, a 1 x 1 convolution brings what came in to the new shape.
    The first convolution has the stride, both are dilated by the rate.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, rate: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride, rate)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, 1, rate)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, row, column] to out_channels and a stride-th of the size."""
        residual = self.relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        return self.relu(residual + self.shortcut(x))


class ResNet34(nn.Module):
    """An encoder of five maps, from fine and shallow to coarse and deep.

    =======  ========  ===========================================
    map      channels  a pixel of it for each ... of the image
    =======  ========  ===========================================
    stem     64        2 x 2
    stage 1  64        4 x 4
    stage 2  128       8 x 8
    stage 3  256       16 x 16, or `output_stride` if that is less
    stage 4  512       32 x 32, or `output_stride` if that is less
    =======  ========  ===========================================

    Args:
        in_channels: of the image, 1 for a CT slice.
        output_stride: pixels of the image for one of the last map: 8, 16 or 32.

    Example:
        >>> import torch
        >>> maps = ResNet34(output_stride=16)(torch.zeros(2, 1, 64, 64))
        >>> [tuple(x.shape[1:]) for x in maps][1:4]
        [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    """

    def __init__(self, in_channels: int = 1, output_stride: int = 32) -> None:
        super().__init__()
        if output_stride not in OUTPUT_STRIDES:
            raise SpineError(
                f"an output stride of {output_stride} cannot be made: use one of {OUTPUT_STRIDES}"
            )
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        channels, reached = 64, 4
        for number, (out_channels, blocks) in enumerate(zip(STAGE_CHANNELS, STAGE_BLOCKS)):
            wanted = 4 * 2**number  # the stride of a classifier at this stage
            stride, rate = stride_or_rate(wanted, reached, output_stride)
            self.stages.append(make_stage(channels, out_channels, blocks, stride, rate))
            channels, reached = out_channels, reached * stride
        draw_weights(self.stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the five maps of an image [batch, in_channels, row, column], finest first."""
        maps = [self.stem(image)]
        x = self.pool(maps[0])
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def conv3x3(in_channels: int, out_channels: int, stride: int, rate: int) -> nn.Conv2d:
    """Make a 3 x 3 convolution without bias; padding by the rate keeps the size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=rate, dilation=rate, bias=False)


def stride_or_rate(wanted: int, reached: int, output_stride: int) -> tuple[int, int]:
    """Return how a stage widens its receptive field: by stride, or by dilation at the same size.

    Of the stride that a classifier has after this stage (`wanted`), what is `reached` before it and
    the largest that is allowed follow the stride of its first block and the rate of all.

    Example:
        >>> stride_or_rate(32, 16, 32), stride_or_rate(32, 16, 16), stride_or_rate(32, 8, 8)
        ((2, 1), (1, 2), (1, 4))
    """
    allowed = min(wanted, output_stride)
    return allowed // reached, wanted // allowed


def make_stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, rate: int
) -> nn.Sequential:
    """Make a stage: the first block changes channels and size, the others keep them."""
    first = ResidualBlock(in_channels, out_channels, stride, rate)
    others = (ResidualBlock(out_channels, out_channels, 1, rate) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def draw_weights(stages: nn.Module) -> None:
    """Draw the weights of convolutions so that signals keep their strength through ReLUs.

    Source: He et al. 2015, doi:10.1109/ICCV.2015.123.
    """
    for layer in stages.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
