"""Exercises of lesson 2: ids and schemes, centroids, stray voxels, mirrored and coarse masks."""

import math

import numpy as np
from scipy import ndimage

from spine_lib.course.exercise import Exercise

TOUCHING = np.ones((3, 3, 3), int)


def to_verse_ids(labels):
    verse = np.zeros_like(labels)
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = 51 - labels[vertebra]
    verse[(labels == 25) | (labels == 26)] = 26
    return verse


def a_total_map(rng: np.random.Generator) -> np.ndarray:
    """Make a small map [x, y, z] with blocks of vertebrae and of other organs."""
    ids = np.concatenate([[0, 25, 26, 27, 50], rng.integers(27, 51, 8), [5, 8, 20, 52, 117]])
    blocks = rng.permutation(np.resize(ids, 3 * 4 * 5)).reshape(3, 4, 5)
    return np.kron(blocks, np.ones((2, 2, 2), int)).astype(np.uint8)


def _translated(vertebra=lambda ids: 51 - ids, sacral=((25, 26), (26, 26)), first=27, last=50):
    """Return a translation of vertebrae and of sacral ids; everything else becomes 0."""
    table = np.zeros(256, np.uint8)
    table[first : last + 1] = vertebra(np.arange(first, last + 1))
    for theirs, ours in sacral:
        table[theirs] = ours
    return lambda labels: table[labels]


SCHEME = Exercise(
    "2.1",
    reference=to_verse_ids,
    wrong={
        "organs kept": lambda labels: (
            np.where(labels < 25, labels, to_verse_ids(labels))
            + np.where(labels > 50, labels, 0).astype(np.uint8)
        ),
        "organs counted down": (
            lambda labels: 51 - labels,
            lambda labels: np.where((labels == 25) | (labels == 26), 26, 51 - labels),
            lambda labels: np.where(labels == 0, 0, 51 - labels),
            lambda labels: np.where(labels > 26, 51 - labels, to_verse_ids(labels)),
        ),
        "one off": (_translated(lambda ids: 50 - ids), _translated(lambda ids: 52 - ids)),
        "counted up": _translated(lambda ids: ids - 26),
        "S1": (_translated(sacral=((25, 26),)), _translated(sacral=((25, 26), (26, 25)))),
        "sacrum": (
            _translated(sacral=((26, 26),)),
            _translated(sacral=((25, 25), (26, 26))),
            _translated(sacral=((25, 25), (26, 25))),
        ),
        "no sacrum": _translated(sacral=()),
        "ends missing": (
            _translated(first=28),
            _translated(last=49),
            _translated(first=28, last=49),
        ),
    },
    inputs=lambda rng: [
        (np.arange(118, dtype=np.uint8),),
        *((a_total_map(rng),) for _ in range(3)),
    ],
    dtype=True,
)


def centroid_mm(labels, label, affine):
    voxel = np.argwhere(labels == label).mean(axis=0)
    point = affine @ [*voxel, 1]
    return point[:3]


