"""Exercises of lesson 2: ids and schemes, centroids, stray voxels, mirrored and coarse masks."""

import math

import numpy as np
from scipy import ndimage

from spine_lib.course.exercise import exercise
from spine_lib.course.mistakes import edit, edits


def a_total_map(rng: np.random.Generator) -> np.ndarray:
    """Make a small map [x, y, z] with blocks of vertebrae and of other organs."""
    ids = np.concatenate([[0, 25, 26, 27, 50], rng.integers(27, 51, 8), [5, 8, 20, 52, 117]])
    blocks = rng.permutation(np.resize(ids, 3 * 4 * 5)).reshape(3, 4, 5)
    return np.kron(blocks, np.ones((2, 2, 2), int)).astype(np.uint8)


@exercise(
    "2.1",
    wrong={
        "organs kept": edit("np.zeros_like(labels)", "labels.copy()"),
        "organs counted down": (
            lambda labels: 51 - labels,
            *edits("(labels >= 27) & (labels <= 50)", "labels >= 0", "labels > 0", "labels > 26"),
        ),
        "one off": edits("51", "50", "52"),
        "counted up": edit("51 - labels[vertebra]", "labels[vertebra] - 26"),
        "S1": edits("(labels == 26)] = 26", "False] = 26", "False] = 26; verse[labels == 26] = 25"),
        "sacrum": (
            edit("(labels == 25) | ", ""),
            *edits("] = 26", "] = labels[(labels == 25) | (labels == 26)]", "] = 25"),
        ),
        "no sacrum": edit("] = 26", "] = 0"),
        "no vertebrae": edit("51 - labels[vertebra]", "0"),
        "ends missing": (edit("27", "28"), edit("50", "49"), edit("27", "28", "50", "49")),
    },
    inputs=lambda rng: [
        (np.arange(118, dtype=np.uint8),),
        *((a_total_map(rng),) for _ in range(3)),
    ],
    dtype=True,
)
def to_verse_ids(labels):
    verse = np.zeros_like(labels)
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = 51 - labels[vertebra]
    verse[(labels == 25) | (labels == 26)] = 26
    return verse


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


@exercise(
    "2.2",
    wrong={
        "voxel index": edit("return point[:3]", "return voxels.mean(axis=0)"),
        "spacing alone": tuple(
            edit("affine @ [*voxels.mean(axis=0), 1]", f"voxels.mean(axis=0) * {spacing_mm}{more}")
            for spacing_mm in ("np.linalg.norm(affine[:3, :3], axis=0)", "np.diag(affine)[:3]")
            for more in ("", " + affine[:3, 3]")
        ),
        "no last column": edit(", 1]", ", 0]"),
        "transposed": (
            edit("affine @", "affine.T @"),
            edit(
                "affine @ [*voxels.mean(axis=0), 1]",
                "affine[:3, :3].T @ voxels.mean(axis=0) + affine[:3, 3]",
            ),
        ),
        "a fourth number": edit("[:3]", ""),
        "inverse": edit("affine @", "np.linalg.inv(affine) @"),
        "bounding box": edit(
            "voxels.mean(axis=0)", "(voxels.min(axis=0) + voxels.max(axis=0)) / 2"
        ),
        "rounded": edits(
            "voxels.mean(axis=0)", "voxels.mean(axis=0).round()", "voxels.mean(axis=0) // 1"
        ),
        "median": edit("voxels.mean(", "np.median(voxels, "),
        "all labels": edit("labels == label", "labels"),
        "ids as weights": edit("voxels.mean(axis=0)", "ndimage.center_of_mass(labels)"),
        "index reversed": edit("voxels.mean(axis=0)", "voxels.mean(axis=0)[::-1]"),
    },
    inputs=lambda rng: [a_blob_map(rng) for _ in range(3)],
    atol=1e-3,
)
def centroid_mm(labels, label, affine):
    voxels = np.argwhere(labels == label)
    point = affine @ [*voxels.mean(axis=0), 1]
    return point[:3]


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


@exercise(
    "2.3",
    wrong={
        "both flipped": edit("image_hu[mask[", "image_hu[::-1][mask["),
        "another axis": edits("[::-1]", "[:, ::-1]", "[..., ::-1]", "[::-1, ::-1]"),
        "turned round": edit(">", "<"),
        "maxima": edit("mean", "max"),
        "minima": edit("mean", "min"),
        "a fixed HU": edits("swapped >", "50 >", "100 >", "150 >", "200 >", "300 >"),
        "whole image": edits("swapped >", "image_hu.mean() >", "image_hu[~mask].mean() >"),
        "a difference": edits("swapped > here", "swapped - here", "here - swapped"),
    },
    inputs=lambda rng: (
        [
            a_scan_with_bone(rng, mirrored, tissue, bone)
            for tissue, bone in ((40, 300), (-160, 120), (230, 300), (20, 110), (-300, 250))
            for mirrored in (False, True)
        ]
        + [(np.full((4, 3, 2), 80, np.int16), np.arange(24).reshape(4, 3, 2) < 9)]
    ),
)
def is_mirrored(image_hu, mask):
    here = image_hu[mask].mean()
    swapped = image_hu[mask[::-1]].mean()
    return swapped > here


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


@exercise(
    "2.4",
    wrong={
        "faces": edits("np.ones((3, 3, 3))", "None", "ndimage.generate_binary_structure(3, 2)"),
        "without the first": edit("sizes.max()", "sizes[0]"),
        "without the last": edit("sizes.max()", "sizes[-1]"),
        "largest": edit("sizes.sum() - ", ""),
        "pieces": edits("sizes.sum() - sizes.max()", "len(sizes)", "len(sizes) + 1"),
        "loose pieces": edit("sizes.sum() - sizes.max()", "len(sizes) - 1"),
        "whole mask": (edit(" - sizes.max()", ""), edit("[1:]", "")),
        "background too": edit("sizes.sum()", "mask.size"),
        "smallest": edit("sizes.sum() - sizes.max()", "sizes.min()"),
        "second largest": edit("sizes.sum() - sizes.max()", "np.sort([0, *sizes])[-2]"),
        "background alone": edit("sizes.sum() - sizes.max()", "(~mask).sum()"),
    },
    inputs=lambda rng: [(a_scattered_mask(rng, loose),) for loose in (3, 2, 0)],
)
def stray_voxels(mask):
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]  # without the background
    return sizes.sum() - sizes.max()
