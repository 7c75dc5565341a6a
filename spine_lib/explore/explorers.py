"""Explorers for the lessons: one question each, a slider or two to move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from spine_lib import SpineError, metrics
from spine_lib.ct.geometry import cut_slice, pixel_size_mm
from spine_lib.ct.volume import Volume
from spine_lib.explore import controls as ui
from spine_lib.explore.overlays import OKABE_ITO
from spine_lib.explore.render import Style, render_slice
from spine_lib.explore.scene import Scene, is_spine, score_text
from spine_lib.explore.viewers import ScanViewer
from spine_lib.metrics.paper import PAPER, PREVALENCE, within_rounding

THRESHOLDS = np.arange(1, 100) / 100
CURVES = ("Dice", "IoU", "precision", "recall", "accuracy")


class WindowExplorer(ScanViewer):
    """Show a slice beside the histogram of its scan, with the window drawn on it.

    Args:
        ct, index, window, case_id: as for `SliceViewer`; the slice is axial.
    """

    def __init__(
        self,
        ct: Volume,
        index: int | None = None,
        window: str | tuple[float, float] = "soft tissue",
        case_id: str = "",
    ) -> None:
        super().__init__([Scene(ct, case_id=case_id)], window, "axial", index)
        self.shares = ui.Caption()
        self._counts, self._edges = hu_histogram(self.scene.ct.array)
        left = ui.column(*self.pictures, self.below, self.caption, width_px=456)
        self._turn()
        self._arrange(ui.row(left, ui.column(self.window, self.chart, self.shares, width_px=366)))

    def _draw(self) -> None:
        window = self.window.window
        low, high = window.center - window.width / 2, window.center + window.width / 2
        self.note = f", window {low:g} to {high:g} HU"
        super()._draw()
        middle = (self._edges[:-1] + self._edges[1:]) / 2
        percent = 100 * self._counts / max(self._counts.sum(), 1)
        self.shares.text = text = (
            f"{low:g} HU and less is black ({percent[middle < low].sum():.0f} % of the voxels), "
            f"{high:g} HU and more is white ({percent[middle > high].sum():.0f} %); "
            f"one of the 256 greys spans {window.width / 256:.1f} HU."
        )
        steps = np.repeat(self._edges, 2)[1:-1], np.repeat(np.log10(1 + self._counts), 2)
        alt = f"Histogram of case {self.scene.case_id} with the window on it. {text}"
        y_range, labels = (0, float(max(steps[1].max(), 1))), ("HU", "log10 of voxels")
        self.chart.show({"voxels": steps}, alt, labels, y_range=y_range, band=[low, high])


def hu_histogram(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and edges of bins from -1100 to 2000 HU, the outermost with what lies beyond.

    Of a large scan every second (third ...) voxel is counted.
    """
    step = max(1, int(np.ceil((array.size / 1_000_000) ** (1 / 3))))
    ends = (-1100, 2000)
    return np.histogram(np.clip(array[::step, ::step, ::step], *ends), 155, ends)


