"""The main job with networks that name the regions, in miniature, from nothing to the report."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from spine_lib.annotations.schemes import REGIONS
from spine_lib.ct.volume import Volume
from spine_lib.datasets import CaseData
from spine_lib.metrics.regions import CLASSES, matrix_dice
from spine_lib.reproduce import reproduce, sources
from spine_lib.reproduce.compare import compare_runs, comparison_text, load_run
from spine_lib.reproduce.evaluate import evaluate_all
from spine_lib.reproduce.report import deviations, write_report
from spine_lib.training.recipe import Recipe, load_recipe
from spine_lib.training.train import Fitted

MODEL = "unet_resnet18"
TINY = load_recipe("tiny").changed(models=(MODEL,), steps=4, steps_per_epoch=4)
NAMING = TINY.changed(target="regions")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that names regions, one that does not, and what the first one said, twice."""
    folder, said = tmp_path_factory.mktemp("runs"), [[], []]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(folder / "data"))
        grid = {"shape": (40, 40, 24), "spacing_mm": 6.0, "levels": ("T12", "L4")}
        patch.setattr(sources, "PHANTOM_GRID", grid)
        options = {"root": folder, "progress": False, "device": "cpu"}
        for lines in said:
            reproduce(NAMING, "regions", say=lines.append, **options)
        reproduce(TINY, "spine", say=len, **options)
    return folder, said


def results_of(runs, name="regions") -> dict:
    return json.loads((runs[0] / name / "results.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_results_hold_the_spine_as_before_and_the_regions_by_name(runs):
    named, plain = (results_of(runs, name)["models"][MODEL] for name in ("regions", "spine"))
    extra = {"named"}
    assert set(named["test"]) - set(plain["test"]) == extra and not extra & set(plain["test"])
    for case, volume in named["test"]["volumes"].items():
        assert set(volume) - set(plain["test"]["volumes"][case]) == extra
        matrix = volume["named"]["confusion"]
        spine = {name: matrix[name] for name in REGIONS}
        assert sum(row["background"] for row in spine.values()) == volume["fn"]
        assert sum(matrix["background"].values()) == volume["fp"]
        assert sum(sum(row[name] for name in REGIONS) for row in spine.values()) == volume["tp"]
    assert results_of(runs)["recipe"]["target"] == "regions"


@pytest.mark.slow
def test_the_report_of_such_a_run_shows_names_beside_places_and_another_does_not(runs):
    page, plain = ((runs[0] / n / "report.html").read_text("utf-8") for n in ("regions", "spine"))
    for words in ("Regions as the networks name them", "called thoracic", "mean of the regions"):
        assert words in page and words not in plain
    assert "the four regions against each other" in page and "are merged" in plain
    assert "tell spine from background only" in plain
    assert "The networks name its 4 regions; as spine counts any of them" in page
    assert "as spine counts any" not in plain


@pytest.mark.slow
def test_a_second_call_trains_nothing_and_says_the_same(runs):
    first, again = runs[1]
    assert first[-2] == again[-2] and "pooled Dice of the regions by name" in first[-2]
    assert any("steps of" in line for line in first)
    assert not any("steps of" in line for line in again)


@pytest.mark.slow
def test_a_run_for_the_spine_can_be_compared_with_one_for_regions(runs):
    pair = [load_run(name, runs[0]) for name in ("spine", "regions")]
    comparison = compare_runs(*pair)
    assert ["target", "spine", "regions"] in comparison.recipe.values.tolist()
    assert comparison.scores.second.notna().any()
    assert "target" in comparison_text(comparison)
    del pair[0].results["recipe"]["target"]  # made before the setting
    assert ["target", None, "regions"] in compare_runs(*pair).recipe.values.tolist()


def test_the_annotation_is_told_for_both_targets():
    rows = [{row["setting"]: row for row in deviations(r.to_dict())} for r in (TINY, NAMING)]
    assert [row["annotation"]["ours"][:22] for row in rows] == [
        "spine against backgrou",
        "the four regions again",
    ]
    older = TINY.to_dict()
    del older["target"]
    assert deviations(older) == deviations(TINY.to_dict())


# --- scores that are kept -------------------------------------------------------------------------


class Thoracic(nn.Module):
    """Call whatever is bright thoracic, and count how often it was asked."""

    asked = 0

    def forward(self, image):
        self.asked += 1
        logits = torch.zeros(len(image), len(CLASSES), *image.shape[2:])
        logits[:, 0], logits[:, 2] = 9.0, 18 * (image[:, 0] > 0.5)
        return logits


@pytest.fixture
def case():
    labels = np.zeros((32, 32, 12), np.uint8)
    labels[8:24, 8:24, :6], labels[8:24, 8:24, 6:10] = 20, 19
    ct = Volume(np.where(labels, 900, -50).astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    data = CaseData(ct, ct.with_array(labels), ct.with_array(np.zeros(labels.shape, bool)))
    return SimpleNamespace(
        case_id="one", patient_id="p", ct_path=None, mask_path=None, load=lambda: data
    )


def test_scores_by_name_are_kept_and_not_computed_again(case, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    recipe = Recipe(target="regions", spacing_mm=2.0, precision="32-true")
    network = Thoracic()
    run = Fitted(network, "x", recipe, None, "", 0, tmp_path / "w.safetensors")
    arguments = ({MODEL: {0: run}}, [case], "cpu", len, tmp_path / "scores")
    first = evaluate_all(*arguments).tests[MODEL][0]
    matrix = first["named"]["confusion"]
    assert matrix["lumbar"]["thoracic"] == 16 * 16 * 6 and matrix["thoracic"]["thoracic"] == 1024
    assert first["pooled"]["dice"] == 1 and first["named"]["dice"]["lumbar"] == 0
    assert first["named"]["dice"] == pytest.approx(matrix_dice(matrix), nan_ok=True)
    assert first["regions"]["lumbar"]["dice"] == 1
    (kept,) = (tmp_path / "scores").glob(f"{MODEL}-*/one.json")
    changed = json.loads(kept.read_text(encoding="utf-8"))
    changed["named"]["confusion"]["lumbar"]["thoracic"] = 7
    kept.write_text(json.dumps(changed), encoding="utf-8")
    again = evaluate_all(*arguments).tests[MODEL][0]
    assert again["named"]["confusion"]["lumbar"]["thoracic"] == 7


def test_a_report_says_undefined_where_no_volume_has_a_region(case, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    recipe = Recipe(target="regions", spacing_mm=2.0, precision="32-true")
    run = Fitted(Thoracic(), "x", recipe, None, "", 0, tmp_path / "w.safetensors")
    tests = evaluate_all({MODEL: {0: run}}, [case], "cpu", len).tests
    results = {"models": {MODEL: {"test": tests[MODEL][0], "runs": []}}}
    page = write_report(results, tmp_path / "r.html").read_text(encoding="utf-8")
    table = page[page.index('id="regions-caption"') :]
    table = table[: table.index("</table>")]
    rows = dict(zip(REGIONS, table.split("<tr>")[2:], strict=False))
    assert "undefined" in rows["sacral"] and "undefined" not in rows["lumbar"]
    assert "1,536 (100 %)" in page and "mean pooled Dice by name" in page
