"""The lessons' patients, and the report on the machine."""

import pytest

from spine_lib import SpineError, metrics
from spine_lib.course import course_case, held_out_case, machine, patients


def test_held_out_patients_come_with_the_stored_predictions(sample_root):
    case = held_out_case("crop")
    assert list(case.probability) == ["U-Net", "DeepLabv3+"]
    truth = case.data.labels.array > 0
    for probability in case.probability.values():
        counts = metrics.confusion(probability.array >= 0.5, truth, case.data.ignore.array)
        assert metrics.dice(counts) > 0.8


def test_an_unknown_patient_is_an_error():
    with pytest.raises(SpineError, match="no patient 'liver': choose one of chest"):
        course_case("liver")
    with pytest.raises(SpineError, match="'chest' is not held out"):
        held_out_case("chest")


def test_a_missing_sample_is_one_error_that_names_the_command(monkeypatch):
    def fail():
        raise SpineError("No network: try again.")

    monkeypatch.setattr(patients, "fetch_sample", fail)
    with pytest.raises(SpineError, match=r"\(No network: try again\): run `spine fetch`"):
        course_case("chest")


def test_an_unfit_python_and_missing_data_are_reported_with_advice(monkeypatch):
    def fail(progress):
        raise SpineError("No network: try again.")

    monkeypatch.setattr(machine, "fetch_sample", fail)
    monkeypatch.setattr(machine, "PYTHONS", ((3, 90), (3, 91)))
    report = machine.machine_report()
    assert "look  Python" in report and "3.11" in report and "No network: try again." in report
    assert "ready" not in report


def test_a_machine_without_problems_is_ready(monkeypatch, sample_root):
    monkeypatch.setattr(machine, "ENOUGH_MEMORY_GB", 0)
    monkeypatch.setitem(machine.sys.modules, "ipykernel", machine)
    assert machine.machine_report().endswith("\nThis machine is ready.")
