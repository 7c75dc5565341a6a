# %% [markdown]
# # Start here: a spine, a slider, and a first exercise
#
# In this notebook you will
#
# - **see** what this course leads to, and why anyone segments a spine,
# - **check** that your machine and your browser are ready,
# - **name** the four regions of the spine and the parts of a vertebra,
# - **move** sliders through a CT, one of them your own,
# - **solve** five small exercises, and learn how to get hints.
#
# About 60 minutes. You need some Python and NumPy; you need to know nothing about CT.

# %% [markdown]
# ## 1. Where this leads (3 min)
#
# A CT of chest or abdomen shows the spine, whatever it was made for. *Segmentation* marks which voxels
# belong to it. Three uses:
#
# - **Fractures.** Vertebral fractures are often overlooked: of 97 patients with a moderate or severe one
#   on abdominal CT, 81 had no mention of it in the report
#   ([Carberry 2013](https://doi.org/10.1148/radiol.13121632)).
# - **Screw planning.** Pedicle screws pass close to the spinal cord; software plans them on a
#   segmentation ([a comparison of planning tools](https://doi.org/10.3390/jcm12072646)).
# - **Bone density.** The HU inside L1 help to find osteoporosis on scans made for other reasons
#   ([Pickhardt 2013](https://doi.org/10.7326/0003-4819-158-8-201304160-00003)).
#
# This is the result of lesson 9: a patient on whom no network was trained, and the voxels that a U-Net
# marked as spine.

# %%
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from scipy import ndimage

from spine_lib.course import check, course_case, held_out_case, hint, progress, solution

plt.style.use("spine_lib.course.lesson")
patient = held_out_case("crop")
crop, probability = patient.data, patient.probability["U-Net"].array
smooth = ndimage.zoom(probability, 3, order=1) > 0.5


def shaded(mask, axis):
    """Return a picture of a mask seen along an axis: bright where its surface faces you."""
    depth = ndimage.gaussian_filter(mask.argmax(axis).astype(float), 1)
    steps = np.gradient(depth)
    return np.where(mask.any(axis), 1 / np.sqrt(1 + steps[0] ** 2 + steps[1] ** 2), np.nan)


# %%
x = crop.ct.shape[0] // 2
figure, (cut, side) = plt.subplots(1, 2, figsize=(6.2, 2.7), sharey=True)
extent = (0, 109.5, 0, 70.5)
cut.imshow(crop.ct.array[x].T, origin="lower", vmin=-500, vmax=1300, extent=extent)
cut.contour(probability[x].T, [0.5], colors="#E69F00", linewidths=1.2, extent=extent)
side.imshow(shaded(smooth, 0).T, origin="lower", vmin=0, vmax=1, extent=extent)
for axes in (cut, side):
    axes.invert_xaxis()
    axes.set(xlabel="A   mm   P")
cut.set(title="a slice, the U-Net's outline", ylabel="I   mm   S")
side.set(title="the marked voxels, from the left")
plt.show()

# %% [markdown]
# *Figure: the prediction of a U-Net on three vertebrae of a patient whom it has not seen before.*
# <!-- alt: Left, a sagittal slice through L2, L3 and L4 with the outline that a U-Net drew around them.
# Right, the marked voxels as a shaded surface, seen from the left: vertebrae with bodies, arches and
# processes. -->

# %% tags=["nbval-check-output"]
predicted, truth = probability > 0.5, crop.labels.array > 0
dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
print(f"Dice {dice:.2f}: 1 would be equal to the mask that came with the scan")

# %% [markdown]
# By the end of the course you can train such a network, measure it honestly, and say where it fails. This
# is the way:
#
# ![The pipeline: scan, slices, store, augmentation, batch, network, volume, each with the lesson that teaches it](figures/pipeline.svg)
#
# *From a scan to a segmented volume.*

# %% [markdown]
# ## 2. Is this machine ready? (6 min)
#
# Run a cell with Shift+Enter. The next one looks at Python, PyTorch, the processor or GPU, memory and the
# data. Where the four scans of this course are missing, it fetches them once (82 MB, some seconds).

# %%
from spine_lib.course.machine import machine_report

print(machine_report())

# %% [markdown]
# Every line should begin with `ok`; a line that begins with `look` is followed by what to do. A GPU makes
# training faster and nothing here depends on one.
#
# Python cannot see whether your *browser* shows sliders and reports their moves. So let us try one of
# [ipywidgets](https://ipywidgets.readthedocs.io/).

# %%
import ipywidgets as widgets

