"""Name what a picture of the spine shows: the four regions, and the parts of a vertebra.

The places are found from the label map, so that they fit any patient; nothing is stored.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.annotations.schemes import CANONICAL, REGIONS, to_regions
from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import figures, render
from spine_lib.explore.overlays import REGION_SWATCHES
from spine_lib.explore.render import Style

Voxel = tuple[int, int, int]

SIDEWAYS_MM = 6.0
"""How far from the middle of the canal the spinous process may lie."""


def parts_of_vertebra(labels: Volume, vertebra: int) -> tuple[dict[str, Voxel], dict[str, Voxel]]:
    """Find the parts of a vertebra that an axial and a sagittal slice show.

    The canal is the hole that the vertebra's ring closes around; the body lies before it, the arch
    with its processes behind it and at its sides.

    Args:
        labels: canonical ids; the vertebra below has the next id.
        vertebra: id of a whole vertebra.

    Returns:
        The parts to show in an axial slice and those to show in a sagittal slice: by name, a
        voxel inside the part, all of one slice.

    Raises:
        SpineError: if the ring is closed in no slice, as in a vertebra that the image cuts.
    """
    bone = labels.array == vertebra
    holes = np.zeros_like(bone)
    for z in np.flatnonzero(bone.any(axis=(0, 1))):
        holes[..., z] = _largest(ndimage.binary_fill_holes(bone[..., z]) & ~bone[..., z])
    if not holes.any():
        raise SpineError(
            f"{CANONICAL.get(vertebra, vertebra)} closes its ring in no axial slice: choose a "
            "vertebra that is whole."
        )
    # Where the ring is closed, the widest slice shows the transverse processes.
    z = max(np.flatnonzero(holes.any(axis=(0, 1))), key=lambda at: _width(bone[..., at]))
    back = int(np.nonzero(holes)[1].min())
    # Through the spinous process: where the most bone lies behind the canal, near its middle.
    near = np.unique(np.nonzero(holes)[0])
    near = near[np.abs(near - np.median(near)) <= SIDEWAYS_MM / labels.spacing_mm[0]]
    x = max(near, key=lambda at: np.count_nonzero(bone[at, :back]))
    return _axial_parts(bone, holes, int(z), labels.spacing_mm), _sagittal_parts(
        labels, vertebra, int(x)
    )


def _largest(mask: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())[1:]
    return pieces == 1 + sizes.argmax() if count else mask


def _width(slice_xy: np.ndarray) -> int:
    across = np.flatnonzero(slice_xy.any(axis=1))
    return int(across[-1] - across[0])


def _axial_parts(bone, holes, z: int, spacing_mm) -> dict[str, Voxel]:
    ring, hole = bone[..., z], holes[..., z]
    at_x, at_y = np.nonzero(hole)
    middle = (round(float(at_x.mean())), round(float(at_y.mean())))
    front = ring.copy()
    front[:, : at_y.max() + 1] = False
    behind = ring.copy()
    behind[:, round(float(np.percentile(at_y, 35))) :] = False
    behind[:, : at_y.min() - round(8 / spacing_mm[1])] = False
    behind[: at_x.min() + 1] = False
    behind[middle[0] - round(4 / spacing_mm[0]) :] = False
    beside = ring.copy()
    beside[: at_x.max() + 1] = False
    beside[:, : round(float(np.percentile(at_y, 60)))] = False
    beside[:, at_y.max() + 1 :] = False
    beside[at_x.max() + 1 + round(8 / spacing_mm[0]) :] = False
    tip = np.flatnonzero(ring.any(axis=1))[-1] - round(5 / spacing_mm[0])
    found = {
        "vertebral body": _inner(front),
        "spinal canal": middle,
        "pedicle": _inner(beside),
        "transverse process": (int(tip), round(float(np.nonzero(ring[tip])[0].mean()))),
        "lamina": _inner(behind),
    }
    return {name: (*place, z) for name, place in found.items() if place is not None}


def _sagittal_parts(labels: Volume, vertebra: int, x: int) -> dict[str, Voxel]:
    here = labels.array[x]
    bone, below = here == vertebra, here == vertebra + 1
    upper, lower = _body(bone), _body(below)
    body = _middle(upper)
    near = slice(body[0] - 1, body[0] + 2)
    floor, ceiling = np.nonzero(upper[near])[1].min(), np.nonzero(lower[near])[1].max()
    first = int(np.nonzero(upper)[0].min())
    behind = bone.copy()
    behind[first:] = False
    canal_y = round((first + int(np.nonzero(behind)[0].max())) / 2)
    behind[round(float(np.median(np.nonzero(behind)[0]))) :] = False
    disc = (body[0], round(float(floor + ceiling) / 2))
    found = {
        "vertebral body": body,
        "disc": disc,
        "spinal canal": (canal_y, body[1]),
        "spinous process": _inner(behind),
    }
    return {name: (x, *place) for name, place in found.items() if place is not None}


def _body(mask: np.ndarray) -> np.ndarray:
    """Return the piece of a sagittal slice [y, z] that lies in front."""
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = [k for k in range(1, count + 1) if sizes[k] > 0.2 * sizes[1:].max()]
    return pieces == max(large, key=lambda k: np.nonzero(pieces == k)[0].mean())


def _middle(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(round(float(at.mean())) for at in np.nonzero(mask))


def _inner(mask: np.ndarray) -> tuple[int, ...] | None:
    """Return the pixel of a mask that lies deepest in its largest piece."""
    if not mask.any():
        return None
    depth = ndimage.distance_transform_edt(np.pad(_largest(mask), 1))[1:-1, 1:-1]
    best = np.argwhere(depth >= depth.max() - 1e-6)
    nearest = np.abs(best - best.mean(axis=0)).sum(axis=1).argmin()
    return tuple(int(place) for place in best[nearest])


# --- drawing --------------------------------------------------------------------------------------


def picture_place(volume: Volume, voxel: Voxel, plane: str, pixel_mm: float) -> tuple[float, float]:
    """Return the column and row of a voxel's centre in a picture of `render.render_slice`.

    Args:
        volume: what was drawn.
        voxel: indices x, y, z.
        plane: of the picture.
        pixel_mm: `render.pixel_size_mm` of it.
    """
    _, down, across = planes.plane_axes(plane)
    column, row = (
        (volume.shape[axis] - voxel[axis] - 0.5) * volume.spacing_mm[axis] / pixel_mm - 0.5
        for axis in (across, down)
    )
    return column, row


def show_parts(axes: Axes, ct: Volume, parts: Mapping[str, Voxel], plane: str) -> None:
    """Draw the slice that parts lie in, with an arrow and a name for each.

    Args:
        axes: where to draw; names stand at its sides.
        ct: scan in HU.
        parts: by name, a voxel; all in one slice of the plane.
        plane: "axial" or "sagittal".
    """
    cut = planes.plane_axes(plane)[0]
    (index,) = {voxel[cut] for voxel in parts.values()}
    style = Style(pixel_mm=min(ct.spacing_mm) / 3)
    pixel_mm = render.pixel_size_mm(ct, plane, style.pixel_mm)
    rgb = render.render_slice(ct, index, plane, WINDOWS["bone"], style=style)
    figures.show_slice(axes, rgb, plane, pixel_mm)
    places = {name: picture_place(ct, voxel, plane, pixel_mm) for name, voxel in parts.items()}
    _name_at_side(axes, places, rgb.shape)


def _name_at_side(axes: Axes, places: Mapping[str, tuple[float, float]], shape: tuple) -> None:
    """Put half of the names to the left of a picture and half to the right, in their order."""
    rows, columns = shape[:2]
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
