"""Lesson 4: a U-Net, written out to be read.

A U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28) has the shape of its letter. On
the way **down** the image is halved level by level while the number of channels doubles: fewer
places, each described by more numbers that have seen more of the image. On the way **up** it is
doubled again, and each level is joined with the map that the way down had at the same size, the
**skip**:

    image --> first --------------- skip ----------------> ups[-1] --> head --> logits
                 downs[0] ----------- skip ---------> ups[-2]
                     ...                             ...
                         downs[-1] (the bottom) --> ups[0]

Unlike in the paper, convolutions pad their input, so that maps keep their size, and the way up
enlarges by repeating pixels instead of by a transposed convolution.
"""

import torch
from torch import nn
from torch.nn import functional

from spine_lib import SpineError


class DoubleConvolution(nn.Sequential):
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU; rows and columns stay.

    The convolutions have no bias, since normalisation would subtract it and add its own.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Down(nn.Module):
    """Halve rows and columns, keeping the largest of each four pixels, and convolve twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shrink = nn.MaxPool2d(2)
        self.convolve = DoubleConvolution(inputs, outputs)

    def forward(self, above: torch.Tensor) -> torch.Tensor:
        """Map [batch, inputs, row, column] to [batch, outputs, row / 2, column / 2]."""
        return self.convolve(self.shrink(above))


class Up(nn.Module):
    """Double rows and columns, put the skip's channels (0 for none) behind, convolve twice."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.convolve = DoubleConvolution(inputs + skip, outputs)

    def forward(self, below: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """Map [batch, inputs, row, column] to [batch, outputs, 2 row, 2 column], as the skip is."""
        enlarged = functional.interpolate(below, scale_factor=2.0, mode="nearest")
        joined = enlarged if skip is None else torch.cat([enlarged, skip], dim=1)
        return self.convolve(joined)


class UNet(nn.Module):
    """A U-Net, which gives every pixel of an image one logit a class.

    Args:
        in_channels: channels of the image, 1 for a CT slice.
        classes: channels of the logits, 1 for spine or not.
        width: channels at full size; each level down has twice as many as the one above.
        depth: how often the image is halved.
        skips: False leaves the skips out, to see what they are for.

    Example:
        >>> UNet(width=8, depth=2)(torch.zeros(1, 1, 32, 48)).shape
        torch.Size([1, 1, 32, 48])
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 1,
        width: int = 32,
        depth: int = 4,
        skips: bool = True,
    ) -> None:
        super().__init__()
        levels = [width * 2**level for level in range(depth + 1)]  # channels, from full size down
        self.skips = skips
        self.first = DoubleConvolution(in_channels, levels[0])
        self.downs = nn.ModuleList(
            Down(above, below) for above, below in zip(levels[:-1], levels[1:])
        )
        self.ups = nn.ModuleList(
            Up(levels[n + 1], levels[n] if skips else 0, levels[n]) for n in reversed(range(depth))
        )
        self.head = nn.Conv2d(levels[0], classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map [batch, in_channels, row, column] to logits [batch, classes, row, column]."""
        multiple = 2 ** len(self.downs)
        rows, columns = image.shape[-2:]
        if rows % multiple or columns % multiple:
            raise SpineError(
                f"an image of {rows} x {columns} pixels cannot be halved {len(self.downs)} times: "
                f"pad it to multiples of {multiple}"
            )
        maps = [self.first(image)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        x = maps.pop()  # the bottom; what remains are the skips
        for up in self.ups:
            skip = maps.pop()
            x = up(x, skip if self.skips else None)
        return self.head(x)
