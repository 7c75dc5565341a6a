"""The stop watch of long runs: sums over calls, and an end in time."""

import json
from concurrent.futures import Future

import pytest

from spine_lib.reproduce.laps import Laps, OutOfTime, each_done, no_lap


class Clock:
    """A clock that tests set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_time_since_the_last_unit_is_that_of_the_stage_it_names(tmp_path, clock):
    laps = Laps(tmp_path / "laps.json", clock=clock)
    for stage, seconds in (("slice", 2), ("slice", 3), (None, 50), ("train", 4)):
        clock.now += seconds
        laps(stage, units=2)
    assert laps.stages == {
        "slice": {"seconds": 5.0, "units": 4},
        "train": {"seconds": 4.0, "units": 2},
    }
    assert laps.units("slice") == 4 and laps.units("never") == 0


def test_a_second_call_goes_on_with_the_sums_of_the_first(tmp_path, clock):
    file = tmp_path / "laps.json"
    for _ in range(2):
        laps = Laps(file, clock=clock)
        clock.now += 1.5
        laps("slice")
        laps.write()
        clock.now += 1000  # nobody runs
    assert json.loads(file.read_text(encoding="utf-8")) == {"slice": {"seconds": 3.0, "units": 2}}


def test_a_killed_run_keeps_what_was_counted_a_moment_ago(tmp_path, clock):
    laps = Laps(tmp_path / "laps.json", clock=clock)
    for _ in range(5):
        clock.now += 1
        laps("slice")  # killed after the last one
    kept = Laps(tmp_path / "laps.json", clock=clock)
    assert kept.units("slice") == 3 and kept.stages["slice"]["seconds"] == 3


def test_the_first_unit_after_the_minutes_ends_the_call_and_counts(tmp_path, clock):
    laps = Laps(tmp_path / "laps.json", minutes=1, clock=clock)
    clock.now += 59
    laps("slice")
    clock.now += 2
    laps("predict", may_end=False)
    with pytest.raises(OutOfTime, match="the same command again goes on"):
        laps("score")
    assert set(Laps(tmp_path / "laps.json").stages) == {"slice", "predict", "score"}


def test_without_a_file_nothing_is_written_and_without_a_watch_nothing_is_timed(tmp_path, clock):
    laps = Laps(None, clock=clock)
    laps("slice")
    laps.write()
    assert not list(tmp_path.iterdir())
    no_lap("slice", units=3, may_end=False)


def test_out_of_time_what_was_begun_is_still_counted_and_the_rest_is_not_started(clock):
    laps, dealt_with = Laps(None, minutes=1, clock=clock), []
    done, begun, waits = Future(), Future(), Future()
    done.set_result("done")
    begun.set_running_or_notify_cancel()
    clock.now += 100
    with pytest.raises(OutOfTime):
        for future in each_done([done, begun, waits], laps, "slice"):
            if future is begun:
                begun.set_result("begun")
            dealt_with.append(future.result())
    assert dealt_with == ["done", "begun"] and waits.cancelled()
    assert laps.units("slice") == 2