slider = widgets.IntSlider(value=0, max=10, description="move me")
answer = widgets.HTML("Python has received no move yet.")


def on_move(change):
    answer.value = f"Python received: the slider is at {change['new']}."


slider.observe(on_move, names="value")
widgets.VBox([slider, answer])

# %% [markdown]
# Move the slider. The sentence below it must follow your hand; then both ways work, from the browser to
# Python and back. If you see no slider, open this notebook with `make lab`; a page that only displays
# notebooks runs no Python. The next cell moves the slider by code, to test Python's half alone.

# %%
slider.value = 7
print(answer.value)
assert "7" in answer.value, "The widget did not call back: restart the kernel and run again."

# %% [markdown]
# ## 3. Two patients, four regions (4 min)
#
# `course_case` loads a patient: the scan `ct`, and `labels`, in which every voxel of a vertebra has that
# vertebra's number. A *voxel* is a pixel with a depth, a small box of the body. The files underneath are
# NIfTI files, which [nibabel](https://nipy.org/nibabel/) reads (lesson 1).

# %% tags=["nbval-check-output"]
chest, abdomen = course_case("chest"), course_case("abdomen")
for case in (chest, abdomen):
    header = nib.load(case.ct.path).header
    spacing_mm = [round(float(mm), 1) for mm in header.get_zooms()]
    print(header.get_data_shape(), "voxels of", spacing_mm, "mm")

# %% [markdown]
# One scan of the chest, one of the abdomen and pelvis. Doctors number the vertebrae from the head down:
# seven **cervical** (C1 to C7, the neck), twelve **thoracic** (T1 to T12, each carries a pair of ribs), five
# **lumbar** (L1 to L5); those of the **sacral** region have fused to one bone, the sacrum.
#
# We cut both scans from front to back through the middle of the spine: a *sagittal* slice. **Predict**:
# will the chest patient's spine be a straight line, and where will one region end and the next begin?

# %%
from spine_lib.course.figures import PARTS_OF_L3, show_parts, show_regions

figure, (left, right) = plt.subplots(1, 2, figsize=(6.2, 3.1))
show_regions(left, chest.ct, chest.labels)
show_regions(right, abdomen.ct, abdomen.labels)
plt.show()

# %% [markdown]
# *Figure: sagittal slices of the chest patient and of the abdomen patient, regions coloured and named.*
# <!-- alt: Sagittal slices, front of the body on the left. The chest scan shows cervical, thoracic and
# lumbar vertebrae, some of which leave the slice; the abdomen scan thoracic, lumbar and sacral ones. -->
#
# Bright is dense: bone is nearly white, air is black. Every spine bends forwards and backwards; the chest
# patient's also bends to the *side* (scoliosis), so no flat slice can follow it.
#
# The bone shows no border between T12 and L1: people count, from the sacrum upwards or along the ribs. A
# scan that shows only a part of the spine is therefore easy to number wrongly. No scan in our sample shows
# all four regions; the next one does.

# %%
from spine_lib.datasets import make_phantom

phantom = make_phantom(seed=4, shape=(100, 84, 195), spacing_mm=3.0, scoliosis_deg=0.0)
figure, (left, right) = plt.subplots(1, 2, figsize=(6.2, 4))
show_regions(left, phantom.ct, phantom.labels)
right.imshow(shaded(phantom.labels.array > 0, 0).T, origin="lower", vmin=0, vmax=1)
right.invert_xaxis()
right.set(xlabel="A   3 mm a voxel   P", ylabel="I   3 mm a voxel   S")
plt.show()

# %% [markdown]
# *Figure: a whole synthetic spine from the neck to the sacrum.*
# <!-- alt: Left, a sagittal slice of a synthetic spine, its cervical, thoracic, lumbar and sacral regions
# named. Right, its labels as a shaded surface, seen from the left. -->
#
# This is a *phantom*, drawn by a program from a seed. Its labels are exact, and we can make as many as we
# like. It is simpler than any patient, so whatever works on phantoms has to be shown on patients.

# %% [markdown]
# ## 4. The parts of a vertebra (1 min)
#
# Now one vertebra, L3, of the patient of section 1, cut twice: across the body (an *axial* slice) and from
# front to back.

# %%
figure, (upper, lower) = plt.subplots(2, 1, figsize=(6.2, 5.2), height_ratios=(3, 2))
show_parts(upper, crop.ct, PARTS_OF_L3["axial"], "axial")
show_parts(lower, crop.ct, PARTS_OF_L3["sagittal"], "sagittal")
plt.show()

