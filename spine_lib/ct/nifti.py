"""Read and write NIfTI files in pieces, so that a scan never lies in memory twice.

nibabel reads the header. Decompressing the voxels straight into one small buffer is two to three
times as fast as its `get_fdata` and needs a fifth of the memory.
"""

import contextlib
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file, os_reason, require_file

PIECE_BYTES = 1 << 19
"""How much is decompressed at a time: small enough to stay in the processor's cache."""

GZIP_MAGIC = b"\x1f\x8b"

POSITION_FIELDS = """
    xyzt_units qform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z
    sform_code srow_x srow_y srow_z
""".split()
"""What a header states on where its voxels lie, beside the first four numbers of `pixdim`."""

UNITS_MM = (1.0, 1000.0, 1.0, 0.001)
"""Millimetres in a header's unit of length: unknown, metre, millimetre, micrometre."""

SPACING_LIMITS_MM, LARGEST_EXTENT_MM, FARTHEST_MM = (0.01, 100.0), 5e3, 1e5
"""No scan of a patient has other voxels, is longer, or begins farther from the scanner's centre."""


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The grid of the file, or folder of a DICOM series, that a volume came from."""

    shape: tuple[int, int, int]  # voxels along the three stored axes
    affine: np.ndarray  # 4x4 float64, stored voxel index -> mm in RAS+
    header: nib.Nifti1Header | None = None  # for what it states on its position
    path: Path | None = None
    notes: tuple[str, ...] = ()  # sentences on what is odd about it

    @property
    def orientation(self) -> str:
        """Where the stored axes point to, for example "LPS"."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def to_ras(self) -> np.ndarray:
        """The axes and flips that turn a stored array to RAS+, as nibabel writes them."""
        return nib.io_orientation(self.affine)

    @property
    def canonical_affine(self) -> np.ndarray:
        """The affine after the axes were turned to RAS+, float64 4x4."""
        return self.affine @ nib.orientations.inv_ornt_aff(self.to_ras, self.shape)


