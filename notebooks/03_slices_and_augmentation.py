# %% [markdown]
# # Slices and augmentation: a fair split, and changed copies
#
# The networks of this course look at one slice at a time. Between a scan and a network lie four
# steps, and each can spoil a result without anybody noticing. In this notebook you will
#
# - **cut** slices in three planes, the right way up,
# - **resample** an image and its mask, each by its own rule, and see what the wrong rule does,
# - **store** slices so that training need not wait for them,
# - **measure** what a split by slice leaks, on real patients,
# - **augment** image and mask together, and say which changes are wrong for CT.
#
# It takes about 60 minutes, five exercises included; the cells alone run in half a minute.

# %% [markdown]
# ## 1. Three planes
#
# A volume can be cut across each of its axes. We take the chest patient once more.

# %%
from spine_lib.course import check, course_case, hint, progress, solution

chest = course_case("chest")
print(chest.ct.shape, "voxels of", chest.ct.spacing_mm, "mm")

# %% [markdown]
# Arrays in this course are indexed [x, y, z] and grow to the patient's Right, Anterior and Superior
# side. **Predict** what `imshow` makes of `array[:, y, :]`: where will the head be?

# %%
import matplotlib.pyplot as plt
import numpy as np

from spine_lib.ct import WINDOWS, apply_window

plt.rcParams["figure.dpi"] = 80
middle = int(np.median(np.nonzero(chest.labels.array)[1]))

figure, axes = plt.subplots(figsize=(1.8, 3), layout="constrained", dpi=72)
axes.imshow(apply_window(chest.ct.array[:, middle, :], "bone"), cmap="gray")
axes.set(xlabel="z (index)", ylabel="x (index)", title="array[:, y, :]")
plt.show()

# %% [markdown]
# *Figure: a coronal slice as it lies in the array: a narrow strip in which the patient lies on the
# side, squeezed along the body.*
#
# The patient lies on the side, with the head to the right, and is squeezed: a step along z is 2.5 mm,
# one along x only 0.7. A slice for people needs three things: rows and columns exchanged, both
# directions turned round, and pixels in their true proportions.

# %%
from spine_lib.ct import PLANES
from spine_lib.explore import figures, render


def draw(axes, ct, labels, index, plane):
    rgb = render.render_slice(ct, index, plane, WINDOWS["bone"], labels)
    figures.show_slice(axes, rgb, plane, render.pixel_size_mm(ct, plane))


voxel = [int(place) for place in np.median(np.argwhere(chest.labels.array), axis=0)]
figure, axes = plt.subplots(1, 3, figsize=(6.2, 2.5), layout="constrained", dpi=60)
for one, plane, index in zip(axes, PLANES, reversed(voxel)):
    draw(one, chest.ct, chest.labels, index, plane)
    one.set_title(plane)
plt.show()

# %% [markdown]
# *Figure: an axial, a coronal and a sagittal slice through the chest with the spine coloured. The
# patient's right is on the left of the axial and coronal slice.*
#
# The patient's right lies on the left of an axial slice: you look from the feet, as radiologists do.
# How many slices does each plane give, and how fine are they?

# %%
from spine_lib.ct import slice_spacing_mm, to_slices

for plane in PLANES:
    stack = to_slices(chest.ct.array, plane)
    between, row, column = slice_spacing_mm(chest.ct.spacing_mm, plane)
    print(
        f"{plane:8} {stack.shape[0]:4} slices {between:.1f} mm apart, pixels {row:.1f} x {column:.1f} mm"
    )

# %% [markdown]
# Axial slices have the finest pixels, so most networks for CT take those. Coronal and sagittal ones
# show many vertebrae at once, at a price: pixels of 2.5 mm along the body.
#
# ### Exercise 3.1: a slice the right way up


