"""Look for planted mistakes in an annotation, answer, and be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.checks import CANONICAL, HEAD_TO_FOOT
from spine_lib.ct.volume import Volume
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import button, row
from spine_lib.explore.overlays import Paint
from spine_lib.explore.picture import Picture, text_html
from spine_lib.explore.render import Style
from spine_lib.explore.viewer import SliceViewer

SHIFT_MM = 14.0
STRAY_MM = 8.0


@dataclass(frozen=True, eq=False)
class Question:
    """Hold an annotation with at most one planted mistake.

    Attributes:
        kind: key of `MISTAKES`.
        labels: the label map to look at, uint8 canonical ids.
        told: what was done, in a sentence.
        voxel: where to look, x, y, z.
    """

    kind: str
    labels: Volume
    told: str
    voxel: tuple[int, int, int]


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
    large = _large(array)
    if len(large) < 3:
        raise SpineError(
            f"The annotation has {len(large)} vertebrae of a fair size: a quiz needs 3 or more."
        )
    told, voxel = MISTAKES[kind][1](array, large, labels.spacing_mm, random)
    return Question(kind, labels.with_array(array), told, voxel)


def _large(array: np.ndarray) -> list[int]:
    """Return the vertebrae of a fair size from head to foot."""
    sizes = np.bincount(array.ravel(order="K"), minlength=256)
    fair = 0.2 * np.median(sizes[1:][sizes[1:] > 0]) if sizes[1:].any() else 0
    return [label for label in HEAD_TO_FOOT if sizes[label] > fair]


def _middle(where: np.ndarray) -> tuple[int, int, int]:
    """Return the voxel nearest to the median of a boolean array's voxels."""
    voxels = np.argwhere(where)
    nearest = np.abs(voxels - np.median(voxels, axis=0)).sum(axis=1).argmin()
    return tuple(int(place) for place in voxels[nearest])


def _inner(large: list[int], random: np.random.Generator) -> int:
    """Choose the place of a vertebra that has both neighbours."""
    return int(random.integers(1, len(large) - 1))


