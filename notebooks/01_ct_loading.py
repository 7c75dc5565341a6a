# %% [markdown]
# # CT loading: what the numbers in a scan mean
#
# In this notebook you will
#
# - **walk** from a voxel to a place in the patient and back, with the affine,
# - **turn** files that lie in different orientations to one,
# - **read** Hounsfield units, and find air, fat, soft tissue and bone in a histogram,
# - **choose** a window, and draw slices in their true proportions,
# - **load** a DICOM series slice by slice, and measure what a careless loader costs.
#
# It takes about 70 minutes. The polished code of this lesson is `spine_lib/ct/volume.py`.

# %% [markdown]
# ## 1. A file
#
# Researchers keep CT scans in NIfTI files (`.nii.gz`): a header and one block of numbers. The package
# nibabel reads both. We open the abdomen patient from lesson 0, and look at the header first.

# %%
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from spine_lib.course import check, course_case, hint, progress, solution

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
abdomen = course_case("abdomen")
file = abdomen.ct.path

# %%
image = nib.load(file)
print("shape  ", image.shape)
print("type   ", image.get_data_dtype())
print("spacing", [float(mm) for mm in image.header.get_zooms()], "mm")

# %% [markdown]
# Nothing of the block has been read so far. The header says how many voxels there are, how each is
# stored and how large it is. It does not say what the axes are called. Is the first one left to
# right? And from left to right, or from right to left? The answer is in the *affine*.

# %% [markdown]
# ## 2. From a voxel to a place, by hand
#
# The affine is a table of 4 x 4 numbers that turns voxel indices into millimetres in the patient.
# NIfTI's coordinates grow to the patient's Right, front (Anterior) and head (Superior): RAS.

# %% tags=["nbval-check-output"]
affine = image.affine
print(affine.round(1))

# %% [markdown]
# Read it row by row. The first row says: x in mm = 3·i + 0·j + 0·k - 178. So one step along the first
# axis goes 3 mm to the right, and the other two axes do not change x at all. The last column is where
# voxel (0, 0, 0) lies. The last row is only there to make the arithmetic neat.
#
# **Predict**: where does voxel (10, 20, 30) lie? Work out x on paper before you run the cell.

# %% tags=["nbval-check-output"]
i, j, k = 10, 20, 30
for row in affine[:3]:
    print(f"{row[0]:g}*{i} + {row[1]:g}*{j} + {row[2]:g}*{k} + {row[3]:.1f} =", end=" ")
    print(f"{row[0] * i + row[1] * j + row[2] * k + row[3]:.1f} mm")

# %% [markdown]
# The point lies about 148 mm to the left of the origin, 71 mm in front of it and 184 mm above. The
# origin itself is arbitrary: a spot in the scanner's room. Distances are real, and so is the
# direction.
#
# **Exercise 1.1.** Put this into a function. Beware: in other files the axes are turned and tilted,
# so all nine numbers matter.


# %% tags=["exercise"]
def voxel_to_mm(affine, voxel):
    """Return where the centre of a voxel lies in the patient: x, y, z in mm.

    affine: 4x4 array, voxel indices -> mm.
    voxel:  three indices.
    """
    raise NotImplementedError


# %%
check("1.1", voxel_to_mm)

# %% [markdown]
# **Exercise 1.2.** And back: a surgeon points at a place in mm. Which voxel is it? **Predict**: is it
# enough to divide by the spacing?


# %% tags=["exercise"]
def mm_to_voxel(affine, place_mm):
    """Return the indices of the voxel whose centre is nearest to a place in the patient.

    affine:   4x4 array, voxel indices -> mm.
    place_mm: x, y, z in mm.
    """
    raise NotImplementedError


# %%
check("1.2", mm_to_voxel)

# %% tags=["nbval-check-output"]
from nibabel.affines import apply_affine

place_mm = apply_affine(affine, (10, 20, 30))
print("place:", place_mm.round(1), "mm")
print("back: ", apply_affine(np.linalg.inv(affine), place_mm).round().astype(int))