# %% tags=["exercise"]
def cut_slice(array_xyz, plane, index):
    """Return one slice of a volume, the right way up: an array [row, column].

    array_xyz: array [x, y, z] that grows to the patient's Right, Anterior and Superior side.
    plane:     "axial", "coronal" or "sagittal", which cut across z, y and x.
    index:     the voxel index along that axis.
    Rows run from anterior to posterior (axial) or from superior to inferior (coronal, sagittal).
    Columns run from the patient's right to left (axial, coronal) or from anterior to posterior
    (sagittal).
    """
    raise NotImplementedError


# %%
check("3.1", cut_slice)

# %% [markdown]
# The library's version is `to_slices` in `spine_lib/ct/geometry.py`. It turns the whole volume at once and
# copies nothing: what it returns is a view of the same memory.

# %% tags=["nbval-check-output"]
stack = to_slices(chest.ct.array, "coronal")
print(np.shares_memory(stack, chest.ct.array), stack.ndim)

# %% [markdown]
# ## 2. Two rules for resampling
#
# Patients come with pixels of 0.7, 1 or 3 mm; a network wants them alike. For HU this is easy: halfway
# between 0 and 100 HU there may well be 50. And for labels? Take a line down a spine: L4 is 23, L5 is
# 24, the sacrum is 26. **Predict** what linear interpolation finds on the way.

# %% tags=["nbval-check-output"]
from spine_lib.annotations import CANONICAL

line = np.array([23, 23, 24, 24, 26, 26])
finer = np.interp(np.arange(0, 5.01, 0.5), np.arange(6), line)
print(finer)
print([CANONICAL[int(label)] for label in np.unique(np.rint(finer))])

# %% [markdown]
# Between L5 and the sacrum it has found an L6, a bone that few people own. 24 and 26 are *names*, and
# there is nothing halfway between two names. At the edge of a bone it gets worse: from the background,
# 0, to L5, 24, the way leads through every vertebra of neck and chest.

# %%
import cv2

abdomen = course_case("abdomen")
x = int(np.median(np.nonzero(abdomen.labels.array)[0]))
labels = np.ascontiguousarray(to_slices(abdomen.labels.array, "sagittal")[x])
size = (4 * labels.shape[1], 4 * labels.shape[0])  # OpenCV wants columns, rows
nearest = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
linear = cv2.resize(labels, size, interpolation=cv2.INTER_LINEAR)
for name, one in (("nearest", nearest), ("linear", linear)):
    print(f"{name:8} {len(np.unique(one)) - 1} bones: {np.unique(one)[1:]}")

# %%
height, width = (3 * length for length in labels.shape)  # in mm: the voxels are 3 mm
methods = {"nearest neighbour": nearest, "linear": linear}
figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
for one, (title, values) in zip(axes, methods.items()):
    shown = np.ma.masked_equal(values, 0)
    picture = one.imshow(shown, vmin=0, vmax=26, extent=(0, width, height, 0), interpolation="none")
    one.set(title=title, xlabel="A to P, mm", ylabel="S to I, mm", xlim=(125, 245), ylim=(250, 130))
figure.colorbar(picture, ax=axes, label="vertebra id")
plt.show()

# %% [markdown]
# *Figure: the labels of the lower spine in a sagittal slice, coloured by id and enlarged four times. On
# the left each bone has one colour; on the right each is surrounded by a rim of other colours.*
#
# On the right every bone wears a rim of ids that are not there: small ones outside, where the way
# leads down to 0. All of them are valid ids, so no later check of the *values* will object. **Labels
# are resampled by nearest neighbour, always.** And the image? There the roles are exchanged.

# %%
image = np.ascontiguousarray(to_slices(abdomen.ct.array, "sagittal")[x], np.float32)
methods = {"nearest neighbour": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR}
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.9), layout="constrained", dpi=60)
for one, (title, method) in zip(axes, methods.items()):
    grey = apply_window(cv2.resize(image, size, interpolation=method), "bone")
    one.imshow(grey, cmap="gray", extent=(0, width, height, 0), interpolation="none")
    one.set(title=title, xlabel="A to P, mm", ylabel="S to I, mm", xlim=(140, 240), ylim=(170, 70))
