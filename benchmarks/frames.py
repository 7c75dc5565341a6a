"""Time one frame of a slice viewer against what a user would write instead, in one run.

Five ways to show the next slice of a 512x512 CT with its mask painted over it, up to the bytes
that are sent to the browser:

- `render_slice`, encoded with `encode_png`: what the viewers of `spine_lib.explore` do;
- `OrthoViewer`, one of its three sliders moved by one: the same with the rest of a viewer;
- a stroke of the brush, painted, scored and drawn;
- `set_data` on a matplotlib figure that is kept, drawn and encoded anew;
- `interact` over a function with `imshow`, which makes and encodes a figure each time, the way that
  Jupyter's inline backend does.

Prints a table and writes `benchmarks/results/frames.json`; returns 1 where a goal is missed.

    python benchmarks/frames.py
    python benchmarks/frames.py --frames 60
    python benchmarks/frames.py --browser      # pictures a second in JupyterLab, too

Close other programs first. The goals are judged by processor time, which other programs disturb
less than wall time; both are recorded.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.core.pylabtools import print_figure

from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import OrthoViewer, SliceViewer
from spine_lib.explore.render import encode_png, render_slice

GOALS = {"render_slice_ms": 10.0, "times_faster_than_interact": 20.0, "brush_stroke_ms": 100.0}
RESULTS = Path(__file__).parent / "results" / "frames.json"
CENTRE, WIDTH = WINDOWS["bone"]
LIMITS = {"vmin": CENTRE - WIDTH / 2, "vmax": CENTRE + WIDTH / 2}


def main() -> int:
    """Run the benchmark, print the table and return 0 if the goals are met, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=40, help="slices to draw each way")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--browser", action="store_true", help="drag in JupyterLab in Chromium too")
    options = parser.parse_args()
    name, ct, mask = load_scan()
    ways = {
        "render_slice": render_way(ct, mask),
        "ortho_viewer": ortho_way(ct, mask),
        "brush_stroke": stroke_way(ct, mask),
        "set_data": set_data_way(ct, mask),
        "interact_imshow": interact_way(ct, mask),
    }
    frames = {way: measure(draw, ct.shape[2], options.frames) for way, draw in ways.items()}
    result = summarise(name, ct, frames)
    if options.browser:
        result["pictures_a_second"] = drag_in_browser()
    print(table(result))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8", newline="\n")
    return 0 if result["goals_met"] else 1


def load_scan() -> tuple[str, Volume, Volume]:
    """Return the real chest CT and its labels, or noise of the same size where it is missing."""
    from spine_lib import SpineError
    from spine_lib.datasets import sample_cases

    try:
        data = sample_cases()[0].load()
        return "chest CT of the sample", data.ct, data.labels
    except SpineError:
        random = np.random.default_rng(0)
        hu = random.normal(0, 60, (512, 512, 40)).astype(np.int16)
        labels = np.zeros(hu.shape, np.uint8)
        labels[200:300, 150:260] = 20
        ct = Volume(np.asfortranarray(hu), np.diag([0.7, 0.7, 2.5, 1]))
        return "noise (the sample is not fetched)", ct, ct.with_array(np.asfortranarray(labels))


def render_way(ct: Volume, mask: Volume) -> Callable[[int], bytes]:
    """Draw with the library."""

    def draw(index: int) -> bytes:
        rgb = render_slice(ct, index, "axial", WINDOWS["bone"], mask)
        return base64.b64encode(encode_png(rgb))

    return draw


def ortho_way(ct: Volume, mask: Volume) -> Callable[[int], bytes]:
    """Move the axial slider of the viewer of three planes."""
    viewer = OrthoViewer(ct, mask)

    def draw(index: int) -> bytes:
        viewer.axes[2].value = index
        return viewer.pictures[0].image

    return draw


