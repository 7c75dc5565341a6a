"""Label schemes and regions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spine_lib import SpineError
from spine_lib.annotations import (
    CANONICAL,
    HEAD_TO_FOOT,
    REGIONS,
    SCHEMES,
    to_canonical,
    to_regions,
)


def test_one_vertebra_has_one_canonical_id_whatever_the_scheme():
    by_name = {name: i for i, name in CANONICAL.items()}
    expected = {"L1": (20, 31, 20), "C1": (1, 50, 1), "T12": (19, 32, 19), "C7": (7, 44, 7)}
    for name, ids in expected.items():
        for scheme, label in zip(("verse", "totalsegmentator", "pycad1089"), ids, strict=True):
            assert to_canonical(np.array([label]), scheme)[0] == by_name[name], (scheme, name)


def test_each_scheme_counts_its_own_part_of_the_sacrum_to_the_sacrum():
    assert to_canonical(np.array([25, 26]), "totalsegmentator").tolist() == [26, 26]
    assert to_canonical(np.array([25]), "pycad1089").tolist() == [26]
    assert to_canonical(np.array([25, 26, 28]), "verse").tolist() == [25, 26, 28]


def test_the_names_of_a_scheme_agree_with_the_vertebra_that_its_ids_become():
    for scheme in SCHEMES.values():
        for label, vertebra in scheme.canonical.items():
            name = scheme.names[label]
            assert name == CANONICAL[vertebra] or (vertebra == 26 and name == "S1")


def test_organs_of_a_totalsegmentator_map_become_background():
    names = SCHEMES["totalsegmentator"].names
    assert (names[1], names[5], names[52], names[79], names[92], names[117]) == (
        *("spleen", "liver", "aorta", "spinal_cord", "rib_left_1", "costal_cartilages"),
    )
    organs = [i for i in range(1, 119) if not 25 <= i <= 50]
    assert not to_canonical(np.array(organs, np.uint8), "totalsegmentator").any()


@given(scheme=st.sampled_from(list(SCHEMES)), data=st.data())
def test_translation_looks_at_each_voxel_alone(scheme, data):
    known = [0, *SCHEMES[scheme].names]
    shape = arrays.array_shapes(min_dims=1, max_dims=3, max_side=6)
    labels = data.draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from(known)))
    canonical = to_canonical(labels, scheme)
    assert canonical.shape == labels.shape and canonical.dtype == np.uint8
    expected = [SCHEMES[scheme].canonical.get(int(i), 0) for i in labels.flat]
    assert canonical.ravel().tolist() == expected
    assert np.array_equal(to_canonical(canonical, "canonical"), canonical)


@pytest.mark.parametrize(
    ("labels", "scheme", "words"),
    [
        (np.arange(20, 60), "verse", r"29, 30, .*'verse'.*totalsegmentator"),
        ([0, 70], "pycad1089", "70"),
        ([-1, 3], "verse", "int64 from -1 to 3"),
        ([0, 70000], "verse", "to 70000"),
        ([1.0, 2.0], "verse", "float64"),
        ([True], "verse", "bool"),
        ([1], "versse", r"'versse'.*verse.*pycad1089"),
    ],
)
def test_unknown_ids_and_schemes_and_what_is_no_label_map_are_refused(labels, scheme, words):
    with pytest.raises(SpineError, match=words):
        to_canonical(np.array(labels), scheme)


def test_every_vertebra_lies_in_its_region():
    for label, name in CANONICAL.items():
        region = to_regions(np.array([label], np.uint8))[0]
        first = {"C": "cervical", "T": "thoracic", "L": "lumbar", "s": "sacral"}[name[0]]
        assert REGIONS[region - 1] == first, name
    assert to_regions(np.array([0], np.uint8))[0] == 0


def test_regions_follow_each_other_from_head_to_foot():
    regions = to_regions(np.array(HEAD_TO_FOOT, np.uint8)).astype(int)
    assert sorted(HEAD_TO_FOOT) == sorted(CANONICAL)
    assert (np.diff(regions) >= 0).all() and regions[0] == 1 and regions[-1] == 4
