"""Read and write NIfTI files in pieces, so that a scan never lies in memory twice.

nibabel reads the header. Decompressing the voxels straight into one small buffer is two to three
times as fast as its `get_fdata` and needs a fifth of the memory.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file

PIECE_BYTES = 1 << 19
"""How much is decompressed at a time: small enough to stay in the processor's cache."""

MAX_DEFLATE_RATIO = 1032
"""Deflate cannot shrink data by more than this factor, so a shorter file must be truncated."""

GZIP_MAGIC = b"\x1f\x8b"


class Piece(NamedTuple):
    """Some neighbouring planes of a file, as they are stored."""

    planes: slice
    stored: np.ndarray
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """The header of one NIfTI file: its grid as stored, value = stored * slope + intercept.

    Voxels begin at byte `offset`; `oriented` is False if the header has no orientation.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    dtype: np.dtype
    slope: float
    intercept: float
    offset: int
    oriented: bool

    def pieces(self) -> Iterator[Piece]:
        """Yield some planes at a time; the next piece overwrites the one before."""
        width, height, depth = self.shape
        plane_bytes = width * height * self.dtype.itemsize
        count = min(depth, max(1, PIECE_BYTES // plane_bytes))
        buffer = np.empty((width, height, count), self.dtype, order="F")
        view = memoryview(buffer.reshape(-1, order="F").view(np.uint8))
        with reading(self.path) as stream:
            stream.seek(self.offset)
            for first in range(0, depth, count):
                size = min(count, depth - first)
                fill(stream, view[: size * plane_bytes])
                planes = slice(first, first + size)
                yield Piece(planes, buffer[:, :, :size], self.slope, self.intercept)
            while stream.read(PIECE_BYTES):  # the checksum stands behind the last byte
                pass


def open_nifti(path: Path) -> NiftiFile:
    """Read the header of a `.nii` or `.nii.gz` file; its first bytes tell if it is compressed."""
    if not path.exists():
        raise SpineError(f"{path} does not exist: check the path.")
    with reading(path) as stream:
        header = _parse_header(path, stream)
    try:
        image = _checked(path, header)
    except (nib.spatialimages.HeaderDataError, ValueError, OverflowError, KeyError) as error:
        raise SpineError(
            f"{path} has a damaged NIfTI header ({error}): export the file again."
        ) from error
    needed = image.offset + math.prod(image.shape) * image.dtype.itemsize
    with open(path, "rb") as raw:
        ratio = MAX_DEFLATE_RATIO if raw.read(2) == GZIP_MAGIC else 1
    size = path.stat().st_size
    if size * ratio < needed:  # noticed before memory is allocated
        raise SpineError(
            f"{path} is truncated, it has {size} bytes and its header announces {needed}: "
            "copy or download it again."
        )
    return image


def write_nifti(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write one array [i, j, k] with its affine (voxel index -> mm in RAS+), all or nothing."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise SpineError(f"{path} must end in .nii or .nii.gz to be written as NIfTI.")
    image = nib.Nifti1Image(_storable(array), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if not np.allclose(image.get_qform(), affine, atol=1e-3):
        image.set_qform(None, code=0)  # a quaternion cannot hold shears
    with atomic_file(path) as stream:
        if path.name.endswith(".gz"):
            # no name and no time inside: the same result gives the same bytes
            with igzip.IGzipFile("", "wb", compresslevel=2, fileobj=stream, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(stream)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzip file for reading; raise every failure as a `SpineError`."""
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            with igzip.IGzipFile(fileobj=raw) if packed else contextlib.nullcontext(raw) as stream:
                # the buffer below a gzip file fills our memory directly, the file copies once more
                yield getattr(stream, "_buffer", stream)
    except EOFError as error:
        raise SpineError(
            f"{path} is truncated, its data end too early: copy or download it again."
        ) from error
    except (igzip.BadGzipFile, isal_zlib.error, zlib.error) as error:
        raise SpineError(
            f"{path} is damaged, its gzip data do not check out ({error}): "
            "copy or download it again."
        ) from error
    except OSError as error:
        raise SpineError(
            f"{path} cannot be read ({error.strerror or error}): check the path and your rights."
        ) from error


def fill(stream: BinaryIO, view: memoryview) -> None:
    """Read exactly as many bytes as `view` holds; raise EOFError where there are fewer."""
    while len(view):
        count = stream.readinto(view)
        if not count:
            raise EOFError
        view = view[count:]


def _parse_header(path: Path, stream: BinaryIO) -> nib.Nifti1Header:
    """Return the NIfTI-1 or NIfTI-2 header at the start of a stream."""
    block = stream.read(nib.Nifti2Header.sizeof_hdr)
    sizes = {struct.pack(order + "i", size): size for order in "<>" for size in (348, 540)}
    size = sizes.get(block[:4], 0)
    if len(block) < size:
        raise EOFError
    kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    if not size or not kind.may_contain_header(block):
        raise SpineError(
            f"{path} is not a NIfTI file (it starts with {block[:4]!r}): give a .nii or .nii.gz "
            "file, or the folder of a DICOM series."
        )
    header = kind(block[:size], check=False)
    if header["magic"].item() in (b"ni1", b"ni2"):
        raise SpineError(
            f"{path} is the header of a .hdr/.img pair: convert the pair to one .nii.gz file."
        )
    return header


def _checked(path: Path, header: nib.Nifti1Header) -> NiftiFile:
    """Return the header as a `NiftiFile` if it describes one 3-D scalar image."""
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise SpineError(
            f"{path} has the shape {'x'.join(map(str, shape))}, not one 3-D volume: "
            "export a single volume."
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "colours (RGB)" if dtype.names or dtype.kind == "V" else f"{dtype} values"
        raise SpineError(f"{path} holds {what}, not one number a voxel: export the grey values.")
    affine = np.asarray(header.get_best_affine(), np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise SpineError(
            f"{path} has an affine that maps voxels to no volume ({affine[:3].tolist()}): "
            "export the file again with its orientation."
        )
    offset = int(header.get_data_offset())
    if offset < header.sizeof_hdr:
        raise ValueError(f"voxels start at byte {offset}, inside the header")
    slope, intercept = header.get_slope_inter()  # None and None: no scaling
    scaling = (1.0, 0.0) if slope is None else (float(slope), float(intercept))
    oriented = bool(header["sform_code"] or header["qform_code"])
    return NiftiFile(path, shape, affine, dtype, *scaling, offset, oriented)


def _storable(array: np.ndarray) -> np.ndarray:
    """Return the array in the smallest common NIfTI type that has its values."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    kinds = (np.uint8, np.int16, np.uint16, np.int32)
    if array.dtype in kinds:
        return array
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    for kind in kinds:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    raise SpineError(f"Values from {low} to {high} do not fit into 32 bits: save smaller numbers.")