class NiftiFile(SourceGrid):
    """One NIfTI file, whose voxels can be read in pieces."""

    def pieces(self) -> Iterator[tuple[np.ndarray, float, float]]:
        """Yield some voxels at a time, as stored, and the slope and intercept that scale them.

        They are 1-D, the first axis fastest; the next piece overwrites the one before.
        """
        total, dtype = math.prod(self.shape), self.header.get_data_dtype()
        slope, intercept = self.header.get_slope_inter()  # None and None: no scaling
        buffer = np.empty(min(total, PIECE_BYTES // dtype.itemsize), dtype)
        with reading(self.path) as stream:
            stream.seek(int(self.header.get_data_offset()))
            for first in range(0, total, len(buffer)):
                piece = buffer[: total - first]
                if stream.readinto(piece.view(np.uint8)) < piece.nbytes:
                    raise EOFError
                yield piece, float(slope or 1), float(intercept or 0)
            surplus = 0  # the checksum stands behind the last byte
            while block := stream.read(PIECE_BYTES):
                surplus += len(block)
                if block.strip(b"\0") or surplus > 1024 + total * dtype.itemsize:
                    what = f"more voxels than the {'x'.join(map(str, self.shape))} of its header"
                    raise SpineError(f"{self.path} holds {what}: export the file again.")


def open_nifti(path: Path) -> NiftiFile:
    """Read the header of a `.nii` or `.nii.gz` file."""
    try:
        with reading(path) as stream:
            return _checked(path, _parse_header(path, stream))
    except (nib.spatialimages.HeaderDataError, ValueError, OverflowError, KeyError) as error:
        what = f"a damaged NIfTI header ({error})"
        raise SpineError(f"{path} has {what}: export the file again.") from error


def write_nifti(
    array: np.ndarray, affine: np.ndarray, path: Path, position: nib.Nifti1Header | None = None
) -> nib.Nifti1Header:
    """Write one array [i, j, k] with its affine (voxel index -> mm in RAS+), all or nothing.

    The position is written as the header `position` states it, with qform, sform, codes and units,
    so that every program places both files alike. Returns the header written.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise SpineError(f"{path} must end in .nii or .nii.gz to be written as NIfTI.")
    second = isinstance(position, nib.Nifti2Header) or max(array.shape) > np.iinfo(np.int16).max
    image = (nib.Nifti2Image if second else nib.Nifti1Image)(_storable(array), None)
    header = image.header
    if position is None:
        header.set_xyzt_units("mm")
        header.set_sform(affine, code=1)
        header.set_qform(affine, code=1)
        if not np.allclose(header.get_qform(), affine, atol=1e-3):
            header["qform_code"] = 0  # a quaternion cannot hold shears
    else:
        for field in POSITION_FIELDS:
            header[field] = position[field]
        header["pixdim"][:4] = position["pixdim"][:4]
    with atomic_file(path) as stream:
        if path.name.endswith(".gz"):
            # no name and no time inside: the same result gives the same bytes
            with igzip.IGzipFile("", "wb", compresslevel=2, fileobj=stream, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(stream)
    return header


def itk_affine(header: nib.Nifti1Header) -> np.ndarray | None:
    """Return where ITK (3D Slicer, ITK-SNAP) places the voxels, as an affine in RAS+ mm, float64.

    ITK 5.4 takes the sform if it is orthonormal and its code is 1 or the only one; else the qform
    if its code is set; without a code the spacing alone. The spacing is always `pixdim`'s. None
    means that ITK refuses the file, because only a sheared sform is set.
    """
    header = header.copy()
    spacing = np.abs(header["pixdim"][1:4].astype(np.float64))
    spacing[spacing == 0] = 1
    header["pixdim"][1:4] = spacing
    sform, sform_code, qform_code = header.get_sform(), header["sform_code"], header["qform_code"]
    if sform_code > 0 and is_straight(sform) and (sform_code == 1 or qform_code <= 0):
        axes = sform[:3, :3] / np.linalg.norm(sform[:3, :3], axis=0)
        return _in_mm(header, nib.affines.from_matvec(axes * spacing, sform[:3, 3]))
    if qform_code > 0:
        return _in_mm(header, _qform(header))
    if sform_code > 0:
        return None
    return _in_mm(header, np.diag([-spacing[0], -spacing[1], spacing[2], 1]))


def is_straight(affine: np.ndarray) -> bool:
    """Return whether the axes of an affine are perpendicular, as far as ITK requires."""
    with np.errstate(invalid="ignore"):  # an axis of length 0 gives NaN, which is not close
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.allclose(axes @ axes.T, np.eye(3), rtol=0, atol=1e-4)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzip file for reading; raise every failure as a `SpineError`."""
    require_file(path)
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            with igzip.IGzipFile(fileobj=raw) if packed else contextlib.nullcontext(raw) as stream:
                # the buffer below a gzip file fills our memory directly, the file copies once more
                yield getattr(stream, "_buffer", stream)
    except EOFError as error:
        raise SpineError(f"{path} is truncated: copy or download it again.") from error
    except (igzip.BadGzipFile, isal_zlib.error, zlib.error) as error:
        reason = f"its gzip data do not check out ({error})"
        raise SpineError(f"{path} is damaged, {reason}: copy or download it again.") from error
    except OSError as error:
        raise SpineError(f"{path} cannot be read, {os_reason(error)}") from error


def _parse_header(path: Path, stream: BinaryIO) -> nib.Nifti1Header:
    """Return the NIfTI-1 or NIfTI-2 header at the start of a stream."""
    block = stream.read(nib.Nifti2Header.sizeof_hdr)
    size = {struct.pack(order + "i", n): n for order in "<>" for n in (348, 540)}.get(block[:4], 0)
    if len(block) < size:
        raise EOFError
    kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    if not kind.may_contain_header(block):
        raise SpineError(
            f"{path} is not a NIfTI file (it starts with {block[:4]!r}): give a .nii or .nii.gz "
            "file, or the folder of a DICOM series."
        )
    header = kind(block[:size], check=False)
    magic, length = header["magic"].item(), header["sizeof_hdr"]
    if magic in (b"ni1", b"ni2"):
        raise SpineError(f"{path} belongs to a .hdr/.img pair: convert it to one .nii.gz file.")
    torn = size == 540 and header["eol_check"].tolist() not in ([13, 10, 26, 10], [0, 0, 0, 0])
    if torn or length != size or magic not in (b"n+1", b"n+2"):
        raise ValueError(f"sizeof_hdr {length}, magic {magic!r}")
    return header


def _checked(path: Path, header: nib.Nifti1Header) -> NiftiFile:
    """Return the header as a `NiftiFile` if it describes one 3-D scalar image."""
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        sizes = "x".join(map(str, shape))
        raise SpineError(f"{path} has the shape {sizes}, not one 3-D volume: export a single one.")
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "colours (RGB)" if dtype.names or dtype.kind == "V" else f"{dtype} values"
        raise SpineError(f"{path} holds {what}, not one number a voxel: export the grey values.")
    if header["bitpix"] not in (0, 8 * dtype.itemsize):
        raise ValueError(f"bitpix {header['bitpix']} contradicts the data type {dtype}")
    if not np.isfinite(header["pixdim"][1:4]).all():
        raise ValueError(f"spacing {header['pixdim'][1:4].tolist()}")
    if (offset := int(header.get_data_offset())) < header.single_vox_offset:
        raise ValueError(f"voxels start at byte {offset}, inside the header")
    header.get_slope_inter()  # raises where they contradict each other
    used, affine = _nibabel_affine(header)
    _require_patient_size(path, shape, affine)
    notes = [f"{path} {note}" for note in _odd_positions(header, shape, used, affine)]
    # asked for a.nii.gz, SimpleITK opens an a.nii that lies beside it
    twin = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    if twin.name.endswith((".nii", ".nii.gz")) and os.path.isfile(twin):
        notes.append(f"{path} lies beside {twin.name}: other programs may open that, so keep one.")
    return NiftiFile(shape, affine, header, path, tuple(notes))


def _qform(header: nib.Nifti1Header) -> np.ndarray:
    """Return the affine of the quaternion; NIfTI has `pixdim[0]` count as 1 unless it is -1."""
    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] == -1 else 1
    try:
        return header.get_qform()
    except nib.spatialimages.HeaderDataError as error:
        raise ValueError(str(error)) from error


def _in_mm(header: nib.Nifti1Header, affine: np.ndarray) -> np.ndarray:
    scale = dict(enumerate(UNITS_MM)).get(int(header["xyzt_units"]) & 7, 1.0)
    return np.diag([scale, scale, scale, 1]) @ affine


def _nibabel_affine(header: nib.Nifti1Header) -> tuple[str, np.ndarray]:
    """Return the affine in mm by the sform, else the qform, else ("") by the spacing alone."""
    by_sform, by_qform = (0 < header[f"{name}_code"] <= 5 for name in ("sform", "qform"))
    sform = header.get_sform()  # some programs give it a code and no numbers
    if by_sform and (sform[:3].any() or not by_qform):
        return "sform", _in_mm(header, sform)
    if by_qform:
        return "qform", _in_mm(header, _qform(header))
    return "", _in_mm(header, header.get_base_affine())


def _require_patient_size(path: Path, shape: tuple[int, int, int], affine: np.ndarray) -> None:
    """Raise a `SpineError` if an affine is no grid, or too small or large for a patient."""
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(affine[:3, :3] / spacing))
    if not volume > 0.1:  # also where it is NaN; a gantry tilted by 30 degrees has 0.87
        what = f"maps voxels to no volume ({affine[:3].tolist()})"
        raise SpineError(f"{path} has an affine that {what}: export it with its orientation.")
    low, high = SPACING_LIMITS_MM
    plausible = low <= spacing.min() and spacing.max() <= high
    far_mm = np.abs(affine[:3, 3]).max()
    if not plausible or (spacing * shape).max() > LARGEST_EXTENT_MM or not far_mm < FARTHEST_MM:
        voxels, first = (" x ".join(f"{n:.3g}" for n in row) for row in (spacing, affine[:3, 3]))
        raise SpineError(
            f"{path} has {'x'.join(map(str, shape))} voxels of {voxels} mm with the first at "
            f"{first} mm, which is no patient: put the spacing and the unit of its header right."
        )