# %% [markdown]
# There and back gives the same voxel. Two scans of one patient, or a scan and its mask, belong
# together when the same voxel lies at the same place in both: it is the affines that must agree, not
# only the shapes. `spine_lib.ct.require_same_grid` checks this at the door.

# %% [markdown]
# ## 3. Three files, one patient
#
# Scanners and programs store the axes in any order and direction. Three letters name what a file
# does: LAS means that its axes point to the Left, to the front (Anterior) and to the head (Superior).
# We write the same scan in three orientations.

# %%
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

for codes in ("RAS", "LAS", "PIR"):
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    turned.to_filename(folder / f"{codes}.nii.gz")
    print(codes, turned.shape, turned.affine[:3, :3].round(1).tolist())

# %% [markdown]
# Same voxels, same patient, three arrays. **Predict**: take the middle slice along the last axis of
# each, as a script in a hurry would, and draw it. How many of the three pictures will show the body
# from the same side and the right way up?

# %%
import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, 3, figsize=(5.6, 2), layout="constrained")
for axes, codes in zip(panels, ("RAS", "LAS", "PIR")):
    array = np.asarray(nib.load(folder / f"{codes}.nii.gz").dataobj)
    axes.imshow(array[:, :, array.shape[2] // 2], cmap="gray", vmin=-500, vmax=1300)
    axes.set(title=f"{codes} file, naive", xlabel="second index", ylabel="first index")
plt.show()

# %% [markdown]
# *Figure: the middle slice along the last axis of the three files, drawn without a look at the
# affine: two axial slices that lie on their side, one mirrored against the other, and a sagittal
# slice.*
#
# None is right. Even the RAS file lies on its side, since `imshow` draws the first index downwards.
# The second is its mirror image, and you would hardly notice, for the body is nearly symmetric; yet
# left and right have changed places. The third is another plane altogether. A script that mixes such
# files shows a network patients who do not exist.

# %% [markdown]
# The cure is to turn every file to one orientation when it is loaded, by its affine. `load_ct` does:
# whatever the file, the array comes out as [x, y, z] growing to R, A, S. `to_slices` then turns
# slices so that they are upright on the screen.

# %%
from spine_lib.ct import WINDOWS, load_ct
from spine_lib.explore import figures, render

figure, panels = plt.subplots(1, 3, figsize=(6, 2), layout="constrained")
for axes, codes in zip(panels, ("RAS", "LAS", "PIR")):
    ct = load_ct(folder / f"{codes}.nii.gz")
    middle = ct.shape[2] // 2
    picture = render.render_slice(ct, middle, "axial", WINDOWS["soft tissue"])
    figures.show_slice(axes, picture, "axial", render.pixel_size_mm(ct, "axial"))
    axes.set_title(f"{codes} file, loaded")
plt.show()

# %% [markdown]
# *Figure: the middle axial slice of the three files after load_ct: three equal pictures, the
# patient's right on the left, the front at the top.*
#
# Three times the same picture, now with letters that may be believed. Are the arrays equal, too?

# %% tags=["nbval-check-output"]
scans = [load_ct(folder / f"{codes}.nii.gz") for codes in ("RAS", "LAS", "PIR")]
for scan in scans:
    same = np.array_equal(scan.array, scans[0].array)
    print(scan.source.orientation, scan.source.shape, "->", scan.shape, "equal:", same)

# %% [markdown]
# **Exercise 1.3.** Read the three letters off an affine yourself. Each *column* says what one step
# along an array axis does. **Predict** the letters for `np.diag([-1, -1, 2, 1])` before you code.


# %% tags=["exercise"]
def axis_codes(affine):
    """Return three letters that say where each array axis points to, such as "RAS" or "LPS".

    R, A and S where an axis points to the patient's Right, front (Anterior) and head (Superior),
    L, P and I where it points the other way; a tilted axis counts as the nearest of them.

    affine: 4x4 array, voxel indices -> mm, x growing to R, y to A and z to S.
    """
    raise NotImplementedError


# %%
check("1.3", axis_codes)

# %% tags=["nbval-check-output"]
for name in ("chest", "abdomen", "dicom", "crop"):
    case = course_case(name)
    print(f"{name:8} is stored {case.ct.source.orientation if case.ct.source else 'RAS'}")

# %% [markdown]
# Four patients, four orientations: nothing here was made up for the lesson. The chest's is LAS, which
# differs from RAS by one mirror only: the most dangerous kind, since nothing looks odd.

# %% [markdown]
# ## 4. Hounsfield units
#
# What *are* the numbers? A CT measures how strongly each voxel weakens X-rays, on a scale on which
# water is 0 and air is -1000 Hounsfield units (HU). It is the same scale in every scanner, which makes
# CT a measurement and not a mere picture.
#
# **Predict**: fat floats on water. Will its HU be above or below 0?

# %%
from spine_lib.explore import WindowExplorer

explorer = WindowExplorer(abdomen.ct, index=70, window="full", case_id="abdomen")
explorer

# %% [markdown]
# *Figure: an axial slice of the abdomen with all HU from black to white. With Python running, the
# histogram of the scan stands beside it, and sliders move slice and window.*
#
# So wide a window shows everything and tells nothing apart. Make it narrow and move its centre. When only one tissue is left between black and white,
# you have found its HU. Try it for the fat under the skin, then for the muscles of the back. The
# peaks of the histogram are the tissues that fill most of the body.

# %% [markdown]
# Now let code read off the peaks. We count voxels in bins of 10 HU and let SciPy find the maxima that
# stand out.

# %% tags=["nbval-check-output"]
from scipy.signal import find_peaks

edges = np.arange(-1100, 1500, 10)
centres = edges[:-1] + 5
counts, _ = np.histogram(abdomen.ct.array, edges)
peaks, _ = find_peaks(counts, prominence=counts.max() / 200, width=2)
for peak in peaks:
    print(f"{centres[peak]:6} HU: {counts[peak]} voxels")

# %% [markdown]
# Three peaks: air (outside the patient and in the bowel), fat below 0, and above 0 all that is mostly
# water: muscle, liver, blood. But where is bone? It is a small part of the body and its HU spread
# widely, so in the whole scan it drowns. The mask lets us look at the vertebrae alone.

# %% tags=["nbval-check-output"]
spine_hu = abdomen.ct.array[abdomen.labels.array > 0]
spine_counts, _ = np.histogram(spine_hu, edges)
print("most frequent in the spine:", centres[spine_counts.argmax()], "HU")
print("10 % lie below", np.percentile(spine_hu, 10).round(), "HU")
print("10 % lie above", np.percentile(spine_hu, 90).round(), "HU")

# %%
figure, (whole, spine) = plt.subplots(2, 1, figsize=(6.4, 4), sharex=True, layout="constrained")
whole.semilogy(centres, np.maximum(counts, 1), color="#0072B2")
for name, near, side in (
    ("air", -1000, "right"),
    ("fat", -100, "right"),
    ("water-like", 30, "left"),
):
    peak = peaks[np.abs(centres[peaks] - near).argmin()]
    whole.text(centres[peak], counts[peak], f"  {name}  ", ha=side)
whole.set(title="whole scan", ylabel="voxels", xlim=(-1150, 1500), ylim=(1, counts.max() * 9))
spine.plot(centres, spine_counts, color="#D55E00")
spine.text(centres[spine_counts.argmax()], spine_counts.max(), "  bone", va="top")
spine.set(title="vertebrae and sacrum only", xlabel="HU", ylabel="voxels")
plt.show()

# %% [markdown]
# *Figure: histograms of HU. Above, the whole scan with the peaks of air, fat and water-like tissue;
# below, the spine alone with one broad peak of bone and a long tail to the right.*
#
# The peak of bone is the sponge inside the vertebrae; the tail is their dense shell. And the left
# foot of the peak lies *under* the peak of soft tissue: no threshold separates bone from muscle.
# This is the reason why the spine has to be learned and cannot be cut out by its brightness.

# %% [markdown]
# ## 5. Slope and intercept
#
# Files rarely store HU. They store small whole numbers and two constants, and HU = stored · slope +
# intercept. The chest file shows it:

# %% tags=["nbval-check-output"]
chest_file = course_case("chest").ct.path
stored = nib.load(chest_file).dataobj
print("slope", stored.slope, "intercept", stored.inter)

# %% [markdown]
# An intercept of -1024 shifts everything, so that air can be stored as 24 and no number is negative.
# Harmless, it seems. **Predict** what NumPy makes of this: three pixels of type uint16, 0 to 65535,
# and an intercept of -1024.

# %% tags=["nbval-check-output"]
pixels = np.array([0, 24, 1064], dtype=np.uint16)
try:
    print(pixels + -1024)
except OverflowError as error:
    print("OverflowError:", error)
print(pixels - 1024)

# %% [markdown]
# One way of writing it stops with an error. The other is worse: it runs, and air becomes 64536 HU,
# denser than any metal, since uint16 knows no negative numbers and wraps around. **Exercise 1.4.**
# Do it properly: multiply, add, round, and return int16.


# %% tags=["exercise"]
def to_hu(stored, slope, intercept):
    """Return Hounsfield units: stored * slope + intercept, rounded to whole numbers, as int16.

    stored:    array of any shape as a file has it, often uint16.
    slope, intercept: two floats from the file's header.
    """
    raise NotImplementedError


# %%
check("1.4", to_hu)

# %% tags=["nbval-check-output"]
from spine_lib.ct import hu_from_stored

hu = np.empty(pixels.shape, np.int16)
hu_from_stored(pixels, 1.0, -1024.0, hu, "three pixels")
print(hu, hu.dtype)

# %% [markdown]
# Why int16? HU run from about -1024 to 3071, so two bytes are plenty; and because the type is signed,
# sums and differences with small numbers stay right. Section 8 measures what a larger type costs.

# %% [markdown]
# ## 6. Windows
#
# A scan has some 4000 different HU, a screen 256 greys, and your eye tells perhaps a few dozen apart.
# So we choose a *window*: what lies below it is black, what lies above it white, and only the range
# inside is spread over the greys. **Predict**: for seeing fat beside muscle, wide or narrow?

# %%
figure, panels = plt.subplots(1, 3, figsize=(6, 2), layout="constrained")
for axes, name in zip(panels, ("bone", "soft tissue", "lung")):
    picture = render.render_slice(abdomen.ct, 70, "axial", WINDOWS[name])
    figures.show_slice(axes, picture, "axial", render.pixel_size_mm(abdomen.ct, "axial"))
    axes.set_title(f"{name}: {WINDOWS[name].center:g} ± {WINDOWS[name].width / 2:g}")
plt.show()

# %% [markdown]
# *Figure: one axial slice in the bone, the soft-tissue and the lung window.*
#
# The bone window keeps shell and sponge apart but draws all soft tissue alike. The soft-tissue window
# separates fat, muscle and liver and lets the bone go white. The lung window shows what is nearly
# air, such as the bowel's gas. The HU are the same in all three.

# %% [markdown]
# **Exercise 1.5.** Write the window as a function: from HU to greys between 0 and 1. A network gets
# its images this way too, so it is more than a matter of looks. **Predict**: which HU does the
# soft-tissue window (centre 40, width 400) turn white?


# %% tags=["exercise"]
def apply_window(hu, center, width):
    """Return grey values: 0 for the lower end of the window and below, 1 for the upper and above.

    hu:            array of any shape, HU.
    center, width: of the window, in HU.
    """
    raise NotImplementedError


# %%
check("1.5", apply_window)

# %% tags=["nbval-check-output"]
from spine_lib.ct import apply_window as library_window

print(library_window(np.array([-1000, -160, 40, 240, 1000]), WINDOWS["soft tissue"]))

# %% [markdown]
# Air and everything up to -160 HU are 0, everything from 240 HU on is 1. What a window cuts off is
# gone for whoever looks at its output, a network included: a window that is too narrow for bone
# cannot be made good later.

# %% [markdown]
# ## 7. Proportions
#
# Voxels are seldom cubes. The chest's are 0.7 mm wide, but its slices are 2.5 mm apart. **Predict**:
# if a sagittal slice is drawn with one square pixel a voxel, will the patient look too short or too
# tall?

# %%
from spine_lib.ct import to_slices

chest = course_case("chest")
sagittal = to_slices(chest.ct.array, "sagittal")[chest.ct.shape[0] // 2]
x_mm, y_mm, z_mm = chest.ct.spacing_mm
figure, panels = plt.subplots(1, 2, figsize=(5.2, 2.5), layout="constrained")
for axes, aspect in zip(panels, (1, z_mm / y_mm)):
    axes.imshow(sagittal, cmap="gray", vmin=-500, vmax=1300, aspect=aspect)
    axes.set(title=f"aspect {aspect:.2f}", xlabel="column (A to P)", ylabel="row (S to I)")
plt.show()

# %% [markdown]
# *Figure: a sagittal slice of the chest, left with square pixels and squashed, right with pixels as
# high as the slices are apart and in true proportions.*
#
# Same numbers, two patients, one of them impossible. Lengths, areas and angles measured on the left
# picture are wrong, and a network that sees such slices from different scanners has to learn every
# squash anew. Lesson 3 resamples to one pixel size for this reason.

# %% [markdown]
# **Exercise 1.6.** How many times as high as wide is a pixel of an axial, a coronal (seen from the
# front) and a sagittal slice?


# %% tags=["exercise"]
def pixel_aspect(spacing_mm, plane):
    """Return how many times as high as wide a pixel of a slice is.

    spacing_mm: of the volume, along x (left-right), y (back-front) and z (feet-head).
    plane:      "axial", "coronal" or "sagittal"; the slices are upright, so rows of a coronal and
                of a sagittal slice lie along z.
    """
    raise NotImplementedError


# %%
check("1.6", pixel_aspect)

# %% tags=["nbval-check-output"]
from spine_lib.ct import slice_spacing_mm

for plane in ("axial", "coronal", "sagittal"):
    _, row_mm, column_mm = slice_spacing_mm(chest.ct.spacing_mm, plane)
    print(f"{plane:9} {row_mm:.2f} mm high, {column_mm:.2f} mm wide: {row_mm / column_mm:.2f}")

# %% [markdown]
# Only the axial pixels are square here. Two planes out of three come out squashed unless somebody
# looks at the spacing.

# %% [markdown]
# ## 8. DICOM, slice by slice
#
# Hospitals do not keep NIfTI files. A scanner writes DICOM: one file a slice, each with a header of
# its own. We read a real series by hand, with the package pydicom, file by file in the order of their
# names.

# %%
import pydicom

series = course_case("dicom").ct.path
slices = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
first = slices[0]
print(len(slices), "slices of", first.pixel_array.shape, first.pixel_array.dtype)
print("slope", first.RescaleSlope, "intercept", first.RescaleIntercept)
print("slice thickness", first.SliceThickness, "mm")

# %% [markdown]
# A thickness of 3 mm and 20 slices: 60 mm of patient? **Predict**: the headers also say where each
# slice lies. Its height is the third number of `ImagePositionPatient`. How far apart will the slices
# be, and does the first file hold the lowest one?

# %%
heights_mm = np.array([float(one.ImagePositionPatient[2]) for one in slices])
print("heights:", heights_mm[:4], "...")
print("steps:  ", np.unique(np.diff(heights_mm)))

# %% [markdown]
# Two surprises. The steps are 2 mm, so the slices *overlap*: each averages over 3 mm, and the next
# begins 2 mm further. With thickness for distance, this patient would be half as tall again. And the
# steps are negative: file names run from head to foot. Stacked in that order as if they went up, the
# patient stands on the head.
#
# So: sort by position, and take the distance from positions too.

# %%
slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
stack = np.stack([one.pixel_array.T.astype(np.int16) for one in slices], axis=2)
stack = stack * np.int16(first.RescaleSlope) + np.int16(first.RescaleIntercept)
distance_mm = np.diff(np.sort(heights_mm)).mean()
print("stack", stack.shape, stack.dtype, "from", stack.min(), "to", stack.max(), "HU")
print("distance", distance_mm, "mm")

# %% [markdown]
# `.T`, because a pixel array is [row, column] and we want the column, which is x, first. One thing is
# left: DICOM's x grows to the *Left* and its y to the back (LPS), where NIfTI has RAS. So both axes
# are flipped. Does the library agree with what we did by hand?

# %% tags=["nbval-check-output"]
by_hand = stack[::-1, ::-1, :]
loaded = load_ct(series)
print("the same HU:", np.array_equal(by_hand, loaded.array))
print("spacing:", tuple(round(float(mm), 2) for mm in loaded.spacing_mm), "mm")

# %%
figure, axes = plt.subplots(figsize=(3, 3), layout="constrained")
picture = render.render_slice(loaded, 4, "axial", WINDOWS["bone"])
figures.show_slice(axes, picture, "axial", render.pixel_size_mm(loaded, "axial"))
plt.show()

# %% [markdown]
# *Figure: an axial slice of the DICOM series at the height of T12, in the bone window. The arms lie
# beside the body.*
#
# Voxel for voxel the same. What the library adds are refusals: it stops, with a sentence, when a
# slice is missing, two series lie in one folder, or the slices form no regular grid. By hand you
# would have stacked those without a word.

# %% [markdown]
# ## 9. What a careless loader costs
#
# nibabel's `get_fdata` is the line that most scripts use. It returns float64: eight bytes a voxel.
# **Predict** for the chest scan: how many times the memory of int16, and is it faster or slower than
# `load_ct`? We measure the peak, for a moment's peak is what breaks a machine.

# %%
import time
import tracemalloc


def cost(load):
    started = time.perf_counter()
    load()
    seconds = time.perf_counter() - started
    tracemalloc.start()
    load()
    peak_mb = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return seconds, peak_mb


# %%
loaders = {
    "get_fdata": lambda: nib.load(chest_file).get_fdata(),
    "load_ct": lambda: load_ct(chest_file),
}
print(f"the voxels as int16: {2 * chest.ct.array.size / 2**20:.0f} MB")
for name, load in loaders.items():
    seconds, peak_mb = cost(load)
    print(f"{name:10} {seconds:5.2f} s, at most {peak_mb:4.0f} MB")

# %% [markdown]
# `get_fdata` needs about five times the memory of the voxels: the float64 array, four times as large,
# and the compressed file's content beside it for a while. `load_ct` decompresses piece by piece into
# the int16 array and needs hardly more than that. With one scan you may not care. With eight workers
# that load scans for training, it is the difference between running and being killed.

# %%
progress()

# %% [markdown]
# ## What you have done
#
# - **Walked** with the affine from voxels to millimetres and back, by hand and in code.
# - **Turned** one patient from three orientations to RAS, and read the letters off an affine.
# - **Read** HU: the peaks of air, fat and water-like tissue, and bone, which has none of its own
#   until a mask picks it out; slope and intercept without an overflow.
# - **Chosen** windows for bone, soft tissue and lung, and drawn slices in their true proportions.
# - **Loaded** a DICOM series by position and not by name or thickness, and measured that float64
#   costs about five times the memory.
#
# Next: lesson 02, annotation inspection, where the mask is what you look at.