def a_blob_map(rng: np.random.Generator) -> tuple[np.ndarray, int, np.ndarray]:
    """Make a map [x, y, z] of uneven blobs with ids 20 to 23, one of them, and a turned affine."""
    labels = np.zeros((22, 26, 30), np.uint8)
    for index in range(4):
        x, y = rng.integers(1, 10, 2)
        z = 2 + 7 * index
        labels[x : x + rng.integers(4, 12), y : y + 6, z : z + 5] = 20 + index
        labels[x : x + 3, y + 6 : y + 6 + rng.integers(6, 9), z : z + 2] = 20 + index
    turn = rng.uniform(0.05, 0.1)
    affine = np.eye(4)
    affine[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    affine[:3, :3] *= rng.permutation([0.7, 1.6, 3.0])
    affine[:3, 3] = rng.uniform(100, 300, 3) * rng.choice([-1, 1], 3)
    return labels, int(rng.integers(20, 24)), affine


def _point(middle):
    """Return the way to mm from another middle than the centroid's."""
    return lambda labels, label, affine: (
        affine @ [*middle(np.argwhere(labels == label).astype(float)), 1]
    )[:3]


def _moved(move):
    """Return another way to mm from the right centroid."""
    return lambda labels, label, affine: move(np.argwhere(labels == label).mean(axis=0), affine)


CENTROID = Exercise(
    "2.2",
    reference=centroid_mm,
    wrong={
        "voxel index": _moved(lambda voxel, affine: voxel),
        "spacing alone": (
            _moved(lambda voxel, affine: voxel * np.linalg.norm(affine[:3, :3], axis=0)),
            _moved(lambda voxel, affine: voxel * np.diag(affine)[:3]),
            _moved(lambda voxel, affine: voxel * np.diag(affine)[:3] + affine[:3, 3]),
            _moved(
                lambda voxel, affine: voxel * np.linalg.norm(affine[:3, :3], axis=0) + affine[:3, 3]
            ),
        ),
        "no last column": _moved(lambda voxel, affine: affine[:3, :3] @ voxel),
        "transposed": (
            _moved(lambda voxel, affine: voxel @ affine[:3, :3] + affine[:3, 3]),
            _moved(lambda voxel, affine: ([*voxel, 1] @ affine)[:3]),
        ),
        "a fourth number": _moved(lambda voxel, affine: affine @ [*voxel, 1]),
        "inverse": _moved(lambda voxel, affine: (np.linalg.inv(affine) @ [*voxel, 1])[:3]),
        "bounding box": _point(lambda voxels: (voxels.min(axis=0) + voxels.max(axis=0)) / 2),
        "rounded": (
            _point(lambda voxels: np.rint(voxels.mean(axis=0))),
            _point(lambda voxels: np.trunc(voxels.mean(axis=0))),
        ),
        "median": _point(lambda voxels: np.median(voxels, axis=0)),
        "all labels": lambda labels, label, affine: centroid_mm(labels > 0, 1, affine),
        "ids as weights": lambda labels, label, affine: (
            affine @ [*ndimage.center_of_mass(labels), 1]
        )[:3],
        "index reversed": _moved(lambda voxel, affine: (affine @ [*voxel[::-1], 1])[:3]),
    },
    inputs=lambda rng: [a_blob_map(rng) for _ in range(3)],
    atol=1e-3,
)


def is_mirrored(image_hu, mask):
    here = image_hu[mask].mean()
    swapped = image_hu[mask[::-1]].mean()
    return swapped > here


def a_scan_with_bone(rng: np.random.Generator, mirrored: bool, tissue: int, bone: int) -> tuple:
    """Make a scan [x, y, z] with an off-centre bone and its mask, or the mask mirrored."""
    brighter = (2, 0) if tissue > -200 else (-2, 20)  # to front or back, and to the head
    image = rng.normal(tissue, 15, (30, 24, 12)) + brighter[0] * np.arange(24)[:, None]
    image += brighter[1] * np.arange(12)
    if tissue > 0:
        image[:, :4] = -1000  # air behind the patient
    else:
        image[:2] = 3000  # a prosthesis at the side
    mask = np.zeros(image.shape, bool)
    x, y, z = rng.integers((3, 13, 1), (6, 15, 3))
    mask[x : x + 7, y : y + 5, z : z + 7] = True
    mask[x + 2 : x + 5, y + 5 : y + 9, z + 2] = True
    image[mask] += rng.normal(bone, bone / 5, int(mask.sum()))
    # A bright contrast-filled bowel on the other side, so that the image alone gives no answer;
    # metal where the bone would be if it were mirrored, or gas in it: nor do maximum and minimum.
    if tissue > 0:
        image[-8:-4, 18:22, 2:6] += 300
        image[29 - x, y, z] = 2500
    else:
        image[x, y, z] = -900
    return image.astype(np.int16), mask[::-1].copy() if mirrored else mask


MIRROR = Exercise(
    "2.3",
    reference=is_mirrored,
    wrong={
        "both flipped": lambda image, mask: image[::-1][mask[::-1]].mean() > image[mask].mean(),
        "another axis": (
            lambda image, mask: image[mask[:, ::-1]].mean() > image[mask].mean(),
            lambda image, mask: image[mask[..., ::-1]].mean() > image[mask].mean(),
            lambda image, mask: image[mask[::-1, ::-1]].mean() > image[mask].mean(),
            lambda image, mask: image[mask[::-1, ::-1, ::-1]].mean() > image[mask].mean(),
        ),
        "turned round": lambda image, mask: image[mask].mean() > image[mask[::-1]].mean(),
        "maxima": lambda image, mask: image[mask[::-1]].max() > image[mask].max(),
        "minima": lambda image, mask: image[mask[::-1]].min() > image[mask].min(),
        "a fixed HU": tuple(
            lambda image, mask, hu=hu: image[mask].mean() < hu for hu in (50, 100, 150, 200, 300)
        ),
        "whole image": (
            lambda image, mask: image[mask].mean() < image.mean(),
            lambda image, mask: image[mask].mean() < image[~mask].mean(),
        ),
        "a difference": (
            lambda image, mask: image[mask[::-1]].mean() - image[mask].mean(),
            lambda image, mask: image[mask].mean() - image[mask[::-1]].mean(),
        ),
    },
    inputs=lambda rng: [
        a_scan_with_bone(rng, mirrored, tissue, bone)
        for tissue, bone in ((40, 300), (-160, 120), (230, 300), (20, 110), (-300, 250))
        for mirrored in (False, True)
    ],
)


def stray_voxels(mask):
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]  # without the background
    return sizes.sum() - sizes.max()


