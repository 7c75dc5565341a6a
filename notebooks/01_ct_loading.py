# %% [markdown]
# # CT loading: what the numbers in a scan mean
#
# In this notebook you will
#
# - **read** NIfTI files with nibabel, and measure what each way of reading costs,
# - **convert** voxel indices to millimetres and back, in nibabel's coordinates and in SimpleITK's,
# - **reorient** files that store their axes in different directions,
# - **interpret** Hounsfield units, and say why those of bone are not one number,
# - **load** a DICOM series with pydicom: rescaled, sorted, and with the right affine.
#
# About 70 minutes. The library's version of this lesson is `spine_lib/ct/`.

# %% [markdown]
# ## 1. A NIfTI file (2 min)
#
# Researchers keep CT scans in NIfTI files (`.nii.gz`): a header and a block of numbers, compressed.
# [nibabel](https://nipy.org/nibabel/nibabel_images.html) reads both. We open the abdomen patient of
# lesson 0.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

from spine_lib.course import check, course_case, hint, progress, solution

plt.style.use("spine_lib.course.lesson")
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
abdomen, chest = course_case("abdomen"), course_case("chest")

# %% tags=["nbval-check-output"]
image = nib.load(abdomen.ct.path)
print("shape  ", image.shape)
print("type   ", image.get_data_dtype())
print("spacing", [float(mm) for mm in image.header.get_zooms()], "mm")
print("voxels not read yet:", nib.is_proxy(image.dataobj))

# %% [markdown]
# `nib.load` has read the header only: `dataobj` is a *proxy*, which reads voxels when they are asked
# for. The header states shape, type and spacing. The direction of the axes is not among them: does the
# first axis run from left to right, or from right to left? The *affine* answers that.

# %% [markdown]
# ## 2. From a voxel to a position in mm (15 min)
#
# The affine $A$ is a 4 x 4 matrix that converts voxel indices to millimetres in the patient. Its left
# block holds one step along each array axis; its last column is the position of voxel (0, 0, 0).
#
# $$
# \begin{pmatrix} x \\ y \\ z \\ 1 \end{pmatrix} =
# \begin{pmatrix} a_{11} & a_{12} & a_{13} & t_x \\ a_{21} & a_{22} & a_{23} & t_y \\
# a_{31} & a_{32} & a_{33} & t_z \\ 0 & 0 & 0 & 1 \end{pmatrix}
# \begin{pmatrix} i \\ j \\ k \\ 1 \end{pmatrix}
# $$

# %% tags=["nbval-check-output"]
affine = image.affine
print(affine.round(1))

# %% [markdown]
# Coordinates grow to the patient's Right, front (Anterior) and head (Superior): RAS+. The origin is a
# point in the scanner's room; only distances and directions have a meaning.
#
# **Predict**: where does voxel (10, 20, 30) lie? Work out x on paper before you run the cell.

# %% tags=["nbval-check-output"]
i, j, k = voxel = (10, 20, 30)
for name, row in zip("xyz", image.affine):
    print(f"{name} = {row[0]:g}*{i} + {row[1]:g}*{j} + {row[2]:g}*{k} + {row[3]:.1f}", end=" ")
    print(f"= {row @ (i, j, k, 1):.1f} mm")

# %% [markdown]
# The voxel lies 148 mm to the left of the origin, 71 mm in front of it and 184 mm above it. Here each
# axis is parallel to one direction of the patient. In other files axes are exchanged or tilted, and
# then all nine entries of the block matter.
#
# ### Exercise 1.1 ★☆☆: voxel to millimetres


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
# ### Exercise 1.2 ★☆☆: and back
#
# A surgeon points at a position in mm: which voxel is it?


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

position_mm = apply_affine(affine, voxel)
back = apply_affine(np.linalg.inv(affine), position_mm)
print("position:", position_mm.round(1), "mm, back:", back.round().astype(int))

# %% [markdown]
# SimpleITK (the Python interface of ITK) is the other common reader. **Predict**: the same file, the
# same voxel: will it give the same three numbers?

# %% tags=["nbval-check-output"]
import SimpleITK as sitk

itk_image = sitk.ReadImage(abdomen.ct.path)
itk_position_mm = itk_image.TransformIndexToPhysicalPoint(voxel)
print("nibabel:  ", position_mm.round(1))
print("SimpleITK:", np.round(itk_position_mm, 1))

