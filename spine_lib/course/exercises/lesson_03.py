"""Exercises of lesson 3: cutting slices, resampling, splitting, windowing, turning."""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy import ndimage

from spine_lib.course.exercise import Exercise, Wrong, describe

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
AIR_HU = -1024

# --- 3.1 ------------------------------------------------------------------------------------------


def cut_slice(array_xyz, plane, index):
    if plane == "axial":
        cut = array_xyz[:, :, index]
    elif plane == "coronal":
        cut = array_xyz[:, index, :]
    else:
        cut = array_xyz[index, :, :]
    return cut.T[::-1, ::-1]


def a_cut(rng: np.random.Generator, plane: str, shape: tuple[int, int, int]) -> tuple:
    """Make a volume in which every voxel is another number, a plane and an index."""
    volume = rng.permutation(math.prod(shape)).reshape(shape).astype(np.int16)
    middle = shape[AXES[plane]] // 2
    return volume, plane, int(rng.choice([middle - 1, middle + 1]))


def _cut(turn, axes=AXES):
    return lambda volume, plane, index: turn(np.take(volume, index, axes[plane]))


def _upright(cut: np.ndarray) -> np.ndarray:
    return cut.T[::-1, ::-1]


CUT = Exercise(
    "3.1",
    reference=cut_slice,
    wrong={
        "your slice is the right one as it lies in the array: rows and columns are exchanged, and "
        "both directions are turned round": _cut(lambda cut: cut),
        "your slice is turned by 180 degrees: turn both directions round (`[::-1, ::-1]`)": (
            _cut(lambda cut: cut.T)
        ),
        "your slice is mirrored: columns run from the patient's right to left, or from anterior to "
        "posterior": _cut(lambda cut: cut.T[::-1]),
        "your slice is upside down: rows begin at the front (axial) or at the head": (
            _cut(lambda cut: cut.T[:, ::-1])
        ),
        "your slice has rows and columns exchanged: transpose it (`.T`)": (
            _cut(lambda cut: cut[::-1, ::-1])
        ),
        "your slice lies on its side: exchange rows and columns (`.T`), then turn both round": (
            _cut(lambda cut: cut[::-1]),
            _cut(lambda cut: cut[:, ::-1]),
        ),
        "this is a slice of another plane: axial ones cut across z, the last axis, coronal ones "
        "across y and sagittal ones across x": (
            _cut(_upright, dict.fromkeys(AXES, 0)),
            _cut(_upright, dict.fromkeys(AXES, 2)),
            _cut(_upright, AXES | {"coronal": 0, "sagittal": 1}),
            _cut(_upright, {"axial": 0, "coronal": 1, "sagittal": 2}),
        ),
        "this slice is counted from the other end, or from 1: index is the voxel index": (
            lambda volume, plane, index: cut_slice(volume, plane, -1 - index),
            lambda volume, plane, index: cut_slice(volume, plane, index - 1),
        ),
    },
    inputs=lambda rng: [
        a_cut(rng, plane, shape) for shape in ((5, 7, 9), (8, 8, 8)) for plane in AXES
    ],
)


# --- 3.2 ------------------------------------------------------------------------------------------


