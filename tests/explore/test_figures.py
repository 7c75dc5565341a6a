"""Static figures show what they are given, readable without colour."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from spine_lib import SpineError
from spine_lib.ct.volume import Volume
from spine_lib.explore import figures, render
from spine_lib.training import logs

CSV = """epoch,step,train_loss,val_dice
0,0,1.5,
0,10,1.0,
0,19,,0.4
1,20,nan,
1,39,0.5,0.7
"""
ROWS = [{"step": step, "train_loss": 1 / (1 + step), "val_dice": None} for step in range(60)]


def _texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_lightning_log_is_read_with_its_empty_cells_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(CSV, encoding="utf-8")
    rows = logs.read_log(path)
    assert [list(map(float, part)) for part in logs.points(rows, "train_loss")] == [
        [0, 10, 39],
        [1.5, 1.0, 0.5],
    ]
    assert [list(map(float, part)) for part in logs.points(rows, "val_dice")] == [
        [19, 39],
        [0.4, 0.7],
    ]


@pytest.mark.parametrize("text", [None, "", "epoch,step\n", "a,b\nx,y\n"])
def test_a_log_without_numbers_is_refused_by_name(tmp_path, text):
    path = tmp_path / "metrics.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SpineError, match=r"metrics\.csv"):
        logs.read_log(path)


def test_learning_curves_draw_each_value_at_its_step(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(CSV, encoding="utf-8")
    left, right = figures.learning_curves({"one": path, "two": ROWS}).axes
    assert right.lines[0].get_xydata().tolist() == [[19, 0.4], [39, 0.7]]
    assert right.get_ylim() == (0, 1)
    raw_lines = [line for line in left.lines if line.get_alpha()]
    assert [len(line.get_xdata()) for line in raw_lines] == [3, 60]
    assert left.get_yscale() == "log"


def test_models_differ_in_dash_and_marker_and_not_only_in_colour():
    rows = [{"step": step, "train_loss": 1.0, "val_dice": 0.5} for step in range(5)]
    figure = figures.learning_curves(dict.fromkeys("abcd", rows))
    lines = figure.axes[1].lines
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines}) == 4
    assert len({line.get_marker() for line in lines}) == 4


def test_a_loss_that_is_not_positive_is_drawn_on_a_linear_axis():
    rows = [{"step": 0, "train_loss": 0.5}, {"step": 1, "train_loss": -0.5}]
    assert figures.loss_curves({"one": rows}).axes[0].get_yscale() == "linear"


def test_curves_without_any_value_are_refused_and_an_empty_panel_says_so():
    with pytest.raises(SpineError, match="train_loss"):
        figures.learning_curves({"one": [{"step": 1}]})
    assert "not recorded" in _texts(figures.learning_curves({"one": ROWS}).axes[1])


def test_patient_scores_show_every_seed_and_their_mean():
    scores = {"U-Net": {"a": [0.8, 0.9, 0.7], "b": 0.5}, "other": {"a": 0.6, "b": [0.1, 0.3]}}
    axes = figures.patient_scores(scores).axes[0]
    dots = sorted(len(dot.get_offsets()) for dot in axes.collections)
    assert dots == [1, 1, 2, 3]
    assert {"0.800", "0.500", "0.600", "0.200"} <= set(_texts(axes))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_an_undefined_score_is_said_and_not_drawn_as_zero():
    axes = figures.patient_scores({"U-Net": {"a": float("nan"), "b": 0.5}}).axes[0]
    assert "U-Net: undefined" in _texts(axes)
    drawn = np.concatenate([dot.get_offsets().filled(np.nan) for dot in axes.collections])
    assert drawn[np.isfinite(drawn[:, 0]), 0].tolist() == [0.5]


def test_no_patients_are_refused():
    with pytest.raises(SpineError, match="no patients"):
        figures.patient_scores({"U-Net": {}})


@pytest.fixture
def triptych():
    affine = np.diag([1.0, 1.0, 2.5, 1.0])
    ct = Volume(np.zeros((40, 30, 20), np.int16), affine)
    truth = np.zeros(ct.shape, np.uint8)
    truth[10:20, 10:20] = 20
    mask, guess = ct.with_array(truth), ct.with_array(np.roll(truth > 0, 3, 0))
    return figures.slice_triptych(ct, 15, "sagittal", (400, 1800), mask, guess, title="case x")


def test_a_triptych_has_marks_a_scale_bar_and_a_hatched_legend(triptych):
    assert len(triptych.axes) == 3
    for axes in triptych.axes:
        texts = _texts(axes)
        assert set(render.orientation_marks("sagittal").values()) <= set(texts)
        (bar,) = axes.patches
        (length,) = (text for text in texts if text.endswith("mm"))
        assert bar.get_width() == pytest.approx(float(length.split()[0]) / 1.0)
    legend = triptych.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "true positive",
        "false positive",
        "false negative",
    ]
    assert len({patch.get_hatch() for patch in legend.get_patches()}) == 3


def test_a_figure_is_encoded_as_an_image_and_the_same_each_time(triptych):
    with Image.open(io.BytesIO(figures.encode_figure(triptych, "png", dpi=50))) as image:
        assert image.size[0] == 450
    curves = figures.learning_curves({"one": ROWS})
    svg = figures.encode_figure(curves)
    assert ET.fromstring(svg).tag.endswith("svg")
    assert svg == figures.encode_figure(figures.learning_curves({"one": ROWS}))
    assert b"<text" not in svg  # letters are drawn, so that no font is needed


def test_figures_leave_nothing_in_pyplot(triptych):
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []
