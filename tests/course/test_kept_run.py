"""The results that lesson 8 reads: the kept run, or the one that stands in for it."""

import json
import math

import pytest

from spine_lib import SpineError
from spine_lib.course.kept_run import KEPT, kept_run, read_results, scores_by_patient, seeds_of
from spine_lib.ct.files import atomic_file

RESULTS = {
    "models": {
        "unet": {
            "runs": [
                {
                    "seed": seed,
                    "test": {
                        "volumes": {
                            "a": {"dice": 0.5 + seed / 10, "patient_id": "p"},
                            "b": {"dice": 0.7 + seed / 10, "patient_id": "p"},
                            "c": {"dice": None if seed else 0.9},
                        }
                    },
                }
                for seed in (1, 0)
            ]
        }
    }
}


def write_run(folder, text=None):
    folder.mkdir()
    with atomic_file(folder / "results.json") as stream:
        stream.write((json.dumps(RESULTS) if text is None else text).encode())
    return folder


def test_the_kept_run_of_a_source_tree_is_read_without_a_note():
    if not KEPT.is_file():
        pytest.skip("no benchmarks folder in this copy")
    results, note = kept_run()
    assert note == "" and set(results["models"]) == {"unet_resnet34", "deeplabv3plus_resnet34"}
    assert seeds_of(results)
    for rows in scores_by_patient(results).values():
        assert all(len(values) == len(seeds_of(results)) for values in rows.values())
        assert all(0 <= value <= 1 for values in rows.values() for value in values)


def test_where_it_is_not_there_another_run_stands_in_and_says_so(tmp_path):
    run = write_run(tmp_path / "mini")
    results, note = kept_run(run, kept=tmp_path / "nowhere.json")
    assert results == RESULTS
    assert "'mini' stands in for the built-in run" in note


def test_without_any_run_the_way_out_is_told(tmp_path):
    with pytest.raises(SpineError, match="run `spine reproduce`"):
        kept_run(kept=tmp_path / "nowhere.json")


@pytest.mark.parametrize(("text", "words"), [("{", "cannot be read"), ("{}", "holds no models")])
def test_results_that_are_none_are_refused_with_the_file(tmp_path, text, words):
    run = write_run(tmp_path / "broken", text)
    with pytest.raises(SpineError, match=words) as error:
        read_results(run / "results.json")
    assert "results.json" in str(error.value)


def test_scores_are_listed_by_patient_a_value_for_each_run():
    scores = scores_by_patient(RESULTS)["unet"]
    assert scores["p"] == pytest.approx([0.7, 0.6])
    assert math.isnan(scores["c"][0]) and scores["c"][1] == 0.9
    assert seeds_of(RESULTS) == [0, 1]
