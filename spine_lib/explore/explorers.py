"""Small explorers for the lessons: one question each, one slider to move."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import Volume
from spine_lib.explore import charts, render
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import Held, WindowControls, column, part, row, whole
from spine_lib.explore.counts import count_slices, is_spine, slabs
from spine_lib.explore.overlays import Paint
from spine_lib.explore.picture import Picture, legend_html, text_html
from spine_lib.explore.pointer import Pointer
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene, dice_text, score_text, voxel_at_share
from spine_lib.metrics import overlap as metrics

PLANE = "axial"
HISTOGRAM_HU = (-1100, 2000)
HISTOGRAM_VOXELS = 1_000_000
THRESHOLDS = np.arange(1, 100) / 100
CURVES = {
    "Dice": "dice",
    "IoU": "iou",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
}


class WindowExplorer(Viewer):
    """Show a slice beside the histogram of its scan, with the window drawn on it.

    Args:
        ct: scan in HU.
        index: axial slice to begin with; by default the middle one.
        window: a name from `WINDOWS`, or centre and width in HU.
        case_id: name in alt texts.
    """

    def __init__(
        self,
        ct: Volume,
        index: int | None = None,
        window: str | tuple[float, float] = "soft tissue",
        case_id: str = "",
    ) -> None:
        self.scene = Scene(ct, case_id=case_id)
        count = planes.slice_count(ct, PLANE)
        index = count // 2 if index is None else planes.checked_index(ct, index, PLANE)
        self.slice = whole("slice", index, 0, count - 1)
        self.window = WindowControls(window, self._draw)
        self.picture, self.pointer = Picture(420, name="slice"), Pointer(self._pointed)
        self.chart, self.text, self.probed = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._counts, self._edges = hu_histogram(ct.array)
        Held(self._draw).watch(self.slice)
        right = column(self.window, self.chart, self.text, width_px=400)
        left = column(self.slice, self.picture, self.probed, width_px=420)
        super().__init__([row(left, right), self.pointer])
        self._draw()

    def _pointed(self, kind: str, name: str, across: float, down: float) -> None:
        voxel = voxel_at_share(self.scene.ct.shape, PLANE, self.slice.value, across, down)
        self.probed.value = text_html(f"Mouse at {self.scene.voxel_text(voxel, 0.5)}.")

    def _draw(self) -> None:
        ct, index, (centre, width) = self.scene.ct, self.slice.value, self.window.window
        low, high = centre - width / 2, centre + width / 2
        rgb = self.scene.draw(index, PLANE, (centre, width), Style())
        shown = f"window {low:g} to {high:g} HU"
        alt = f"{self.scene.alt_text(index, PLANE, Style())[:-1]}, {shown}."
        self.picture.show(rgb, alt, PLANE, render.pixel_size_mm(ct, PLANE))
        middle = (self._edges[:-1] + self._edges[1:]) / 2
        total = max(self._counts.sum(), 1)
        below, above = (
            100 * self._counts[side].sum() / total for side in (middle < low, middle > high)
        )
        text = (
            f"{low:g} HU and less is black ({below:.0f} % of the voxels), {high:g} HU and more is "
            f"white ({above:.0f} %); one of the 256 greys spans {width / 256:.1f} HU."
        )
        self.text.value = text_html(text)
        alt = f"Histogram of case {self.scene.case_id} with the {shown} on it. {text}"
        self.chart.value = charts.histogram_chart(self._counts, self._edges, (centre, width), alt)


def hu_histogram(array: np.ndarray, bins: int = 155) -> tuple[np.ndarray, np.ndarray]:
    """Count HU in equal bins from -1100 to 2000; of a large scan every second (third ...) voxel.

    Returns:
        Counts and edges; what lies beyond the ends counts to the outermost bins.
    """
    step = max(1, int(np.ceil((array.size / HISTOGRAM_VOXELS) ** (1 / 3))))
    values = np.clip(array[::step, ::step, ::step], *HISTOGRAM_HU)
    return np.histogram(values, bins, HISTOGRAM_HU)


class ThresholdExplorer(Viewer):
    """Move the threshold of a probability and see the errors and every score of the volume.

    Args:
        ct: scan in HU.
        mask: the truth, labels or booleans on its grid.
        probability: float, 0 to 1, on its grid.
        ignore: boolean on its grid, True where nothing is scored.
        case_id: name in alt texts.
        window: a name from `WINDOWS`, or centre and width in HU.
        tolerance_mm: of the surface Dice; with it, that and HD95 follow the slider too. They take
            a tenth of a second on a crop of the spine, and seconds on a whole scan.

    Raises:
        SpineError: where grids differ or the probability holds no fractions.
    """

    def __init__(
        self,
        ct: Volume,
        mask: Volume,
        probability: Volume,
        ignore: Volume | None = None,
        case_id: str = "",
        window: str | tuple[float, float] = "bone",
        tolerance_mm: float | None = None,
    ) -> None:
        self.scene = Scene(ct, mask, probability, ignore, case_id)
        self.tolerance_mm, self._surfaces = tolerance_mm, {}
        if probability.array.dtype.kind != "f":
            raise SpineError(
                f"The probability is {probability.array.dtype}: give what predict_volume returns, "
                "not a mask that was thresholded already."
            )
        counts = count_slices(mask, probability, ignore)
        start = counts.fullest(PLANE)
        last = planes.slice_count(ct, PLANE) - 1
        self.slice = whole("slice", last // 2 if start is None else start, 0, last)
        self.threshold = part("threshold", 0.5, 0.01, 0.99, 0.01)
        self.window = WindowControls(window, self._draw)
        self.picture = Picture(420)
        self.chart, self.text, self.legend = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.more = widgets.HTML()
        self._by_threshold = counts_by_threshold(probability, mask, ignore)
        self._curves = {
            name: (THRESHOLDS, [metrics.SCORES[key](one) for one in self._by_threshold])
            for name, key in CURVES.items()
        }
        Held(self._draw).watch(self.slice, self.threshold)
        left = column(self.slice, self.picture, self.legend, width_px=420)
        right = column(self.threshold, self.chart, self.text, self.more, self.window, width_px=400)
        super().__init__([row(left, right)])
        self._draw()

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the whole volume at the current threshold; "nsd" and "hd95" if asked for."""
        overlap = metrics.scores(self._by_threshold[self._place()])
        return overlap if self.tolerance_mm is None else overlap | self._surface_scores()

    def _surface_scores(self) -> dict[str, float]:
        """Measure the surfaces at the current threshold, each threshold once."""
        threshold = self.threshold.value
        if threshold not in self._surfaces:
            scene = self.scene
            distances = metrics.surface_distances(
                is_spine(scene.prediction.array, threshold),
                is_spine(scene.mask.array),
                scene.ct.spacing_mm,
                None if scene.ignore is None else scene.ignore.array > 0,
            )
            self._surfaces[threshold] = {
                "nsd": metrics.nsd_from_distances(distances, self.tolerance_mm),
                "hd95": metrics.hd95_from_distances(distances),
            }
        return self._surfaces[threshold]

    def paints(self) -> list[Paint]:
        """Return the paints of the errors."""
        return list(render.ERROR_PAINTS[: 3 if self.scene.ignore is None else 4])

    def _place(self) -> int:
        return int(np.abs(THRESHOLDS - self.threshold.value).argmin())

    def _draw(self) -> None:
        scene, index, threshold = self.scene, self.slice.value, self.threshold.value
        style = Style("error", threshold=threshold)
        rgb = scene.draw(index, PLANE, self.window.window, style)
        alt = f"{scene.alt_text(index, PLANE, style)[:-1]}, threshold {threshold:.2f}."
        self.picture.show(rgb, alt, PLANE, render.pixel_size_mm(scene.ct, PLANE))
        here = ", ".join(
            f"{name} {score_text(values[self._place()])}"
            for name, (_, values) in self._curves.items()
        )
        slice_counts = scene.dice_at(index, PLANE, threshold)
        text = f"At {threshold:.2f} the volume has {here}; {dice_text(slice_counts)}."
        self.text.value = text_html(text)
        self.more.value = text_html(self._every_score())
        alt = f"Scores of case {scene.case_id} by threshold. {text}"
        self.chart.value = charts.line_chart(
            self._curves, alt, "threshold", "score", x_mark=threshold
        )
        self.legend.value = legend_html(self.paints())

    def _every_score(self) -> str:
        """Say the counts and what else follows from them; surface distances if asked for."""
        counts, found = self._by_threshold[self._place()], self.scores
        parts = [
            f"{counts.tp} true positive, {counts.fp} false positive, {counts.fn} false negative "
            f"and {counts.tn} true negative voxels",
            f"F1 {score_text(found['f1'])}, the same as Dice",
            f"mean IoU of background and spine {score_text(found['iou_mean'])}",
        ]
        if self.tolerance_mm is not None:
            hd95 = f"{found['hd95']:.1f} mm" if np.isfinite(found["hd95"]) else "without a value"
            parts += [
                f"surface Dice at {self.tolerance_mm:g} mm {score_text(found['nsd'])}",
                f"HD95 {hd95}",
            ]
        return "; ".join(parts) + "."


