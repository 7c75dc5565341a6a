# %% [markdown]
# # Annotation inspection: read a label map, and doubt it
#
# A network learns whatever its masks contain: a label read under the wrong scheme, a mask shifted by
# a centimetre. So masks are inspected before anything is trained. In this notebook you will
#
# - **read** a label map under the right scheme, and see what a wrong one makes of it,
# - **measure** every vertebra: its region, its millilitres, its centroid,
# - **find planted errors** with a slider, let checks find them, and **correct** one with a brush,
# - **find real stray voxels** in a real mask, and decide whether they are wrong,
# - **compare** four label maps of one patient, and say what "silver" labels are.
#
# It takes about 75 minutes, four exercises included; the cells alone run in half a minute. A good place
# for a break is after section 3.

# %% [markdown]
# ## 1. A label map is a table of names (14 min)
#
# We open the chest patient of lesson 1 again. Beside the scan lies a mask: an array on the same
# grid, with one whole number for each voxel.

# %%
from spine_lib.course import check, course_case, hint, progress, solution

chest = course_case("chest")

# %% [markdown]
# Loading a case translates the numbers of its mask into one numbering for the whole course. Here we
# want to see the file as it was made, so we ask for its own numbers.

# %%
import numpy as np

from spine_lib.ct import load_mask

stored = load_mask(chest.labels.path)
print(f"{len(np.unique(stored.array))} different ids, background included")
print(np.unique(stored.array))

# %% [markdown]
# Dozens of ids, and nothing in the file says what they mean. A number has a name only under a
# *scheme*, a table that is published elsewhere. **Predict**: id 5 is in this file. Could it be a
# vertebra?

# %%
from spine_lib.annotations import SCHEMES

print(f"{'id':>3}  {'totalsegmentator':20} {'verse':8} pycad1089")
for label in (5, 10, 20, 25, 27, 32, 44):
    total, verse, pycad = (
        SCHEMES[name].names.get(label, "-") for name in ("totalsegmentator", "verse", "pycad1089")
    )
    print(f"{label:3}  {total:20} {verse:8} {pycad}")

# %% [markdown]
# Id 5 is the liver for one group of authors and the fifth cervical vertebra for another. Id 25 is
# worse: sacrum, a sixth lumbar vertebra, or S1 alone, all of them plausible at the lower end of a
# spine. This mask was made by TotalSegmentator. Let us read it rightly and wrongly, side by side.

# %%
import matplotlib.pyplot as plt

from spine_lib.ct import WINDOWS, to_slices
from spine_lib.explore import figures, render

plt.style.use("spine_lib.course.lesson")

right = chest.labels  # the file's ids, translated from TotalSegmentator's numbering
wrong = stored.with_array(np.where(stored.array <= 26, stored.array, 0))  # taken for VerSe's

# %%
fullest = int((right.array > 0).sum(axis=(0, 2)).argmax())
style = render.Style("fill", "region", opacity=0.55)
figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.4))
for one, labels, title in zip(axes, (right, wrong), ("read as TotalSegmentator", "read as VerSe")):
    rgb = render.render_slice(chest.ct, fullest, "coronal", WINDOWS["bone"], labels, style=style)
    figures.show_slice(one, rgb, "coronal", render.pixel_size_mm(chest.ct, "coronal"))
    one.set_title(title)
