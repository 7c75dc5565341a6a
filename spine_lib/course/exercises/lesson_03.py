"""Exercises of lesson 3: cutting slices, resampling, splitting, windowing, turning."""

import math

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import Dataset

from spine_lib.course.exercise import Wrong, describe, exercise, expect
from spine_lib.course.mistakes import edit, edits

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}


def a_cut(rng: np.random.Generator, plane: str, shape: tuple[int, int, int]) -> tuple:
    """Make a volume in which every voxel is another number, a plane and an index."""
    volume = rng.permutation(math.prod(shape)).reshape(shape).astype(np.int16)
    middle = shape[AXES[plane]] // 2
    return volume, plane, int(rng.choice([middle - 1, middle + 1]))


@exercise(
    "3.1",
    wrong={
        "as it lies": edit(".T[::-1, ::-1]", ""),
        "turned by 180 degrees": edit("[::-1, ::-1]", ""),
        "mirrored": edit("[::-1, ::-1]", "[::-1]"),
        "upside down": edit("[::-1, ::-1]", "[:, ::-1]"),
        "transposed": edit(".T", ""),
        "on its side": edits(".T[::-1, ::-1]", "[::-1]", "[:, ::-1]"),
        "from the other end": lambda volume, plane, index: cut_slice(volume, plane, ~index),
        "another plane": (
            edit("[:, :, index]", "[index]", "[:, index, :]", "[index]"),
            edit("[:, index, :]", "[:, :, index]", "[index, :, :]", "[:, :, index]"),
            edit("coronal", "sagittal"),
            edit("axial", "sagittal"),
        ),
    },
    inputs=lambda rng: [
        a_cut(rng, plane, shape) for shape in ((5, 7, 9), (8, 8, 8)) for plane in AXES
    ],
)
def cut_slice(array_xyz, plane, index):
    if plane == "axial":
        cut = array_xyz[:, :, index]
    elif plane == "coronal":
        cut = array_xyz[:, index, :]
    else:
        cut = array_xyz[index, :, :]
    return cut.T[::-1, ::-1]


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


def _pair(answer: object) -> list[np.ndarray]:
    """Return an answer as two arrays; raise `Wrong` if it is not."""
    first, second = expect(answer, tuple | list, "two arrays")
    return [np.asarray(first), np.asarray(second)]


def _pair_facts(image: np.ndarray, labels: np.ndarray, shape: tuple, ids: np.ndarray) -> dict:
    """Return what holds of every right pair: shapes, dtypes, and no ids that were not there."""
    if {image.shape, labels.shape} != {tuple(shape)}:
        shapes = f"{image.shape} and {labels.shape}"
        why = "OpenCV wants (columns, rows), and SciPy's `rotate` reshape=False"
        if image.ndim + labels.ndim > 4:
            why = "an axis of batch or channel does not belong to a slice"
        raise Wrong(f"your arrays have the shapes {shapes}, and should have {tuple(shape)}: {why}")
    return {
        "whether your label map has ids that were not there": np.setdiff1d(labels, ids).size > 0,
        "the dtype of your label map": str(labels.dtype),
        "the dtype of your image": str(image.dtype),
    }


def _nearest_way(image: np.ndarray, ways: list[tuple[str, np.ndarray]]) -> str:
    """Return the name of the image that is nearest."""
    return min(ways, key=lambda way: np.abs(image - way[1]).mean())[0]


def _observe_resample(function, image, labels, shape_hw):
    new_image, new_labels = _pair(function(image, labels, shape_hw))
    facts = _pair_facts(new_image, new_labels, shape_hw, labels)
    size, factors = tuple(shape_hw)[::-1], np.divide(shape_hw, image.shape)
    ways = []
    for name, flag, order in (("nearest", 0, 0), ("linear", 1, 1), ("cubic", 2, 3)):
        ways += [(name, cv2.resize(image, size, interpolation=flag))]
        ways += [(name, ndimage.zoom(image, factors, order=order))]  # places pixels differently
    nearest = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return facts | {
        "the interpolation of your image": _nearest_way(new_image, ways),
        "whether your labels lie where they should": bool(np.mean(new_labels != nearest) < 0.08),
    }