class ThresholdExplorer(ScanViewer):
    """Move the threshold of a probability and see the errors and every score of the volume.

    Args:
        ct, mask, ignore, case_id, window: as for `SliceViewer`; the mask is the truth.
        probability: float, 0 to 1, on the grid of the CT.
        tolerance_mm: of the surface Dice; it and HD95 take a tenth of a second on a crop of the
            spine, and seconds on a whole scan.

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
        tolerance_mm: float = 2.0,
    ) -> None:
        scene = Scene(ct, mask, probability, ignore, case_id, Style("error"))
        super().__init__([scene], window)
        self.tolerance_mm, self._surfaces = tolerance_mm, {}
        if probability.array.dtype.kind != "f":
            raise SpineError(
                f"The probability is {probability.array.dtype}: give what predict_volume returns, "
                "not a mask that was thresholded already."
            )
        self.threshold = ui.Slider("threshold", 0.5, 0.01, 0.99, 0.01)
        self.all_scores = ui.Caption()
        self._confusions = counts_by_threshold(probability, mask, ignore)
        self._curves = {
            name: (THRESHOLDS, [metrics.SCORES[name.lower()](pair) for pair in self._confusions])
            for name in CURVES
        }
        ui.Observer(self._draw, self.threshold)
        self.chart.follow(self.threshold)
        left = ui.column(*self.pictures, self.below, self.caption, width_px=456)
        right = (self.threshold, self.chart, self.all_scores, self.window)
        self._turn()
        self._arrange(ui.row(left, ui.column(*right, width_px=366)))

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the whole volume at the current threshold, with "nsd" and "hd95"."""
        scene, threshold = self.scene, self.threshold.value
        if threshold not in self._surfaces:
            pair = is_spine(scene.prediction.array, threshold), is_spine(scene.mask.array)
            skip = None if scene.ignore is None else scene.ignore.array > 0
            distances = metrics.surface_distances(*pair, scene.ct.spacing_mm, skip)
            nsd, hd95 = metrics.nsd(distances, self.tolerance_mm), metrics.hd95(distances)
            self._surfaces[threshold] = {"nsd": nsd, "hd95": hd95}
        return metrics.scores(self._confusions[self._position()]) | self._surfaces[threshold]

    def _position(self) -> int:
        return int(np.abs(THRESHOLDS - self.threshold.value).argmin())

    def _draw(self) -> None:
        threshold, counts = self.threshold.value, self._confusions[self._position()]
        self.scene.style = replace(self.scene.style, threshold=threshold)
        self.note = f", threshold {threshold:.2f}"
        super()._draw()
        curves = {name: values[self._position()] for name, (_, values) in self._curves.items()}
        words = ", ".join(f"{name} {score_text(value)}" for name, value in curves.items())
        scores = self.scores
        hd95 = f"{scores['hd95']:.1f} mm" if np.isfinite(scores["hd95"]) else "without a value"
        text = (
            f"At {threshold:.2f} the volume has {words}; "
            f"{counts.tp} true positive, {counts.fp} false positive, {counts.fn} false negative "
            f"and {counts.tn} true negative voxels; "
            f"F1 {score_text(scores['f1'])}, the same as Dice; "
            f"mean IoU of background and spine {score_text(scores['iou_mean'])}; "
            f"surface Dice at {self.tolerance_mm:g} mm {score_text(scores['nsd'])}; HD95 {hd95}"
        )
        self.all_scores.text = f"{text}."
        alt = f"Scores of case {self.scene.case_id} by threshold. {text}."
        self.chart.show(self._curves, alt, ("threshold", "score"), threshold)


def counts_by_threshold(
    probability: Volume, mask: Volume, ignore: Volume | None = None
) -> list[metrics.Confusion]:
    """Return the counts at every threshold of `THRESHOLDS`, from which on a voxel is predicted.

    Args:
        probability, mask, ignore: as for `ThresholdExplorer`.
    """
    truth, steps = is_spine(mask.array), THRESHOLDS.astype(probability.array.dtype)
    scored, counts = True if ignore is None else ~(ignore.array > 0), []
    for inside in (truth & scored, ~truth & scored):
        values = probability.array[inside]
        passed = np.sort(values[values >= steps[0]])
        positive = passed.size - np.searchsorted(passed, steps)
        counts.append((positive, values.size - positive))
    (tp, fn), (fp, tn) = counts
    return [metrics.Confusion(*map(int, at_one)) for at_one in zip(tp, fp, fn, tn)]