# %% [markdown]
# x and y have the other sign. ITK follows DICOM, whose coordinates grow to the Left, to the back
# (Posterior) and to the head: **LPS**. Both describe the same point. A position that is passed from
# one program to the other without this change of sign lands on the other side of the body.
#
# ![Three coordinate systems: voxel indices count along the stored axes; the affine turns them into RAS+ millimetres, in which x grows to the patient's right and y to the front; changing the signs of x and y gives LPS](figures/coordinates.svg)
#
# *The coordinate systems of this course* ([nibabel](https://nipy.org/nibabel/coordinate_systems.html),
# [ITK](https://simpleitk.readthedocs.io/en/master/fundamentalConcepts.html)).

# %% tags=["nbval-check-output"]
print("equal after the change:", np.allclose(position_mm, np.array([-1, -1, 1]) * itk_position_mm))
print("nibabel's array:  ", image.shape)
print("SimpleITK's array:", sitk.GetArrayViewFromImage(itk_image).shape)

# %% [markdown]
# SimpleITK's array is indexed [z, y, x], nibabel's [x, y, z].
#
# A scan and its mask belong together when equal voxels have equal positions. It is the affines that
# must agree, not only the shapes; `spine_lib.ct.require_same_grid` checks both.

# %% [markdown]
# ## 3. Three files, one patient (13 min)
#
# Programs store the axes in any order and direction. Three letters name what a file does: LAS means
# that its axes point to the Left, to the front (Anterior) and to the head (Superior). We write the
# same scan in three orientations.

# %% tags=["nbval-check-output"]
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

for codes in ("RAS", "LAS", "PIR"):
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    stored = image.as_reoriented(change)
    stored.to_filename(folder / f"{codes}.nii.gz")
    print(codes, stored.shape, stored.affine[:3, :3].round(1).tolist())

# %% [markdown]
# The same voxels, the same patient, three arrays. **Predict**: draw the middle slice along the last
# axis of each. How many of the three pictures show the body from the same side and the right way up?