plt.show()

# %% [markdown]
# *Figure: a few lumbar vertebrae in the same slice, enlarged four times: blocks on the left, smooth
# edges on the right.*
#
# Nearest neighbours give blocks, and a network would learn their edges. Linear interpolation invents
# HU in between, and an HU in between is just what a voxel holds that is half bone, half fat.
#
# ### Exercise 3.2: two interpolations


# %% tags=["exercise"]
def resample_pair(image_hu, labels, shape_hw):
    """Enlarge a slice and its label map to the same new shape, each by the right interpolation.

    image_hu: float32 array [row, column] in HU.
    labels:   uint8 array [row, column] of vertebra ids.
    shape_hw: rows and columns wanted, both at least as many as there are.
    returns the image, float32, and the labels, uint8, both of shape shape_hw. The image is
    interpolated linearly.
    """
    raise NotImplementedError


# %%
check("3.2", resample_pair)

# %% [markdown]
# The library's `resample_image` does one thing more: where pixels become *larger*, it smooths first,
# since otherwise most of the old pixels would simply be skipped.

# %% tags=["nbval-check-output"]
from spine_lib.ct import resample_image, resample_labels

stripes = np.tile(np.array([0.0, 100.0], np.float32), 12)[None, None]  # one row of 24 pixels
skipped = cv2.resize(stripes[0], (5, 1), interpolation=cv2.INTER_NEAREST)
print("skipped: ", skipped.round().astype(int))
print("smoothed:", resample_image(stripes, (1, 5))[0].round().astype(int))

# %% [markdown]
# Stripes of 0 and 100 seen from afar are grey: 50, but for the two ends. Skipping pixels makes a new
# pattern of them that was never there; smoothing first gives the grey.

# %% [markdown]
# ## 3. A store of slices
#
# A training run draws thousands of slices, each many times over. Opening a scan for every one of them
# would keep the network waiting. So each scan is opened, resampled and cut once.

# %%
import tempfile
import time
from pathlib import Path

from spine_lib.datasets import phantom_cases, sample_cases
from spine_lib.slices import prepare

cases = [case for case in sample_cases() if case.case_id in ("dicom", "crop")]
folder = Path(tempfile.mkdtemp(prefix="slices-"))
started = time.perf_counter()
store = prepare(cases, folder, planes=("axial", "sagittal"), spacing_mm=1.5, report=print)
print(f"took {time.perf_counter() - started:.1f} s")

# %%
for volume in store.volumes:
    size_mb = (folder / volume.file).stat().st_size / 1e6
    print(f"{volume.file:20} {str(volume.shape):16} {size_mb:5.1f} MB, patient {volume.patient_id}")
pixels = store.read(0)
print(pixels.dtype)

# %% [markdown]
# One file for each patient and plane, and an index beside them that remembers *whose* slices they are.
# A pixel holds three things: HU, label, and a tissue class. Label 255 means "nobody knows", and
# neither loss nor score looks there. How long does one slice take now?

# %%
started = time.perf_counter()
one_slice = store.read(0)[10].copy()
print(f"reading one slice: {1000 * (time.perf_counter() - started):.1f} ms")

started = time.perf_counter()
cases[0].load()
print(f"opening its scan:  {1000 * (time.perf_counter() - started):.0f} ms")

# %% [markdown]
# The file is *mapped* into memory: the system reads only the pages that are touched, which for one
# slice is a fraction of a megabyte. That is why the store takes hardly more memory than one batch.

# %% [markdown]
# ## 4. What a split by slice leaks
#
# A network is judged on slices that it was not trained on. The easy way: put all slices of all
# patients on a heap and draw a quarter of them for the test. **Predict**: what could be wrong with it?
# Let us look at what is on the heap.

# %%
from spine_lib.course.demonstrations import leakage_patients

patients = leakage_patients()
for patient in patients:
    print(f"{patient.name:12} {len(patient):4} slices with spine")

