# %% [markdown]
# # Start here: a spine, a slider, and a first exercise
#
# In this notebook you will
#
# - **check** that your machine and your browser are ready,
# - **see** the spine in two real patients and in a synthetic one,
# - **name** its four regions and the parts of a vertebra,
# - **move** a slider through a CT and find what you look for,
# - **solve** five small exercises, and learn what helps when one resists.
#
# It takes about 40 minutes. You need some Python and NumPy; you need to know nothing about CT.

# %% [markdown]
# ## 1. Is this machine ready?
#
# Run a cell with Shift+Enter. The first one looks at Python, PyTorch, the processor or GPU, memory,
# and the data. Where the four scans of this course are missing, it fetches them once (82 MB, some
# seconds).

# %%
from spine_lib.course.machine import machine_report

print(machine_report())

# %% [markdown]
# Every line should begin with `ok`; a line that begins with `look` is followed by what to do. A GPU
# makes training faster and nothing here depends on one. If the real patients are missing,
# run `spine fetch` where there is a network.
#
# One thing Python cannot see from where it is: whether your *browser* shows sliders and tells Python
# when you move them. So let us try.

# %%
import ipywidgets as widgets

slider = widgets.IntSlider(value=0, max=10, description="move me")
answer = widgets.HTML("Python has not heard of the slider yet.")


def heard(change):
    answer.value = f"Python heard: the slider is at {change['new']}."


slider.observe(heard, names="value")
widgets.VBox([slider, answer])

# %% [markdown]
# Move the slider. The sentence below it must follow your hand; then both ways work, from the browser
# to Python and back. If you see no slider at all, open this notebook with `make lab` (or
# `jupyter lab`); a page that only displays notebooks, such as a code host, runs no Python.
#
# The next cell moves the slider without a hand, to test Python's half alone.

# %%
slider.value = 7
print(answer.value)
assert "7" in answer.value, "The widget did not call back: restart the kernel and run again."

# %% [markdown]
# ## 2. The spine in two patients
#
# `course_case` loads a patient: the scan `ct`, and `labels`, in which every voxel of a vertebra has
# that vertebra's number. A *voxel* is a pixel with a depth: a little box of the body.

# %% tags=["nbval-check-output"]
from spine_lib.course import course_case

chest, abdomen = course_case("chest"), course_case("abdomen")
print("chest:  ", chest.ct.shape, "voxels")
print("abdomen:", abdomen.ct.shape, "voxels")

# %% [markdown]
# Two different people: one scan of the chest, one of the abdomen and pelvis. Before you look,
# **predict**: how many vertebrae will the chest scan show, and will its spine be a straight line?
#
# We cut both scans from front to back through the middle of the spine. Such a cut is called
# *sagittal*.

# %%
import matplotlib.pyplot as plt

from spine_lib.ct import WINDOWS
from spine_lib.explore import figures, render


def show_sagittal(axes, case, index):
    picture = render.render_slice(case.ct, index, "sagittal", WINDOWS["bone"])
    figures.show_slice(axes, picture, "sagittal", render.pixel_size_mm(case.ct, "sagittal"))