def a_scattered_mask(rng: np.random.Generator, loose: int = 3) -> np.ndarray:
    """Make a boolean mask: a block, a piece that touches it by a corner, and loose pieces."""
    mask = np.zeros((24, 24, 24), bool)
    x, y, z = 3 + rng.integers(6, 9, 3)
    mask[3:x, 3:y, 3:z] = True
    mask[x : x + 3, y : y + 2, z : z + 3] = True  # begins at the corner that is diagonally next
    for index in range(loose):
        end = rng.integers(3, 6)
        mask[19:22, 1 + 7 * index : end + 7 * index, 18 : 20 + 2 * index] = True
    mask[0, :2, :2] = loose > 0  # the first piece of the array, and a small one
    return mask


def _from_sizes(stray, structure=TOUCHING):
    """Return an answer from the sizes of the pieces, the background's first."""
    return lambda mask: stray(np.bincount(ndimage.label(mask, structure)[0].ravel()))


STRAY = Exercise(
    "2.4",
    reference=stray_voxels,
    wrong={
        "faces": tuple(
            _from_sizes(
                lambda n: n[1:].sum() - n[1:].max(), ndimage.generate_binary_structure(3, c)
            )
            for c in (1, 2)
        ),
        "without the first": _from_sizes(lambda n: n[2:].sum()),
        "without the last": _from_sizes(lambda n: n[1:-1].sum()),
        "largest": _from_sizes(lambda n: n[1:].max()),
        "pieces": (_from_sizes(lambda n: len(n) - 1), _from_sizes(lambda n: len(n))),
        "loose pieces": _from_sizes(lambda n: len(n) - 2),
        "whole mask": (
            _from_sizes(lambda n: n[1:].sum()),
            _from_sizes(lambda n: n.sum() - n.max()),
        ),
        "background too": _from_sizes(lambda n: n.sum() - n[1:].max()),
        "smallest": _from_sizes(lambda n: n[1:].min()),
        "second largest": _from_sizes(lambda n: np.sort([0, *n[1:]])[-2]),
        "background alone": _from_sizes(lambda n: n.max()),
    },
    inputs=lambda rng: [(a_scattered_mask(rng, loose),) for loose in (3, 2, 0)],
)
