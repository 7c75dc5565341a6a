"""Move the share of spine in the data, and see which printed scores one segmentation can have.

All scores of one mask pair follow from four counts, so Dice, the share of spine and the balance of
false alarms and misses fix every other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.explore import charts
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import Held, choice, column, part
from spine_lib.explore.picture import text_html
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics.overlap import Confusion
from spine_lib.metrics.paper import PAPER, PREVALENCE, within_rounding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIGHEST = 0.2
SHARES = np.linspace(0.001, HIGHEST, 200)
SCORES = {"class-mean IoU": "iou_mean", "accuracy": "accuracy"}
"""What is drawn, and its name in `metrics.SCORES`."""


def shares(dice: float, prevalence: float, alarms: float = 0.5) -> Confusion:
    """Return the four counts of one mask pair as shares of all voxels.

    Args:
        dice: of the spine, above 0.
        prevalence: share of the voxels that are spine in the truth.
        alarms: share of the wrong voxels that are false positives, 0 to 1.

    Raises:
        SpineError: if no pair has them, because more voxels would be wrong than there are.
    """
    wrong_for_each_right = 2 * (1 - dice) / dice if dice > 0 else np.inf
    tp = prevalence / (1 + (1 - alarms) * wrong_for_each_right)
    fp = alarms * wrong_for_each_right * tp
    if not np.isfinite(fp) or prevalence + fp > 1:
        raise SpineError(
            f"no mask pair has Dice {dice:g} at a prevalence of {prevalence:g} with "
            f"{alarms:.0%} of its errors false alarms: give a higher Dice or fewer of them"
        )
    return Confusion(tp, fp, prevalence - tp, 1 - prevalence - fp)


class PrevalenceExplorer(Viewer):
    """Choose a row of a table, and move the prevalence until its scores fit.

    Args:
        rows: as of `metrics.paper.check_table`: by model id, "name", "iou", "dice", "accuracy".
        prevalence: to begin with.
    """

    def __init__(self, rows: Mapping[str, Mapping] = PAPER, prevalence: float = PREVALENCE) -> None:
        self._rows = {str(row.get("name", model)): row for model, row in rows.items()}
        self.model = choice("row", tuple(self._rows), next(iter(self._rows)))
        self.percent = part("spine, %", 100 * prevalence, 0.1, 100 * HIGHEST, 0.01)
        self.alarms = part("false alarms", 0.5)
        self.chart, self.text = widgets.HTML(), widgets.HTML()
        Held(self._draw).watch(self.model, self.percent, self.alarms)
        controls = column(self.model, self.percent, self.alarms)
        super().__init__([controls, self.chart, self.text])
        self._draw()

    def pictures(self) -> tuple:
        """Return no pictures: this viewer draws a chart alone."""
        return ()

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the pair at the current place, by their names in `metrics.SCORES`."""
        return metrics.scores(self._pair(self.percent.value / 100))

    @property
    def fits(self) -> dict[str, bool]:
        """Which of the row's other scores come out as printed."""
        row, scores = self._rows[self.model.value], self.scores
        return {
            name: within_rounding(row[printed]).contains(scores[key])
            for (name, key), printed in zip(SCORES.items(), ("iou", "accuracy"))
        }

    @property
    def alt(self) -> str:
        """What is shown now, in words."""
        row, scores = self._rows[self.model.value], self.scores
        words = [
            f"{name} is {scores[key]:.4f} and {row[printed]:.3f} is printed "
            f"({'fits' if self.fits[name] else 'does not fit'})"
            for (name, key), printed in zip(SCORES.items(), ("iou", "accuracy"))
        ]
        return (
            f"{self.model.value}: with Dice {row['dice']:.3f}, {self.percent.value:.2f} % spine "
            f"and {self.alarms.value:.0%} of the errors false alarms, {' and '.join(words)}."
        )

    def figure(self) -> Figure:
        """Draw the curves as a static figure."""
        import textwrap

        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.subplots()
        styles = (("C0", "-"), ("C1", "--"), ("C0", ":"), ("C1", "-."))
        colours = {"C0": "#0072b2", "C1": "#d55e00"}
        for (name, (x, y)), (colour, dash) in zip(self._lines().items(), styles):
            axes.plot(x, y, color=colours[colour], linestyle=dash, label=name)
        axes.axvline(self.percent.value, color="#1a1a1a", linewidth=1)
        axes.set(xlabel="spine, % of the voxels", ylabel="score", ylim=(0.85, 1))
        axes.legend(loc="lower left", fontsize=7, ncols=2)
        figure.suptitle("\n".join(textwrap.wrap(self.alt, 100)), fontsize=8)
        return figure

    def _pair(self, prevalence: float) -> Confusion:
        return shares(self._rows[self.model.value]["dice"], prevalence, self.alarms.value)

    def _lines(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        row, percent = self._rows[self.model.value], 100 * SHARES
        pairs = [self._pair(share) for share in SHARES]
        curves = {
            name: (percent, np.array([metrics.SCORES[key](pair) for pair in pairs]))
            for name, key in SCORES.items()
        }
        return curves | {
            "printed IoU": (percent[[0, -1]], np.array([row["iou"]] * 2)),
            "printed accuracy": (percent[[0, -1]], np.array([row["accuracy"]] * 2)),
        }

    def _draw(self) -> None:
        self.text.value = text_html(self.alt)
        self.chart.value = charts.line_chart(
            self._lines(),
            self.alt,
            "spine, % of the voxels",
            "score",
            x_mark=self.percent.value,
            y_range=(0.85, 1),
        )