# %% [markdown]
# *Figure: L3 in an axial slice (above) and a sagittal slice (below).*
# <!-- alt: L3 in an axial slice, with arrows to the vertebral body, spinal canal, pedicle, transverse
# process and lamina, and in a sagittal slice, with arrows to the vertebral body, disc, spinal canal and
# spinous process. -->
#
# The **body** in front carries the weight; **discs** lie between bodies. Behind it, an arch closes around
# the **spinal canal**: two **pedicles** start from the body, two **laminae** meet at the back. From the arch
# grow the **transverse processes** to the sides and the **spinous process** to the back, which you can feel
# under the skin.
#
# The inside of the body is hardly brighter than the disc: its shell is dense, but the trabecular bone
# inside holds much marrow. A rule such as "bone is what is bright" would keep the shell and lose the rest.
#
# The axial picture shows the patient *as seen from the feet*: the right side (R) is on your left.
# Radiologists have agreed on this.

# %% [markdown]
# ## 5. A slider of your own (10 min)
#
# A slider calls a function each time it moves; the function writes a slice into a picture.

# %%
import io


def as_png(z):
    """Return an axial slice as a PNG: the patient's right on the left, the front at the top."""
    stream, upright = io.BytesIO(), abdomen.ct.array[::-1, ::-1, z].T
    plt.imsave(stream, upright, cmap="gray", vmin=-500, vmax=1300, format="png")
    return stream.getvalue()


picture = widgets.Image(value=as_png(70), width=488)
z_slider = widgets.IntSlider(value=70, max=abdomen.ct.shape[2] - 1, description="slice z")
z_slider.observe(lambda change: picture.set_trait("value", as_png(change["new"])), names="value")
widgets.VBox([z_slider, picture])

# %% [markdown]
# The viewer of this course adds planes, windows, overlays and a probe. **Drag** the slice slider and watch
# organs come and go; switch the plane; take the overlay away and bring it back.
#
# **Find**: (1) a slice with a kidney in it; (2) the axial slice with the *most* spine in it, as well as you
# can judge. Write down its index.

# %%
from spine_lib.explore import SliceViewer

viewer = SliceViewer(abdomen.ct, abdomen.labels, case_id="abdomen", index=70, style="outline")
viewer

# %% [markdown]
# *Figure: a viewer of the abdomen patient; on a page without Python a still of its first slice.*
#
# The sentence below the picture names the slice and what lies under the small cross (the probe): its
# position in the patient, its Hounsfield units, its label. Finding (2) by eye is slow and uncertain; a line
# of code does it in section 6.

# %% [markdown]
# ## 6. How exercises work (33 min)
#
# An exercise is a small function for you to write. `check` runs it on inputs that you do not see here and
# tells you in words what is wrong. The first task is to name the region of a vertebra from its number; here
# is what somebody in a hurry wrote:


# %%
def in_a_hurry(vertebra):
    if vertebra <= 7:
        return "cervical"
    if vertebra <= 19:
        return "thoracic"
    return "lumbar" if vertebra <= 25 else "sacral"


check("0.1", in_a_hurry)

# %% [markdown]
# The function is right for everybody who has twelve thoracic vertebrae. A few people have a thirteenth. The
# numbering of this course gives it the last id, 28, so that all others keep theirs.
#
# Where a message is not enough, ask for a hint. There are three for each exercise, one at a time.

# %%
hint("0.1")

# %% [markdown]
# `solution("0.1")` prints an answer. Try first: you remember what you worked out yourself.
#
# ### Exercise 0.1 ★☆☆: the region of a vertebra
#
# Write `region_of` so that it is right for T13 too. Replace the line that raises the error, run the cell,
# then run the check below it.


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
# As long as you have not filled it in, `check` says *not yet* and the notebook runs on. No later cell needs
# your answer: after an exercise the lesson goes on with its own version.
#
# ### Exercise 0.2 ★☆☆: the fullest slice
#
# Which axial slice has the most spine? An array is indexed `[x, y, z]` here, and an axial slice is
# `labels[:, :, z]`. **Predict**: will it be the slice that you wrote down?


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
# It lies in the pelvis, where the sacrum is widest, and not at a lumbar vertebra. `viewer.slice.value = 38`
# in a cell of your own moves the slider above.
#
# ### Exercise 0.3 ★☆☆: the volume in millilitres
#
# A count of voxels says little, because voxels differ in size from scan to scan. How much space does the
# spine fill, in millilitres? A millilitre is a cube with sides of 10 mm.


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
    millilitres = voxels * np.prod(nib.affines.voxel_sizes(case.ct.affine)) / 1000
    print(f"{name:8} {voxels:7} voxels of spine, {millilitres:4.0f} ml")

