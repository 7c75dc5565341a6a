"""The files that stand in for a patient's, and the look at the machine."""

import numpy as np
import pydicom
import pytest

from spine_lib import SpineError
from spine_lib.course import files, machine
from spine_lib.ct.volume import load_ct
from spine_lib.datasets import make_phantom


@pytest.fixture(scope="module")
def scan():
    return make_phantom(3, shape=(24, 20, 12), spacing_mm=(2.0, 1.5, 2.0), levels=("L2", "L3")).ct


def test_a_written_series_loads_to_the_same_scan(scan, tmp_path):
    loaded = load_ct(files.write_series(scan, tmp_path / "series"))
    np.testing.assert_array_equal(loaded.array, np.maximum(scan.array, files.INTERCEPT))
    np.testing.assert_allclose(loaded.affine, scan.affine, atol=1e-3)


def test_a_written_series_has_the_traps_that_the_lesson_tells_of(scan, tmp_path):
    paths = sorted(files.write_series(scan, tmp_path / "series").iterdir())
    slices = [pydicom.dcmread(path) for path in paths]
    steps = np.diff([one.ImagePositionPatient[2] for one in slices])
    np.testing.assert_allclose(steps, -2.0, atol=1e-3)
    assert float(slices[0].SliceThickness) == 3.0
    assert slices[0].pixel_array.dtype == np.uint16


def test_without_the_sample_a_phantom_is_written_as_a_file(scan, tmp_path, monkeypatch):
    from types import SimpleNamespace

    case = SimpleNamespace(ct=scan)
    monkeypatch.setattr(files, "course_case", lambda name: (case, "a phantom stands in"))
    path = files.course_file("abdomen", tmp_path)
    np.testing.assert_array_equal(load_ct(path).array, scan.array)
    assert files.course_file("dicom", tmp_path).is_dir()


def test_the_real_patient_s_own_file_is_given(sample_root, tmp_path):
    assert files.course_file("crop", tmp_path) == sample_root / "crop" / "ct.nii.gz"
    assert not list(tmp_path.iterdir())


def test_an_unfit_python_and_missing_data_are_told_with_what_to_do(monkeypatch):
    def fail(progress):
        raise SpineError("No network: try again.")

    monkeypatch.setattr(machine, "fetch_sample", fail)
    monkeypatch.setattr(machine, "PYTHONS", ((3, 90), (3, 91)))
    findings = {finding.what: finding for finding in machine.check_machine()}
    assert "3.11" in findings["Python"].advice
    assert findings["data"].advice == "No network: try again."
    report = machine.machine_report(list(findings.values()))
    assert "look  Python" in report and "ready" not in report


def test_a_machine_with_nothing_to_look_at_is_called_ready():
    report = machine.machine_report([machine.Finding("Python", "3.12.1")])
    assert report.splitlines() == ["  ok  Python   3.12.1", "This machine is ready."]