def _nothing(array, large, spacing_mm, random) -> tuple[str, tuple[int, int, int]]:
    return "Nothing was changed in this annotation.", _middle(array == large[len(large) // 2])


def _shifted(array, large, spacing_mm, random) -> tuple[str, tuple[int, int, int]]:
    axis = int(random.integers(2))
    steps = max(1, round(SHIFT_MM / spacing_mm[axis])) * int(random.choice([-1, 1]))
    moved = np.zeros_like(array)
    source, target = [slice(None)] * 3, [slice(None)] * 3
    source[axis] = slice(max(0, -steps), array.shape[axis] - max(0, steps))
    target[axis] = slice(max(0, steps), array.shape[axis] + min(0, steps))
    moved[tuple(target)] = array[tuple(source)]
    array[:] = moved
    side = (("left", "right"), ("back", "front"))[axis][steps > 0]
    told = f"The whole map was moved by {abs(steps) * spacing_mm[axis]:.0f} mm to the {side}."
    return told, _middle(array == large[len(large) // 2])


def _swapped(array, large, spacing_mm, random) -> tuple[str, tuple[int, int, int]]:
    place = _inner(large, random)
    upper, lower = large[place], large[place + 1]
    were_upper, were_lower = array == upper, array == lower
    array[were_upper], array[were_lower] = lower, upper
    told = f"{CANONICAL[upper]} and {CANONICAL[lower]} have each other's number."
    return told, _middle(were_upper)


def _missing(array, large, spacing_mm, random) -> tuple[str, tuple[int, int, int]]:
    label = large[_inner(large, random)]
    were = array == label
    array[were] = 0
    return f"{CANONICAL[label]} was not labelled, though its neighbours are.", _middle(were)


def _merged(array, large, spacing_mm, random) -> tuple[str, tuple[int, int, int]]:
    place = _inner(large, random)
    label, neighbour = large[place], large[place + 1]
    were = array == label
    array[were] = neighbour
    told = f"{CANONICAL[label]} was given the number of {CANONICAL[neighbour]}, so two are one."
    return told, _middle(were)


def _cut(array, large, spacing_mm, random) -> tuple[str, tuple[int, int, int]]:
    label = large[_inner(large, random)]
    were = array == label
    back = were.copy()
    back[:, int(np.median(np.nonzero(were)[1])) :] = False
    array[back] = 0
    return f"The back half of {CANONICAL[label]} was left out.", _middle(back)


def _stray(array, large, spacing_mm, random) -> tuple[str, tuple[int, int, int]]:
    label = large[_inner(large, random)]
    x, y, z = _middle(array == label)
    side = int(random.choice([-1, 1]))
    centre = (x + side * round(70 / spacing_mm[0]), y + round(40 / spacing_mm[1]), z)
    centre = tuple(int(np.clip(c, 0, size - 1)) for c, size in zip(centre, array.shape))
    grid = np.ogrid[tuple(slice(size) for size in array.shape)]
    away = sum(((g - c) * mm) ** 2 for g, c, mm in zip(grid, centre, spacing_mm))
    array[(away <= STRAY_MM**2) & (array == 0)] = label
    return f"A crumb of {CANONICAL[label]} lies far from the spine.", centre


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
    """Show annotations with planted mistakes one by one, and take answers.

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
        self._ct, self._labels, self._seed, self._case_id = ct, labels, seed, case_id
        self._kinds = _order_of_kinds(rounds, seed)
        self.right, self.round, self.answered = 0, -1, False
        self.answer = widgets.RadioButtons(
            options=[(words, kind) for kind, (words, _) in MISTAKES.items()],
            value=None,
            description="I see:",
            layout=widgets.Layout(width="auto"),
        )
        self.submit = button("Answer", self._judge)
        self.following = button("Next question", self._ask)
        self.told = widgets.HTML()
        super().__init__()
        self._ask()

    def pictures(self) -> Sequence[Picture]:
        """Return the picture of the question."""
        return self.viewer.pictures()

    def paints(self) -> Sequence[Paint]:
        """Return the paints of the question's slice."""
        return self.viewer.paints()

    def _ask(self) -> None:
        if self.round + 1 >= len(self._kinds):
            return
        self.round, self.answered = self.round + 1, False
        kind = self._kinds[self.round]
        self.question = plant(self._labels, kind, self._seed + self.round)
        style = Style("fill", "vertebra")
        self.viewer = SliceViewer(
            self._ct, self.question.labels, case_id=self._case_id, plane="sagittal", style=style
        )
        self.answer.value, self.following.disabled = None, True
        words = f"Question {self.round + 1} of {len(self._kinds)}: what is wrong here?"
        self.told.value = text_html(words)
        self.children = [self.told, self.viewer, self.answer, row(self.submit, self.following)]

    def _judge(self) -> None:
        if self.answer.value is None:
            self.told.value = text_html("Choose an answer first.")
            return
        question = self.question
        correct = self.answer.value == question.kind
        if not self.answered:  # a second try teaches, but does not count
            self.right += correct
        self.answered = True
        last = self.round + 1 == len(self._kinds)
        self.following.disabled = last
        asked = self.round + 1
        verdict = "Right." if correct else f"No: {MISTAKES[question.kind][0]}."
        score = f"{self.right} of {asked} right{', the quiz is over' if last else ''}."
        self.told.value = text_html(f"{verdict} {question.told} {score}")
        self._show_where()

    def _show_where(self) -> None:
        """Move the viewer to the mistake."""
        self.viewer.look_at(self.question.voxel)


def _order_of_kinds(rounds: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    kinds: list[str] = []
    while len(kinds) < rounds:
        kinds += random.permutation(list(MISTAKES)).tolist()
    return kinds[:rounds]