@exercise(
    "3.2",
    wrong={
        "exchanged": edit("return image, labels", "return labels, image"),
        "labels interpolated": (
            edit("NEAREST", "LINEAR"),
            edit("resize(labels", "resize(labels.astype(np.float32)", "NEAREST", "LINEAR"),
            edit("NEAREST", "CUBIC", "LINEAR", "CUBIC"),
        ),
        "image nearest": edit("LINEAR", "NEAREST"),
        "image cubic": edit("LINEAR", "CUBIC"),
    },
    inputs=lambda rng: [a_slice_pair(rng, shape) for shape in ((48, 40), (60, 70), (31, 44))],
    observe=_observe_resample,
)
def resample_pair(image_hu, labels, shape_hw):
    rows, columns = shape_hw
    image = cv2.resize(image_hu, (columns, rows), interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return image, labels


def some_slices(rng: np.random.Generator, patients: int, share: float) -> tuple:
    """Name the patients of some slices: uneven numbers, names out of order."""
    names = rng.permutation([f"patient-{number:02d}" for number in range(10, 10 + patients)])
    return np.repeat(names, rng.integers(3, 30, patients)), share, int(rng.integers(100))


def _observe_split(function, patient_of_slice, test_share, seed):
    numbers = np.arange(len(patient_of_slice))

    def sides(seed):
        train, test = _pair(function(patient_of_slice, test_share, seed))
        for side in (train, test):
            if side.dtype == bool:
                raise Wrong("return slice numbers, not True and False (`np.flatnonzero`)")
            if side.ndim != 1 or side.size and not np.isin(side, numbers).all():
                raise Wrong(f"each side is a row of slice numbers, and one is {describe(side)}")
        return np.sort(train).astype(int), np.sort(test).astype(int)

    train, test = sides(seed)
    tests = [sides(seed + more)[1] for more in range(7)]
    names = patient_of_slice[train], patient_of_slice[test]
    return {
        "the number of slices on both sides": np.intersect1d(train, test).size,
        "the number of patients with slices on both sides": np.intersect1d(*names).size,
        "the number of slices on the two sides": len(train) + len(test),
        "whether the number of patients on the test side, a share of the patients and not of the "
        "slices, depends on the seed": len({len({*patient_of_slice[t]}) for t in tests}) > 1,
        "the number of patients on the test side": len(np.unique(names[1])),
        "whether a seed always gives the same split": all(
            np.array_equal(sides(seed)[1], test) for _ in range(4)
        ),
        "whether other seeds give other splits": len({tuple(other) for other in tests}) > 1,
    }


@exercise(
    "3.3",
    wrong={
        "slices drawn": edit(
            "np.unique(patient_of_slice)",
            "len(patient_of_slice)",
            "isin(patient_of_slice",
            "isin(np.arange(len(patients))",
        ),
        "exchanged": edit("= np.isin", "= ~np.isin"),
        "drawn twice": edit(
            "= patients[: ", "= np.random.default_rng(seed).choice(patients, ", "]", ")"
        ),
        "cut off": edit("round", "int"),
        "rounded up": edit("round", "math.ceil"),
        "no seed": edit("(seed)", "()"),
        "seed left out": edit("(seed)", "(0)"),
    },
    inputs=lambda rng: [
        some_slices(rng, patients, share)
        for patients, share in ((8, 0.25), (12, 0.2), (11, 0.25), (5, 0.4), (20, 0.45))
    ],
    observe=_observe_split,
)
def split_by_patient(patient_of_slice, test_share, seed):
    patients = np.random.default_rng(seed).permutation(np.unique(patient_of_slice))
    tested = patients[: round(test_share * len(patients))]
    is_test = np.isin(patient_of_slice, tested)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def a_stack(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make slices in HU and their ids; some slices show no spine."""
    labels = np.zeros((9, 12, 10), np.uint8)
    for number in rng.permutation(9)[:5]:
        labels[number, 3:7, 2 : rng.integers(4, 9)] = rng.choice([1, 20, 24])
    hu = rng.integers(-1000, 900, labels.shape) + 700 * (labels > 0)
    return hu.astype(np.int16), labels


def _observe_dataset(function, images_hu, labels):
    dataset = function(images_hu, labels)
    expect(dataset, Dataset, "a Dataset, with __len__ and __getitem__")
    items = [dataset[index] for index in range(len(dataset))]
    for item in items:
        if [torch.is_tensor(part) for part in expect(item, tuple | list, "pairs")] != [True, True]:
            raise Wrong(f"an item is a pair of tensors, image and mask, not {describe(item)}")
    images, masks = ([item[part] for item in items] for part in (0, 1))
    return {
        "the number of items": len(items),
        "the shapes of an item": str([tuple(part.shape) for part in items[0]]) if items else "",
        "the dtypes of an item": str([str(part.dtype) for part in items[0]]) if items else "",
        "the masks": torch.stack(masks).numpy() if items else masks,
        "the images": torch.stack(images).numpy() if items else images,
    }


@exercise(
    "3.4",
    wrong={
        "all slices": edit("labels > 0)", "labels >= 0)"),
        "no channel": edits("[None]", "", "[..., None]"),
        "ids": edit("(labels[number] > 0)", "labels[number]"),
        "other dtype": edits("float32", "float64", "float16"),
        "in HU": edit("np.clip((", "", " + 250) / 1250, 0, 1)", ""),
        "not clipped": edit("np.clip(", "", ", 0, 1)", ""),
        "own range": (
            edit("np.clip(", "", "+ 250) / 1250, 0, 1)", "- images_hu.min()) / np.ptp(images_hu)"),
            edit("np.clip((", "", " + 250) / 1250, 0, 1)", " / images_hu.max()"),
        ),
        "clipped alone": edit(" + 250) / 1250, 0, 1", "), -250, 1000"),
        "upper end": edit("1250", "1000"),
    },
    inputs=lambda rng: [a_stack(rng) for _ in range(3)],
    observe=_observe_dataset,
    atol=1e-5,
)
def spine_dataset(images_hu, labels):
    class Slices(Dataset):
        def __init__(self):
            self.numbers = np.flatnonzero((labels > 0).any(axis=(1, 2)))

        def __len__(self):
            return len(self.numbers)

        def __getitem__(self, index):
            number = self.numbers[index]
            unit = np.clip((images_hu[number].astype(np.float32) + 250) / 1250, 0, 1)
            mask = (labels[number] > 0).astype(np.float32)
            return torch.from_numpy(unit)[None], torch.from_numpy(mask)[None]

    return Slices()


def a_lopsided_pair(rng: np.random.Generator, degrees: float) -> tuple:
    """Make a slice in HU and its ids, 11 and 19, that no turn leaves as they are, and an angle."""
    labels = np.zeros((40, 40), np.uint8)
    labels[6:16, 18:32] = 11
    labels[16:28, 24 : 28 + int(rng.integers(0, 4))] = 19
    image = np.where(labels > 0, 600.0, 50.0) + rng.normal(0, 40, labels.shape)
    return image.astype(np.float32), labels, degrees


def _turned(array: np.ndarray, degrees: float, order: int) -> np.ndarray:
    """Return an array turned around its middle; a value beyond the image for what comes in."""
    return ndimage.rotate(array.astype(np.float32), degrees, reshape=False, order=order, cval=-9e5)


def _observe_rotate(function, image, labels, degrees):
    new_image, new_labels = _pair(function(image, labels, degrees))
    facts = _pair_facts(new_image, new_labels, image.shape, labels)
    turns = {"by the angle": degrees, "backwards": -degrees, "not at all": 0.0}
    away = {way: np.mean(new_labels != _turned(labels, turns[way], 0).clip(0)) for way in turns}
    way = min(away, key=away.get)
    angle = turns[way] or degrees
    inside = ndimage.binary_erosion(np.abs(_turned(image, angle, 1)) < 3000, iterations=3)
    inside &= ndimage.binary_erosion(np.abs(_turned(image, -angle, 1)) < 3000, iterations=3)
    ways = [(name, _turned(image, turn, 1)[inside]) for name, turn in turns.items()]
    orders = [(str(order), _turned(image, angle, order)[inside]) for order in (0, 1, 3)]
    return facts | {
        "whether your labels are turned by the angle": way != "not at all" and away[way] < 0.06,
        "whether image and labels are turned alike": way == _nearest_way(new_image[inside], ways),
        "the HU in the corners of your image": round(float(np.median(new_image[:2, :2]))),
        "the order of the spline that your image is interpolated with": int(
            _nearest_way(new_image[inside], orders)
        ),
    }


@exercise(
    "3.5",
    wrong={
        "labels not turned": edit("labels, degrees, r", "labels, 0, r"),
        "image not turned": edit("image_hu, degrees", "image_hu, 0"),
        "opposite turns": edit("labels, degrees, r", "labels, -degrees, r"),
        "labels interpolated": tuple(
            edit("order=0", f"order={order}", "order=1, cval=-1024", f"order={order}, cval={fill}")
            for order in (1, 3)
            for fill in (0, -1024)
        ),
        "corners of water": (edit("-1024", "0"), edit("-1024", "0", "order=1", "order=3")),
        "cubic": edit("order=1", "order=3"),
        "image nearest": edit("order=1", "order=0"),
        "radians": edit("degrees, r", "np.radians(degrees), r"),
    },
    inputs=lambda rng: [a_lopsided_pair(rng, degrees) for degrees in (20.0, -35.0, 27.0)],
    observe=_observe_rotate,
)
def rotate_pair(image_hu, labels, degrees):
    image = ndimage.rotate(image_hu, degrees, reshape=False, order=1, cval=-1024)
    labels = ndimage.rotate(labels, degrees, reshape=False, order=0, cval=0)
    return image, labels