def resample_pair(image_hu, labels, shape_hw):
    rows, columns = shape_hw
    image = cv2.resize(image_hu, (columns, rows), interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return image, labels


def a_slice_pair(rng: np.random.Generator, shape_hw: tuple[int, int]) -> tuple:
    """Make a slice in HU with two bones that touch, their ids, 20 and 24, and a larger shape."""
    labels = np.zeros((24, 20), np.uint8)
    row = int(rng.integers(4, 8))
    labels[row : row + 8, 4:9] = 20
    labels[row : row + 8, 9:15] = 24
    labels[row + 8 : row + 12, 8:11] = 24
    image = ndimage.gaussian_filter(np.where(labels > 0, 900.0, 40.0), 0.6)
    image += rng.normal(0, 10, labels.shape)
    return image.astype(np.float32), labels, shape_hw


def two_arrays(answer: object) -> list[np.ndarray]:
    """Return an answer as two arrays; raise `Wrong` if it is not."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two arrays, image and labels, not {describe(answer)}")
    for item in answer:
        if not isinstance(item, np.ndarray) or item.dtype.kind not in "biuf":
            raise Wrong(f"return two arrays of numbers, and one is {describe(item)}")
    return list(answer)


def _shapes(image: np.ndarray, labels: np.ndarray) -> dict[str, str]:
    names = "the shape of your image", "the shape of your label map"
    return dict(zip(names, (str(image.shape), str(labels.shape))))


def nearest_kind(image: np.ndarray, kinds: dict[str, np.ndarray], most_hu: float) -> str:
    """Return the name of the image that is nearest, or "another one" where none is near."""
    away = {name: float(np.abs(image - other).mean()) for name, other in kinds.items()}
    name = min(away, key=away.get)
    return name if away[name] < most_hu else "another one"


def _pair_facts(image: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> dict:
    """Return what holds of every right pair: dtypes, and ids that no interpolation invented."""
    invented = np.setdiff1d(labels, ids)
    return {
        "the ids that your label map invents": [float(invented[0])] if invented.size else [],
        "the dtype of your label map": str(labels.dtype),
        "the dtype of your image": str(image.dtype),
    }


def _observe_resample(function, image, labels, shape_hw):
    new_image, new_labels = two_arrays(function(image, labels, shape_hw))
    size = tuple(shape_hw)[::-1]
    shapes = _shapes(new_image, new_labels)
    if set(shapes.values()) != {str(tuple(shape_hw))}:
        return shapes
    factors = np.divide(shape_hw, image.shape)
    cubic = ndimage.zoom(image, factors), cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    linear = cv2.resize(image, size), ndimage.zoom(image, factors, order=1)
    if np.isin(new_image, image).mean() > 0.95:
        kind = "nearest"
    elif new_image.max() > image.max() + 5 or new_image.min() < image.min() - 5:
        kind = "cubic"
    else:
        # SciPy and OpenCV place pixels differently, which costs up to about 30 HU.
        kinds = {"cubic": cubic[1], "linear": linear[0], " linear": linear[1], " cubic": cubic[0]}
        kind = nearest_kind(new_image, kinds, 45).strip()
    nearest = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return (
        shapes
        | _pair_facts(new_image, new_labels, labels)
        | {
            "the interpolation of your image": kind,
            "whether your labels lie where they should": bool(
                np.mean(new_labels != nearest) < 0.08
            ),
        }
    )


def _resized(image=cv2.INTER_LINEAR, labels=cv2.INTER_NEAREST, dtype=np.uint8, flip=-1):
    def resize(image_hu, label_map, shape_hw):
        size = tuple(shape_hw)[::flip]
        new = cv2.resize(label_map.astype(dtype), size, interpolation=labels)
        return cv2.resize(image_hu, size, interpolation=image), new

    return resize


RESAMPLE = Exercise(
    "3.2",
    reference=resample_pair,
    wrong={
        "labels and image are exchanged: the image comes first": (
            lambda *arguments: resample_pair(*arguments)[::-1],
            lambda *arguments: _resized(labels=cv2.INTER_LINEAR)(*arguments)[::-1],
            lambda image, labels, shape: resample_pair(labels, image, shape),
        ),
        "your labels were interpolated between ids, and between two ids lies no third one: take "
        "the nearest pixel's": (
            _resized(labels=cv2.INTER_LINEAR),
            _resized(labels=cv2.INTER_CUBIC),
            _resized(labels=cv2.INTER_LINEAR, dtype=np.float32),
            _resized(cv2.INTER_NEAREST, cv2.INTER_LINEAR),
            _resized(cv2.INTER_CUBIC, cv2.INTER_CUBIC),
        ),
        "your image is made of blocks: every pixel has its nearest neighbour's HU; interpolate it "
        "linearly": _resized(cv2.INTER_NEAREST),
        "cubic interpolation overshoots at edges: take linear": (
            _resized(cv2.INTER_CUBIC),
            lambda image, labels, shape: (
                ndimage.zoom(image, np.divide(shape, image.shape)),
                resample_pair(image, labels, shape)[1],
            ),
        ),
        "rows and columns are exchanged: OpenCV wants (columns, rows)": _resized(flip=1),
        "the whole slice is to be enlarged, and you cut or filled it up": (
            lambda image, labels, shape: tuple(
                np.pad(item, [(0, n - old) for n, old in zip(shape, item.shape)])
                for item in (image, labels)
            ),
            lambda image, labels, shape: tuple(np.resize(item, shape) for item in (image, labels)),
        ),
    },
    inputs=lambda rng: [a_slice_pair(rng, shape) for shape in ((48, 40), (60, 70), (31, 44))],
    observe=_observe_resample,
)


# --- 3.3 ------------------------------------------------------------------------------------------


def split_by_patient(patient_of_slice, test_share, seed):
    patients = np.random.default_rng(seed).permutation(np.unique(patient_of_slice))
    tested = patients[: round(test_share * len(patients))]
    is_test = np.isin(patient_of_slice, tested)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def some_slices(rng: np.random.Generator, patients: int) -> np.ndarray:
    """Name the patients of some slices: uneven numbers, names out of order."""
    names = rng.permutation([f"patient-{number:02d}" for number in range(10, 10 + patients)])
    return np.repeat(names, rng.integers(3, 30, patients))


def _sides(answer: object, count: int) -> tuple[np.ndarray, np.ndarray]:
    train, test = (np.asarray(side) for side in two_arrays_or_lists(answer))
    for side in (train, test):
        if side.dtype == bool:
            raise Wrong("return slice numbers, not True and False: `np.flatnonzero` turns them")
        if side.dtype.kind in "US":
            raise Wrong("return the numbers of the slices, not the names of the patients")
        if side.ndim != 1 or side.size and side.dtype.kind not in "iu":
            raise Wrong(f"each side is a list of whole numbers, and one is {describe(side)}")
        if side.size and not (0 <= side.min() and side.max() < count):
            raise Wrong(f"there is no slice {side.max()}: they are numbered from 0")
    return train.astype(int), test.astype(int)


def two_arrays_or_lists(answer: object) -> list:
    """Return an answer as two sides; raise `Wrong` if it is not."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two arrays of slice numbers, not {describe(answer)}")
    return list(answer)