# %% [markdown]
# Four real patients and four phantoms, cut into small boxes of 128 mm around the spine, so that
# training takes seconds. Now a slice, its neighbour, and the slice of *another* patient that is most
# like it.


# %%
def likeness(image, others):
    """Return the correlation of one image with each of many."""
    one = (image - image.mean()) / image.std()
    many = others - others.mean(axis=(1, 2, 3), keepdims=True)
    return (one * many).mean(axis=(1, 2, 3)) / many.std(axis=(1, 2, 3))


chest_slices = patients[0].images
number = len(chest_slices) // 2
best = max(patients[1:], key=lambda patient: likeness(chest_slices[number], patient.images).max())
alike = likeness(chest_slices[number], best.images)

# %%
shown = {
    "a slice": chest_slices[number],
    f"its neighbour: {likeness(chest_slices[number], chest_slices)[number + 1]:.2f}": chest_slices[
        number + 1
    ],
    f"{best.name}: {alike.max():.2f}": best.images[alike.argmax()],
}
figure, axes = plt.subplots(1, 3, figsize=(6.6, 2.5), layout="constrained")
for one, (title, values) in zip(axes, shown.items()):
    one.imshow(values[0], cmap="gray", extent=(0, 128, 128, 0), vmin=-1.5, vmax=2.5)
    one.set(title=title, xlabel="R to L, mm", ylabel="A to P, mm")
plt.show()

# %% [markdown]
# *Figure: a small axial slice of the chest, the next slice of the same patient, which looks nearly
# the same, and the most similar slice of anybody else. The titles give their correlations with the
# first.*
#
# The neighbour is all but a copy; the best that the other seven have to offer is another picture.
# If the slice is in the test and its neighbour in the training set, the network has seen the answer.
#
# ### Exercise 3.3: a split that does not leak


# %% tags=["exercise"]
def split_by_patient(patient_of_slice, test_share, seed):
    """Split slices in two so that no patient has slices on both sides.

    patient_of_slice: array of names, one for each slice: whose slice it is.
    test_share:       share of the patients, rounded to whole ones, that go to the test side.
    seed:             decides which; the same seed always gives the same split, and other seeds
                      others.
    returns two arrays of slice numbers: those to train on and those to test on.
    """
    raise NotImplementedError


# %%
check("3.3", split_by_patient)

# %% [markdown]
# The library splits *cases* before anything is cut, so slices cannot get mixed up at all; and
# `require_separate` stops every run in which a patient is on both sides.

# %% tags=["nbval-check-output"]
from spine_lib import SpineError
from spine_lib.slices import require_separate, split_by_patient

people = phantom_cases(8, seed=200)
parts = split_by_patient(people, {"train": 0.75, "test": 0.25}, seed=0)
print({name: [case.case_id for case in part] for name, part in parts.items()})
try:
    require_separate({"train": people[:5], "test": people[4:]})
except SpineError as error:
    print(error)

# %% [markdown]
# How much does it matter? We measure. This runs ahead of the course: what a network does comes in
# lesson 4, training in lesson 6, and **Dice**, the score used here, in lesson 7. For now: Dice is 1
# where prediction and mask are the same and 0 where they have nothing in common.
#
# The same small network is trained twice, on equally many slices, for equally many steps:
#
# - **by slice**: on slices of all patients, the chest among them, but never on the scored ones;
# - **by patient**: on slices of everybody but the chest patient.
#
# Both are scored on *the same* slices of the chest. **Predict** the two scores.

# %%
from spine_lib.course import pick
from spine_lib.course.demonstrations import compare_splits

started = time.perf_counter()
live = compare_splits(patients, ["chest"], seed=0, steps=pick(full=120, fast=20), report=print)
print(f"took {time.perf_counter() - started:.0f} s")

# %%
chest_result = live["chest"]
print(f"{chest_result['scored slices']} slices of the chest are scored")
for split in ("by slice", "by patient"):
    print(f"split {split:10}  Dice {chest_result[split]:.3f}")

