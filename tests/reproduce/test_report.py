"""The report: one page that holds everything, says what is missing, and reads anywhere."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics.calibration import near_spine, reliability
from spine_lib.metrics.paper import check_table
from spine_lib.metrics.regions import score_regions
from spine_lib.reproduce.compare import run_statistics
from spine_lib.reproduce.evaluate import mean_over_seeds, summarise
from spine_lib.reproduce.report import write_report
from spine_lib.reproduce.report_figures import draw_overlay, pick_slices
from spine_lib.training.recipe import load_recipe

MODELS = ("unet_resnet34", "deeplabv3plus_resnet34")
CASES = ("dicom", "crop")
KEPT = Path(__file__).parents[2] / "spine_lib/course/results/reproduce.json"
SPACING = (1.0, 1.0, 2.0)


def _evaluated(random, wrong):
    """Evaluate a noisy prediction of a column, so that every score obeys every other."""
    truth = np.zeros((24, 24, 20), bool)
    truth[8:16, 6:14, 3:] = True
    prediction = truth ^ (random.random(truth.shape) < wrong)
    prediction[..., :2] = False
    prediction[0, 0, 2] = True
    regions = np.where(truth, np.where(np.arange(20) < 12, 3, 2), 0)
    probability = np.where(prediction, 0.8, 0.1)
    return metrics.evaluate_volume(prediction, truth, SPACING) | {
        "regions": score_regions(prediction, regions, SPACING),
        "calibration": reliability(probability, truth, near_spine(truth, SPACING)),
    }


def make_results(seeds=(0, 1, 2), cases=CASES):
    """Make results as a run leaves them, after their trip through JSON."""
    models = {}
    for place, model in enumerate(MODELS):
        runs = []
        for seed in seeds:
            random = np.random.default_rng(100 * place + seed)
            wrong = 0.02 + 0.01 * place + 0.01 * random.random()
            volumes = {case: _evaluated(random, wrong * (1 + k)) for k, case in enumerate(cases)}
            test = summarise(volumes)
            runs.append({"seed": seed, "test": test, "train_seconds": 231.4 + seed})
        models[model] = {"test": runs[0]["test"], "runs": runs}
    results = {
        "models": models,
        "table_note": "Scores on the two test patients, run with seed 0.",
        "data": {
            "name": "built-in sample",
            "train": ["chest", "abdomen"],
            "test": list(cases),
            "validation": ["phantom-2000", "phantom-2001"],
            "sources": [{"name": "chest", "role": "train", "licence": "CC BY 4.0"}],
            "split": "fixed by hand, by patient",
            "left_out": ["case_0007: half a file"],
            "checksums": {"train/chest": "77feb72" * 9},
        },
        "wall_seconds": 512.3,
        "peak_memory_mb": 3122.0,
        "device": "CPU, 2 cores, bf16",
        "created": "2025-11-22",
        "versions": {"spine_lib": "0.1.0", "torch": "2.15.0", "numpy": "2.4.6"},
        "recipe": load_recipe("sample").to_dict(),
        "command": "spine reproduce --data sample --seeds 3",
        "commit": "0123abcd",
        "stages": {"prepare": 12.0, "train": 480.0, "evaluate": 20.3},
        "baseline": {
            "name": "Bone threshold, 250 HU (no network)",
            "threshold_hu": 250,
            "chosen_on": ["chest", "abdomen"],
            "test": models[MODELS[0]]["test"],
        },
        "test_looks": "The test patients were looked at 3 times.",
    }
    return json.loads(json.dumps(results))


def make_curves():
    curves = {}
    for place, model in enumerate(MODELS):
        rows = [{"step": s, "train_loss": 0.1 + math.exp(-s / 200)} for s in range(0, 900, 10)]
        rows += [{"step": 99, "val_dice": 0.5}, {"step": 199, "val_dice": 0.8 - 0.03 * place}]
        curves[model] = rows
    return curves


def make_overlays():
    x, y, _ = np.ogrid[:128, :128, :9]
    truth = np.broadcast_to((x - 64) ** 2 + (y - 50) ** 2 < 300, (128, 128, 9))
    body = np.broadcast_to((x - 64) ** 2 + (y - 64) ** 2 < 3000, truth.shape)
    affine = np.diag([1.2, 1.2, 3.0, 1.0])
    noise = np.random.default_rng(5).normal(0, 30, truth.shape)
    hu = np.where(truth, 400, np.where(body, 40, -1000)) + noise
    ct = SimpleNamespace(array=hu.astype(np.int16), affine=affine)
    mask = SimpleNamespace(array=truth.astype(np.uint8), affine=affine)
    overlays = {}
    for place, model in enumerate(MODELS):
        overlays[model] = []
        for index, kind in ((6, "worst"), (2, "best"), (4, "median")):
            guess = SimpleNamespace(array=np.roll(truth, index + place, 0), affine=affine)
            overlays[model].append(
                draw_overlay(ct, mask, guess, index, "crop", kind, 0.9 - index / 10)
            )
    return overlays


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(make_results(), path, make_curves(), make_overlays())
    return path.read_text(encoding="utf-8")


class _Page(HTMLParser):
    """Collect what a reader or a browser meets."""

    def __init__(self, page):
        super().__init__()
        self.images, self.loads, self.tags, self.text = [], [], [], []
        self.rows, self._style = [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(found)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        self._style = tag in ("style", "script")
        for name, target in found.items():
            fragment = tag == "a" and (target or "").startswith("#")
            if name in ("src", "href", "srcset", "action", "data") and not fragment:
                self.loads.append(target)

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if not self._style:
            self.text.append(data)
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data.strip()

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def test_the_page_loads_nothing_from_outside(page):
    parsed = _Page(page)
    assert parsed.loads and all(target.startswith("data:image/") for target in parsed.loads)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    css = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    assert "url(" not in css and "@import" not in css
    assert "default-src 'none'" in page


def test_every_image_has_alt_text_and_is_whole(page):
    images = _Page(page).images
    assert len(images) == 2 + 6 + 3 + 1 + 1  # curves, slices, patients, regions, calibration
    for image in images:
        assert len(image["alt"]) > 20
        data = base64.b64decode(image["src"].split("base64,")[1], validate=True)
        assert data.startswith(b"\x89PNG") or b"<svg" in data[:500]


def test_the_table_holds_our_scores_beside_the_papers(page):
    results = make_results()
    rows = _Page(page).rows
    for model, theirs in (
        ("unet_resnet34", ["0.953", "0.951", "0.951", "98.6 %"]),
        ("deeplabv3plus_resnet34", ["0.925", "0.920", "0.920", "98.5 %"]),
    ):
        assert any(row[1:] == theirs for row in rows)
        test = results["models"][model]["test"]
        for average in ("pooled", "per_volume", "per_slice"):
            cells = [f"{test[average][key]:.3f}" for key in ("iou", "iou_mean", "dice", "f1")]
            assert any(row[1:5] == cells for row in rows), (model, average)
        inferred = [f"{test['pooled'][key]:.3f}" for key in ("iou_mean", "dice", "f1")]
        assert any("paper's averaging" in row[0] and row[2:5] == inferred for row in rows if row)


def test_each_test_case_and_each_seed_has_its_row(page):
    results = make_results()
    rows = _Page(page).rows
    for entry in results["models"].values():
        for case, volume in entry["test"]["volumes"].items():
            cells = [f"{volume[key]:.3f}" for key in ("dice", "iou", "precision", "recall", "nsd")]
            assert any(row[:1] == [case] and row[2:7] == cells for row in rows)
        pooled = [run["test"]["pooled"]["dice"] for run in entry["runs"]]
        for run, dice in zip(entry["runs"], pooled):
            assert any(row[1:3] == [str(run["seed"]), f"{dice:.3f}"] for row in rows)
        means = [run["test"]["per_volume"]["dice"] for run in entry["runs"]]
        spread = [f"{value:.3f}" for value in (np.mean(means), min(means), max(means))]
        assert any(row[1:4] == ["Dice", "3", spread[0]] and row[5:] == spread[1:] for row in rows)


@pytest.mark.parametrize(
    "sentence",
    [
        "not given, because 2 patients are too few",
        "cannot reach p < 0.5",
        "looked at 3 times.",
        "spine reproduce --data sample --seeds 3",
        "every labelled vertebra and, where the mask has it, the sacrum",
        '"silver" labels',
        "The mask of the DICOM patient is coarse",
        "image size unknown patches of",
        "Two models trained on two cases and tested on two cases of other patients",
        "CC BY 4.0",
        "torch 2.15.0",
        "they neither confirm nor refute them",
        "8.5 min",
        "three, seeds 0, 1 and 2",
        "Trainings ran side by side, so that their times add up to more than the wall time",
        "two phantoms, no patient",
        "A bone threshold without a network (250 HU) scores",
        "The threshold was chosen for the highest mean Dice on training cases (chest and abdomen)",
        "commit of this library 0123abcd",
        "The encoders start from random weights on purpose",
        "hold no spine but a prediction (score 0)",
        "The test volumes show these regions: thoracic (2 volumes) and lumbar (2 volumes).",
        "No real case of the test part shows a scored cervical or sacral region",
        "a false positive for the region of the nearest true voxel",
        "How the cases were split: fixed by hand, by patient",
        "Scans that were left out case_0007: half a file",
        "train/chest 77feb72",
        "Our own predictions come closest to the paper's pattern of IoU above Dice",
        *(finding.message for finding in check_table()),
    ],
)
def test_the_page_says(page, sentence):
    assert " ".join(sentence.split()) in _Page(page).words


def test_every_section_is_reached_from_the_contents(page):
    anchors = re.findall(r'<a href="#([a-z]+)"', page)
    assert len(anchors) == 11
    assert re.findall(r'<h2 id="([a-z]+)"', page) == anchors
    assert len(re.findall(r"<h1\b", page)) == 1


def test_the_slices_come_best_first_with_marks_and_a_true_scale_bar(page):
    slices = page[page.index('id="slices"') : page.index('id="volumes"')]
    kinds = re.findall(r'class="kind">(\w+):', slices)
    assert kinds == ["Best", "Median", "Worst"] * 2
    assert len(re.findall(r'<span class="left" aria-hidden="true">R<', slices)) == 6
    width_mm = 512 * make_overlays()[MODELS[0]][0].pixel_mm
    percent, length = re.search(r'class="bar" style="width:([\d.]+)%.*?>(\d+) mm', slices).groups()
    assert float(percent) / 100 * width_mm == pytest.approx(float(length), rel=0.01)


def test_each_region_and_calibration_has_its_row_and_an_absent_region_a_dash(page):
    rows = _Page(page).rows
    for entry, name in zip(make_results()["models"].values(), ("U-Net", "DeepLabv3+")):
        for region, found in entry["test"]["regions"].items():
            scores = [f"{found[key]:.3f}" for key in ("dice", "recall", "pooled_dice")]
            assert any(
                r[:1] == [region] and r[1].startswith(name) and r[3:] == scores for r in rows
            )
        error = f"{entry['test']['calibration']['ece']:.3f}"
        assert any(row[1:2] == [error] and len(row) == 5 for row in rows)
    assert sum(row[:1] == ["cervical"] and row[2:] == ["0", *["\u2013"] * 3] for row in rows) == 2


@pytest.mark.parametrize(("cases", "same"), [("abcdef", False), ("abcde", False), ("abcdef", True)])
def test_from_six_patients_on_there_are_intervals_and_a_test_of_each_metric(cases, same, tmp_path):
    results = make_results(seeds=(0,), cases=tuple(cases))
    for entry in results["models"].values():
        for volume in entry["test"]["volumes"].values() if same else ():
            volume["patient_id"] = "one and the same"
    page = write_report(results, tmp_path / "r.html").read_text(encoding="utf-8")
    words, rows = _Page(page).words, _Page(page).rows
    assert "one, seed 0" in words and "One seed was trained" in words
    if same or len(cases) < 6:
        assert 'id="tests-caption"' not in page
        assert ("1 patient is" if same else "5 patients are") + " too few" in words
        return
    interval = r"95 % interval 0\.\d+ to 0\.\d+ \(bootstrap over 6 patients\)"
    assert len(re.findall(interval, words)) == 2
    assert re.search(r"p = 0\.\d+ \(sign-flip test over 6 patients\)", words)
    assert "after Holm's correction for 4 metrics" in words
    statistics = run_statistics(results["models"])["paired"][0]["metrics"]
    for metric, name in (("dice", "Dice"), ("nsd", "Surface Dice"), ("hd95", "HD95, mm")):
        ps = [f"{statistics[metric][key]:.4f}" for key in ("p_value", "p_holm")]
        assert any(row[:1] == [name] and row[4:6] == ps for row in rows), metric


def test_phantoms_are_called_so_and_a_single_region_of_each_is_not_shown_twice(tmp_path):
    results = make_results()
    results["data"]["name"] = "phantom"
    for entry in results["models"].values():
        entry["test"] = mean_over_seeds([run["test"] for run in entry["runs"]])
        for volume in entry["test"]["volumes"].values():
            del volume["regions"]["lumbar"]
    page = write_report(results, tmp_path / "p.html").read_text(encoding="utf-8")
    words = _Page(page).words
    assert "No phantom of the test part shows" in words
    assert "nothing follows for a region of a real patient" in words
    assert "Each test volume shows one region only (dicom thoracic and crop thoracic)" in words
    assert 'id="regions-caption"' not in page
    assert re.search(r"of the test slices, \d+ are scored", page)


def test_many_patients_are_drawn_by_rank_and_their_rows_folded(tmp_path):
    results = make_results(seeds=(0, 1))
    for entry in results["models"].values():
        for test in [entry["test"], *(run["test"] for run in entry["runs"])]:
            one = test["volumes"]["dicom"]
            test["volumes"] = {f"case-{n}": one | {"dice": n / 40} for n in range(40)}
    page = write_report(results, tmp_path / "many.html").read_text(encoding="utf-8")
    assert "in the order of U-Net" in page and "<summary>80 rows" in page
    assert max(len(row) for row in _Page(page).rows) < 12


def test_bare_results_make_a_page_that_says_what_is_missing(tmp_path):
    path = write_report({"models": {"unet_resnet34": {}}}, tmp_path / "bare.html")
    words = _Page(path.read_text(encoding="utf-8")).words
    for missing in ("not recorded", "No learning curves", "No test slices", "No data sources"):
        assert missing in words
    assert "silver" not in words and "Bone threshold" not in words


@pytest.mark.parametrize(
    "kept",
    [
        "spine_lib/course/results/reproduce.json",
        "benchmarks/results/regions.json",
        "benchmarks/results/pretrained-encoder.json",
    ],
)
def test_the_kept_results_of_earlier_runs_make_a_page(kept, tmp_path):
    results = json.loads((Path(__file__).parents[2] / kept).read_text(encoding="utf-8"))
    page = write_report(results, tmp_path / "r.html").read_text(encoding="utf-8")
    dice = next(iter(results["models"].values()))["test"]["pooled"]["dice"]
    assert f"{dice:.3f}" in page


def test_undefined_and_infinite_scores_are_called_so(tmp_path):
    results = make_results()
    volume = results["models"][MODELS[0]]["test"]["volumes"]["crop"]
    volume |= {"dice": math.nan, "hd95": math.inf, "nsd": None}
    words = _Page(write_report(results, tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert re.search(r"crop U-Net, ResNet34 encoder undefined \S+ \S+ \S+ – infinite", words)


def test_what_others_wrote_cannot_become_markup(tmp_path):
    evil = '<script>alert("x")</script>'
    results = make_results() | {"created": evil, "device": evil, "command": evil}
    results["recipe"][evil] = evil
    path = write_report(results, tmp_path / "r.html")
    parsed = _Page(path.read_text(encoding="utf-8"))
    assert "script" not in parsed.tags and evil in parsed.words


def test_the_page_replaces_the_old_one_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    write_report(make_results(), path)
    kept = path.read_bytes()
    write_report(make_results(), path)
    assert path.read_bytes() == kept

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(SpineError, match=r"report\.html cannot be written, the disk is full"):
        write_report(make_results(seeds=(7,)), path)
    assert path.read_bytes() == kept
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_no_models_are_refused(tmp_path):
    with pytest.raises(SpineError, match="train first"):
        write_report({"models": {}}, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_slices_are_picked_by_rank_and_undefined_ones_never():
    dice = {("a", k): value for k, value in enumerate((0.5, math.nan, 0.9, 0.1, 0.7, 0.8))}
    assert pick_slices(dice) == {"best": ("a", 2), "median": ("a", 4), "worst": ("a", 3)}
    assert pick_slices({1: 0.4, 2: math.nan}) == {"best": 1}
    assert pick_slices({1: math.nan}) == {}


def test_an_overlay_shows_the_spine_and_all_errors_close_up():
    truth = np.zeros((90, 80, 70), bool)
    truth[50:60, 35:45, 30:44] = True
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    mask = SimpleNamespace(array=truth, affine=affine)
    ct = SimpleNamespace(array=np.zeros(truth.shape, np.int16), affine=affine)
    guess = SimpleNamespace(array=np.roll(truth, 4, (0, 1)), affine=affine)
    overlay = draw_overlay(ct, mask, guess, 35, "x", "worst", 0.4)
    rows, columns, _ = overlay.image.shape
    assert columns == 512
    assert 120 <= columns * overlay.pixel_mm <= 124
    coloured = np.ptp(overlay.image.astype(int), axis=2) > 0
    assert coloured.any()
    # The whole of it is in the picture: a margin is left on every side.
    for edge in (coloured[:40], coloured[-40:], coloured[:, :40], coloured[:, -40:]):
        assert not edge.any()
    assert "case x" in overlay.alt and "axial" in overlay.alt and "0.400" in overlay.caption


def test_what_the_full_text_says_is_shown_with_its_source(tmp_path):
    results = json.loads(KEPT.read_text("utf-8"))
    (tmp_path / "paper.yaml").write_text("plane: axial (section 3.2)\nloss:\n", encoding="utf-8")
    page = write_report(results, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "axial (section 3.2) (from the full text, by paper.yaml)" in page
    (tmp_path / "paper.yaml").write_text("planes: axial\n", encoding="utf-8")
    with pytest.raises(SpineError, match="'planes' cannot be filled in: write a text for one of"):
        write_report(results, tmp_path / "report.html")