def _observe_split(function, patient_of_slice, test_share, seed):
    def sides(seed):
        return _sides(function(patient_of_slice, test_share, seed), len(patient_of_slice))

    train, test = sides(seed)
    tests = [np.sort(sides(seed + more)[1]) for more in range(7)]
    names = patient_of_slice[train], patient_of_slice[test]
    return {
        "the number of slices on both sides": np.intersect1d(train, test).size,
        "the number of patients with slices on both sides": np.intersect1d(*names).size,
        "the number of slices on neither side": len(
            np.setdiff1d(np.arange(len(patient_of_slice)), np.concatenate([train, test]))
        ),
        "whether a slice stands twice on one side": any(
            len(np.unique(side)) < len(side) for side in (train, test)
        ),
        "the number of patients on the test side": len(np.unique(names[1])),
        "whether a seed always gives the same split": np.array_equal(tests[0], np.sort(test)),
        "whether other seeds give other splits": not all(
            np.array_equal(other, tests[0]) for other in tests
        ),
    }


def _split(count=lambda share, n: round(share * n), draw=None, finish=None):
    """Return a split that takes another number of patients, draws or ends otherwise."""

    def split(patient_of_slice, test_share, seed):
        patients = np.unique(patient_of_slice)
        patients = (draw or (lambda p, s: np.random.default_rng(s).permutation(p)))(patients, seed)
        number = count(test_share, len(patients))
        is_test = np.isin(patient_of_slice, patients[:number])
        if finish:
            return finish(patients, number, is_test)
        return np.flatnonzero(~is_test), np.flatnonzero(is_test)

    return split


def _by_slice(draw: bool, share=lambda share, n: round(share * n)):
    def split(patient_of_slice, test_share, seed):
        order = np.arange(len(patient_of_slice))
        if draw:
            order = np.random.default_rng(seed).permutation(order)
        few = share(test_share, len(order))
        return order[few:], order[:few]

    return split


SPLIT = Exercise(
    "3.3",
    reference=split_by_patient,
    wrong={
        "some patient has slices on both sides, so the network is tested on a patient that it "
        "knows: draw patients, not slices": (_by_slice(True), _by_slice(False)),
        "the sides are exchanged: return those to train on first": (
            _split(finish=lambda p, n, test: (np.flatnonzero(test), np.flatnonzero(~test))),
            _split(count=lambda share, n: n - round(share * n)),
        ),
        "a patient was drawn twice, so fewer are tested: choose with replace=False": (
            _split(draw=lambda p, seed: np.random.default_rng(seed).choice(p, len(p)))
        ),
        "`int` and `//` cut off: 0.25 of 11 patients are 2.75, and rounded these are 3": (
            _split(lambda share, n: int(share * n))
        ),
        "this rounds up, as scikit-learn's splitters do: 0.2 of 12 patients are 2.4, and rounded "
        "these are 2": _split(lambda share, n: math.ceil(share * n)),
        "the same seed gave two different splits: make a generator from it, "
        "np.random.default_rng(seed), and draw from that": (
            _split(draw=lambda patients, seed: np.random.default_rng().permutation(patients))
        ),
        "seven seeds gave one and the same split: shuffle the patients before you take the first "
        "of them": (
            _split(draw=lambda patients, seed: patients),
            _split(draw=lambda patients, seed: np.random.default_rng(0).permutation(patients)),
        ),
        "return the numbers of the slices, not the names of the patients": (
            _split(finish=lambda patients, number, test: (patients[number:], patients[:number]))
        ),
        "return slice numbers, not True and False: `np.flatnonzero` turns them": (
            _split(finish=lambda patients, number, test: (~test, test))
        ),
    },
    inputs=lambda rng: [
        (some_slices(rng, patients), share, int(rng.integers(100)))
        for patients, share in ((8, 0.25), (12, 0.2), (11, 0.25), (5, 0.4), (20, 0.45))
    ],
    observe=_observe_split,
)


