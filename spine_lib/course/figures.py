"""The figures of lessons 0 and 9: anatomy, failures, volumes, conditions, uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spine_lib.annotations.schemes import REGIONS, to_regions
from spine_lib.course.failures import Failure, Segmented
from spine_lib.ct import geometry
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import figures, render
from spine_lib.explore.overlays import REGION_SWATCHES
from spine_lib.explore.render import Style
from spine_lib.volumes.measure import Amount, ErrorPiece

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

_MARKERS = (("o", "#0072B2"), ("s", "#D55E00"), ("^", "#009E73"))

# --- lesson 0: anatomy ----------------------------------------------------------------------------


def picture_place(volume: Volume, voxel: Voxel, plane: str, pixel_mm: float) -> tuple[float, float]:
    """Return the column and row of a voxel's centre in a picture of `render.render_slice`.

    Args:
        volume: what was drawn.
        voxel: indices x, y, z.
        plane: of the picture.
        pixel_mm: `render.pixel_size_mm` of it.
    """
    _, down, across = geometry.plane_axes(plane)
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
    cut = geometry.plane_axes(plane)[0]
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


# --- lesson 9 -------------------------------------------------------------------------------------


def draw_failure(
    axes: Axes, failure: Failure, segmented: Segmented, piece: ErrorPiece, half_mm: float = 36.0
) -> None:
    """Draw the slice through a piece of error, cut to its surroundings, with errors marked.

    Args:
        axes: where to draw.
        failure: gives plane and title.
        segmented: the scan and its prediction.
        piece: what `find` returned.
        half_mm: half the side of the part that is shown.
    """
    data, plane = segmented.data, failure.plane
    cut, down, across = geometry.plane_axes(plane)
    pixel_mm = render.pixel_size_mm(data.ct, plane)
    style = render.Style("error", opacity=0.3)
    rgb = render.render_slice(
        data.ct, piece.voxel[cut], plane, WINDOWS["bone"], data.labels, segmented.mask, style,
        data.ignore,
    )  # fmt: skip
    part = []
    for axis, size in zip((down, across), rgb.shape[:2]):
        place = (data.ct.shape[axis] - 0.5 - piece.voxel[axis]) / data.ct.shape[axis] * size
        half = min(half_mm / pixel_mm, size / 2)
        start = int(np.clip(place - half, 0, size - 2 * half))
        part.append(slice(start, start + int(2 * half)))
    figures.show_slice(axes, rgb[tuple(part)], plane, pixel_mm)
    axes.set_title(failure.cause, fontsize=9)


def gallery(
    found: Sequence[tuple[Failure, ErrorPiece | None]],
    scans: Mapping[tuple[str, str, int], Segmented],
    columns: int = 4,
) -> Figure:
    """Draw failures side by side, each with its surroundings, marks of orientation and scale.

    Args:
        found: failures with what `find` returned; those without a piece are left out.
        scans: what `segment_all` returned.
        columns: pictures in a row.
    """
    shown = [(failure, piece) for failure, piece in found if piece is not None]
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.75 * columns, 1.95 * rows + 0.25), layout="constrained", dpi=66)
    every = figure.subplots(rows, columns, squeeze=False)
    for axes in every.flat:
        axes.set_axis_off()
    for axes, (failure, piece) in zip(every.flat, shown):
        draw_failure(axes, failure, scans[failure.key], piece)
    handles = figures.legend_handles(render.ERROR_SWATCHES[:3])
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def volume_bars(amounts: Mapping[str, Sequence[Amount]], title: str = "") -> Figure:
    """Draw true and predicted volumes side by side, for each structure of each scan.

    Args:
        amounts: by scan, what `compare_volumes` returned; what has no true volume is left out.
        title: of the figure.
    """
    rows = [(scan, one) for scan, of in amounts.items() for one in of if one.truth_ml]
    place = np.arange(len(rows))
    figure = Figure(figsize=(2.5 + 0.7 * len(rows), 2.7), layout="constrained")
    axes = figure.subplots()
    look = {"width": 0.4, "edgecolor": "black"}
    truth, guess = ([one.truth_ml for _, one in rows], [one.predicted_ml for _, one in rows])
    axes.bar(place - 0.2, truth, color="#56B4E9", label="truth", **look)
    axes.bar(place + 0.2, guess, color="#E69F00", hatch="//", label="predicted", **look)
    axes.set_xticks(place, [f"{one.name}\n{scan}" for scan, one in rows])
    axes.set(ylabel="volume in ml", title=title)
    figure.legend(frameon=False, loc="outside right center")
    return figure


def dots(values: Mapping[str, Mapping[str, Sequence[float]]], label: str, limits=(0, 1)) -> Figure:
    """Draw every value as a mark, a row for each condition, with a tick at the mean.

    Args:
        values: by name of a series (a model) and condition, one value for each scan.
        label: of the axis.
        limits: of the axis.
    """
    conditions = list(next(iter(values.values())))
    height = 0.9 + 0.26 * len(conditions) * max(1, 0.6 * len(values))
    figure = Figure(figsize=(5.8, height), layout="constrained")
    axes = figure.subplots()
    offsets = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [0.0]
    for (name, of), offset, (marker, colour) in zip(values.items(), offsets, _MARKERS):
        for place, condition in enumerate(conditions):
            one, y = np.asarray(of[condition], float), place + offset
            shown = name if place == 0 and len(values) > 1 else None
            axes.plot(one, [y] * len(one), marker, color=colour, mfc="none", label=shown)
            axes.plot([one.mean()] * 2, [y - 0.18, y + 0.18], color="black")
    axes.set_yticks(range(len(conditions)), conditions)
    axes.set(xlabel=label, xlim=limits, ylim=(len(conditions) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    if len(values) > 1:
        figure.legend(frameon=False, loc="outside upper center", ncols=len(values))
    return figure


def sagittal_maps(ct: Volume, maps: Mapping[str, np.ndarray], index: int) -> Figure:
    """Draw a sagittal slice of several maps, each from 0 (black) to its largest value (bright).

    Args:
        ct: gives the grid.
        maps: by title, arrays [x, y, z].
        index: voxel index along x.
    """
    figure = Figure(figsize=(1.8 * len(maps), 2.2), layout="constrained", dpi=66)
    row = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, values) in zip(row, maps.items()):
        _draw_map(axes, geometry.to_slices(np.asarray(values, np.float32), "sagittal")[index], ct)
        axes.set_title(name, fontsize=9)
    return figure


def _draw_map(axes: Axes, image_hw: np.ndarray, ct: Volume) -> None:
    _, y_mm, z_mm = ct.spacing_mm
    height, width = image_hw.shape[0] * z_mm, image_hw.shape[1] * y_mm
    axes.imshow(
        image_hw, cmap="magma", vmin=0, interpolation="nearest", extent=(0, width, height, 0)
    )
    axes.set_axis_off()
    ink = {"color": "white", "fontsize": 8, "fontweight": "bold"}
    axes.text(0.02, 0.5, "A", transform=axes.transAxes, va="center", **ink)
    axes.text(0.98, 0.5, "P", transform=axes.transAxes, va="center", ha="right", **ink)
    length = geometry.scale_bar_mm(width)
    axes.plot([4, 4 + length], [0.95 * height] * 2, color="white", linewidth=2)
    axes.text(4 + length / 2, 0.93 * height, f"{length:g} mm", ha="center", va="bottom", **ink)
