"""How well uncertainty finds the errors of the shipped U-Net, on generated patients.

Three uncertainties and a map that asks no network are judged by the same figure: how often a wrong
voxel has more of it than a right one (AUROC), within 10 mm of the predicted spine and, for
comparison, over the whole scan.
"""

import time

from spine_lib.course.demonstrations import judge_uncertainty
from spine_lib.course.provocations import provoke
from spine_lib.training.pretrained import load_pretrained
from spine_lib.volumes import predict_volume
from spine_lib.volumes.uncertainty import predict_views

NAME = "uncertainty"
SEEDS = (0, 1, 2, 3)

FIRST_PATIENT = 7000
SCANS = ("well scanned", "pedicle screws", "low dose", "osteoporosis")
REACH_MM = 10.0
LOOKED_AT = 0.1
"""Share of the voxels near the spine that somebody has time to review."""

FAST = {"shape": (72, 72, 8)}


def run(seed: int, fast: bool = False) -> dict:
    """Judge every uncertainty on one patient, scanned in several ways.

    Args:
        seed: which patient.
        fast: one scan on a small grid, to see that it runs.

    Returns:
        "scans": what `judge_uncertainty` returns for each; and the CPU "seconds".
    """
    started = time.process_time()
    network, recipe = load_pretrained("unet_light")
    second, second_recipe = load_pretrained("deeplabv3plus_light")
    scans = {}
    for name in SCANS[: 1 if fast else None]:
        data = provoke(name, FIRST_PATIENT + seed, **(FAST if fast else {}))
        views = predict_views(network, data.ct, recipe, device="cpu")
        other = predict_volume(second, data.ct, second_recipe, "cpu").array
        masks = (data.labels.array > 0, data.ignore.array)
        scans[name] = judge_uncertainty(
            views, other, *masks, data.ct.spacing_mm, REACH_MM, LOOKED_AT
        )
    return {"scans": scans, "seconds": round(time.process_time() - started, 1)}