# --- 3.4 ------------------------------------------------------------------------------------------


def to_unit(image_hu, low_hu, high_hu):
    image = np.clip(image_hu.astype(np.float32), low_hu, high_hu)
    return (image - low_hu) / (high_hu - low_hu)


def an_image_hu(rng: np.random.Generator, low: int, high: int, metal: bool) -> tuple:
    """Make an int16 image with soft tissue and bone, with or without air and metal, and a range."""
    image = rng.normal(50, 60, (12, 14)).clip(low + 20, high - 30)
    image[3, :7] = rng.uniform(high - 200, high - 60, 7)
    if metal:
        image[0], image[1, :5], image[2, :5] = -2048, 32000, -1000
        image[4, :7] = rng.uniform(300, 1500, 7)
    return image.astype(np.int16), low, high


def _spread(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / np.ptp(values)


UNIT = Exercise(
    "3.4",
    reference=to_unit,
    wrong={
        "values leave 0 to 1: clip to the range first, for metal and air lie beyond it": (
            lambda image, low, high: (image.astype(float) - low) / (high - low)
        ),
        "you took this image's own minimum and maximum, so the same bone has another value in "
        "every slice: use the range that is given": (
            lambda image, low, high: _spread(image.astype(float)),
            lambda image, low, high: image / np.float64(image.max()),
        ),
        "you scaled by what is left of this image after clipping: divide by high_hu - low_hu": (
            lambda image, low, high: _spread(np.clip(image.astype(float), low, high))
        ),
        "subtract low_hu before you divide, so that it becomes 0": (
            lambda image, low, high: np.clip(image.astype(float), low, high) / high,
            lambda image, low, high: np.clip(image.astype(float), low, high) / (high - low),
        ),
        "divide by the width of the range, high_hu - low_hu": (
            lambda image, low, high: (np.clip(image.astype(float), low, high) - low) / high,
            lambda image, low, high: (
                (np.clip(image.astype(float), low, high) - low) / (high + low or 1)
            ),
        ),
        "everything in between became 0: an integer array holds no fractions": (
            lambda image, low, high: np.floor(to_unit(image, low, high))
        ),
        "int16 ran over: turn the image into float32 before you subtract": (
            lambda image, low, high: np.clip((image - np.int16(low)) / (high - low), 0, 1)
        ),
        "clipping is only the first step: subtract low_hu and divide by the width of the range": (
            lambda image, low, high: np.clip(image, low, high)
        ),
        "HU are clipped to low_hu and high_hu, before they are scaled": (
            lambda image, low, high: (np.clip(image.astype(float), 0, 1) - low) / (high - low),
            lambda image, low, high: np.clip(image, 0, 1),
        ),
    },
    inputs=lambda rng: [
        an_image_hu(rng, *window)
        for window in ((-250, 1000, False), (-1024, 1200, True), (-250, 1000, True))
    ],
    rtol=0,
    atol=1e-4,
    dtype=True,
)


# --- 3.5 ------------------------------------------------------------------------------------------


def rotate_pair(image_hu, labels, degrees):
    image = ndimage.rotate(image_hu, degrees, reshape=False, order=1, cval=-1024)
    labels = ndimage.rotate(labels, degrees, reshape=False, order=0, cval=0)
    return image, labels


def a_lopsided_pair(rng: np.random.Generator, degrees: float) -> tuple:
    """Make a slice in HU and its ids, 11 and 19, that no turn leaves as they are, and an angle."""
    labels = np.zeros((40, 40), np.uint8)
    labels[6:16, 18:32] = 11
    labels[16:28, 24 : 28 + int(rng.integers(0, 4))] = 19
    image = np.where(labels > 0, 600.0, 50.0) + rng.normal(0, 40, labels.shape)
    return image.astype(np.float32), labels, degrees


def turned(array: np.ndarray, degrees: float, order: int, fill: float) -> np.ndarray:
    """Turn an array [row, column] around its middle; `order` 0 is nearest and 1 linear."""
    return ndimage.rotate(array, degrees, reshape=False, order=order, cval=fill)


def _turn_of(degrees: float, differs) -> str:
    """Return how something was turned, from its difference to what each turn would give."""
    ways = {"by the angle": degrees, "backwards": -degrees, "not at all": 0.0}
    away = {way: float(differs(angle)) for way, angle in ways.items()}
    return min(away, key=away.get)


def _observe_rotate(function, image, labels, degrees):
    new_image, new_labels = two_arrays(function(image, labels, degrees))
    shapes = _shapes(new_image, new_labels)
    if set(shapes.values()) != {str(image.shape)}:
        return shapes
    ones = np.ones_like(image)
    inside = ndimage.binary_erosion(turned(ones, degrees, 1, 0) > 0.99, iterations=3)
    inside &= ndimage.binary_erosion(turned(ones, -degrees, 1, 0) > 0.99, iterations=3)

    def image_differs(angle: float, order: int = 1) -> float:
        return np.abs(new_image - turned(image, angle, order, AIR_HU))[inside].mean()

    way = _turn_of(degrees, lambda angle: np.mean(new_labels != turned(labels, angle, 0, 0)))
    angle = -degrees if way == "backwards" else degrees
    orders = {"nearest": 0, "linear": 1, "cubic": 3}
    away = {name: image_differs(angle, order) for name, order in orders.items()}
    corners = turned(ones, angle, 1, 0) == 0
    corners = ndimage.binary_erosion(corners, border_value=1)
    return (
        shapes
        | _pair_facts(new_image, new_labels, labels)
        | {
            "whether your labels are turned": way != "not at all",
            "whether image and labels are turned alike": way == _turn_of(degrees, image_differs),
            "the HU in the corners of your image": round(float(np.median(new_image[corners]))),
            "the interpolation of your image": min(away, key=away.get),
            "the label in the corners": int(np.median(new_labels[corners])),
            "whether the angle is right": away["linear"] < 45,
        }
    )


def _rotated(order=1, labels_order=0, sign=1, labels_sign=1, fill=AIR_HU, reshape=False):
    def rotate(image_hu, labels, degrees):
        options = {"reshape": reshape, "order": order, "cval": fill}
        image = ndimage.rotate(image_hu, sign * degrees, **options)
        options = {"reshape": reshape, "order": labels_order, "cval": 0}
        return image, ndimage.rotate(labels, labels_sign * degrees, **options)

    return rotate


ROTATE = Exercise(
    "3.5",
    reference=rotate_pair,
    wrong={
        "your labels stayed where they were, and the bone under them has moved: turn both": (
            _rotated(labels_sign=0)
        ),
        "your image stayed as it was, and its labels were turned: turn both": _rotated(sign=0),
        "nothing was turned": _rotated(sign=0, labels_sign=0),
        "image and labels are turned in opposite directions": (
            _rotated(labels_sign=-1),
            _rotated(sign=-1),
        ),
        "your labels were interpolated, which invents ids: labels take the nearest neighbour's id "
        "(order 0)": (
            _rotated(labels_order=1),
            _rotated(labels_order=3),
            _rotated(order=3, labels_order=3),
            _rotated(labels_order=1, fill=0),
            _rotated(order=3, labels_order=3, fill=0),
        ),
        "the corners of your image hold 0 HU, which is water: what comes in from outside the scan "
        "is air (cval=-1024)": (_rotated(fill=0), _rotated(order=3, fill=0)),
        "this is SciPy's default, a cubic spline (order 3), which overshoots at edges: interpolate "
        "linearly (order=1)": _rotated(order=3),
        "your image took its nearest neighbours' HU: interpolate it linearly (order=1)": (
            _rotated(order=0),
            _rotated(order=0, fill=0),
        ),
        "keep the shape: scipy's `rotate` needs reshape=False": (
            _rotated(reshape=True),
            _rotated(reshape=True, order=3, labels_order=3, fill=0),
            _rotated(reshape=True, order=3, fill=0),
            _rotated(reshape=True, fill=0),
        ),
        "the angle is in degrees: SciPy and OpenCV take degrees, not radians": (
            lambda image, labels, degrees: rotate_pair(image, labels, np.radians(degrees)),
        ),
    },
    inputs=lambda rng: [a_lopsided_pair(rng, degrees) for degrees in (20.0, -35.0, 27.0)],
    observe=_observe_rotate,
)
