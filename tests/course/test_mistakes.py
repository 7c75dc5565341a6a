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
        ("with the limit itself on the wrong side of a comparison", 2),
        ("without one of its terms or factors", 3),
        ("without a pair of brackets", 4),
        ("with `limit` one too large", 2),
        ("with all of something of which a part is meant", 1.75),
    ],
)
def test_a_slip_is_derived_with_the_words_for_it(words, answer):
    answers = [slip(VALUES, 2.0) for text, slip in derived(mean_above) if text == words]
    assert answer in answers and "kept" not in words
