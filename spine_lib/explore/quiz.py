"""A quiz on annotations with planted mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import HEAD_TO_FOOT
from spine_lib.ct.volume import Volume
from spine_lib.explore.controls import Caption, Viewer, button, column, row
from spine_lib.explore.overlays import Swatch
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene, Voxel, label_name, middle_voxel
from spine_lib.explore.viewers import SliceViewer

SHIFT_MM = 14.0
STRAY_MM = 8.0


@dataclass(frozen=True, eq=False)
class Question:
    """An annotation with at most one planted mistake.

    Attributes:
        kind: key of `MISTAKES`.
        labels: the label map to look at, uint8 canonical ids.
        explanation: what was done, in a sentence.
        voxel: where to look, x, y, z.
    """

    kind: str
    labels: Volume
    explanation: str
    voxel: Voxel


def plant(labels: Volume, kind: str, seed: int = 0) -> Question:
    """Plant a mistake in a copy of a label map.

    Args:
        labels: canonical ids, with at least three whole vertebrae.
        kind: key of `MISTAKES`.
        seed: decides which vertebra and where.

    Raises:
        SpineError: for an unknown kind, or too few vertebrae.
    """
    if kind not in MISTAKES:
        raise SpineError(f"There is no mistake {kind!r}: choose one of {', '.join(MISTAKES)}.")
    random = np.random.default_rng([seed, list(MISTAKES).index(kind)])
    array = labels.array.astype(np.uint8)  # a copy
    sizes = np.bincount(array.ravel(order="K"), minlength=256)
    fair = 0.2 * np.median(sizes[1:][sizes[1:] > 0]) if sizes[1:].any() else 0
    large = [label for label in HEAD_TO_FOOT if sizes[label] > fair]
    if len(large) < 3:
        raise SpineError(
            f"The annotation has {len(large)} vertebrae of a fair size: a quiz needs 3 or more."
        )
    explanation, voxel = MISTAKES[kind][1](array, large, labels.spacing_mm, random)
    return Question(kind, labels.with_array(array), explanation, voxel)


# Each mistake changes the array in place and returns what was done and where. `large` are the
# vertebrae of a fair size from head to foot; the chosen one has both neighbours.


def _nothing(array, large, spacing_mm, random) -> tuple[str, Voxel]:
    middle = middle_voxel(array == large[len(large) // 2])
    return "Nothing was changed in this annotation.", middle


def _shifted(array, large, spacing_mm, random) -> tuple[str, Voxel]:
    axis = int(random.integers(2))
    steps = max(1, round(SHIFT_MM / spacing_mm[axis])) * int(random.choice([-1, 1]))
    moved = np.roll(array, steps, axis)
    np.moveaxis(moved, axis, 0)[slice(steps) if steps > 0 else slice(steps, None)] = 0
    array[:] = moved
    side = (("left", "right"), ("back", "front"))[axis][steps > 0]
    distance = f"{abs(steps) * spacing_mm[axis]:.0f} mm"
    middle = middle_voxel(array == large[len(large) // 2])
    return f"The whole map was moved by {distance} to the {side}.", middle


def _swapped(array, large, spacing_mm, random) -> tuple[str, Voxel]:
    upper, lower = _neighbours(large, random)
    was_upper, was_lower = array == upper, array == lower
    array[was_upper], array[was_lower] = lower, upper
    text = f"{label_name(upper)} and {label_name(lower)} have each other's number."
    return text, middle_voxel(was_upper)


def _missing(array, large, spacing_mm, random) -> tuple[str, Voxel]:
    label, _ = _neighbours(large, random)
    text = f"{label_name(label)} was not labelled, though its neighbours are."
    return text, _relabel(array, array == label, 0)


def _merged(array, large, spacing_mm, random) -> tuple[str, Voxel]:
    label, lower = _neighbours(large, random)
    text = f"{label_name(label)} was given the number of {label_name(lower)}, so two are one."
    return text, _relabel(array, array == label, lower)


def _cut(array, large, spacing_mm, random) -> tuple[str, Voxel]:
    label, _ = _neighbours(large, random)
    back = array == label
    back[:, int(np.median(np.nonzero(back)[1])) :] = False
    return f"The back half of {label_name(label)} was left out.", _relabel(array, back, 0)


def _relabel(array: np.ndarray, where: np.ndarray, label: int) -> Voxel:
    array[where] = label
    return middle_voxel(where)


def _stray(array, large, spacing_mm, random) -> tuple[str, Voxel]:
    label, _ = _neighbours(large, random)
    x, y, z = middle_voxel(array == label)
    side = int(random.choice([-1, 1]))
    centre = (x + side * round(70 / spacing_mm[0]), y + round(40 / spacing_mm[1]), z)
    centre = tuple(int(np.clip(c, 0, size - 1)) for c, size in zip(centre, array.shape))
    grid = np.ogrid[tuple(slice(size) for size in array.shape)]
    distance2 = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grid, centre, spacing_mm))
    array[(distance2 <= STRAY_MM**2) & (array == 0)] = label
    return f"A crumb of {label_name(label)} lies far from the spine.", centre


def _neighbours(large: list[int], random: np.random.Generator) -> list[int]:
    """Return a vertebra that has both neighbours, and the one below it."""
    position = int(random.integers(1, len(large) - 1))
    return large[position : position + 2]


MISTAKES: dict[str, tuple[str, Callable]] = {
    "nothing": ("nothing is wrong", _nothing),
    "shifted": ("the map is shifted against the image", _shifted),
    "swapped": ("two numbers are swapped", _swapped),
    "missing": ("a vertebra is missing", _missing),
    "merged": ("two vertebrae have one number", _merged),
    "cut": ("a part of a vertebra is missing", _cut),
    "stray": ("a crumb lies far from the spine", _stray),
}
"""What can be wrong, by kind: the words of the answer and what plants it."""


class AnnotationQuiz(Viewer):
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
            options=[(text, kind) for kind, (text, _) in MISTAKES.items()],
            value=None,
            description="I see:",
            layout=widgets.Layout(width="auto"),
        )
        self.submit = button("Answer", self._judge)
        self.following = button("Next question", self._ask)
        self.verdict = Caption()
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
        self.viewer = SliceViewer(
            scene.ct,
            self.question.labels,
            case_id=scene.case_id,
            plane="sagittal",
            style=Style("fill", "vertebra"),
            size_px=420,
        )
        self.pictures = self.viewer.pictures
        self.answer.value, self.following.disabled, self.verdict.text = None, True, ""
        self.following.description = "Next question"
        self.caption.text = f"Question {self.round + 1} of {self._rounds}: what is wrong here?"
        asked = (self.caption, self.answer, row(self.submit, self.following), self.verdict)
        self.children = [row(column(*asked, width_px=310), self.viewer)]

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
        verdict = "Right." if correct else f"No: {MISTAKES[question.kind][0]}."
        score = f"{self.right} of {self.round + 1} right{', the quiz is over' if last else ''}."
        self.verdict.text = f"{verdict} {question.explanation} {score}"
        self.viewer.go_to(question.voxel)
