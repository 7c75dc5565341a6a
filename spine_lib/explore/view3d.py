"""The spine in 3D: turned by hand where ipyniivue and WebGL are there, as still views elsewhere.

A still view keeps the first labelled voxel along every ray, shaded by the gradient of its depth.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from scipy import ndimage

from spine_lib.ct import geometry
from spine_lib.ct.volume import Volume
from spine_lib.explore import controls as ui
from spine_lib.explore.overlays import Swatch, colour, label_swatches, pixel_kinds
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene

if TYPE_CHECKING:
    from ipyniivue import NiiVue

SENT_VOXELS = 160
"""Most voxels along an axis that are sent to the browser; a larger scan is thinned."""

BACKGROUND = 24
VIEWS = {"front": ("coronal", False), "left": ("sagittal", False), "back": ("coronal", True)}
"""The plane of each still view, and whether it is seen from behind."""
_LIGHT = np.array([-0.4, 0.5, 0.77]) / np.linalg.norm([-0.4, 0.5, 0.77])


class SurfaceViewer(ui.Viewer):
    """Show a CT and its mask in 3D: from the front, the left and the back, and to turn by hand.

    The scene to turn, `scene_3d`, needs ipyniivue, which draws with WebGL in the browser.

    Args:
        ct: scan in HU.
        mask: canonical labels or booleans on its grid.
        colouring: "spine", "region" or "vertebra".
        case_id: name in alt texts.

    Raises:
        SpineError: where the grids differ.
    """

    def __init__(
        self, ct: Volume, mask: Volume, colouring: str = "region", case_id: str = ""
    ) -> None:
        super().__init__()
        self.scene = Scene(ct, mask, None, None, case_id, Style("fill", colouring))
        self.pictures = [ui.Picture(272) for _ in VIEWS]
        installed = importlib.util.find_spec("ipyniivue") is not None
        self.scene_3d = _niivue(self.scene) if installed else None
        if not installed:
            self.caption.text = "To turn the spine by hand, install ipyniivue (the extra lessons)."
        turned = [self.scene_3d] if installed else []
        self._arrange(*turned, ui.board(self.pictures), self.caption)

    def swatches(self) -> list[Swatch]:
        """Return the legend of the surface."""
        return self.scene.swatches(self.scene.count_slices().labels)

    def _draw(self) -> None:
        mask = self.scene.mask
        for picture, (view, (plane, behind)) in zip(self.pictures, VIEWS.items()):
            alt = f"Surface of the mask of case {self.scene.case_id} seen from the {view}."
            rgb = surface_picture(mask, view, self.scene.style.colouring)
            title, pixel_mm = f"from the {view}", geometry.pixel_size_mm(mask, plane)
            picture.show(rgb, alt, title, plane, pixel_mm, mirrored=behind)
        self.caption.swatches = ui.swatch_list(self.swatches())


view_3d = SurfaceViewer


def surface_picture(mask: Volume, view: str, colouring: str = "region") -> np.ndarray:
    """Return the surface of a label map from a side of `VIEWS`, shaded by its gradient.

    Returns:
        uint8 [row, column, 3] with square pixels; from the left the patient's front is on the left.
    """
    plane, behind = VIEWS[view]
    cut = geometry.plane_axes(plane)[0]
    along = np.moveaxis(mask.array, cut, 0)
    if view == "front":  # rays start where the axis ends
        along = along[::-1]
    solid = along > 0
    hit, first = solid.any(axis=0), solid.argmax(axis=0)
    labels = np.take_along_axis(along, first[None], 0)[0] * hit
    shape_hw = geometry.picture_shape(mask, plane, None)
    depth, labels, hit = (
        geometry.resample_labels(image.T[::-1, ::-1], shape_hw) for image in (first, labels, hit)
    )
    depth_px = depth * mask.spacing_mm[cut] / geometry.pixel_size_mm(mask, plane)
    grey = np.where(hit, 255 * _shade(depth_px, hit), BACKGROUND)
    if behind:  # before the hatching, which must not be mirrored
        grey, labels = grey[:, ::-1], labels[:, ::-1]
    binary = mask.array.dtype.kind in "bf"
    areas = np.ascontiguousarray(labels > 0 if binary else labels, np.uint8)
    swatches = label_swatches("spine" if binary else colouring)
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    return colour(grey, areas, pixel_kinds(areas, swatches, 0), swatches, 0.6)


def _shade(depth_px: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Return the brightness of a surface from its depth, lit from the upper left."""
    filled = np.where(hit, depth_px, depth_px[hit].max() if hit.any() else 0)
    # Labels are blocky: without smoothing only steps would show.
    down, across = np.gradient(ndimage.uniform_filter(filled.astype(float), 5, mode="nearest"))
    towards = _LIGHT[2] + _LIGHT[0] * across - _LIGHT[1] * down
    return 0.35 + 0.75 * np.clip(towards / np.sqrt(1 + across**2 + down**2), 0, 1)


def _niivue(scene: Scene) -> NiiVue:
    from ipyniivue import NiiVue, SliceType
    from ipyniivue import Volume as Layer
    from ipyniivue.traits import LUT

    layers = []
    for name, volume, kind in (("ct", scene.ct, np.int16), ("mask", scene.mask, np.uint8)):
        x, y, z = steps = [max(1, -(-size // SENT_VOXELS)) for size in volume.shape]
        array = volume.array[::x, ::y, ::z]
        affine = volume.affine @ np.diag([*steps, 1.0])
        image = nib.Nifti1Image(np.ascontiguousarray(array, kind), affine)
        layers.append({"data": image.to_bytes(), "name": f"{name}.nii"})
    last = int(array.max())
    swatches = label_swatches("spine" if scene.binary else scene.style.colouring)[:last]
    colours = np.array([(0, 0, 0, 0), *((*swatch.rgb, 255) for swatch in swatches)], np.uint8)
    lut = LUT(lut=colours.ravel().tolist(), min=0, max=last, labels=[*map(str, range(last + 1))])
    viewer = NiiVue(height=420, slice_type=SliceType.RENDER)
    grey = {"colormap": "gray", "cal_min": 150.0, "cal_max": 1500.0, "opacity": 0.4}
    viewer.load_volumes(
        [Layer(**layers[0], **grey), Layer(**layers[1], colormap_label=lut, opacity=1.0)]
    )
    return viewer