def stroke_way(ct: Volume, mask: Volume) -> Callable[[int], bytes]:
    """Paint a stroke of 10 mm on a moved mask, scored against the given one."""
    moved = mask.with_array(np.roll(mask.array, 4, axis=0))
    viewer = SliceViewer(ct, moved, truth=mask)
    viewer.brush.tool.value = "paint"

    def draw(index: int) -> bytes:
        x = 0.3 + index % 40 / 100
        viewer.picture.stroke = {"id": index, "points": [[x, 0.5], [x, 0.51]], "done": True}
        return viewer.picture.image

    return draw


def set_data_way(ct: Volume, mask: Volume) -> Callable[[int], bytes]:
    """Draw on a matplotlib figure that is kept."""
    figure, axes = plt.subplots(figsize=(5.12, 5.12), dpi=100)
    axes.set_axis_off()
    figure.subplots_adjust(0, 0, 1, 1)
    image = axes.imshow(ct.array[:, :, 0].T, cmap="gray", origin="lower", **LIMITS)
    overlay = axes.imshow(painted(mask, 0), cmap="autumn", alpha=0.4, origin="lower")

    def draw(index: int) -> bytes:
        image.set_data(ct.array[:, :, index].T)
        overlay.set_data(painted(mask, index))
        buffer = io.BytesIO()
        figure.canvas.print_png(buffer)
        return base64.b64encode(buffer.getvalue())

    return draw


def interact_way(ct: Volume, mask: Volume) -> Callable[[int], bytes]:
    """Draw as `interact` over `imshow` does in a notebook."""
    sent = []

    def show(index: int) -> None:
        figure = plt.figure(figsize=(6, 6))
        plt.imshow(ct.array[:, :, index].T, cmap="gray", origin="lower", **LIMITS)
        plt.imshow(painted(mask, index), cmap="autumn", alpha=0.4, origin="lower")
        plt.title(f"slice {index}")
        # What the inline backend does at the end of a cell; there is no notebook here to do it.
        sent[:] = [print_figure(figure, fmt="png", bbox_inches="tight", base64=True)]
        plt.close(figure)

    slider = ipywidgets.IntSlider(0, 0, ct.shape[2] - 1)
    with contextlib.redirect_stdout(io.StringIO()):
        control = ipywidgets.interactive(show, index=slider)

    def draw(index: int) -> bytes:
        with contextlib.redirect_stdout(io.StringIO()):
            sent.clear()
            slider.value = index
            if not sent:  # the slider stood there already
                control.update()
        return sent[0].encode("ascii")

    return draw


NOTEBOOK = (
    "from spine_lib.datasets import sample_cases\nfrom spine_lib.explore import SliceViewer\n"
    "data = sample_cases()[0].load()",
    "SliceViewer(data.ct, data.labels)",
)
# Moves the slider, or turns the wheel, as fast as a hand for four seconds; counts what is drawn.
DRAG = """(wheel) => new Promise((done) => {
  const canvas = document.querySelector("canvas[role=img]"), begin = performance.now();
  const sliders = [...document.querySelectorAll("input[type=range]")];
  const slider = sliders.find((one) => one.ariaLabel === "slice");
  const context = canvas.getContext("2d"), draw = context.drawImage;
  let drawn = 0, turns = 0;
  context.drawImage = (...all) => { drawn += 1; draw.apply(context, all); };
  const timer = setInterval(() => {
    const share = (performance.now() - begin) / 4000;
    const deltaY = Math.floor(turns++ / 60) % 2 ? 120 : -120;
    if (wheel) canvas.dispatchEvent(new WheelEvent("wheel", { deltaY, cancelable: true }));
    else {
      slider.value = Math.round(slider.max * share);
      slider.dispatchEvent(new Event("input"));
    }
    if (share < 1) return;
    clearInterval(timer);
    context.drawImage = draw;
    done(drawn / 4);
  }, 16);
})"""