figure, (left, right) = plt.subplots(1, 2, figsize=(5, 2.6), layout="constrained")
show_sagittal(left, chest, chest.ct.shape[0] // 2)
show_sagittal(right, abdomen, abdomen.ct.shape[0] // 2)
plt.show()

# %% [markdown]
# *Figure: sagittal slices of the chest patient (left) and of the abdomen patient (right). The front
# of the body (A, anterior) is on the left, the back (P, posterior) on the right, the head (S,
# superior) at the top.*
#
# Bright is dense: bone is nearly white, air is black. The spine is the column of blocks towards the
# back. It bends forwards and backwards in everybody. The chest patient's also bends to the *side*
# (scoliosis), so one flat cut cannot follow it: vertebrae leave the picture although nothing is
# missing.

# %% [markdown]
# ## 3. Four regions
#
# Doctors number the vertebrae from the head down, region by region. Seven are **cervical** (C1 to C7,
# the neck), twelve are **thoracic** (T1 to T12, each carries a pair of ribs), five are **lumbar** (L1
# to L5), and those of the **sacral** region have grown together to one bone, the sacrum.
#
# **Predict**: where, in the pictures above, does one region end and the next begin?

# %%
from spine_lib.course.figures import show_regions

figure, (left, right) = plt.subplots(1, 2, figsize=(5.8, 3.0), layout="constrained")
show_regions(left, chest.ct, chest.labels)
show_regions(right, abdomen.ct, abdomen.labels)
plt.show()

# %% [markdown]
# *Figure: the same patients with the regions coloured, hatched and named. The chest scan shows
# cervical, thoracic and lumbar vertebrae, the abdomen scan thoracic, lumbar and sacral ones.*
#
# You cannot see a border between T12 and L1 in the bone itself: people count, from the sacrum
# upwards or along the ribs. That is why a scan that shows only a part of the spine is easy to number
# wrongly. No scan in our sample shows all four regions. The next one does.

# %%
from spine_lib.datasets import make_phantom

phantom = make_phantom(seed=4, shape=(100, 84, 195), spacing_mm=3.0, scoliosis_deg=0.0)
figure, axes = plt.subplots(figsize=(2.8, 4.6), layout="constrained")
show_regions(axes, phantom.ct, phantom.labels)
plt.show()

# %% [markdown]
# *Figure: a whole synthetic spine from the neck to the sacrum, its four regions named.*
#
# This is a *phantom*: nobody's body, drawn by a program from a seed. Its labels are exact by
# construction, and we can make as many as we like. It is too clean to be true, though: compare it
# with the patients above. Whatever works on phantoms has to be shown on people.

# %% [markdown]
# ## 4. The parts of a vertebra
#
# Now one vertebra, L3, from a third patient. We cut it twice: across the body (an *axial* slice) and
# from front to back (a sagittal one).

# %%
from spine_lib.course.figures import PARTS_OF_L3, show_parts

crop = course_case("crop")
in_axial, in_sagittal = PARTS_OF_L3["axial"], PARTS_OF_L3["sagittal"]
figure, (upper, lower) = plt.subplots(2, 1, figsize=(5, 4.6), height_ratios=(3, 2))
show_parts(upper, crop.ct, in_axial, "axial")
show_parts(lower, crop.ct, in_sagittal, "sagittal")
plt.show()

# %% [markdown]
# *Figure: L3 in an axial slice (above), with arrows to the vertebral body, spinal canal, pedicle,
# transverse process and lamina, and in a sagittal slice (below), with arrows to the vertebral body,
# disc, spinal canal and spinous process.*
#
# The **body** in front carries the weight; **discs** lie between bodies. Behind it, an arch closes
# around the **spinal canal**: two **pedicles** start from the body, two **laminae** meet at the back.
# From the arch grow the **transverse processes** to the sides and the **spinous process** to the
# back: the bumps that you can feel down your own back.

# %% [markdown]
# Look at the inside of the body: it is hardly brighter than the disc. Its shell is dense, but the
# sponge inside holds much marrow. A rule such as "bone is what is bright" would keep the shell and
# lose the rest. Remember this when lesson 4 asks why one needs a network at all.
#
# The axial picture also shows the patient *as seen from the feet*: the right side (R) is on your
# left, as if the patient stood in front of you. Radiologists have agreed on this.

# %% [markdown]
# ## 5. The first slider
#
# Pictures in a book are chosen by somebody. Here you choose. **Drag** the slice slider and watch
# organs come and go; switch the plane; take the overlay away and bring it back.
#
# **Find**: (1) a slice with a kidney in it; (2) the axial slice with the *most* spine in it, as well
# as you can judge. Write down its index.

# %%
from spine_lib.explore import SliceViewer

viewer = SliceViewer(abdomen.ct, abdomen.labels, case_id="abdomen", index=70, style="outline")
viewer

# %% [markdown]
# *Figure: a viewer of the abdomen patient with sliders for slice, window and overlay; on a page
# without Python only a still of its first slice.*
#
# The sentence below the picture says which slice you see and what lies under the small cross (the
# probe): its place in the patient, its Hounsfield units, its label. Finding (2) by eye is slow and
# you are never quite sure. In a minute, a line of code will do it for you.

# %% [markdown]
# ## 6. How exercises work
#
# An exercise is a small function for you to write. `check` runs it on inputs that you do not see
# here and tells you what is wrong, in words. Let us watch a first attempt fail. The task is to name
# the region of a vertebra from its number; here is what somebody in a hurry wrote:

# %%
from spine_lib.course import check, hint, progress, solution


def in_a_hurry(vertebra):
    if vertebra <= 7:
        return "cervical"
    if vertebra <= 19:
        return "thoracic"
    return "lumbar" if vertebra <= 25 else "sacral"


check("0.1", in_a_hurry)

# %% [markdown]
# Nearly: the function is right for everybody who has twelve thoracic vertebrae. A few people have a
# thirteenth. The numbering of this course gives it the last id, 28, so that all others keep theirs.
#
# Where a message is not enough, ask for a hint. There are three for each exercise, each says more
# than the one before, and they come one at a time.

# %%
hint("0.1")

# %% [markdown]
# And if all else fails, `solution("0.1")` prints an answer. Nobody counts how often you use it, but
# try first: what you find yourself stays.
#
# **Exercise 0.1.** Your turn: write `region_of` so that it is right for T13 too. Replace the line
# that raises the error, run the cell, then run the check below it.


# %% tags=["exercise"]
def region_of(vertebra):
    """Name the region of a vertebra: "cervical", "thoracic", "lumbar" or "sacral".

    vertebra: canonical id, a whole number: 1-7 are C1-C7, 8-19 are T1-T12, 20-25 are L1-L6,
              26 is the sacrum and 28 is T13, a rare thirteenth thoracic vertebra.
    """
    raise NotImplementedError


# %%
check("0.1", region_of)

# %% [markdown]
# As long as you have not filled it in, `check` says *not yet* and the notebook runs on. No later cell
# needs your answer, so "Run All" always works: after an exercise the lesson goes on with the
# library's version. Here, that one turns a whole array at once.

# %% tags=["nbval-check-output"]
import numpy as np

from spine_lib.annotations import REGIONS, to_regions

numbers = np.array([7, 8, 19, 20, 26, 28])
print([REGIONS[region - 1] for region in to_regions(numbers)])

# %% [markdown]
# **Exercise 0.2.** Back to the slider: which axial slice has the most spine? An array is indexed
# `[x, y, z]` here, and an axial slice is `labels[:, :, z]`. **Predict** first: will it be the slice
# that you wrote down?


# %% tags=["exercise"]
def fullest_slice(labels):
    """Return the index of the axial slice that has the most voxels of spine.

    labels: array [x, y, z] of vertebra ids, 0 is background.
    """
    raise NotImplementedError


# %%
check("0.2", fullest_slice)

# %% tags=["nbval-check-output"]
voxels_per_slice = np.count_nonzero(abdomen.labels.array, axis=(0, 1))
print("fullest slice:", voxels_per_slice.argmax(), "with", voxels_per_slice.max(), "voxels")

# %% [markdown]
# It lies in the pelvis, where the sacrum is widest, and not at a lumbar vertebra, however solid those
# look. Was it yours? `viewer.slice.value = 38` in a cell of your own moves the slider above from
# here, exactly as your hand does.

# %% [markdown]
# **Exercise 0.3.** A count of voxels says little, because voxels differ in size from scan to scan. How
# much space does the spine fill, in millilitres? A millilitre is a cube with sides of
# 10 mm.


# %% tags=["exercise"]
def volume_ml(labels, spacing_mm):
    """Return the volume of all spine in millilitres.

    labels:     array [x, y, z] of vertebra ids, 0 is background.
    spacing_mm: size of a voxel along x, y and z in mm.
    """
    raise NotImplementedError


# %%
check("0.3", volume_ml)

# %% tags=["nbval-check-output"]
for name, case in (("chest", chest), ("abdomen", abdomen)):
    voxels = np.count_nonzero(case.labels.array)
    millilitres = voxels * np.prod(case.ct.spacing_mm) / 1000
    print(f"{name:8} {voxels:7} voxels of spine, {millilitres:4.0f} ml")

# %% [markdown]
# The chest scan has about seventeen times as many voxels of spine as the abdomen scan, and yet less
# spine: its voxels are much smaller. Whoever compares patients in voxels, or adds scores up voxel by
# voxel, compares scanners instead. Lesson 7 comes back to this.

# %% [markdown]
# **Exercise 0.4.** Left and right are the patient's, not yours. The first index, x, grows to the
# patient's *right*. In which half does a voxel lie? **Predict**: a bright spot on the left of an
# axial picture, is its x large or small?


# %% tags=["exercise"]
def side_of(voxel, shape):
    """Say in which half of the image a voxel lies: the patient's "left" or "right".

    voxel: its indices (x, y, z); the arrays of this course grow to the patient's
           Right, Anterior and Superior side.
    shape: how many voxels the image has along x, y and z.
    """
    raise NotImplementedError


# %%
check("0.4", side_of)

# %% tags=["nbval-check-output"]
from spine_lib.ct import orientation_marks

print("edges of an axial picture:", orientation_marks("axial"))

# %% [markdown]
# The left edge of the picture is R: what you see on the left has a *large* x. Arrays and pictures run
# against each other here, each by its own convention. A program that mixes them up still runs and
# still looks right, for bodies are nearly symmetric: so every picture of this course carries letters.

# %% [markdown]
# **Exercise 0.5.** How high is the labelled spine, from its lowest slice to its highest? **Predict**:
# the chest scan has 133 slices, 2.5 mm apart. Does the spine fill them all?


# %% tags=["exercise"]
def spine_height_mm(labels, spacing_mm):
    """Return the height of the labelled spine: from its lowest to its highest slice, in mm.

    Both end slices count in full: spine in slices 10 and 11 only is two slices high.

    labels:     array [x, y, z] of vertebra ids, 0 is background.
    spacing_mm: size of a voxel along x, y and z in mm.
    """
    raise NotImplementedError


# %%
check("0.5", spine_height_mm)

# %% tags=["nbval-check-output"]
for name, case in (("chest", chest), ("abdomen", abdomen)):
    slices = np.flatnonzero((case.labels.array > 0).any(axis=(0, 1)))
    height_mm = (slices[-1] - slices[0] + 1) * case.ct.spacing_mm[2]
    print(f"{name:8} slices {slices[0]} to {slices[-1]}: {height_mm:.0f} mm of spine")

# %% [markdown]
# In the chest every slice shows spine, as it must: the spine passes right through. In the abdomen the
# lowest slices show none, since the tip of the sacrum ends above them.
#
# `progress` shows how far you are. It remembers as long as this notebook's kernel runs.

# %%
progress()

# %% [markdown]
# ## 7. The road ahead
#
# | lesson | you | minutes | of which the machine computes: without a GPU | with one |
# |---|---|---|---|---|
# | 00 start here | see, and do the first exercises | 40 | under 1 | the same |
# | 01 CT loading | know what a scan's numbers and axes mean | 75 | under 1 | the same |
# | 02 annotation inspection | read label maps and find their errors | 50 | under 1 | the same |
# | 03 slices and augmentation | cut, split by patient, augment | 60 | under 1 | the same |
# | 04 U-Net | build it from blocks | 80 | 1 to 2 | less |
# | 05 DeepLabv3+ | build it, and compare | 75 | 1 to 2 | less |
# | 06 training | write the loop, then hand it over | 75 | 1 to 2 | less |
# | 07 metrics | score, and say how sure you are | 80 | under 1 | the same |
# | 08 reproducing the paper | test a published table | 70 | 2 | less |
# | 09 from slices to volumes | segment whole scans | 80 | under 1 | less |
#
# The minutes are for reading, trying and solving; the last columns are what "Run All" takes.
#
# ## What you have done
#
# - **Checked** the machine, and the browser's sliders by hand.
# - **Seen** the spine in two patients, one of them with a side bend, and a phantom with exact labels.
# - **Named** cervical, thoracic, lumbar and sacral, and a vertebra's body, pedicles, laminae, canal
#   and processes.
# - **Moved** a slider, and found the fullest slice with code where the eye was unsure.
# - **Solved** (or opened) five exercises with `check`, `hint` and `solution`.
#
# Next: [01, CT loading](01_ct_loading.ipynb), where you learn what the numbers in a scan are.
