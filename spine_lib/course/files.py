"""Files of the lessons' patients to open by hand; a phantom's where the sample is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from spine_lib.course.lesson_data import course_case
from spine_lib.ct.dicom import LPS_TO_RAS
from spine_lib.ct.volume import Volume, save_nifti

INTERCEPT = -1024


def course_file(name: str, folder: Path) -> Path:
    """Return the file of a patient's scan, or the folder of its DICOM slices.

    Args:
        name: as of `course_case`.
        folder: where the files of a phantom are written, if one stands in.
    """
    case, _ = course_case(name)
    if case.ct.path is not None:
        return case.ct.path
    if name == "dicom":
        return write_series(case.ct, folder / "series")
    return save_nifti(case.ct, folder / f"{name}.nii.gz")


def write_series(ct: Volume, folder: Path) -> Path:
    """Write a scan as a DICOM series whose files are named from the head to the feet.

    Args:
        ct: scan in HU with axes along those of the body.
        folder: for the slices; made where it is missing.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for number, z in enumerate(range(ct.shape[2] - 1, -1, -1), start=1):
        # Columns of an axial slice grow to the left, rows to the back, as scanners store them.
        pixels = ct.array[::-1, ::-1, z].T.astype(np.int32) - INTERCEPT
        corner = LPS_TO_RAS @ ct.affine @ [ct.shape[0] - 1, ct.shape[1] - 1, z, 1]
        header = _header(ct, number, series, corner[:3])
        header.Rows, header.Columns = pixels.shape
        header.PixelData = np.clip(pixels, 0, 65535).astype("<u2").tobytes()
        header.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return folder


def _header(ct: Volume, number: int, series: str, corner_mm: np.ndarray) -> pydicom.FileDataset:
    """Return a header without pixels; like many scanners, it names a thickness, not a distance."""
    x_mm, y_mm, z_mm = ct.spacing_mm
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = pydicom.Dataset()
    header.file_meta = meta
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    header.SeriesInstanceUID, header.InstanceNumber, header.Modality = series, number, "CT"
    header.ImagePositionPatient = [round(float(mm), 4) for mm in corner_mm]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.SliceThickness = [y_mm, x_mm], 1.5 * z_mm
    header.RescaleSlope, header.RescaleIntercept = 1, INTERCEPT
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    return header