# %%
soft = {"vmin": -160, "vmax": 240, "interpolation": "nearest"}
figure, panels = plt.subplots(1, 3, figsize=(6.2, 2.7))
for axes, codes in zip(panels, ("RAS", "LAS", "PIR")):
    array = np.asarray(nib.load(folder / f"{codes}.nii.gz").dataobj)
    axes.imshow(array[:, :, array.shape[2] // 2], **soft)
    axes.set(title=f"{codes} file", xlabel="second index", ylabel="first index")
plt.show()

# %% [markdown]
# *Figure: the middle slice along the last axis of three files, as stored.*
# <!-- alt: Three pictures. The RAS file: an axial slice of the abdomen that lies on its side. The LAS
# file: the mirror image of the first. The PIR file: a sagittal slice, turned by 90 degrees. -->
#
# None is right. The RAS file lies on its side, since `imshow` draws the first index downwards. The LAS
# file is its mirror image, and that is hard to notice, as the body is nearly symmetric. The PIR file
# shows another plane. A script that mixes such files trains a network on anatomy that does not exist.
#
# [`nib.as_closest_canonical`](https://nipy.org/nibabel/image_orientation.html) uses the affine to
# bring every file to RAS+ order.

# %% tags=["nbval-check-output"]
canonical = {}
for codes in ("RAS", "LAS", "PIR"):
    stored = nib.load(folder / f"{codes}.nii.gz")
    canonical[codes] = nib.as_closest_canonical(stored)
    before, after = nib.aff2axcodes(stored.affine), nib.aff2axcodes(canonical[codes].affine)
    same = np.array_equal(canonical[codes].dataobj, image.dataobj)
    print("".join(before), "->", "".join(after), canonical[codes].shape, "equal:", same)

# %%
figure, panels = plt.subplots(1, 3, figsize=(6.2, 2.5), sharey=True)
for axes, (codes, scan) in zip(panels, canonical.items()):
    axial = scan.dataobj[:, :, scan.shape[2] // 2]
    axes.imshow(
        axial.T, origin="lower", extent=(0, 3 * axial.shape[0], 0, 3 * axial.shape[1]), **soft
    )
    axes.invert_xaxis()
    axes.set(title=f"{codes} file", xlabel="R   x (mm)   L")
panels[0].set_ylabel("P   y (mm)   A")
plt.show()

# %% [markdown]
# *Figure: the middle axial slice of the three files in RAS+ order.*
# <!-- alt: Three equal axial slices of the abdomen, the right way up: the patient's right is on the
# left of the picture, the front at the top. -->
#
# Three equal pictures. `.T` and `origin="lower"` put the front at the top; `invert_xaxis` puts the
# patient's right on your left, which is how radiologists look at a slice: from the feet. Our `load_ct`
# does the same reorientation and keeps the voxels as int16.

# %% tags=["nbval-check-output"]
from spine_lib.ct import WINDOWS, load_ct, slice_spacing_mm, to_slices

ours = load_ct(folder / "PIR.nii.gz")
print(ours.source.orientation, "->", ours.shape, ours.array.dtype)
print("equal to nibabel's:", np.array_equal(ours.array, canonical["PIR"].dataobj))

# %% [markdown]
# ### Exercise 1.3 ★★☆: the letters of an affine
#
# Derive the three letters from an affine yourself. Each *column* is one step along an array axis.
# For example, `np.diag([-1, -1, 2, 1])` is LPS.


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
for name in ("chest", "abdomen", "crop"):
    stored = nib.load(course_case(name).ct.path)
    print(f"{name:8} is stored as {''.join(nib.aff2axcodes(stored.affine))}")

# %% [markdown]
# Three real files, three orientations; the chest's LAS is the one that is hard to notice.

# %% [markdown]
# ## 4. Hounsfield units (11 min)
#
# A CT measures the linear attenuation coefficient $\mu$ of X-rays in each voxel and states it relative
# to water, in Hounsfield units ([Hounsfield 1973](https://doi.org/10.1259/0007-1285-46-552-1016)):
#
# $$ \mathrm{HU} = 1000 \cdot \frac{\mu - \mu_\mathrm{water}}{\mu_\mathrm{water} - \mu_\mathrm{air}} $$
#
# Water is 0 and air is -1000 in every calibrated scanner: CT is a measurement, not only a picture.
# **Predict**: fat floats on water. Will its HU be above or below 0?

# %%
from spine_lib.explore import WindowExplorer

explorer = WindowExplorer(abdomen.ct, index=70, window="full", case_id="abdomen")
explorer

# %% [markdown]
# *Figure: an axial slice of the abdomen with all HU from black to white; with Python running, sliders
# move slice and window.*
#
# Make the window narrow and move its centre. When a single tissue is left between black and white, you
# have found its HU. Try the fat under the skin, then the muscles of the back. Which tissues are the
# peaks of the histogram?

# %% tags=["nbval-check-output"]
from scipy.signal import find_peaks

hu = np.asarray(image.dataobj)
edges = np.arange(-1100, 1500, 10)
centres = edges[:-1] + 5
counts, _ = np.histogram(hu, edges)
peaks, _ = find_peaks(counts, prominence=counts.max() / 200, width=2)
print("peaks of the whole scan:", centres[peaks], "HU")

spine_hu = abdomen.ct.array[abdomen.labels.array > 0]
spine_counts, _ = np.histogram(spine_hu, edges)
print("10th and 90th percentile of the spine:", np.percentile(spine_hu, [10, 90]).round(), "HU")

# %%
figure, (whole, spine) = plt.subplots(2, 1, figsize=(6.2, 3.4), sharex=True)
whole.semilogy(centres, np.maximum(counts, 1))
for name, near, side in (
    ("air", -1000, "right"),
    ("fat", -100, "right"),
    ("water-like", 30, "left"),
):
    peak = peaks[np.abs(centres[peaks] - near).argmin()]
    whole.text(centres[peak], counts[peak], f"  {name}  ", ha=side)
whole.set(title="whole scan", ylabel="voxels", xlim=(-1150, 1500), ylim=(1, counts.max() * 9))
spine.plot(centres, spine_counts, color="#D55E00")
spine.axvspan(0, 80, color="#56B4E9", alpha=0.3, linewidth=0)
spine.text(-20, spine_counts.max() * 0.8, "muscle and organs", color="#0072B2", ha="right")
spine.set(title="spine only", xlabel="HU", ylabel="voxels")
plt.show()

# %% [markdown]
# *Figure: histograms of HU in the whole scan and in the spine.*
# <!-- alt: Two histograms. Above, the whole scan on a logarithmic scale with peaks of air near -1000,
# fat near -100 and water-like tissue near 30 HU. Below, the spine alone: one broad peak with a long
# tail to the right; its left part lies in the band of muscle and organs, 0 to 80 HU. -->
#
# The whole scan has peaks of air, fat and water-like tissue (muscle, liver, blood), and none of bone:
# its voxels are few and their HU spread widely. Part of the spine lies in the band of soft tissue. No
# threshold separates the two; this is why segmentation has to be learned.

# %% [markdown]
# ### Why the HU of bone are not one number
#
# **The tube voltage.** $\mu$ depends on the photons' energy. The next cell applies the formula to
# [NIST's tables](https://physics.nist.gov/PhysRefData/XrayMassCoef/tab4.html) at 50 to 80 keV, about the
# mean energies behind tube voltages of 80 to 140 kV. **Predict**: water stays at 0. Does cortical bone
# keep its HU?

# %% tags=["nbval-check-output"]
DENSITY = 1.92  # g/cm3, cortical bone; water has 1
for energy_kev, water, bone in ((50, 0.2269, 0.4242), (60, 0.2059, 0.3148), (80, 0.1837, 0.2229)):
    bone_hu = 1000 * (DENSITY * bone - water) / water  # mass attenuation in cm2/g; air is about 0
    print(f"{energy_kev} keV: cortical bone {bone_hu:.0f} HU")

# %% [markdown]
# The same bone has nearly twice the HU at the lowest energy. DICOM files therefore state the voltage
# (`KVP`), and density measurements on CT (osteoporosis is likely below 110 HU in L1,
# [Pickhardt 2013](https://doi.org/10.7326/0003-4819-158-8-201304160-00003)) hold for one voltage.
#
# **Contrast medium.** Iodine in the blood attenuates like bone. We compare the aorta with a vertebra in
# two patients.

# %% tags=["nbval-check-output"]
AORTA, L1 = 52, 31  # TotalSegmentator's ids, in the files as they are stored
for case in (chest, abdomen):
    scan, structures = nib.load(case.ct.path), nib.load(case.labels.path)
    ids, hu = np.asarray(structures.dataobj), np.asarray(scan.dataobj)
    medians = [np.median(hu[ids == structure]) for structure in (AORTA, L1)]
    print(f"aorta {medians[0]:4.0f} HU, vertebra L1 {medians[1]:4.0f} HU")

# %% [markdown]
# The chest patient was given contrast medium. A network that learned "bright is bone" would take this
# aorta for bone; lesson 3 varies tissue brightness for that reason.
#
# **Partial volume.** A voxel that holds a fraction $f$ of bone reports the mixture
# $f \cdot \mathrm{HU}_\mathrm{bone} + (1 - f) \cdot \mathrm{HU}_\mathrm{marrow}$. Larger voxels mix more.
# We average blocks of 2 and 4 voxels.

# %% tags=["nbval-check-output"]
crop = nib.as_closest_canonical(nib.load(course_case("crop").ct.path))
fine = np.asarray(crop.dataobj)[:72, :72, :44]
for size in (1, 2, 4):
    blocks = fine.reshape(72 // size, size, 72 // size, size, 44 // size, size)
    mixed = blocks.mean(axis=(1, 3, 5))
    spacing_mm = size * crop.header.get_zooms()[0]
    print(f"{spacing_mm:.1f} mm: {100 * np.mean(mixed > 500):.2f} % of the voxels above 500 HU")

# %% [markdown]
# The thin dense shell of the vertebrae disappears as voxels grow. So tube voltage, contrast medium,
# voxel size and also the reconstruction kernel (sharp or smooth) change the HU of one and the same
# bone.

# %% [markdown]
# ## 5. Slope and intercept (8 min)
#
# Files rarely store HU. They store integers $s$ and two constants:
#
# $$ \mathrm{HU} = \mathrm{slope} \cdot s + \mathrm{intercept} $$

# %% tags=["nbval-check-output"]
proxy = nib.load(chest.ct.path).dataobj
print("slope", proxy.slope, "intercept", proxy.inter)
print("stored:", proxy.get_unscaled().dtype, " applied:", np.asarray(proxy[..., 60]).dtype)

# %% [markdown]
# An intercept of -1024 lets air be stored as 24, so that no number is negative. nibabel applies both
# constants in float64. **Predict** what NumPy makes of them when the pixels keep their type: uint16,
# from 0 to 65535.

# %% tags=["nbval-check-output"]
pixels = np.array([0, 24, 1064], dtype=np.uint16)
try:
    print(pixels + -1024)
except OverflowError as error:
    print("OverflowError:", error)
print("pixels - 1024:      ", pixels - 1024)
print("slope 0.5 as int16: ", pixels.astype(np.int16) * np.int16(0.5) - 1024)
print("in float64:         ", pixels * 0.5 - 1024)

# %% [markdown]
# The first line stops with an error. The second runs, and air becomes 64536: uint16 wraps around. The
# third casts before it rescales: a slope of 0.5 becomes 0, and the image is lost without an error. So
# the order is: convert to float, rescale, round, and only then choose a small type.
#
# ### Exercise 1.4 ★☆☆: stored values to HU


# %% tags=["exercise"]
def to_hu(stored, slope, intercept):
    """Return Hounsfield units: stored * slope + intercept, rounded to whole numbers, as int16.

    stored:    array of any shape as a file has it, often uint16.
    slope, intercept: two floats from the file's header.
    """
    raise NotImplementedError


# %%
check("1.4", to_hu)

# %% [markdown]
# int16 holds all HU of a CT, about -1024 to 3071, in two bytes.

# %% [markdown]
# ## 6. Windows (8 min)
#
# A scan has some 4000 different HU, a screen 256 grey values. A *window* (centre and width) decides
# which range is spread over them: below it is black, above it is white. matplotlib does it with `vmin`
# and `vmax`.

# %%
axial = abdomen.ct.array[:, :, 70]
figure, panels = plt.subplots(1, 3, figsize=(6.2, 2.5), sharey=True)
for axes, name in zip(panels, ("bone", "soft tissue", "lung")):
    centre, width = WINDOWS[name].center, WINDOWS[name].width
    limits = {"vmin": centre - width / 2, "vmax": centre + width / 2, "interpolation": "nearest"}
    axes.imshow(axial.T, origin="lower", extent=(0, 366, 0, 303), **limits)
    axes.invert_xaxis()
    axes.set(title=f"{name}: {centre:g} ± {width / 2:g}", xlabel="R   x (mm)   L")
panels[0].set_ylabel("P   y (mm)   A")
plt.show()

# %% [markdown]
# *Figure: one axial slice in three windows.*
# <!-- alt: The same axial slice of the abdomen three times. Bone window: bone has an inner structure,
# soft tissue is one grey. Soft-tissue window: fat, muscle and liver differ, bone is white. Lung window:
# only air, such as gas in the bowel, is dark. -->
#
# The bone window separates shell and inner (trabecular) bone and draws all soft tissue alike. The
# soft-tissue window separates fat, muscle and liver, and bone is white. The HU are the same in all
# three.
#
# ### Exercise 1.5 ★☆☆: apply a window
#
# From HU to grey values between 0 and 1; networks get their images this way too. **Predict**: from
# which HU on is the soft-tissue window (centre 40, width 400) white?


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
samples_hu = np.array([-1000, -160, 40, 240, 1000])
print(np.clip((samples_hu - (40 - 400 / 2)) / 400, 0, 1))

# %% [markdown]
# What a window cuts off is lost for whoever uses its output, a network included.

# %% [markdown]
# ## 7. Proportions (2 min)
#
# Voxels are seldom cubes. The chest's are 0.7 mm wide, but its slices are 2.5 mm apart. **Predict**: if
# a sagittal slice is drawn with one square pixel a voxel, will the patient look too short or too tall?

# %%
sagittal = to_slices(chest.ct.array, "sagittal")[chest.ct.shape[0] // 2]
x_mm, y_mm, z_mm = chest.ct.spacing_mm
figure, panels = plt.subplots(1, 2, figsize=(6.2, 3))
for axes, aspect in zip(panels, (1, z_mm / y_mm)):
    axes.imshow(sagittal, vmin=-500, vmax=1300, aspect=aspect)
    axes.set(title=f"aspect {aspect:.2f}", xlabel="column (A to P)", ylabel="row (S to I)")
plt.show()

# %% [markdown]
# *Figure: one sagittal slice of the chest with two aspect ratios.*
# <!-- alt: A sagittal slice of the chest twice. Left, with square pixels, the patient is squashed along
# the body; right, with pixels as high as the slices are apart, in true proportions. -->
#
# Lengths, areas and angles measured on the left picture are wrong. A network that is given such slices
# from different scanners would have to learn each ratio; lesson 3 resamples to one pixel size.

# %% tags=["nbval-check-output"]
for plane in ("axial", "coronal", "sagittal"):
    _, row_mm, column_mm = slice_spacing_mm(chest.ct.spacing_mm, plane)
    print(f"{plane:9} {row_mm:.2f} mm high, {column_mm:.2f} mm wide: {row_mm / column_mm:.2f}")

# %% [markdown]
# ## 8. DICOM (5 min)
#
# Scanners write DICOM: one file a slice, each with its own header.
# [pydicom](https://pydicom.github.io/pydicom/stable/) reads them. This is a real series of 20 files.

# %%
import pydicom

series = course_case("dicom").ct.path
slices = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
first = slices[0]
print(len(slices), "slices of", first.pixel_array.shape, first.pixel_array.dtype)
print("tube voltage", first.KVP, "kV, contrast medium:", first.ContrastBolusAgent)
print(f"kernel {first.ConvolutionKernel[0]}, slice thickness {first.SliceThickness} mm")
print("orientation", first.ImageOrientationPatient)

# %% [markdown]
# A thickness of 3 mm and 20 slices: 60 mm of patient?
# `ImagePositionPatient` is the position of a slice's first pixel in LPS millimetres, and
# `ImageOrientationPatient` the directions $\mathbf r$ and $\mathbf c$ of its rows and columns
# ([standard](https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.7.6.2.html)). Slices
# are stacked along the normal $\mathbf n = \mathbf r \times \mathbf c$, so a slice's position in the stack
# is $\mathbf n \cdot \mathbf p$.
#
# **Predict**: how far apart are the slices, and is the first file the lowest?

# %% tags=["nbval-check-output"]
row_direction, column_direction = np.reshape(first.ImageOrientationPatient, (2, 3)).astype(float)
normal = np.cross(row_direction, column_direction)


def height_mm(dataset):
    return float(normal @ np.array(dataset.ImagePositionPatient, float))


heights_mm = np.array([height_mm(dataset) for dataset in slices])
print("normal:", normal, " heights:", heights_mm[:4], "...")
print("steps: ", np.unique(np.diff(heights_mm)))

# %% [markdown]
# The steps are 2 mm: each slice averages over 3 mm and overlaps with the next. With the thickness as
# distance, the patient would be half as tall again. The steps are negative: file names run from head to
# foot. For this series sorting by z alone would do as well; for a tilted gantry it gives wrong
# distances, and for a sagittal or coronal series all z are equal. The normal works for all of them.

# %% tags=["nbval-check-output"]
from pydicom.pixels import apply_rescale

slices.sort(key=height_mm)
planes = [apply_rescale(dataset.pixel_array, dataset) for dataset in slices]
stack = np.stack([plane.T for plane in planes], axis=2)
print("stack", stack.shape, stack.dtype, "from", stack.min(), "to", stack.max(), "HU")
print("distance", np.diff(sorted(heights_mm)).mean(), "mm")

# %% [markdown]
# `apply_rescale` applies slope and intercept in float64. `.T`, because a pixel array is [row, column]
# and the column index, which is x, comes first here. One thing is left: DICOM's x and y grow to L and P.
# Reversing both axes gives RAS.

# %% tags=["nbval-check-output"]
by_hand = np.rint(stack[::-1, ::-1]).astype(np.int16)
ours = load_ct(series)
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
itk_series = reader.Execute()
itk_array = sitk.GetArrayFromImage(itk_series).T[::-1, ::-1]
print("by hand = load_ct:  ", np.array_equal(by_hand, ours.array))
print("SimpleITK = load_ct:", np.array_equal(itk_array, ours.array))
print("spacing:", np.round(itk_series.GetSpacing(), 2), np.round(ours.spacing_mm, 2), "mm")

# %% [markdown]
# The HU are equal in every voxel. `load_ct` adds checks: a missing slice, two series in one
# folder or an irregular grid is an error.

# %% [markdown]
# ## 9. What each way of reading costs (4 min)
#
# nibabel offers several ways to the voxels. **Predict** for the chest scan (67 MB as int16): which is
# the fastest, and does `dtype=np.float32` halve the peak of memory? Peaks matter, since a peak is what
# ends a process. Times vary, so every way runs several times, in alternating order.

# %%
import time
import tracemalloc

from spine_lib.course import pick

file = chest.ct.path
ways = {
    "get_fdata()": lambda: nib.load(file).get_fdata(),
    "get_fdata(float32)": lambda: nib.load(file).get_fdata(dtype=np.float32),
    "get_unscaled()": lambda: nib.load(file).dataobj.get_unscaled(),
    "dataobj[..., 66]": lambda: nib.load(file).dataobj[..., 66],
    "load_ct": lambda: load_ct(file).array,
}
seconds = {name: [] for name in ways}
for turn in range(pick(full=3, fast=1)):
    for name in list(ways)[:: -1 if turn % 2 else 1]:
        started = time.perf_counter()
        ways[name]()
        seconds[name].append(time.perf_counter() - started)

# %%
for name, read in ways.items():
    tracemalloc.start()
    array = read()
    peak_mb = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    spent = np.median(seconds[name])
    print(
        f"{name:19} {str(array.dtype):8} {spent:5.2f} s, peak {peak_mb:3.0f} MB, kept {array.nbytes / 2**20:3.0f}"
    )

# %% [markdown]
# float32 halves what is *kept*, but not the peak: on the way nibabel holds further copies. `get_unscaled`
# returns the integers of the file, and slope and intercept are left to you. `dataobj[..., 66]` reads one
# slice with little memory, but a gzip file must be decompressed up to that slice. `load_ct`
# decompresses piece by piece into its int16 array, so its peak is hardly above what it keeps. With
# eight workers that load scans for training, that decides whether they fit.

# %%
progress()

# %% [markdown]
# ## 10. Without the library (1 min)
#
# The whole lesson in one cell, with nibabel and pydicom only: a DICOM folder becomes a NIfTI image in
# RAS+ order, voxels and affine equal to those of `load_ct`.


# %%
def read_series(folder):
    files = [pydicom.dcmread(path) for path in Path(folder).iterdir()]
    rows, columns = np.reshape(files[0].ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.cross(rows, columns)
    files.sort(key=lambda dataset: normal @ np.array(dataset.ImagePositionPatient, float))
    start, end = (np.array(files[n].ImagePositionPatient, float) for n in (0, -1))
    row_mm, column_mm = map(float, files[0].PixelSpacing)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = rows * column_mm, columns * row_mm
    lps[:3, 2], lps[:3, 3] = (end - start) / (len(files) - 1), start
    hu = np.stack([apply_rescale(dataset.pixel_array, dataset).T for dataset in files], axis=2)
    stored = nib.Nifti1Image(np.rint(hu).astype(np.int16), np.diag([-1, -1, 1, 1]) @ lps)
    return nib.as_closest_canonical(stored)


scan = read_series(series)
assert np.array_equal(scan.dataobj, ours.array)
assert np.allclose(scan.affine, ours.affine)
scan.to_filename(folder / "from_dicom.nii.gz")

# %% [markdown]
# ## What you have done
#
# - **Read** NIfTI files with nibabel, and measured that float32 halves what is kept but not the peak.
# - **Converted** voxels to millimetres and back; SimpleITK's LPS differs from RAS+ in two signs.
# - **Reoriented** one patient from three orientations with `as_closest_canonical`.
# - **Interpreted** HU: air, fat and water-like tissue have peaks; those of bone depend on tube voltage,
#   contrast medium, voxel size and kernel.
# - **Loaded** a DICOM series: rescaled in float, sorted along the normal, spacing from positions.
#
# Next: lesson 02, annotation inspection, where the mask is what you look at.
