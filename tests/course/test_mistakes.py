"""Wrong answers are made out of a right one: by an edit of its source, or by each small slip."""

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.course.mistakes import derived, edit, edits


def mean_above(values, limit):
    kept = values[values >= limit]
    return kept.sum() / (len(kept) + 1)


VALUES = np.array([1.0, 2.0, 4.0])


def test_an_edit_is_the_function_with_other_texts():
    assert edit(">=", ">", " + 1", "").applied(mean_above)(VALUES, 2.0) == 4
    assert [item.texts for item in edits("a", "b", "c")] == [("a", "b"), ("a", "c")]


def test_an_edit_that_does_not_apply_is_an_error():
    with pytest.raises(SpineError, match="mean_above does not contain '=='"):
        edit("==", "<").applied(mean_above)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("with `values > limit` in place of `values >= limit`", 2),
        ("with `len(kept)` in place of `len(kept) + 1`", 3),
        ("with `kept.sum() / len(kept) + 1` in place of `kept.sum() / (len(kept) + 1)`", 4),
        ("with `limit` one too large", 2),
        ("with `values` in place of `values[values >= limit]`", 1.75),
    ],
)
def test_a_slip_is_derived_with_the_words_for_it(words, answer):
    assert dict(derived(mean_above))[words](VALUES, 2.0) == answer
