"""See the spine in 3D: turned by hand where ipyniivue and WebGL are there, still where not.

The still needs NumPy alone: each view keeps the first labelled voxel along every ray, and shades
it by the slope of that depth.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import ipywidgets as widgets
import nibabel as nib
import numpy as np

from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import Volume
from spine_lib.explore import render
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import row
from spine_lib.explore.overlays import Paint, paint_areas, paints_by_id
from spine_lib.explore.picture import Picture, legend_html, paints_shown, text_html
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene

if TYPE_CHECKING:
    from ipyniivue import NiiVue

SENT_VOXELS = 160
"""Most voxels along an axis that are sent to the browser; larger scans are thinned."""

BACKGROUND = 24
VIEWS = {"front": ("coronal", False), "left": ("sagittal", False), "back": ("coronal", True)}
_LIGHT = np.array([-0.4, 0.5, 0.77])


class SurfaceView(Viewer):
    """Show the surface of a label map from the front, the left and the back, with a 3D view.

    `scene_3d` is the ipyniivue widget, or None where the package is missing.
    """

    def __init__(self, scene: Scene, colouring: str, scene_3d: NiiVue | None) -> None:
        self.scene_3d, self._scene, self._colouring = scene_3d, scene, colouring
        self._pictures = []
        for view, (plane, behind) in VIEWS.items():
            picture = Picture(272)
            rgb = surface_picture(scene.mask, view, colouring)
            alt = f"Surface of the mask of case {scene.case_id} seen from the {view}."
            pixel_mm = render.pixel_size_mm(scene.mask, plane)
            picture.show(rgb, alt, plane, pixel_mm, mirrored=behind)
            self._pictures.append(picture)
        still = [row(*self._pictures), widgets.HTML(legend_html(self.paints()))]
        super().__init__([self._live(), *still])

    def _live(self) -> widgets.Widget:
        if self.scene_3d is not None:
            return self.scene_3d
        text = "To turn the spine by hand, install ipyniivue (the extra viz3d)."
        return widgets.HTML(text_html(text))

    def pictures(self) -> list[Picture]:
        """Return the still views."""
        return self._pictures

    def paints(self) -> list[Paint]:
        """Return the paints of the surface."""
        labels = np.unique(_thinned(self._scene.mask)[0])
        style = Style(colouring=self._colouring)
        return paints_shown(labels[labels > 0].tolist(), style, self._scene.binary, False)


def view_3d(ct: Volume, mask: Volume, colouring: str = "region", case_id: str = "") -> SurfaceView:
    """Show a CT and its mask in 3D.

    Args:
        ct: scan in HU.
        mask: canonical labels or booleans on its grid.
        colouring: "spine", "region" or "vertebra".
        case_id: name in alt texts.

    Returns:
        A viewer with still views of the surface, and above them a 3D scene to turn with the mouse
        where ipyniivue is installed (it draws with WebGL in the browser).

    Raises:
        SpineError: where the grids differ, or the mask is empty.
    """
    scene = Scene(ct, mask, case_id=case_id)
    found = importlib.util.find_spec("ipyniivue") is not None
    return SurfaceView(scene, colouring, _niivue(scene, colouring) if found else None)


def surface_picture(mask: Volume, view: str, colouring: str = "region") -> np.ndarray:
    """Draw the surface of a label map, shaded by its slope.

    Args:
        mask: canonical labels or booleans.
        view: "front", "left" or "back"; from the left the patient's front is on the left.
        colouring: "spine", "region" or "vertebra".

    Returns:
        uint8 [row, column, 3] with square pixels.

    Raises:
        SpineError: for an unknown view or colouring.
    """
    planes.require_choice("view", view, tuple(VIEWS))
    plane, behind = VIEWS[view]
    cut = planes.plane_axes(plane)[0]
    along = np.moveaxis(mask.array, cut, 0)
    if view == "front":  # rays start where the axis ends
        along = along[::-1]
    solid = along > 0
    hit = solid.any(axis=0)
    first = solid.argmax(axis=0)
    labels = np.take_along_axis(along, first[None], 0)[0] * hit
    step_mm = mask.spacing_mm[cut]
    shape_hw = planes.picture_shape(mask, plane, None)
    depth, labels, hit = (
        planes.resample_labels(one.T[::-1, ::-1], shape_hw) for one in (first, labels, hit)
    )
    pixel_mm = planes.pixel_size_mm(mask, plane)
    grey = np.where(hit, 255 * _shade(depth * step_mm / pixel_mm, hit), BACKGROUND)
    if behind:  # before the hatching, which must not be mirrored
        grey, labels = grey[:, ::-1], labels[:, ::-1]
    binary = mask.array.dtype.kind in "bf"
    areas = np.ascontiguousarray(labels > 0 if binary else labels, np.uint8)
    paints = paints_by_id("spine" if binary else colouring)
    return paint_areas(np.clip(grey, 0, 255).astype(np.uint8), areas, paints, 0.6, 0)


def _shade(depth: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Return the brightness of a surface from its depth in pixels, lit from the upper left."""
    filled = np.where(hit, depth, depth[hit].max() if hit.any() else 0).astype(float)
    for axis in (0, 1):  # labels are blocky: a little smoothing, or only steps would show
        filled = sum(np.roll(filled, step, axis) for step in (-2, -1, 0, 1, 2)) / 5
    down, across = np.gradient(filled)
    normal = np.stack([across, -down, np.ones_like(filled)], axis=2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    return 0.35 + 0.75 * np.clip(normal @ (_LIGHT / np.linalg.norm(_LIGHT)), 0, 1)


def _thinned(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Return every second (third ...) voxel of a large volume and the affine that fits."""
    steps = [max(1, -(-size // SENT_VOXELS)) for size in volume.shape]
    x, y, z = steps
    return volume.array[::x, ::y, ::z], volume.affine @ np.diag([*steps, 1.0])


def _niivue(scene: Scene, colouring: str) -> NiiVue:
    from ipyniivue import NiiVue, SliceType
    from ipyniivue import Volume as Layer

    ct, affine = _thinned(scene.ct)
    mask, _ = _thinned(scene.mask)
    # Ids by kind, since a colour map that the package ships has no regions of the spine.
    layers = [
        Layer(
            data=nib.Nifti1Image(np.ascontiguousarray(ct, np.int16), affine).to_bytes(),
            name="ct.nii",
            colormap="gray",
            cal_min=150.0,
            cal_max=1500.0,
            opacity=0.4,
        ),
        Layer(
            data=nib.Nifti1Image(np.ascontiguousarray(mask, np.uint8), affine).to_bytes(),
            name="mask.nii",
            colormap_label=_lut(mask, scene.binary, colouring),
            opacity=1.0,
        ),
    ]
    viewer = NiiVue(height=420, slice_type=SliceType.RENDER)
    viewer.load_volumes(layers)
    return viewer


def _lut(mask: np.ndarray, binary: bool, colouring: str):
    """Return the colours of a label map as niivue takes them."""
    from ipyniivue.traits import LUT

    last = int(mask.max())
    paints = paints_by_id("spine" if binary else colouring)[:last]
    table = np.array([(0, 0, 0, 0), *((*paint.rgb, 255) for paint in paints)], np.uint8)
    return LUT(
        lut=table.ravel().tolist(), min=0, max=last, labels=[str(i) for i in range(last + 1)]
    )
