"""A quiz on annotations with planted mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import HEAD_TO_FOOT
from spine_lib.ct.geometry import require_choice
from spine_lib.ct.volume import Volume
from spine_lib.explore import controls as ui
from spine_lib.explore.overlays import Swatch
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene, Voxel, label_name, middle_voxel
from spine_lib.explore.viewers import SliceViewer

Random = np.random.Generator
SHIFT_MM = 14.0
STRAY_MM = 8.0
MISTAKES = {
    "nothing": "nothing is wrong",
    "shifted": "the map is shifted against the image",
    "swapped": "two numbers are swapped",
    "missing": "a vertebra is missing",
    "merged": "two vertebrae have one number",
    "cut": "a part of a vertebra is missing",
    "stray": "a crumb lies far from the spine",
}
"""What can be wrong, by kind, in the words of the answer."""


@dataclass(frozen=True, eq=False)
class Question:
    """A label map with at most one planted mistake, what was done, and the voxel to look at."""

    kind: str
    labels: Volume
    explanation: str
    voxel: Voxel


def plant(labels: Volume, kind: str, seed: int = 0) -> Question:
    """Return a copy of a label map with a mistake planted in it.

    Args:
        labels: canonical ids, with at least three whole vertebrae.
        kind: key of `MISTAKES`.
        seed: decides which vertebra and where.

    Raises:
        SpineError: for an unknown kind, or too few vertebrae.
    """
    require_choice("mistake", kind, tuple(MISTAKES))
    random = np.random.default_rng([seed, list(MISTAKES).index(kind)])
    before, array = labels.array, labels.array.astype(np.uint8)  # a copy
    sizes = np.bincount(array.ravel(order="K"), minlength=256)
    fair = 0.2 * np.median(sizes[1:][sizes[1:] > 0]) if sizes[1:].any() else 0
    large = [label for label in HEAD_TO_FOOT if sizes[label] > fair]
    if len(large) < 3:
        raise SpineError(
            f"The annotation has {len(large)} vertebrae of a fair size: a quiz needs 3 or more."
        )
    middle = middle_voxel(before == large[len(large) // 2])
    if kind == "nothing":
        explanation, voxel = "Nothing was changed in this annotation.", middle
    elif kind == "shifted":
        explanation, voxel = _shift(array, labels.spacing_mm, random), middle
    else:
        position = int(random.integers(1, len(large) - 1))
        pair = large[position : position + 2]
        explanation, voxel = _change(array, kind, pair, labels.spacing_mm, random)
    return Question(kind, labels.with_array(array), explanation, voxel)


def _shift(array: np.ndarray, spacing_mm: Sequence[float], random: Random) -> str:
    axis = int(random.integers(2))
    steps = max(1, round(SHIFT_MM / spacing_mm[axis])) * int(random.choice([-1, 1]))
    moved = np.roll(array, steps, axis)
    np.moveaxis(moved, axis, 0)[slice(steps) if steps > 0 else slice(steps, None)] = 0
    array[:] = moved
    side = (("left", "right"), ("back", "front"))[axis][steps > 0]
    return f"The whole map was moved by {abs(steps) * spacing_mm[axis]:.0f} mm to the {side}."


def _change(
    array: np.ndarray, kind: str, pair: list[int], spacing_mm: Sequence[float], random: Random
) -> tuple[str, Voxel]:
    """Change the first of two neighbours; return what was done, and where."""
    label, lower = pair
    where, name, below = array == label, label_name(label), label_name(lower)
    if kind == "stray":
        x, y, z = middle_voxel(where)
        side = int(random.choice([-1, 1]))
        centre = (x + side * round(70 / spacing_mm[0]), y + round(40 / spacing_mm[1]), z)
        centre = tuple(int(np.clip(c, 0, size - 1)) for c, size in zip(centre, array.shape))
        grid = np.ogrid[tuple(slice(size) for size in array.shape)]
        distance2 = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grid, centre, spacing_mm))
        array[(distance2 <= STRAY_MM**2) & (array == 0)] = label
        return f"A crumb of {name} lies far from the spine.", centre
    if kind == "swapped":
        array[array == lower] = label
    if kind == "cut":
        where[:, int(np.median(np.nonzero(where)[1])) :] = False
    array[where] = 0 if kind in ("missing", "cut") else lower
    explanation = {
        "swapped": f"{name} and {below} have each other's number.",
        "missing": f"{name} was not labelled, though its neighbours are.",
        "merged": f"{name} was given the number of {below}, so two are one.",
        "cut": f"The back half of {name} was left out.",
    }[kind]
    return explanation, middle_voxel(where)


class AnnotationQuiz(ui.Viewer):
    """Show annotations with planted mistakes in turn, and take answers.

    Args:
        ct: scan in HU.
        labels: its canonical labels, taken to be right.
        rounds: how many questions; each kind comes once before any comes again.
        seed: decides their order and where the mistakes are.
        case_id: name in alt texts.
    """

    def __init__(
        self, ct: Volume, labels: Volume, rounds: int = 5, seed: int = 0, case_id: str = ""
    ) -> None:
        if rounds < 1:
            raise SpineError(f"A quiz of {rounds} rounds asks nothing: give 1 or more.")
        super().__init__()
        self._scene, self._seed, self._rounds = Scene(ct, labels, case_id=case_id), seed, rounds
        self.answer = widgets.RadioButtons(
            options=[(text, kind) for kind, text in MISTAKES.items()],
            value=None,
            description="I see:",
            layout=widgets.Layout(width="auto"),
        )
        self.submit = ui.button("Answer", self._judge)
        self.following = ui.button("Next question", self._ask)
        self.verdict = ui.Caption()
        self._begin()

    def swatches(self) -> Sequence[Swatch]:
        """Return the legend of the question's slice."""
        return self.viewer.swatches()

    def _begin(self) -> None:
        random = np.random.default_rng(self._seed)
        kinds = [random.permutation(list(MISTAKES)) for _ in range(0, self._rounds, len(MISTAKES))]
        self._kinds = np.concatenate(kinds)[: self._rounds].tolist()
        self.right, self.round = 0, -1
        self._ask()

    def _ask(self) -> None:
        if self.round + 1 == self._rounds:
            self._seed += self._rounds
            self._begin()
            return
        self.round, self.answered = self.round + 1, False
        scene, seed = self._scene, self._seed + self.round
        self.question = plant(scene.mask, self._kinds[self.round], seed)
        labels, style = self.question.labels, Style("fill", "vertebra")
        options = {"case_id": scene.case_id, "plane": "sagittal", "style": style, "size_px": 420}
        self.viewer = SliceViewer(scene.ct, labels, **options)
        self.pictures = self.viewer.pictures
        self.answer.value, self.following.disabled, self.verdict.text = None, True, ""
        self.following.description = "Next question"
        self.caption.text = f"Question {self.round + 1} of {self._rounds}: what is wrong here?"
        asked = (self.caption, self.answer, ui.row(self.submit, self.following), self.verdict)
        self.children = [ui.row(ui.column(*asked, width_px=310), self.viewer)]

    def _judge(self) -> None:
        if self.answer.value is None:
            self.verdict.text = "Choose an answer first."
            return
        question, last = self.question, self.round + 1 == self._rounds
        correct = self.answer.value == question.kind
        if not self.answered:  # a second try teaches, but does not count
            self.right += correct
        self.answered, self.following.disabled = True, False
        self.following.description = "Play again" if last else "Next question"
        verdict = "Right." if correct else f"No: {MISTAKES[question.kind]}."
        score = f"{self.right} of {self.round + 1} right{', the quiz is over' if last else ''}."
        self.verdict.text = f"{verdict} {question.explanation} {score}"
        self.viewer.go_to(question.voxel)
