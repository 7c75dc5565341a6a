"""Small DICOM series for the tests, with any tag as it should not be."""

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_slice(path, position, pixels, directions=(1, 0, 0, 0, 1, 0), series="1.2.3", **tags):
    """Write one CT slice; `tags` are set last: None removes one, bytes are written as they are."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    slice_.Modality, slice_.SeriesInstanceUID = "CT", series
    slice_.ImagePositionPatient = [f"{value:.6f}" for value in position]
    slice_.ImageOrientationPatient = [f"{value:.6f}" for value in np.ravel(directions)]
    slice_.PixelSpacing, slice_.SliceThickness = [0.8, 0.6], 3  # rows, columns
    slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
    slice_.Rows, slice_.Columns = pixels.shape
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
    slice_.PixelRepresentation = int(pixels.dtype.kind == "i")
    slice_.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(slice_, name)
        elif isinstance(value, bytes) and name != "PixelData":
            tag = Tag(name)
            vr = pydicom.datadict.dictionary_VR(tag)
            slice_._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
        else:
            setattr(slice_, name, value)
    slice_.save_as(path, enforce_file_format=True)


def write_bare(path, dataset, implicit):
    """Write a slice without preamble and file meta."""
    dataset.decode()
    with path.open("wb") as raw:
        stream = DicomFileLike(raw)
        stream.is_little_endian, stream.is_implicit_VR = True, implicit
        write_dataset(stream, dataset)


def write_series(folder, heights_mm=(0, 2, 4, 6), **tags):
    """Write slices at these heights, under names that hide their order."""
    folder.mkdir(exist_ok=True)
    for number, height in enumerate(heights_mm):
        pixels = np.full((3, 4), 1000 + 10 * number, np.uint16)
        write_slice(folder / f"{(number * 7) % 10}{number}.dcm", (0, 0, height), pixels, **tags)
    return folder
