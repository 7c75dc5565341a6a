"""The figures of lesson 0: the regions of the spine and the parts of a vertebra, named."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from spine_lib.annotations.schemes import REGIONS, to_regions
from spine_lib.ct import geometry
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import figures, render
from spine_lib.explore.overlays import REGION_SWATCHES
from spine_lib.explore.render import Style

Voxel = tuple[int, int, int]
PARTS_OF_L3: dict[str, dict[str, Voxel]] = {
    "axial": {
        "vertebral body": (35, 55, 28),
        "spinal canal": (36, 39, 28),
        "pedicle": (48, 42, 28),
        "transverse process": (64, 28, 28),
        "lamina": (29, 34, 28),
    },
    "sagittal": {
        "vertebral body": (37, 56, 26),
        "disc": (37, 56, 13),
        "spinal canal": (37, 38, 26),
        "spinous process": (37, 12, 17),
    },
}
"""By plane and name, a voxel of the crop patient inside the part; each plane's in one slice."""


def picture_place(volume: Volume, voxel: Voxel, plane: str, pixel_mm: float) -> tuple[float, float]:
    """Return the column and row of a voxel's centre in a picture of `render.render_slice`."""
    _, down, across = geometry.plane_axes(plane)
    column, row = (
        (volume.shape[axis] - voxel[axis] - 0.5) * volume.spacing_mm[axis] / pixel_mm - 0.5
        for axis in (across, down)
    )
    return column, row


def show_parts(axes: Axes, ct: Volume, parts: Mapping[str, Voxel], plane: str) -> None:
    """Draw an axial or sagittal slice of a scan, with an arrow and a name for each part in it.

    Half of the names stand at either side of the picture.

    Args:
        axes: where to draw.
        ct: scan in HU.
        parts: by name, a voxel; all in one slice of the plane.
        plane: "axial" or "sagittal".
    """
    cut = geometry.plane_axes(plane)[0]
    (index,) = {voxel[cut] for voxel in parts.values()}
    style = Style(pixel_mm=min(ct.spacing_mm) / 3)
    pixel_mm = render.pixel_size_mm(ct, plane, style.pixel_mm)
    rgb = render.render_slice(ct, index, plane, WINDOWS["bone"], style=style)
    figures.show_slice(axes, rgb, plane, pixel_mm)
    places = {name: picture_place(ct, voxel, plane, pixel_mm) for name, voxel in parts.items()}
    rows, columns = rgb.shape[:2]
    ordered = sorted(places, key=lambda name: places[name][0])
    half = len(ordered) // 2
    for side, names in (("left", ordered[:half]), ("right", ordered[half:])):
        names = sorted(names, key=lambda name: places[name][1])
        heights = np.linspace(0, rows, 2 * len(names) + 1)[1::2]
        for name, height in zip(names, heights):
            left = side == "left"
            axes.annotate(
                name,
                places[name],
                xytext=(-0.06 * columns if left else 1.06 * columns, height),
                ha="right" if left else "left",
                va="center",
                fontsize=10,
                arrowprops={"arrowstyle": "-|>", "color": "#f0e442", "linewidth": 1.5},
                annotation_clip=False,
            )


def show_regions(axes: Axes, ct: Volume, labels: Volume, index: int | None = None) -> None:
    """Draw a sagittal slice with the four regions coloured and named.

    Args:
        axes: where to draw.
        ct: scan in HU.
        labels: canonical ids on its grid.
        index: of the slice; by default the one with the most spine.
    """
    if index is None:
        index = int((labels.array > 0).sum(axis=(1, 2)).argmax())
    pixel_mm = render.pixel_size_mm(ct, "sagittal")
    style = Style(colouring="region")
    rgb = render.render_slice(ct, index, "sagittal", WINDOWS["bone"], labels, style=style)
    figures.show_slice(axes, rgb, "sagittal", pixel_mm)
    regions = to_regions(labels.array[index])
    height, ends = rgb.shape[0], np.array([0.09, 0.82])
    for number, (name, swatch) in enumerate(zip(REGIONS, REGION_SWATCHES), start=1):
        marked = np.argwhere(regions == number)
        if not len(marked):
            continue
        # At the height of the region's middle, where its front lies.
        z = int(np.median(marked[:, 1]))
        front = marked[np.abs(marked[:, 1] - z) < 3, 0].max()
        place = picture_place(ct, (index, int(front), z), "sagittal", pixel_mm)
        colour = np.array(swatch.rgb) / 255
        axes.annotate(
            name,
            place,
            # Clear of the mark at the top and of the scale bar.
            xytext=(0.08 * rgb.shape[1], float(np.clip(place[1], *(height * ends)))),
            color=colour,
            fontsize=10,
            fontweight="bold",
            ha="left",
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.2},
            bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0, "boxstyle": "square,pad=0.2"},
        )