def drag_in_browser() -> dict[str, float]:
    """Return how many pictures a second a dragged slider and a turned wheel show in JupyterLab."""
    import sys
    import tempfile

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from browser_lab import open_browser, run_notebook, serve_lab

    with tempfile.TemporaryDirectory() as name, open_browser(f"{name}/profile") as browser:
        home = Path(name) / "home"
        home.mkdir()
        with serve_lab(home, {"lab": NOTEBOOK}) as addresses:
            page = run_notebook(browser, addresses["lab"], 1)
            page.wait_for_timeout(3000)
            rates = {"slider": [], "wheel": []}
            for kind in ("slider", "wheel") * 3:
                rates[kind].append(page.evaluate(DRAG, kind == "wheel"))
    return {kind: statistics.median(values) for kind, values in rates.items()}


def painted(mask: Volume, index: int) -> np.ma.MaskedArray:
    """Return a mask's slice with its background left out, as `imshow` wants it."""
    labels = mask.array[:, :, index].T > 0
    return np.ma.masked_where(~labels, labels.astype(float))


def measure(draw: Callable[[int], bytes], slices: int, frames: int) -> dict[str, list[float]]:
    """Draw a row of slices; return milliseconds of wall and processor, and bytes sent."""
    start = max(0, (slices - frames) // 2)
    draw(start)  # first uses fill caches
    figures: dict[str, list[float]] = {"wall_ms": [], "cpu_ms": [], "bytes": []}
    for number in range(frames):
        index = (start + 1 + number) % slices
        wall, cpu = time.perf_counter(), time.process_time()
        sent = draw(index)
        figures["wall_ms"].append(1000 * (time.perf_counter() - wall))
        figures["cpu_ms"].append(1000 * (time.process_time() - cpu))
        figures["bytes"].append(len(sent))
    return figures


def summarise(name: str, ct: Volume, frames: dict[str, dict[str, list[float]]]) -> dict:
    """Return medians, ratios, goals, hardware and versions."""
    medians = {
        way: {key: round(statistics.median(values), 3) for key, values in figures.items()}
        for way, figures in frames.items()
    }
    ours = medians["render_slice"]["cpu_ms"]
    faster = {way: round(one["cpu_ms"] / ours, 1) for way, one in medians.items()}
    met = {
        "render_slice_ms": ours <= GOALS["render_slice_ms"],
        "times_faster_than_interact": faster["interact_imshow"]
        >= GOALS["times_faster_than_interact"],
        "brush_stroke_ms": medians["brush_stroke"]["cpu_ms"] <= GOALS["brush_stroke_ms"],
    }
    return {
        "what": "one axial slice with its mask, drawn and encoded for the browser; medians",
        "scan": name,
        "shape": list(ct.shape),
        "frames": len(frames["render_slice"]["wall_ms"]),
        "ways": medians,
        "render_slice_is_faster_by": faster,
        "goals": GOALS,
        "goals_met": all(met.values()),
        "hardware": hardware(),
        "versions": versions(),
    }


def hardware() -> dict[str, object]:
    """Name the processor, its cores and the system."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        model = next((one.split(":")[1].strip() for one in lines if "model name" in one), model)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": load,
    }


def versions() -> dict[str, str]:
    """Return the versions of what was compared."""
    packages = ("numpy", "matplotlib", "ipywidgets", "ipython", "isal")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **found}


def table(result: dict) -> str:
    """Return the figures as text."""
    lines = [f"{result['scan']}, {result['shape'][0]}x{result['shape'][1]}, medians of a frame"]
    lines.append(f"{'':18}{'wall ms':>10}{'CPU ms':>10}{'kB sent':>10}{'CPU ratio':>11}")
    for way, one in result["ways"].items():
        ratio = result["render_slice_is_faster_by"][way]
        lines.append(
            f"{way:18}{one['wall_ms']:10.1f}{one['cpu_ms']:10.1f}"
            f"{one['bytes'] / 1000:10.0f}{ratio:11.1f}"
        )
    for kind, rate in result.get("pictures_a_second", {}).items():
        lines.append(f"{kind} in JupyterLab: {rate:.1f} pictures a second")
    lines.append(f"goals {result['goals']}: {'met' if result['goals_met'] else 'MISSED'}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