def counts_by_threshold(
    probability: Volume, mask: Volume, ignore: Volume | None = None
) -> list[metrics.Confusion]:
    """Count right and wrong voxels at every threshold of `THRESHOLDS`, in one pass.

    Args:
        probability: float, 0 to 1.
        mask: labels or booleans on the same grid.
        ignore: boolean on the same grid, True where nothing is scored.

    Returns:
        One `Confusion` a threshold; a probability counts from the threshold on.
    """
    steps = THRESHOLDS.astype(probability.array.dtype)
    reached = np.zeros((2, len(steps) + 1), np.int64)
    total = np.zeros(2, np.int64)
    skip = None if ignore is None else ignore.array
    for _, _, (chance, labels, skipped) in slabs([probability.array, mask.array, skip]):
        truth = is_spine(labels)
        scored = np.ones(truth.shape, bool) if skipped is None else ~(skipped > 0)
        for spine in (0, 1):
            inside = scored & (truth if spine else ~truth)
            total[spine] += np.count_nonzero(inside)
            values = chance[inside & (chance >= steps[0])]
            passed = np.searchsorted(steps, values, side="right")
            reached[spine] += np.bincount(passed, minlength=len(steps) + 1)
    # A voxel that passed k thresholds is predicted at each of the first k.
    false, true = np.cumsum(reached[:, :0:-1], axis=1)[:, ::-1]
    return [
        metrics.Confusion(int(tp), int(fp), int(total[1] - tp), int(total[0] - fp))
        for tp, fp in zip(true, false)
    ]