# %% [markdown]
# The chest scan has about seventeen times as many voxels of spine as the abdomen scan, and yet less spine:
# its voxels are much smaller. Scores that are added up voxel by voxel therefore weight scanners, not
# patients; lesson 7 comes back to this.
#
# ### Exercise 0.4 ★☆☆: left or right
#
# Left and right are the patient's, not yours. The first index, x, grows to the patient's *right*.
# **Predict**: a bright spot on the left of an axial picture, is its x large or small?


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
print("axes of the array grow to:", nib.aff2axcodes(abdomen.ct.affine))

# %% [markdown]
# What you see on the left of an axial picture has a *large* x: array and picture count in opposite directions,
# which is why `as_png` above reverses x. A program that mixes them up still runs and its pictures
# still look plausible, for bodies are nearly symmetric. So every picture of this course carries letters.
#
# ### Exercise 0.5 ★☆☆: the height of the spine
#
# How high is the labelled spine, from its lowest slice to its highest? **Predict**: the chest scan has 133
# slices, 2.5 mm apart. Does the spine fill them all?


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
    height_mm = (slices[-1] - slices[0] + 1) * nib.affines.voxel_sizes(case.ct.affine)[2]
    print(f"{name:8} slices {slices[0]} to {slices[-1]}: {height_mm:.0f} mm of spine")

# %% [markdown]
# In the chest every slice shows spine. In the abdomen the lowest slices show none, since the tip of the
# sacrum ends above them. `progress` shows how far you are.

# %%
progress()

# %% [markdown]
# ## 7. Without the library (1 min)
#
# Every lesson ends with its main result reached by the field's tools only. Here: nibabel reads a mask, NumPy
# counts, and the numbers equal those above.

# %%
mask = nib.as_closest_canonical(nib.load(abdomen.labels.path))
ids = np.asarray(mask.dataobj)
spine = (ids >= 25) & (ids <= 50)  # this file's ids: 25 sacrum, 26 S1, 27 L5 ... 50 C1
voxel_mm = nib.affines.voxel_sizes(mask.affine)
per_slice = np.count_nonzero(spine, axis=(0, 1))
slices = np.flatnonzero(per_slice)
print("fullest slice:", per_slice.argmax())
print(f"volume: {spine.sum() * voxel_mm.prod() / 1000:.0f} ml")
print(f"height: {(np.ptp(slices) + 1) * voxel_mm[2]:.0f} mm")
assert np.array_equal(spine, abdomen.labels.array > 0)
assert np.array_equal(per_slice, voxels_per_slice)

# %% [markdown]
# ## The road ahead
#
# | lesson | you | minutes | of which the machine computes: without a GPU | with one |
# |---|---|---|---|---|
# | 00 start here | see, and do the first exercises | 60 | under 1 | the same |
# | 01 CT loading | know what a scan's numbers and axes mean | 70 | 1 | the same |
# | 02 annotation inspection | read label maps and find their errors | 75 | under 1 | the same |
# | 03 slices and augmentation | split by patient, write a Dataset, augment | 75 | 1 to 2 | the same |
# | 04 U-Net | build it from blocks | 70 | 1 to 2 | less |
# | 05 DeepLabv3+ | build it, and compare | 70 | 1 to 2 | less |
# | 06 training | write the loop, then use Lightning | 75 | 3 | less |
# | 07 metrics | score, and say how sure you are | 75 | under 1 | the same |
# | 08 reproducing the paper | test a published table | 70 | 2 | less |
# | 09 from slices to volumes | segment whole scans | 75 | under 1 | less |
#
# The minutes are for reading, trying and solving; the last columns are what "Run All" takes.
#
# ## What you have done
#
# - **Seen** a prediction of lesson 9, and three reasons to segment a spine.
# - **Checked** the machine, and the browser's sliders by hand.
# - **Named** cervical, thoracic, lumbar and sacral, and a vertebra's body, pedicles, laminae, canal and
#   processes.
# - **Moved** a slider of your own and the course's viewer, and found the fullest slice with code.
# - **Solved** (or opened) five exercises with `check`, `hint` and `solution`.
#
# Next: [01, CT loading](01_ct_loading.ipynb), where you learn what the numbers in a scan are.