_UNSAFE = {"ensure_safe_range": False}
STEPS: dict[str, Callable] = {
    "rotation": lambda A, s: A.Affine(rotate=(25 * s, 25 * s), p=1),
    "zoom": lambda A, s: A.Affine(scale=(1 + 0.5 * s, 1 + 0.5 * s), p=1),
    "shear": lambda A, s: A.Affine(shear={"x": (20 * s, 20 * s), "y": (0, 0)}, p=1),
    "mirror": lambda A, s: A.HorizontalFlip(p=1),
    "elastic": lambda A, s: A.ElasticTransform(alpha=160 * s, sigma=6, approximate=True, p=1),
    "contrast": lambda A, s: A.RandomBrightnessContrast((0, 0), (0.6 * s,) * 2, p=1, **_UNSAFE),
    "brightness": lambda A, s: A.RandomBrightnessContrast((0.3 * s,) * 2, (0, 0), p=1, **_UNSAFE),
    "blur": lambda A, s: A.GaussianBlur(blur_limit=0, sigma_limit=(3 * s, 3 * s), p=1),
    "coarse": lambda A, s: A.Downscale((1 - 0.85 * s, 1 - 0.85 * s), p=1),
    "noise": lambda A, s: A.GaussNoise(std_range=(0.15 * s, 0.15 * s), p=1),
}
"""albumentations steps by name, as functions of the module and of a strength above 0, up to 1."""
MOVES_MASK = ("rotation", "zoom", "shear", "mirror", "elastic")