# %% [markdown]
# The network under the split by slice did not learn spines better; it has learnt *this* spine. One
# patient and one seed could be chance, though. So the same was done with five seeds and more steps,
# each patient held out in turn, 25 trainings in all. Their numbers were kept.

# %%
from spine_lib.course import lesson_result

kept = lesson_result("leakage")
names = list(kept["seeds"][0]["patients"])
by_split = {
    f"split {split}": {
        name: [row["patients"][name][split] for row in kept["seeds"]] for name in names
    }
    for split in ("by slice", "by patient")
}
figures.patient_scores(by_split, "Dice on the same slices")

# %% [markdown]
# *Figure: for each of the four real patients, the Dice of five runs under a split by slice (circles) and
# by patient (squares); the tick marks the mean. Everywhere the split by slice scores higher, and no
# circle overlaps with a square.*

# %%
gaps = np.array([row["gap"] for row in kept["seeds"]])
print(f"mean gap over {len(names)} patients and {len(gaps)} seeds: {gaps.mean():.2f} in Dice")
print(f"by seed: {gaps.round(2)}")
print(
    f"{kept['made']}, {kept['device']}, {kept['seconds']:.0f} s; {kept['settings']['steps']} steps"
)

# %% [markdown]
# The gap has the same sign for every patient and seed. At about 0.2 in Dice it is six times what
# separates the paper's two models (0.951 and 0.920, the paper's figures). What a split by slice would
# publish here is a score that no new patient will ever get.
#
# Read it with its limits: four patients, tiny images, a tiny network, few steps. With hundreds of
# patients other people's spines should prepare better for a new one, and the gap should shrink; that
# is not measured here. **How the paper split its slices we do not know**; all results of this course
# are split by patient.

# %% [markdown]
# ## 5. First of all, a window
#
# Four patients are few. So each slice is shown to a network in many versions: turned, stretched,
# noisier. The library *albumentations* makes them, and it expects images as floats from 0 to 1.
# **Predict** what it does with an image in HU.

# %%
import spine_lib.slices.augment as augment  # it imports albumentations, quietly

A = augment.A
image_hu = to_slices(chest.ct.array, "axial")[voxel[2]]
brighter = A.Compose([A.RandomBrightnessContrast((0.05, 0.05), (0, 0), p=1)])
try:
    brighter(image=np.ascontiguousarray(image_hu))
except KeyError as error:
    print("as int16:  ", type(error).__name__, error)
result = brighter(image=image_hu.astype(np.float32))["image"]
print(
    f"as float32: from {result.min():.1f} to {result.max():.1f}, {len(np.unique(result))} values left"
)

# %% [markdown]
# Whole numbers are refused, with a message that helps nobody. Floats are worse: no message, and the
# image is clipped to 0..1, so that air is 0, everything else is 1, and a network trains on a
# silhouette. So HU are brought to 0..1 first, with a window chosen for the task.
#
# ### Exercise 3.4: window to 0..1


# %% tags=["exercise"]
def to_unit(image_hu, low_hu, high_hu):
    """Spread a range of HU over 0 to 1.

    image_hu: int16 array of any shape.
    low_hu:   this and everything below becomes 0.
    high_hu:  this and everything above becomes 1.
    returns a float32 array of the same shape.
    """
    raise NotImplementedError


# %%
check("3.4", to_unit)

# %% tags=["nbval-check-output"]
print(augment.INPUT_RANGE_HU)
print(augment.to_unit(np.array([-2048, -250, 0, 375, 1000, 3071])))

# %% [markdown]
# The networks of this course see -250 to 1000 HU, from fat to dense bone. Everything below is black
# and everything above white: nothing outside that range helps to tell a vertebra from what is not one.

# %% [markdown]
# ## 6. Image and mask together
#
# Where the image goes, the mask must follow. albumentations takes both and moves them alike, the
# image linearly and the mask by nearest neighbour, as in step 2.