regions = figures.legend_handles(render.REGION_SWATCHES)
figure.legend(handles=regions, loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# *Figure: a coronal slice of the chest twice, in the colours of the four regions. Read as
# TotalSegmentator, a column of vertebrae is coloured. Read as VerSe, both lungs are thoracic vertebrae
# and the spine is bare.*
#
# Here one look is enough, because lungs are large. Without it a network would have been trained on this map.
# What happens when the library reads the map under the wrong scheme?

# %%
from spine_lib import SpineError
from spine_lib.annotations import to_canonical

try:
    to_canonical(stored.array, "verse")
except SpineError as error:
    print(error)

# %% [markdown]
# It is refused, since id 29 and others do not exist in VerSe's table. But that depends on the file, which
# happens to hold ids that are too high. **Predict**: what happens with a map that has only the two
# ids of the abdomen patient's sacrum, 25 and 26, and is read as VerSe?

# %%
from spine_lib.annotations import CANONICAL

pelvis = np.array([0, 25, 26], np.uint8)
for scheme in ("totalsegmentator", "verse"):
    names = [CANONICAL[int(label)] for label in to_canonical(pelvis, scheme) if label]
    print(f"{scheme:17} {names}")

# %% [markdown]
# No error: read as VerSe, the sacrum becomes a sixth lumbar vertebra, and S1, its upper end, the sacrum.
# Both ids exist, both names are bones of the lower back, and every score computed from them would look
# reasonable. Only the positions show it: L6 lies below the sacrum.
#
# ### Exercise 2.1 ★☆☆: from one scheme to another
#
# Translate a TotalSegmentator map into VerSe's numbering. **Predict** first: how many `if`s, or how
# many loops, does it need?


# %% tags=["exercise"]
def to_verse_ids(labels):
    """Translate a TotalSegmentator label map into VerSe's ids; all that is no spine becomes 0.

    labels: uint8 array of TotalSegmentator ids. L5 is 27, L4 is 28 and so on up to C1, which
            is 50; the sacrum is 25 and its first vertebra S1 is 26. All else are other organs.
    returns a uint8 array of the same shape: C1 is 1, C7 is 7, T1 is 8, T12 is 19, L1 is 20,
            L5 is 24, and the sacrum, with S1, is 26.
    """
    raise NotImplementedError


# %%
check("2.1", to_verse_ids)

# %% [markdown]
# The library's version is `to_canonical` in `spine_lib/annotations/schemes.py`: a single look-up table, and
# an error for every id that the table does not know. From here on we use that one.

# %% tags=["nbval-check-output"]
print([CANONICAL[int(label)] for label in np.unique(chest.labels.array) if label])

# %% [markdown]
# Eighteen names from C5 to L3 without a gap. That the list is complete says nothing yet about
# whether each bone carries the right one. For this we measure.

# %% [markdown]
# ## 2. Measure every vertebra (8 min)
#
# Begin with one. Millilitres are countable by hand: the number of voxels times the volume of a voxel.

# %%
voxel_ml = np.prod(chest.ct.spacing_mm) / 1000
l1 = chest.labels.array == 20
print(f"L1: {l1.sum()} voxels of {voxel_ml:.6f} ml are {l1.sum() * voxel_ml:.1f} ml")

# %% [markdown]
# Now its position.
#
# ### Exercise 2.2 ★☆☆: where a vertebra lies
#
# The centroid is the mean position of a label's voxels. In voxels it depends on how the scan was cut; in
# millimetres it is a position in the patient.


# %% tags=["exercise"]
def centroid_mm(labels, label, affine):
    """Return where the centroid of one label lies in the patient, in mm.

    labels: integer array [x, y, z].
    label:  the id to look for; it occurs in the map.
    affine: 4x4 array that takes a voxel index (x, y, z, 1) to mm, as in lesson 1.
    returns three numbers: mm to the patient's Right, Anterior and Superior side.
    """
    raise NotImplementedError


# %%
check("2.2", centroid_mm)

# %% [markdown]
# Now all of them at once. The library measures every id of a map in one pass over its slices.

# %%
from spine_lib.annotations import REGIONS, measure, to_regions

measured = measure(chest.labels, chest.ct.array)
for one in measured:
    region = REGIONS[to_regions(np.array(one.label)) - 1]
    print(
        f"{CANONICAL[one.label]:4} {region:9} {one.voxels * voxel_ml:6.1f} ml "
        f"{one.height_mm:6.0f} mm above the lowest slice {one.mean_hu:5.0f} HU"
    )

# %% [markdown]
# From the cervical to the lumbar vertebrae the heights fall without exception. That is an automatic test
# for swapped or shifted labels. The mean HU is another: vertebrae average well over 100 HU, a liver does
# not. The volumes we draw.

# %%
names = [CANONICAL[one.label] for one in measured]
regions = to_regions(np.array([one.label for one in measured]))
colours = [np.array(render.REGION_SWATCHES[region - 1].rgb) / 255 for region in regions]

figure, axes = plt.subplots(figsize=(6.6, 2.5))
axes.bar(names, [one.voxels * voxel_ml for one in measured], color=colours, edgecolor="black")
axes.set(ylabel="volume in ml", title="Volume of each label, coloured by region")
plt.show()

# %% [markdown]
# *Figure: bars that grow from about 20 ml in the upper thoracic spine to more than 50 ml in the lumbar
# spine; the labels at both ends, C5, C6 and L3, are too small for their position.*
#
# Each vertebra carries more weight than the one above and is larger. Exceptions are worth a look: here
# the image ends, so C5, C6 and L3 are cut. A small volume *inside* the row would be an error.

# %% [markdown]
# ## 3. Find planted errors (29 min)
#
# Now look. Move the slice slider, change the plane, turn the overlay off and on. Ask three things of
# every bone: is it covered, is the colour its own, does the outline follow the edge?

# %%
from spine_lib.explore import AnnotationQuiz, SliceViewer

style = render.Style("outline", "vertebra", outline_px=2, pixel_mm=1.0)
SliceViewer(chest.ct, chest.labels, case_id="chest", plane="sagittal", style=style, size_px=400)

# %% [markdown]
# *Figure: the viewer, here as a still: a sagittal slice of the chest with each vertebra outlined in a
# colour of its own.*
#
# This map has no planted errors. Next comes the abdomen patient with seven annotations. In six of them
# **one thing is wrong**: the map is shifted, two labels are swapped, a vertebra is missing, two are
# merged, a part is cut off, or a small component lies far away.

# %%
abdomen = course_case("abdomen")
AnnotationQuiz(abdomen.ct, abdomen.labels, rounds=7, seed=0, case_id="abdomen")

# %% [markdown]
# *Figure: the quiz, here as a still: a sagittal slice of the abdomen with coloured vertebrae; the list
# of answers appears where a kernel runs.*
#
# How many did you get, and how long did it take? Seven maps take a quarter of an hour; the paper's
# data have 1089. So whatever can be stated as a rule is checked by code. We plant the same six errors
# again, and two more: a mirrored map, and a vertebra with a hole in it.

# %%
from scipy import ndimage

from spine_lib.explore import MISTAKES, plant

planted = {kind: plant(abdomen.labels, kind).labels for kind in MISTAKES}
planted["mirrored"] = abdomen.labels.with_array(abdomen.labels.array[::-1])

depth_mm = ndimage.distance_transform_edt(abdomen.labels.array == 22, abdomen.ct.spacing_mm)
hollow = np.where(depth_mm > 7, 0, abdomen.labels.array)
planted["hole"] = abdomen.labels.with_array(hollow)

# %% [markdown]
# `depth_mm` says how far inside L3 a voxel lies; emptying all that is deeper than 7 mm hollows the
# body out. Now the checks. **Predict** which of the eight errors they miss: which can you not put
# into a rule?

# %%
from spine_lib.annotations import check_annotation

for kind, labels in planted.items():
    found = [one for one in check_annotation(abdomen.ct, labels) if one.code != "tiny"]
    print(f"{kind:9} ", "; ".join(one.message for one in found) or "nothing found")

# %% [markdown]
# Six of eight, each in well under a second. Order, gaps and small components follow from the map alone; a
# shift and a mirrored side show because bone is bright and the mask no longer lies on it. Nothing is
# found where half a vertebra is missing or one is hollow: the rest still lies on bone, in the right order.

# %%
x = int(np.median(np.nonzero(abdomen.labels.array)[0]))
style = render.Style("fill", "vertebra", opacity=0.55)
figure, axes = plt.subplots(1, 3, figsize=(7.4, 3.6))
for one, kind in zip(axes, ("nothing", "cut", "hole")):
    rgb = render.render_slice(
        abdomen.ct, x, "sagittal", WINDOWS["bone"], planted[kind], style=style
    )
    figures.show_slice(one, rgb[:85, 35:], "sagittal", render.pixel_size_mm(abdomen.ct, "sagittal"))
    one.set_title(kind)
plt.show()

# %% [markdown]
# *Figure: three sagittal slices of the abdomen with coloured vertebrae: untouched, with the back half
# of one vertebra missing, and with one vertebra hollow.*
#
# Both are obvious to a reader. So careful groups do both: rules for everything, and visual inspection of
# a sample and of whatever a rule flags.
#
# ### Paint and correct
#
# The back half of L4 is missing in the second map. Paint it: choose *paint*, the label L4 and a radius, tick
# *ball* to paint in 3D, and let *HU from* keep the brush on bone. Dice and surface Dice below the tools follow
# each stroke, since the viewer was given the truth. How close to 1 can you bring the Dice of L4?

# %%
corrector = SliceViewer(
    abdomen.ct,
    planted["cut"],
    truth=abdomen.labels,
    case_id="abdomen",
    plane="sagittal",
    index=x,
    size_px=400,
)
corrector

# %% [markdown]
# *Figure: the viewer with the brush, here as a still.*
# <!-- alt: a sagittal slice of the abdomen in which the back half of L4 has no label. -->
#
# The same by a script: a stroke with a ball of 20 mm from the front to the back of the gap, first over
# everything, then on voxels from 100 HU only. What you painted stays, since each stroke is undone.

# %%
gap = np.argwhere((abdomen.labels.array > 0) & (planted["cut"].array == 0))[:, 1:]
(back, front), height = np.percentile(gap[:, 0], [10, 90]), np.median(gap[:, 1])
points = 1 - (np.array([[front, height], [back, height]]) + 0.5) / abdomen.ct.shape[1:]

brush = corrector.brush
brush.tool.value, brush.ball.value = "paint", True
brush.label.value, brush.radius.value = 23, 20
print("before:        ", brush.scores.text)
for number, lowest_hu in enumerate((-1024, 100)):
    brush.low.value = lowest_hu
    brush.stroke({"id": number, "points": points.tolist()}, "sagittal", x)
    print(f"from {lowest_hu:5} HU: ", brush.scores.text)
    brush.undo.click()

# %% [markdown]
# Over everything, soft tissue gets the label too and both numbers fall; limited to bone they rise. To keep
# your correction, `save_nifti(corrector.mask, "corrected.nii.gz")` (from `spine_lib.ct`) writes it onto the
# scan's grid; the map that was given stays as it is.
#
# ### Exercise 2.3 ★★☆: left and right swapped
#
# How does a rule notice that left and right are swapped? A spine is nearly symmetric, so the mask
# alone does not show it. **Predict** what does.


# %% tags=["exercise"]
def is_mirrored(image_hu, mask):
    """Tell whether a mask of bone lies on brighter voxels once left and right are swapped.

    image_hu: scan in HU, int16 array [x, y, z]; x grows to the patient's right.
    mask:     boolean array of the same shape.
    returns True or False.
    """
    raise NotImplementedError


# %%
check("2.3", is_mirrored)

# %% [markdown]
# The library's version, in `spine_lib/annotations/alignment.py`, also moves the mask about, since a patient
# seldom lies exactly in the middle, and compares the *best* position of the mirrored mask with the best one of
# the mask as it is.

# %%
from spine_lib.annotations import find_peak

spine = planted["mirrored"].array > 0
for name, mask in (("as it is", spine), ("mirrored back", spine[::-1])):
    peak = find_peak(abdomen.ct.array, mask, abdomen.ct.spacing_mm)
    print(f"{name:14} at best {peak.best_hu:.0f} HU, after a move of {peak.distance_mm:.0f} mm")

# %% [markdown]
# Mirrored back, the mask fits best without any move, and on much brighter voxels. The library only warns;
# whether to repair the map or discard it is for a person to decide.

# %% [markdown]
# ## 4. Real stray voxels (11 min)
#
# Planted errors are large; real ones are small. The chest mask was made by a model, and models leave
# small connected components: a few voxels with a bone's label that are not connected to it.
#
# ### Exercise 2.4 ★☆☆: stray voxels


# %% tags=["exercise"]
def stray_voxels(mask):
    """Count the voxels of a mask that lie outside its largest piece.

    mask: boolean array [x, y, z]. Voxels that touch by a face, an edge or a corner belong to
          one piece.
    returns a whole number, 0 for a mask of one piece.
    """
    raise NotImplementedError


# %%
check("2.4", stray_voxels)

# %% [markdown]
# We go through all eighteen labels of the chest and keep those that fall into several components.

# %%
touching = np.ones((3, 3, 3))
boxes = ndimage.find_objects(chest.labels.array)  # the box around each label, to be quick
counts = {}
for one in measured:
    mask = chest.labels.array[boxes[one.label - 1]] == one.label
    components, counts[one.label] = ndimage.label(mask, touching)
    if counts[one.label] > 1:
        print(CANONICAL[one.label], "components of", np.bincount(components.ravel())[1:], "voxels")

# %% [markdown]
# One vertebra, and twelve voxels beside some three thousand. Where are they? `center_of_mass` takes
# the components one by one; a box has its own indices, so we add where it begins.

# %%
c6 = max(counts, key=counts.get)
box = boxes[c6 - 1]
components, count = ndimage.label(chest.labels.array[box] == c6, touching)
start = [side.start for side in box]
numbers = range(1, count + 1)
centres = np.array(ndimage.center_of_mass(components > 0, components, numbers)) + start
for number, centre in zip(numbers, centres):
    voxels = np.sum(components == number)
    print(f"component {number}: {voxels:5} voxels around x, y, z", centre.round(1))
print("the image has slices 0 to", chest.ct.shape[2] - 1)

# %% [markdown]
# Two small components in the topmost slice of the image. Are they errors? Look at them.

# %%
top = chest.ct.shape[2] - 1
style = render.Style("outline", "vertebra")
rgb = render.render_slice(chest.ct, top, "axial", WINDOWS["bone"], chest.labels, style=style)
columns, rows = (chest.ct.shape[axis] - 1 - centres[:, axis] for axis in (0, 1))
x, y = (max(0, int(np.mean(ends)) - half) for ends, half in ((columns, 60), (rows, 45)))

# %%
figure, axes = plt.subplots(figsize=(5, 3.9))
figures.show_slice(
    axes, rgb[y : y + 90, x : x + 120], "axial", render.pixel_size_mm(chest.ct, "axial")
)
for number in range(1, count + 1):
    at = columns[number - 1] - x, rows[number - 1] - y
    axes.annotate(
        f"component {number}",
        at,
        (at[0], 8),
        color="white",
        arrowprops={"color": "white", "width": 1, "headwidth": 5},
    )
plt.show()

# %% [markdown]
# *Figure: a part of the topmost axial slice with outlines: C6 around the vertebral body, C7 around the
# arch behind it. Arrows point at the three components of C6; the two small ones lie on the rim of C7.*
#
# Both lie on the rim of C7, where the model was uncertain between two labels. Twelve voxels hardly change
# an overlap score. They do change a bounding box, an end of C6, and the largest surface distance.
#
# Should we delete all but the largest component of every label? **Predict** what this would do to the
# next patient, whose image ends in the middle of T11.

# %%
dicom = course_case("dicom")
components, count = ndimage.label(dicom.labels.array == 18, touching)
centres = ndimage.center_of_mass(components > 0, components, range(1, count + 1))
for number, centre in enumerate(centres, start=1):
    print(f"{np.sum(components == number):5} voxels of T11 around x, y, z", np.round(centre))

# %% [markdown]
# The second component, a third of all T11, lies some 45 mm behind the first: it is the arch. What joins it
# to the body lies above the end of the image. It is correct, and deleting it would be an error. The third
# lies low, in front of T12, and should probably have its label. So components are inspected before they
# are deleted.

# %% [markdown]
# ## 5. One patient, four label maps (4 min)
#
# Label maps differ even where nobody made an error, because people and models define structures
# differently. The abdomen patient comes with three more maps: whole vertebrae by another run of the same
# tool, vertebral bodies by name, and bodies with discs. We open them with nibabel.

# %%
import nibabel as nib

from spine_lib.datasets import abdomen_label_maps

own = abdomen.labels.array
maps = {"the case's own": np.where((own >= 19) & (own <= 24), own, 0)}  # T12 to L5, VerSe ids
for name, path in abdomen_label_maps().items():
    stored_map = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
    print(f"{name:18} ids {np.unique(stored_map).tolist()}")
    maps[name] = stored_map

# %% [markdown]
# The first has TotalSegmentator's ids, in which L5 is 27 and T12 is 32; the second already has VerSe's; the
# third knows only body (1) and disc (2). We keep T12 to L5 of each, as one mask of bone.
#
# Agreement between two raters is often given as the Dice coefficient of their masks $A$ and $B$,
#
# $$Dice = \frac{2\,|A \cap B|}{|A| + |B|}.$$
#
# **Predict** it for each of the three against the case's own mask.

# %%
masks = {
    "the case's own": maps["the case's own"] > 0,
    "vertebrae": np.isin(maps["vertebrae"], range(27, 33)),
    "bodies by name": np.isin(maps["bodies by name"], range(19, 25)),
    "bodies and discs": maps["bodies and discs"] > 0,
}
reference = masks["the case's own"]
for name, mask in masks.items():
    overlap = 2 * np.sum(mask & reference) / (mask.sum() + reference.sum())
    print(f"{name:18} {mask.sum():6} voxels, Dice {overlap:.3f}")

# %%
middle = int(np.median(np.nonzero(reference)[0]))
figure, axes = plt.subplots(1, 4, figsize=(7.4, 2.9))
style = render.Style("outline", "spine", outline_px=1)
for one, (name, mask) in zip(axes, masks.items()):
    labels = abdomen.labels.with_array(mask)
    rgb = render.render_slice(abdomen.ct, middle, "sagittal", WINDOWS["bone"], labels, style=style)
    figures.show_slice(one, rgb[:85, 35:], "sagittal", render.pixel_size_mm(abdomen.ct, "sagittal"))
    one.set_title(name, fontsize=9)
plt.show()

# %% [markdown]
# *Figure: one sagittal slice of the abdomen with the outlines of four label maps: two of whole vertebrae,
# one of the bodies alone, and one of bodies with the discs between them.*
#
# Two runs of one tool agree to 0.96: a network trained on one map and tested on the other can hardly
# score more. Bodies alone reach 0.73 against whole vertebrae, with every voxel correct by their own
# definition. A score means nothing without the definition of its label.
#
# Public data have known errors too: `spine datasets` lists those that others reported, for example mixed
# vertebrae in TotalSegmentator. How well people agree is measured in the same way, by letting several
# of them label the same scans. No model can be shown to be better than that agreement.

# %% [markdown]
# ## 6. Silver labels (5 min)
#
# A mask that experts drew is often called *gold*. One that a model made, and that nobody checked
# voxel by voxel, is **silver**. Most masks of our sample are silver, and so are those of the paper's
# data, which began as a model's output and were corrected in rounds. A score against silver labels says
# how much a prediction resembles that model's.
#
# The mask of the DICOM patient is a good example. Look at its outline, and then at its outline after
# a little smoothing.

# %%
mask = dicom.labels.array > 0
sigma_voxels = [1.5 / size for size in dicom.ct.spacing_mm]
smooth = ndimage.gaussian_filter(mask.astype(np.float32), sigma_voxels) > 0.5

# %%
index = int(mask.sum(axis=(0, 1)).argmax())
rows, columns = np.nonzero(to_slices(dicom.labels.array, "axial")[index])
part = np.s_[rows.min() - 12 : rows.max() + 12, columns.min() - 12 : columns.max() + 12]
pixel_mm = render.pixel_size_mm(dicom.ct, "axial")
outline = render.Style("outline", "spine", outline_px=1)

figure, axes = plt.subplots(1, 2, figsize=(5, 3.8))
for one, labels, title in zip(axes, (mask, smooth), ("the mask", "smoothed by 1.5 mm")):
    rgb = render.render_slice(
        dicom.ct, index, "axial", WINDOWS["bone"], dicom.labels.with_array(labels), style=outline
    )
    figures.show_slice(one, rgb[part], "axial", pixel_mm)
    one.set_title(title)
plt.show()

# %% [markdown]
# *Figure: a thoracic vertebra with the outline of its mask, which runs in steps of three pixels, and
# with the outline of the smoothed mask.*
#
# The outline runs in steps of 3 mm, although the pixels of the scan are 1 mm. Along the body the same
# shows in numbers: how often is a slice of the mask exactly like the one above it?

# %%
same = [np.array_equal(mask[:, :, k], mask[:, :, k + 1]) for k in range(mask.shape[2] - 1)]
print(f"{sum(same)} of {len(same)} neighbouring slices of the mask are the same in every pixel")

# %% [markdown]
# The model worked on voxels of 3 mm, and its output was enlarged to slices of 2 mm by repeating some of
# them. Which of the two outlines above is better cannot be decided from the scan.
#
# **Predict** the Dice between them. (Dice is 1 for equal masks and 0 for masks without a common voxel;
# lesson 7 takes it apart.)

# %% [markdown]
# Three widths of the Gaussian. As a yardstick, the same for a phantom on the same grid, whose mask is exact
# because it was there before the scan.

# %%
from spine_lib import metrics
from spine_lib.course import pick
from spine_lib.datasets import make_phantom

step = pick(full=1, fast=2)
phantom = make_phantom(13, (256 // step, 256 // step, 20), (step, step, 2), levels=("T11", "T12"))
for sigma_mm in (1.0, 1.5, 2.0):
    for name, case in (("DICOM patient", dicom), ("phantom", phantom)):
        mask = case.labels.array > 0
        sigmas = [sigma_mm / size for size in case.ct.spacing_mm]
        smooth = ndimage.gaussian_filter(mask.astype(np.float32), sigmas) > 0.5
        dice = metrics.dice(metrics.confusion(smooth, mask))
        print(f"smoothed by {sigma_mm} mm: {name:13} Dice with itself {dice:.3f}")

# %% [markdown]
# Smoothing by 1.5 to 2 mm, hardly visible above, costs between five and nine hundredths of Dice. For the
# exact mask it costs less: thin processes are lost first. And a shift by one voxel?

# %%
mask = dicom.labels.array > 0
moved = np.roll(mask, 1, axis=0)
print(f"moved by one voxel to the right: Dice {metrics.dice(metrics.confusion(moved, mask)):.3f}")

# %% [markdown]
# So two equally plausible masks of this patient differ by as much as many papers report as progress. On
# these labels a model with a Dice of 0.94 may be no better than one with 0.92.

# %% [markdown]
# ## 7. Check all four patients (1 min)
#
# Last, the checks on every mask of the sample, as they should run on any data before a training.

# %%
for name in ("chest", "abdomen", "dicom", "crop"):
    case = course_case(name)
    for one in check_annotation(case.ct, case.labels) or ["nothing found"]:
        print(f"{name:8}", one if isinstance(one, str) else f"{one.severity}: {one.message}")

# %% [markdown]
# One warning, which you know: it is T11's arch. The notes are small parts that the end of an image leaves.
# The checks do not prove that the masks are good.

# %% [markdown]
# ## 8. Without the library (2 min)
#
# The core of this lesson with nibabel, NumPy and SciPy alone: read the map, keep the spine under the right
# scheme, measure each vertebra, and test the order along the body.

# %%
image = nib.as_closest_canonical(nib.load(chest.labels.path))
labels = np.asarray(image.dataobj)
voxel_ml = np.prod(image.header.get_zooms()) / 1000
spine = {51 - label: labels == label for label in range(27, 51) if (labels == label).any()}
volumes_ml = {verse_id: mask.sum() * voxel_ml for verse_id, mask in spine.items()}
heights_mm = {
    verse_id: nib.affines.apply_affine(image.affine, np.argwhere(mask).mean(axis=0))[2]
    for verse_id, mask in spine.items()
}
from_the_head = [heights_mm[verse_id] for verse_id in sorted(heights_mm)]
components = {v: ndimage.label(mask, np.ones((3, 3, 3)))[1] for v, mask in spine.items()}
print(f"{len(spine)} vertebrae, heights fall: {all(np.diff(from_the_head) < 0)}")
print("in several components:", [verse_id for verse_id, n in components.items() if n > 1])

assert sorted(spine) == [one.label for one in measured]
assert np.allclose(
    [volumes_ml[one.label] for one in measured],
    [one.voxels * np.prod(chest.ct.spacing_mm) / 1000 for one in measured],
    rtol=1e-4,
)

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Read** a label map under the right scheme: names come from a table outside the file, and a wrong
#   table may raise no error at all.
# - **Measure** every vertebra: heights that fall from the cervical spine to the sacrum, volumes that grow,
#   HU of bone.
# - **Find planted errors** by looking, and by rules where a rule exists; holes and missing parts need
#   visual inspection. **Correct** them with the brush, on bone only.
# - **Find real stray voxels** with connected components, and look before you delete: a bone that the image
#   cuts may consist of several.
# - **Compare** label maps: two of one definition agree to 0.96, bodies and whole vertebrae to 0.73; on
#   silver labels the last few hundredths of Dice mean nothing.
#
# Next: lesson 3 turns volumes into slices, splits them fairly and changes them on purpose.
