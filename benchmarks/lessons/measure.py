"""Run the long measurements that the lessons draw, and keep them in the package.

Each is a script beside this one, with NAME, SEEDS and `run(seed, fast) -> numbers`; its constants
in capitals are kept as settings.

    python benchmarks/lessons/measure.py            # all, 31 minutes of one core
    python benchmarks/lessons/measure.py skips --fast
"""

import argparse
import contextlib
import datetime
import importlib
import json
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch  # noqa: E402

from spine_lib.course.measurements import RESULTS  # noqa: E402
from spine_lib.ct.files import plain, write_json  # noqa: E402
from spine_lib.reproduce.provenance import device_name, versions  # noqa: E402

NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "measure")


def settings_of(experiment) -> dict:
    """Return the constants of a measurement: names in capitals that hold numbers and words."""
    settings = {}
    for name, value in vars(experiment).items():
        if name.isupper() and name not in ("NAME", "SEEDS"):
            with contextlib.suppress(AttributeError, TypeError):  # a table of functions
                json.dumps(plain(value))
                settings[name.lower()] = plain(value)
    return settings


def measure(experiment, seeds: list[int], fast: bool) -> dict:
    """Return what a measurement gives for each seed, with all that is needed to repeat it."""
    rows = []
    for seed in seeds:
        started = time.perf_counter()
        numbers = plain(experiment.run(seed, fast))
        rows.append({"seed": seed, "seconds": round(time.perf_counter() - started, 1), **numbers})
        print(f"{experiment.NAME}, seed {seed}: {rows[-1]['seconds']:.0f} s", flush=True)
    return {
        "name": experiment.NAME,
        "about": experiment.__doc__.strip().split("\n")[0],
        "settings": settings_of(experiment),
        "profile": "fast" if fast else "full",
        "seeds": rows,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "made": datetime.date.today().isoformat(),
        "versions": versions(),
        "device": device_name("cuda" if torch.cuda.is_available() else "cpu"),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--seeds", type=int, help="0 to N - 1 instead of the script's; at least 3")
    parser.add_argument("--fast", action="store_true", help="small, to try; keeps nothing")
    options = parser.parse_args()
    for name in options.names:
        experiment = importlib.import_module(name)
        seeds = list(range(max(3, options.seeds)) if options.seeds else experiment.SEEDS)
        result = measure(experiment, seeds, options.fast)
        if not options.fast:
            write_json(RESULTS / f"{name}.json", result)


if __name__ == "__main__":
    main()