# %%
row, column = (chest.ct.shape[axis] - 1 - voxel[axis] for axis in (1, 0))
reach = chest.ct.shape[0] // 6  # about 60 mm to each side of the vertebra
part = np.s_[row - reach : row + reach, column - reach : column + reach]
unit = np.ascontiguousarray(augment.to_unit(image_hu)[part])
mask = np.ascontiguousarray(to_slices(chest.labels.array, "axial")[voxel[2]][part])
turn = A.Compose([A.Affine(rotate=(18, 18), scale=1.1, p=1), A.ElasticTransform(200, 12, p=1)])
turn.set_random_seed(3)
moved = turn(image=unit, mask=mask)


def show_pair(axes, image, labels, title, pixel_mm=chest.ct.spacing_mm[0]):
    height, width = (length * pixel_mm for length in labels.shape)
    extent = (0, width, height, 0)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.contour(labels > 0, [0.5], colors="#E69F00", linewidths=1.2, extent=extent, origin="upper")
    axes.set(title=title, xlabel="mm", ylabel="mm")


# %%
figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained", dpi=60)
show_pair(axes[0], unit, mask, "as it was")
show_pair(axes[1], moved["image"], moved["mask"], "both moved")
show_pair(axes[2], moved["image"], mask, "mask forgotten")
plt.show()

# %% [markdown]
# *Figure: an axial slice with its vertebra outlined: as it was; turned, enlarged and bent together
# with its mask; and with the mask left behind, beside the bone.*
#
# The third picture is the commonest bug of all. It raises no error, and the loss still falls: the
# network learns to draw vertebrae somewhere near vertebrae.
#
# ### Exercise 3.5: image and mask together


# %% tags=["exercise"]
def rotate_pair(image_hu, labels, degrees):
    """Turn a slice and its label map together around their middle, at unchanged shape.

    image_hu: float32 array [row, column] in HU; interpolated linearly.
    labels:   uint8 array [row, column] of vertebra ids.
    degrees:  by how much; either direction is right, the same for both.
    returns image and labels, of the same shapes and dtypes. What is turned in from outside is air
    (-1024 HU) and background (0).
    """
    raise NotImplementedError


# %%
check("3.5", rotate_pair)

# %% [markdown]
# Now try each step with a slider. Ask of every one: could a patient or a scanner have done this? And:
# from which strength on would you no longer know the vertebra yourself?

# %%
from spine_lib.explore import AugmentationExplorer

l3 = int(np.argwhere(abdomen.labels.array == 22)[:, 2].mean())
AugmentationExplorer(abdomen.ct, abdomen.labels, index=l3, case_id="abdomen")

# %% [markdown]
# *Figure: the explorer, here as a still: an axial slice of the abdomen before and after a rotation, with
# the outline of the mask.*
#
# | step | what it imitates |
# |---|---|
# | rotation, shear | a patient who lies crookedly; a curved spine |
# | zoom | a small or a large patient |
# | mirror (axial, coronal) | the other side: bones are nearly symmetric, labels here have no sides |
# | elastic | another person's shape |
# | contrast, brightness, small | contrast medium, bone density, another tube voltage |
# | blur, sharpening | another reconstruction kernel |
# | coarse | larger pixels |
# | noise | a lower dose, a heavier patient |
#
# ## 7. What is wrong for CT
#
# Photographs have no units: a darker cat is a cat. HU are a *measurement*: water is 0 and air -1000 on
# every calibrated scanner. Steps made for photographs can destroy just that. **Predict** which of the
# next four a radiologist would refuse.

# %%
body = np.ascontiguousarray(to_slices(abdomen.ct.array, "sagittal")[x])
unit = augment.to_unit(body)
eight_bit = (255 * unit).astype(np.uint8)
wrong = {
    "as it is": unit,
    "upside down": unit[::-1],
    "exchanged": 1 - unit,
    "equalised": cv2.equalizeHist(eight_bit) / 255,
    "+ 300 HU": augment.to_unit(body + 300),
}

