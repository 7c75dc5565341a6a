"""Make the table of 218 held-out patients that lesson 7 averages.

Another group trained nnU-Net on the 1089-scan set, held out 218 scans and published the counts of
every scan and class (prada-1/nnunet-spine-segmentation, MIT). `spine fetch --more holdout218`
brings their file; this script keeps its counts:

    python benchmarks/holdout218.py data/more/holdout218/holdout_summary.json
"""

import json
import sys
from pathlib import Path

import pandas as pd

TARGET = Path(__file__).parents[1] / "spine_lib" / "course" / "results" / "holdout218.csv"
HEAD = """\
# Voxel counts of 218 held-out scans by class (C1 = 1 ... L5 = 24, S1 = 25) of an nnU-Net run on the
# 1089-scan set; classes without any voxel in truth and prediction are left out.
# From results/holdout_summary.json of github.com/prada-1/nnunet-spine-segmentation at commit
# 97da111da60ecc1ffafe2a3ff29e9787a3967e07. MIT License, Copyright (c) 2026 Luis Prada.
"""


def count_table(summary: dict) -> pd.DataFrame:
    """Return a row of counts for each case and class that shows in truth or prediction."""
    rows = [
        {
            "case": Path(case["prediction_file"]).name.split(".")[0],
            "label": int(label),
            **{name.lower(): int(counts[name]) for name in ("TP", "FP", "FN")},
            "voxels": int(sum(counts[name] for name in ("TP", "FP", "FN", "TN"))),
        }
        for case in summary["metric_per_case"]
        for label, counts in case["metrics"].items()
    ]
    table = pd.DataFrame(rows).sort_values(["case", "label"])
    return table[table[["tp", "fp", "fn"]].any(axis=1)]


if __name__ == "__main__":
    summary = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = count_table(summary).to_csv(index=False, lineterminator="\n")
    TARGET.write_text(HEAD + text, encoding="utf-8")