def _odd_positions(
    header: nib.Nifti1Header, shape: tuple[int, int, int], used: str, affine: np.ndarray
) -> Iterator[str]:
    """Yield what a user must know about where a file's voxels lie."""
    codes = {name: int(header[f"{name}_code"]) for name in ("sform", "qform")}
    if int(header["xyzt_units"]) & 7 >= len(UNITS_MM):
        yield f"has an unknown unit of length (xyzt_units {header['xyzt_units']}): mm are assumed."
    for name, code in codes.items():
        if not 0 <= code <= 5:
            yield f"has the {name}_code {code}, which NIfTI does not define: it counts as 0."
    if not used:
        yield "says nothing about orientation (codes 0): left and right are a guess, so check them."
        return
    if codes["sform"] and not header.get_sform()[:3].any():
        yield "has an sform of zeros: its qform is used."
    try:
        other = itk_affine(header)
    except ValueError as error:
        yield f"has a damaged qform ({error}): programs that read it show the scan elsewhere."
        return
    if other is None:
        return
    gap_mm = np.linalg.norm(np.abs(affine - other)[:3] @ [*(np.array(shape) - 1), 1])
    if not gap_mm <= np.linalg.norm(affine[:3, :3], axis=0).min() / 10:
        yield (
            f"holds two positions up to {gap_mm:.3g} mm apart: nibabel and this library go by the "
            f"{used} (codes: sform {codes['sform']}, qform {codes['qform']}), ITK programs such as "
            "3D Slicer by the other or by pixdim; what is written for it keeps both."
        )


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