# %%
figure, axes = plt.subplots(1, 5, figsize=(7, 2.8), layout="constrained", dpi=54)
for one, (title, values) in zip(axes, wrong.items()):
    extent = (0, width, height, 0)
    one.imshow(values, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="none")
    one.set_title(title, fontsize=9)
    one.set(xlim=(100, 270), xticks=[100, 200], yticks=[], xlabel="A to P, mm")
plt.show()

# %% [markdown]
# *Figure: a sagittal slice of the abdomen, and the same upside down, with black and white exchanged,
# with an equalised histogram, and with 300 HU added.*

# %%
fat = (body > -120) & (body < -60)
bone = np.ascontiguousarray(to_slices(abdomen.labels.array, "sagittal")[x]) > 0
for title, values in wrong.items():
    if title != "upside down":
        hu = augment.from_unit(np.asarray(values, np.float32))
        print(f"{title:10} fat {hu[fat].mean():5.0f} HU, vertebrae {hu[bone].mean():5.0f} HU")

# %% [markdown]
# *All* of them are wrong. Nobody has a sacrum at the top of the spine. Exchanged, bone is darker than
# fat. Equalising depends on what else the slice shows, so the same bone has other HU in the next one.
# And 300 HU more makes fat as bright as bone is, which is no contrast medium that exists.
#
# Strength is part of the question: the library's own brightness step adds at most 50 HU.

# %%
from spine_lib.slices import Augmentation, Draw, TrainingSlices

slices = TrainingSlices(store, Augmentation(size=96), seed=0)
fullest = store.volumes[0].foreground[len(store.volumes[0].foreground) // 2]
patches = [slices[Draw(0, fullest, epoch=0, place=place)] for place in range(40)]
with_spine = [patch for patch in patches if patch[1].sum() > 100]
print(f"{len(with_spine)} of {len(patches)} patches show some spine")

# %%
figure, axes = plt.subplots(2, 3, figsize=(5.6, 3.9), layout="constrained", dpi=54)
for one, (image, target, _) in zip(axes.flat, with_spine):
    show_pair(one, (image[0].numpy() + 1.5) / 4, target[0].numpy(), "", pixel_mm=1.5)
    one.set(xlabel="", ylabel="", xticks=[0, 50, 100], yticks=[0, 50, 100])
    one.label_outer()
figure.supxlabel("mm")
plt.show()

# %% [markdown]
# *Figure: six training patches made from one slice, with the outline of the vertebra: turned,
# mirrored, zoomed, bent, with other tissue brightness, other sharpness and noise, some with a narrow
# field of view.*
#
# One slice, many patches; some show no spine at all, for a network must also learn what is none. Some
# look stranger than any scan: tissues get other HU within their outlines, so that a network that knows
# few patients cannot rely on how bright *their* livers were. That is a decision, and lesson 6 shows how
# decisions are measured.


# %% tags=["nbval-check-output"]
def same(one, other):
    return bool((slices[one][0] == slices[other][0]).all())


print("the same draw again:", same(Draw(0, fullest, 0, 3), Draw(0, fullest, 0, 3)))
print("in the next epoch:  ", same(Draw(0, fullest, 0, 3), Draw(0, fullest, 1, 3)))

# %% [markdown]
# A last trap. albumentations keeps random numbers of its own: `np.random.seed` does not reach it, and
# in a plain loader several workers make *identical* noise. Here each patch is seeded by run, epoch and
# place: never the same twice in a run, always the same when the run is repeated.

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Cut** slices in three planes, the right way up: transpose, then turn rows and columns round.
# - **Resample** an image linearly, smoothing first where pixels get larger, and labels by nearest
#   neighbour, since an id between two ids is another bone.
# - **Store** slices once, with whose they are, so that a training step reads a few pages.
# - **Measure** what a split by slice leaks: the same slices, two splits, several seeds; and split by
#   patient from now on.
# - **Augment** image and mask together, within what a patient or a scanner could do, on a window of
#   0 to 1.
#
# Next: lesson 4 builds the network that was used here without explanation.