def augment_slice(
    image_hu: np.ndarray, mask: np.ndarray, step: str, strength: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice [row, column] and its mask after a step of a strength from 0 (nothing) to 1.

    The slice is float32 HU within the range that the networks see, the mask uint8 labels.
    """
    from spine_lib.slices import augment  # imports OpenCV and torch

    unit = np.ascontiguousarray(augment.to_unit(image_hu), np.float32)
    mask = np.ascontiguousarray(mask, np.uint8)
    if strength > 0:
        import albumentations as A  # after `augment`, which keeps it off the network

        pipeline = A.Compose([STEPS[step](A, float(strength))])
        pipeline.set_random_seed(seed)
        moved = pipeline(image=unit, mask=mask)
        unit, mask = np.clip(moved["image"], 0, 1), moved["mask"]
    return augment.from_unit(unit), mask


class AugmentationExplorer(ScanViewer):
    """Show a slice before and after one augmentation step of a chosen strength.

    Args:
        ct, mask, index, case_id: as for `SliceViewer`; the slice is axial.
    """

    def __init__(
        self, ct: Volume, mask: Volume, index: int | None = None, case_id: str = ""
    ) -> None:
        style = Style("outline", outline_px=2)
        scenes = [Scene(ct, mask, None, None, case_id, style, name) for name in ("Before", "After")]
        super().__init__(scenes, "soft tissue", "axial", index, 360)
        self.step = ui.choice("step", tuple(STEPS), "rotation")
        self.strength = ui.Slider("strength", 0.5, 0.0, 1.0, 0.05)
        self.seed = ui.Slider("seed", 0, 0, 20)
        controls = (self.step, self.strength, self.seed)
        ui.Observer(self._draw, *controls)
        tools = ui.row(ui.column(self.below, *controls), self.window)
        self.before, self.after = self.pictures
        self._turn()
        self._arrange(ui.board(self.pictures), self.caption, tools)

    def _show(self, picture: ui.Picture, scene: Scene, index: int, plane: str) -> None:
        if picture is self.before:
            super()._show(picture, scene, index, plane)
            return
        image, labels = (cut_slice(volume, index, plane) for volume in (scene.ct, scene.mask))
        step, strength = self.step.value, self.strength.value
        image, labels = augment_slice(image, labels, step, strength, self.seed.value)
        ct, mask = (  # each as a volume of one axial slice
            Volume(np.ascontiguousarray(array[::-1, ::-1].T)[:, :, None], scene.ct.affine)
            for array in (image, labels > 0 if scene.binary else labels)
        )
        rgb = render_slice(ct, 0, plane, self.window.window, mask, style=scene.style)
        title = f"After {step} of strength {strength:.2f}"
        alt = scene.alt_text(index, plane).replace(scene.title, title, 1)
        picture.show(rgb, alt, title, plane, pixel_size_mm(scene.ct, plane))

    def slice_text(self, index: int, plane: str) -> str:
        moved = "image and mask alike" if self.step.value in MOVES_MASK else "the image alone"
        return f"{self.step.value.title()} changes {moved}; {super().slice_text(index, plane)}"


FIELD, CELL = 65, 6
SAME, DOUBLING, ASPP = "the same in all layers", "doubling in each layer", "ASPP: 1x1 and 6, 12, 18"


def count_paths(kernel: int, dilations: Sequence[int]) -> np.ndarray:
    """Return how many paths lead from each input pixel to one output pixel through layers.

    Args:
        kernel: odd side of the kernels, of stride 1.
        dilations: of each layer in turn, 1 or more.

    Returns:
        int64 [row, column], odd and square, the output pixel in its middle; 0 is not seen.

    Example:
        >>> count_paths(3, [1, 1]).shape, count_paths(3, [2])[0].tolist()
        ((5, 5), [1, 0, 1, 0, 1])
    """
    line = np.ones(1, np.int64)
    for dilation in dilations:
        comb = np.zeros((kernel - 1) * dilation + 1, np.int64)
        comb[::dilation] = 1
        line = np.convolve(line, comb)
    return np.outer(line, line)


def count_paths_aspp(rates: Sequence[int] = (6, 12, 18)) -> np.ndarray:
    """Count the paths through parallel branches: one 1x1 and a dilated 3x3 for each rate."""
    branches = [np.ones((1, 1), np.int64), *(count_paths(3, [rate]) for rate in rates)]
    side = max(map(len, branches))
    return sum(np.pad(branch, (side - len(branch)) // 2) for branch in branches)


class ReceptiveFieldExplorer(ui.Viewer):
    """Choose layers, kernel and dilation, and see the receptive field of one output pixel.

    Dilation widens the field at no cost, and leaves holes in it where every layer dilates alike
    (gridding; Wang et al. 2018, doi:10.1109/WACV.2018.00163).
    """

    def __init__(self) -> None:
        super().__init__()
        self.pattern = ui.choice("dilation is", (SAME, DOUBLING, ASPP), SAME)
        self.layers = ui.Slider("layers", 3, 1, 5)
        self.kernel = ui.Slider("kernel", 3, 1, 7, 2)
        self.dilation = ui.Slider("dilation", 1, 1, 6)
        self.picture = ui.Picture()
        self.pictures = [self.picture]
        controls = (self.pattern, self.layers, self.kernel, self.dilation)
        ui.Observer(self._draw, *controls)
        self._arrange(ui.row(self.picture, ui.column(*controls, self.caption, width_px=400)))

    @property
    def seen(self) -> np.ndarray:
        """How much each input pixel counts, [row, column]; 0 is not seen."""
        if self.pattern.value == ASPP:
            return count_paths_aspp()
        growth = 2 if self.pattern.value == DOUBLING else 1
        dilations = [self.dilation.value * growth**layer for layer in range(self.layers.value)]
        return count_paths(self.kernel.value, dilations)

    def _draw(self) -> None:
        seen = self.seen
        count = int(np.count_nonzero(seen))
        side = int(max(np.ptp(positions) for positions in np.nonzero(seen))) + 1
        text = (
            f"One output pixel sees {count} of the {side} x {side} = {side * side} input pixels "
            f"around it ({100 * count / side**2:.0f} %)."
        )
        pad, crop = max(0, FIELD - len(seen)) // 2, max(0, len(seen) - FIELD) // 2
        seen = np.pad(seen[crop : len(seen) - crop, crop : len(seen) - crop], pad)
        if crop:
            text += f" The picture shows the middle {FIELD} x {FIELD}."
        self.caption.text = text
        self.picture.show(_field_picture(seen), text)


def _field_picture(seen: np.ndarray) -> np.ndarray:
    """Draw pixels as cells, brighter the more they count, the output pixel with a red rim."""
    strength = np.log1p(1000 * seen / seen.max()) / np.log1p(1000)
    ramp = np.array([[24, 24, 24], [0, 90, 140], [86, 180, 233], [255, 255, 255]], float)
    knots = np.linspace(0, 1, len(ramp))
    rgb = np.stack([np.interp(strength, knots, ramp[:, band]) for band in range(3)], axis=2)
    rgb[(seen > 0) & (strength < 0.15)] = ramp[1]
    cells = np.kron(rgb, np.ones((CELL, CELL, 1))).astype(np.uint8)
    cells[::CELL], cells[:, ::CELL] = 0, 0
    middle = slice(len(seen) // 2 * CELL, (len(seen) // 2 + 1) * CELL)
    block = cells[middle, middle]
    block[[0, -1]], block[:, [0, -1]] = OKABE_ITO["vermillion"], OKABE_ITO["vermillion"]
    return cells


FITTED = {"class-mean IoU": ("iou_mean", "iou"), "accuracy": ("accuracy", "accuracy")}
"""What the prevalence explorer draws: its name in `metrics.SCORES` and in a row of a table."""


def shares(dice: float, prevalence: float, alarms: float = 0.5) -> metrics.Confusion:
    """Return the four counts of a mask pair as shares of all voxels.

    `alarms` is the share of the wrong voxels that are false positives, 0 to 1.
    """
    wrong_for_each_right = 2 * (1 - dice) / dice
    tp = prevalence / (1 + (1 - alarms) * wrong_for_each_right)
    fp = alarms * wrong_for_each_right * tp
    return metrics.Confusion(tp, fp, prevalence - tp, 1 - prevalence - fp)


class PrevalenceExplorer(ui.Viewer):
    """Choose a row of the paper's table, and move the prevalence until its scores fit."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = {str(row["name"]): row for row in PAPER.values()}
        self.model = ui.choice("row", tuple(self._rows), next(iter(self._rows)))
        self.percent = ui.Slider("spine, %", 100 * PREVALENCE, 0.1, 20.0, 0.01)
        self.alarms = ui.Slider("false alarms", 0.5, 0.0, 1.0, 0.05)
        controls = (self.model, self.percent, self.alarms)
        ui.Observer(self._draw, *controls)
        self.chart.follow(self.percent)
        self._arrange(ui.column(*controls, self.chart, self.caption, width_px=560))

    def _scores(self, percent: float) -> dict[str, float]:
        dice = self._rows[self.model.value]["dice"]
        return metrics.scores(shares(dice, percent / 100, self.alarms.value))

    def _draw(self) -> None:
        printed, percent = self._rows[self.model.value], self.percent.value
        scores, wide = self._scores(percent), np.linspace(0.1, 20, 200)
        self.fits, lines, texts = {}, {}, []
        curves = [self._scores(share) for share in wide]
        for name, (key, column) in FITTED.items():
            self.fits[name] = within_rounding(printed[column]).contains(scores[key])
            lines[name] = wide, np.array([point[key] for point in curves])
            lines[f"printed {name.split()[-1]}"] = wide[[0, -1]], np.full(2, printed[column])
            texts.append(f"{name} is {scores[key]:.4f} and {printed[column]:.3f} is printed")
            texts[-1] += f" ({'fits' if self.fits[name] else 'does not fit'})"
        self.caption.text = text = (
            f"{self.model.value}: with Dice {printed['dice']:.3f}, {percent:.2f} % "
            f"spine and {self.alarms.value:.0%} of the errors false alarms, {' and '.join(texts)}."
        )
        self.chart.show(lines, text, ("spine, % of the voxels", "score"), percent, (0.85, 1))
