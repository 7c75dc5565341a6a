"""Static figures show what they are given, readable without colour."""

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from spine_lib import SpineError
from spine_lib.ct.geometry import orientation_marks
from spine_lib.explore import figures
from spine_lib.explore.overlays import ERROR_SWATCHES
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


def test_curves_draw_each_value_at_its_step(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(CSV, encoding="utf-8")
    runs = {"one": logs.read_log(path), "two": ROWS}
    scores, losses = (
        figures.training_curves(runs, "val_dice").axes[0],
        figures.training_curves(runs, "train_loss").axes[0],
    )
    assert scores.lines[0].get_xydata().tolist() == [[19, 0.4], [39, 0.7]]
    assert scores.get_ylim() == (0, 1)
    raw_lines = [line for line in losses.lines if line.get_alpha()]
    assert [len(line.get_xdata()) for line in raw_lines] == [60]
    assert [len(line.get_xdata()) for line in losses.lines] == [3, 60, 60]
    assert losses.get_yscale() == "log"
    rows = [{"step": 0, "train_loss": 0.5}, {"step": 1, "train_loss": -0.5}]
    assert figures.training_curves({"one": rows}, "train_loss").axes[0].get_yscale() == "linear"


def test_models_differ_in_dash_and_marker_and_not_only_in_colour():
    rows = [{"step": step, "val_dice": 0.5} for step in range(5)]
    lines = figures.training_curves(dict.fromkeys("abcd", rows), "val_dice").axes[0].lines
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines}) == 4
    assert len({line.get_marker() for line in lines}) == 4


def test_patient_scores_show_every_seed_and_their_mean():
    scores = {"U-Net": {"a": [0.8, 0.9, 0.7], "b": 0.5}, "other": {"a": 0.6, "b": [0.1, 0.3]}}
    axes = figures.patient_scores(scores).axes[0]
    dots = sorted(len(line.get_xdata()) for line in axes.lines if line.get_marker() in "os")
    assert dots == [0, 0, 1, 1, 2, 3]  # two of them for the legend
    assert {"0.800", "0.500", "0.600", "0.200"} <= set(_texts(axes))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    axes = figures.patient_scores({"U-Net": {"a": float("nan"), "b": 0.5}}).axes[0]
    assert "U-Net: undefined" in _texts(axes)
    drawn = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) == 1]
    assert drawn == [[0.5]]
    with pytest.raises(SpineError, match="no patients"):
        figures.patient_scores({"U-Net": {}})


def test_a_slice_has_marks_a_scale_bar_and_a_hatched_legend():
    axes = Figure().subplots()
    figures.show_slice(axes, np.zeros((50, 30, 3), np.uint8), "sagittal", 2.0)
    texts = _texts(axes)
    assert set(orientation_marks("sagittal").values()) <= set(texts)
    (bar,) = axes.patches
    (length,) = (text for text in texts if text.endswith("mm"))
    assert bar.get_width() == pytest.approx(float(length.split()[0]) / 2.0)
    handles = figures.legend_handles(ERROR_SWATCHES[:3])
    names = [handle.get_label() for handle in handles]
    assert names == ["true positive", "false positive", "false negative"]
    assert len({handle.get_hatch() for handle in handles}) == 3


def test_a_figure_is_encoded_as_an_image_and_the_same_each_time():
    png = figures.encode_figure(figures.training_curves({"one": ROWS}, "val_dice"), "png", dpi=50)
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (200, 150)
    svg = figures.encode_figure(figures.training_curves({"one": ROWS}, "train_loss"))
    assert ET.fromstring(svg).tag.endswith("svg")
    assert svg == figures.encode_figure(figures.training_curves({"one": ROWS}, "train_loss"))
    assert b"<text" not in svg  # letters are drawn, so that no font is needed
