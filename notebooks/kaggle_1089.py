# %% [markdown]
# # The experiment at its true size: 1089 scans on Kaggle's GPU
#
# This notebook trains the paper's two networks on the set that the paper very probably used, on a free
# GPU, and fills the paper's table. It is no lesson: run it, wait, read the report. In it you will
#
# - **prepare** as many of the 1089 scans as the disk holds,
# - **train** U-Net and DeepLabv3+ in the hours that a session has, and go on in the next session,
# - **read** our table beside the paper's.
#
# Your own minutes: about 15. The GPU's hours on a T4 were not measured; the last cell says what is done
# and what is left.

# %% [markdown]
# ## 1. Settings on Kaggle (5 min)
#
# In the panel on the right:
#
# 1. *Add Input*: the data set `pycadmk/spine-segmentation-from-ct-scans`.
# 2. *Accelerator*: GPU T4; *Internet*: on.
# 3. *Save Version*, *Save & Run All*: it runs in the background. When the hours are over, add this
#    notebook's own output as an input and save a version again: training goes on after its last epoch.
#
# Away from Kaggle, six small phantoms in the same layout stand in for the scans. Everything runs, in two
# minutes; its scores mean nothing.

# %%
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path("/kaggle/input/spine-segmentation-from-ct-scans/spine_segmentation_nnunet_v2")
WORK, SCRATCH = Path("/kaggle/working"), Path("/kaggle/temp")
HOURS = [11.0]  # of one session; Kaggle ends it after 12
CHANGES = {"batch": 32, "workers": os.cpu_count()}  # of the recipe `paper`; a T4 has 15 GB

trial = not SOURCE.is_dir()
if trial:
    WORK = Path(tempfile.mkdtemp(prefix="kaggle-1089-"))
    SOURCE, SCRATCH, HOURS = WORK / "input", WORK / "temp", [20 / 3600, 1.0]
    CHANGES = {"encoder_weights": None, "spacing_mm": 6.0, "steps": 12, "steps_per_epoch": 4}
    CHANGES |= {"batch": 4, "workers": 0, "averaging": 0.5, "augmentation": {"size": 32}}
os.environ["SPINE_DATA"] = str(SCRATCH)  # slices need not be kept

# %% [markdown]
# The phantoms, if they are needed: pairs of one name, stored as the set's ids (C1 is 1, S1 is 25).

# %%
import nibabel as nib

from spine_lib.datasets import make_phantom

for number in (0, 1, 2, 3, 5, 8) if trial else ():
    phantom = make_phantom(7000 + number, shape=(48, 48, 40), spacing_mm=6.0)
    labels = phantom.labels.array.copy()
    labels[labels == 26] = 25
    for folder, array in (("volumes", phantom.ct.array), ("segmentations", labels)):
        path = SOURCE / folder / f"case_{number:04d}.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, phantom.ct.affine), path)

# %% [markdown]
# ## 2. As many scans as the disk holds (2 min)
#
# Slices at 1.5 mm are read many times, so they are kept uncompressed. If all do not fit, evenly many
# names are left out. The input is read-only: a folder of links stands for the chosen ones.

# %%
from spine_lib.datasets import find_cases
from spine_lib.slices.store import estimate_bytes
from spine_lib.training import load_recipe

recipe = load_recipe("paper").changed(name="kaggle", **CHANGES)
cases = find_cases("pycad1089", SOURCE).cases
SCRATCH.mkdir(parents=True, exist_ok=True)
needed = estimate_bytes(cases, recipe.planes, recipe.spacing_mm)
free = 0.8 * shutil.disk_usage(SCRATCH).free
share = min(1.0, free / needed)
chosen = [case for n, case in enumerate(cases) if int((n + 1) * share) > int(n * share)]
print(
    f"{len(chosen)} of {len(cases)} scans: {needed / 1e9:.2f} GB for all, {free / 1e9:.0f} GB free"
)

# %%
links = SCRATCH / "1089"
for folder in ("volumes", "segmentations"):
    (links / folder).mkdir(parents=True, exist_ok=True)
    for case in chosen:
        name = f"{case.case_id.removeprefix('pycad1089-')}.nii"
        if not (links / folder / name).exists():
            (links / folder / name).symlink_to(SOURCE / folder / name)
parts = [case.split for case in find_cases("pycad1089", links).cases]
print({part: parts.count(part) for part in ("train", "validation", "test")})

# %% [markdown]
# ## 3. What an earlier session did (1 min)
#
# Its output, added as an input, has the checkpoints; they are copied to where this session goes on.

# %%
for earlier in Path("/kaggle/input").glob("*/runs/kaggle"):
    shutil.copytree(earlier, WORK / "runs" / "kaggle", dirs_exist_ok=True)
    print("goes on from", earlier)

# %% [markdown]
# ## 4. Train, within the hours (5 min, and the GPU's hours)
#
# The command of the main job, in a process of its own, stopped in time: a checkpoint is kept after each
# epoch. Half precision is chosen for the GPU that is there: fp16 with a gradient scaler on a T4.

# %%
import yaml

settings = {name: value for name, value in recipe.to_dict().items() if name != "name"}
(WORK / "kaggle.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def run(hours):
    """Run `spine reproduce` for so many hours; return its exit code, 143 if it was stopped."""
    command = [sys.executable, "-m", "spine_lib.cli", "reproduce", "--recipe", "kaggle.yaml"]
    command += ["--root", str(links), "--name", "kaggle", "--at-once", "1"]
    with open(WORK / "log.txt", "ab") as log:
        process = subprocess.Popen(command, cwd=WORK, stdout=log, stderr=log)
        try:
            return process.wait(3600 * hours)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait()


for hours in HOURS:
    code = run(hours)
    print(f"after at most {3600 * hours:.0f} s: exit code {code}")

# %% [markdown]
# ## 5. The table (2 min)

# %%
lines = (WORK / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
if (WORK / "runs" / "kaggle" / "results.json").is_file():
    first = next(n for n, line in enumerate(lines) if line.startswith("The table shows"))
    print("\n".join(lines[first:]))
else:
    print("\n".join(lines[-5:]))
    print("Not finished: save a version, add its output as an input, and run again.")
if trial:
    shutil.rmtree(WORK)

# %% [markdown]
# The report with every figure and deviation is `runs/kaggle/report.html`, among the outputs. Before you
# quote a number: there is no official split of this set, its scans have no patient ids, so two scans of
# one patient may lie in training and test; and the paper's image size, plane, split and epochs are not
# known to us.
