# %% [markdown]
# # Slices and augmentation: from scans to training batches
#
# In this notebook you will
#
# - **cut** slices in three planes, the right way up,
# - **resample** images and label maps, and see what each interpolation does to thin structures,
# - **split** by patient, and measure what a split by slice leaks,
# - **write** a `Dataset` and a `DataLoader`, with seeds that reach every worker,
# - **augment** image and mask together with albumentations, and measure what helps.
#
# About 75 minutes, five exercises included; the cells alone run in half a minute. The library's version of this lesson is `spine_lib/slices/`.
#
# ![A scan is cut, resampled and stored once; slices are augmented and batched for a network, whose predictions become a volume](figures/pipeline.svg)
#
# *The pipeline of this course; the yellow steps are this lesson's.*

# %% [markdown]
# ## 1. Three planes (12 min)
#
# The networks of this course see one slice at a time. A volume can be cut across each of its axes. We
# take the chest patient.

# %%
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

from spine_lib.course import check, course_case, hint, pick, progress, solution

plt.style.use("spine_lib.course.lesson")
chest, abdomen = course_case("chest"), course_case("abdomen")
scan = nib.as_closest_canonical(nib.load(chest.ct.path))
print(nib.aff2axcodes(scan.affine), scan.shape, "voxels of", scan.header.get_zooms(), "mm")

# %% [markdown]
# The array is indexed [x, y, z] and grows to the patient's Right, Anterior and Superior side.
# **Predict** what `imshow` makes of `array[:, y, :]`: where will the head be?

# %%
array = np.asarray(scan.dataobj)
y = int(np.median(np.nonzero(chest.labels.array)[1]))
_, y_mm, z_mm = scan.header.get_zooms()
coronal = array[:, y, :]
figure, (stored, upright) = plt.subplots(1, 2, figsize=(6.2, 3.2), width_ratios=(1, 2.4))
bone = {"vmin": -500, "vmax": 1300}
stored.imshow(coronal, **bone)
stored.set(title="array[:, y, :]", xlabel="z (index)", ylabel="x (index)")
upright.imshow(coronal.T[::-1, ::-1], aspect=z_mm / scan.header.get_zooms()[0], **bone)
upright.set(title="upright", xlabel="R   column   L", ylabel="I   row   S")
plt.show()

# %% [markdown]
# *Figure: a coronal slice as it lies in the array, and upright.*
# <!-- alt: Left, the patient lies on the side, the head to the right, squeezed along the body. Right, upright,
# in true proportions, the patient's right on the left. -->
#
# As stored, the patient lies on the side with the head to the right, squeezed, since a step along z is
# 2.5 mm and one along x 0.7 mm. An upright slice needs three things: exchange rows and columns, reverse
# both directions, and draw pixels in true proportions.
#
# ### Exercise 3.1 ★★☆: an upright slice


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

# %% tags=["nbval-check-output"]
from spine_lib.ct import PLANES, resample_labels, slice_spacing_mm, to_slices

for plane in PLANES:
    stack = to_slices(chest.ct.array, plane)
    between, row, column = slice_spacing_mm(chest.ct.spacing_mm, plane)
    print(
        f"{plane:8} {len(stack):3} slices {between:.1f} mm apart, pixels {row:.1f} x {column:.1f} mm"
    )

# %% [markdown]
# `to_slices` is the library's version; it returns a view of the same memory. Axial slices have the finest pixels, so most 2D networks for CT take those.

# %% [markdown]
# ## 2. Resampling (11 min)
#
# Patients come with pixels of 0.7, 1 or 3 mm; a network wants them alike. HU may be interpolated
# linearly: between 0 and 100 HU there may well be 50. Label ids are *names*. In a spine L4 is 23, L5 is 24
# and the sacrum 26. **Predict** what linear interpolation of these ids gives.

# %% tags=["nbval-check-output"]
import torch
import torch.nn.functional as F

from spine_lib.annotations import CANONICAL

ids = torch.tensor([[[23.0, 23, 24, 24, 26, 26]]])
finer = F.interpolate(ids, size=11, mode="linear", align_corners=True)
print(finer[0, 0].tolist())
print([CANONICAL[int(label)] for label in finer.round().unique()])

# %% [markdown]
# Between L5 and the sacrum appears an L6, a bone that few people have; along the edge of L5, between 0 and
# 24, ids of cervical and thoracic vertebrae would appear. Two ways are correct:
#
# - **nearest neighbour**: every new pixel takes the id of the closest old one;
# - **linear interpolation of one-hot maps**: each id becomes a map of 0 and 1, these are interpolated, and
#   the id with the largest value wins (argmax). [nnU-Net](https://doi.org/10.1038/s41592-020-01008-z)
#   works on one-hot maps, too.


# %%
def resample_nearest(labels, size):
    labels = torch.from_numpy(labels.astype(np.float32))[None, None]
    return F.interpolate(labels, size, mode="nearest-exact")[0, 0].numpy().astype(np.uint8)


def resample_one_hot(labels, size):
    ids = np.unique(labels)
    one_hot = torch.from_numpy((labels == ids[:, None, None]).astype(np.float32))[None]
    maps = F.interpolate(one_hot, size, mode="bilinear", antialias=True)
    return ids[maps[0].argmax(dim=0).numpy()]


def resample_ids(labels, size):  # wrong, to see it
    labels = torch.from_numpy(labels.astype(np.float32))[None, None]
    return F.interpolate(labels, size, mode="bilinear")[0, 0].round().numpy().astype(np.uint8)


# %%
x = int(np.median(np.nonzero(abdomen.labels.array)[0]))
labels = np.ascontiguousarray(to_slices(abdomen.labels.array, "sagittal")[x])[40:84, 40:84]
ways = {
    "nearest": resample_nearest,
    "one-hot, argmax": resample_one_hot,
    "linear on ids": resample_ids,
}
figure, panels = plt.subplots(1, 3, figsize=(6.2, 2.6), sharey=True)
for axes, (title, resample) in zip(panels, ways.items()):
    enlarged = resample(labels, (352, 352))
    shown = np.ma.masked_equal(enlarged, 0)
    axes.imshow(
        shown, cmap="viridis", vmin=0, vmax=26, extent=(0, 132, 132, 0), interpolation="none"
    )
    axes.set(title=f"{title}: {len(np.unique(enlarged)) - 1} ids", xlabel="A   mm   P")
panels[0].set_ylabel("I   mm   S")
plt.show()

# %% [markdown]
# *Figure: a sagittal label map, enlarged eight times in three ways.*
# <!-- alt: Nearest: steps along every edge, one colour a bone. One-hot with argmax: smooth edges. Linear on
# ids: every bone has a rim of other colours. -->
#
# Linear interpolation of ids surrounds each bone with ids that are not there, all of them valid, so no
# check of values can find them. The other two keep the ids; one-hot gives smoother edges. Which is better
# for *thin* structures, such as the laminae of the crop patient, when pixels become twice as large?

# %% tags=["nbval-check-output"]
from scipy import ndimage

crop = course_case("crop")
crop_labels = to_slices(crop.labels.array, "axial")
fullest = np.argsort((crop_labels > 0).sum(axis=(1, 2)))[-12:]
for name in ("nearest", "one-hot, argmax"):
    rows = []
    for index in fullest:
        full = np.ascontiguousarray(crop_labels[index])[:72, :72]
        small = ways[name](full, (36, 36))
        again = ways[name](small, (72, 72)) > 0
        dice = 2 * (again & (full > 0)).sum() / (again.sum() + (full > 0).sum())
        pieces = ndimage.label(small)[1] - ndimage.label(full)[1]
        rows.append((4 * (small > 0).sum() / (full > 0).sum(), pieces, dice))
    area, pieces, dice = np.mean(rows, axis=0)
    print(
        f"{name:16} area {area:.2f}, {pieces:+.1f} components a slice, Dice back at 1.5 mm {dice:.3f}"
    )

# %% [markdown]
# Each has a price. Nearest keeps the area on average, but it breaks thin structures: a slice gets about
# one connected component more. One-hot keeps components together and is closer to the original after the
# way back, but the majority wins in every pixel, so thin structures lose area. Both are standard; a report
# should name the one that was used. For the image the choice is simple: linear, and smoothed first where
# pixels become larger (`antialias=True`); otherwise pixels are skipped, and fine patterns become others
# (aliasing).
#
# ### Exercise 3.2 ★☆☆: an image and its labels


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
# ## 3. Split by patient (14 min)
#
# A network is judged on slices that it was not trained on. The easy way pools all slices of all patients
# and draws a quarter of them for the test. Is that fair? We cut four real patients and four phantoms into
# crops of 128 mm around the spine, so that training takes seconds.

# %%
from spine_lib.course.demonstrations import compare_splits, leakage_patients

patients = leakage_patients()
flat = [torch.from_numpy(patient.images).flatten(1) for patient in patients]
number = len(flat[0]) // 2


def correlation(one, many):
    return torch.corrcoef(torch.cat([one[None], many]))[0, 1:]


neighbour = correlation(flat[0][number], flat[0][number + 1 : number + 2])[0]
others = [correlation(flat[0][number], other) for other in flat[1:]]
best = max(range(len(others)), key=lambda n: others[n].max())
print("slices with spine:", {patient.name: len(patient) for patient in patients})

# %%
chosen = patients[best + 1].images[others[best].argmax()]
shown = {
    "a slice": patients[0].images[number],
    f"its neighbour: {neighbour:.2f}": patients[0].images[number + 1],
    f"{patients[best + 1].name}: {others[best].max():.2f}": chosen,
}
figure, panels = plt.subplots(1, 3, figsize=(6.2, 2.6), sharey=True)
for axes, (title, image) in zip(panels, shown.items()):
    axes.imshow(image[0], extent=(0, 128, 128, 0), vmin=-1.5, vmax=2.5, interpolation="nearest")
    axes.set(title=title, xlabel="R   mm   L")
panels[0].set_ylabel("P   mm   A")
plt.show()

# %% [markdown]
# *Figure: a slice, the next slice of the same patient, and the most similar slice of anybody else, with
# their correlations.*
# <!-- alt: Three small axial slices. The second, of the same patient, is nearly equal to the first; the
# third, the most similar one of all other patients, shows a different body. -->
#
# Neighbouring slices are nearly copies. If one is in the test set and the other in the training set, the test
# set *leaks*: the network has been trained on the answer.
#
# ### Exercise 3.3 ★★☆: a split without leakage


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

# %% tags=["nbval-check-output"]
patient_of_slice = np.repeat([patient.name for patient in patients], [len(p) for p in patients])
shuffled = np.random.default_rng(0).permutation(np.unique(patient_of_slice))
for fold, held_out in enumerate(np.array_split(shuffled, 4)):
    test = np.isin(patient_of_slice, held_out)
    print(f"fold {fold}: {test.sum():3} slices of {', '.join(held_out)}")

# %% [markdown]
# With folds every patient is in the test set once; scikit-learn has this as
# [`GroupKFold`](https://scikit-learn.org/stable/modules/generated/sklearn.model_selection.GroupKFold.html).
# The library splits *cases* before anything is cut, and `require_separate` stops every run in which a
# patient is on both sides.
#
# How much does it matter? A small network (lesson 4) is trained twice, for equally many steps: on slices
# of all patients, the chest among them, and on slices of everybody but the chest. Both are scored on the
# same slices of the chest, on which neither was trained. The score is Dice (lesson 7), for a predicted mask
# $P$ and a true mask $T$: $2\,|P \cap T| \,/\, (|P| + |T|)$, between 0 and 1. **Predict** the two scores.

# %%
live = compare_splits(patients, ["chest"], seed=0, steps=pick(full=120, fast=20))["chest"]
for split in ("by slice", "by patient"):
    print(f"split {split:10}  Dice {live[split]:.3f} on {live['scored slices']} slices")

# %% [markdown]
# One patient and one seed could be chance. Here are five seeds, with each patient held out in turn.

# %%
from spine_lib.course import lesson_result
from spine_lib.explore import figures

kept = lesson_result("leakage")
names = list(kept["seeds"][0]["patients"])
by_split = {
    f"split {split}": {
        name: [row["patients"][name][split] for row in kept["seeds"]] for name in names
    }
    for split in ("by slice", "by patient")
}
print(f"mean gap: {np.mean([row['gap'] for row in kept['seeds']]):.2f} in Dice")
figures.patient_scores(by_split, "Dice on the same slices")

# %% [markdown]
# *Figure: Dice of each real patient under both splits, five seeds each.*
# <!-- alt: For each of four patients the split by slice (circles) scores higher than the split by patient
# (squares), without overlap. -->
#
# The gap has the same sign for every patient and seed, and it is about six times the difference between
# the paper's two models (0.951 and 0.920, the paper's figures). The limits: four patients, small images, a
# small network. With hundreds of patients the gap should shrink; that is not measured here. **How the
# paper split its slices is not known**; all results of this course are split by patient.

# %% [markdown]
# ## 4. A window, a store, a Dataset (13 min)
#
# Networks and albumentations take floats, albumentations from 0 to 1. What does a brightness step make of HU?

# %%
import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask a server for its newest version
import albumentations as A

image_hu = to_slices(chest.ct.array, "axial")[60]
brighter = A.Compose([A.RandomBrightnessContrast((0.05, 0.05), (0, 0), p=1)])
try:
    brighter(image=np.ascontiguousarray(image_hu))
except KeyError as error:
    print("as int16:  ", type(error).__name__, error)
result = brighter(image=image_hu.astype(np.float32))["image"]
print(f"as float32: from {result.min():.1f} to {result.max():.1f}, {len(np.unique(result))} values")

# %% [markdown]
# int16 raises an unhelpful error. float32 is worse: the image is clipped to 0..1 without a warning. So HU are
# brought to 0..1 first, by a window chosen for the task.

# %% [markdown]
# The networks of this course see -250 to 1000 HU, from fat to dense bone.
#
# Opening, resampling and cutting a scan takes seconds; a training step must not wait for it. So each scan
# is prepared **once**, into one array a patient that is memory-mapped: the system reads only the pages of
# the slices that are drawn. The library's `prepare` does this for thousands of scans; by hand:

# %%
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp(prefix="slices-"))
for name in ("abdomen", "dicom", "crop"):
    case = course_case(name)
    _, row_mm, column_mm = slice_spacing_mm(case.ct.spacing_mm, "axial")
    images = torch.from_numpy(to_slices(case.ct.array, "axial").astype(np.float32))
    size = [round(images.shape[1] * row_mm / 2), round(images.shape[2] * column_mm / 2)]
    images = F.interpolate(images[None], size, mode="bilinear", antialias=True)[0]
    labels = resample_labels(to_slices(case.labels.array, "axial"), size)
    np.save(folder / f"{name}_hu.npy", images.round().numpy().astype(np.int16))
    np.save(folder / f"{name}_labels.npy", labels)
    print(f"{name:8} {len(labels):3} slices of {size[0]} x {size[1]} pixels of 2 mm")

# %% [markdown]
# [`torch.utils.data.Dataset`](https://docs.pytorch.org/docs/stable/data.html) needs two methods: how many
# items there are, and item number n. Everything else of this lesson goes into it: window, mask, transform.

# %%
from torch.utils.data import DataLoader, Dataset


class SpineSlices(Dataset):
    """Axial slices of some patients: image [1, row, column] in 0..1, mask of 0 and 1."""

    def __init__(self, folder, names, transform):
        self.images = {name: np.load(folder / f"{name}_hu.npy", mmap_mode="r") for name in names}
        self.labels = {
            name: np.load(folder / f"{name}_labels.npy", mmap_mode="r") for name in names
        }
        self.items = [(name, k) for name in names for k in range(len(self.images[name]))]
        self.transform = transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        name, k = self.items[number]
        unit = np.clip((self.images[name][k].astype(np.float32) + 250) / 1250, 0, 1)
        mask = (self.labels[name][k] > 0).astype(np.float32)
        changed = self.transform(image=unit, mask=mask)
        return torch.from_numpy(changed["image"])[None], torch.from_numpy(changed["mask"])[None]


# %% [markdown]
# Slices differ in size from patient to patient, and a batch needs one size: pad, then crop. `DataLoader`
# draws items in random order and stacks them.

# %%
same_size = A.Compose([A.PadIfNeeded(96, 96), A.RandomCrop(96, 96)], seed=0)
training = SpineSlices(folder, ["abdomen", "dicom"], same_size)
shuffle = torch.Generator().manual_seed(0)
loader = DataLoader(training, batch_size=16, shuffle=True, generator=shuffle)
image, mask = next(iter(loader))
print("image", tuple(image.shape), image.dtype, " mask", tuple(mask.shape), mask.unique().tolist())
print(
    f"{len(training)} slices, {len(loader)} batches; {100 * mask.mean():.1f} % of the pixels are spine"
)

# %% [markdown]
# The patient *crop* is in no item. The library's `TrainingSlices` adds patches near the spine, unlabelled
# pixels that leave the loss, and neighbouring slices as channels.
#
# ### Exercise 3.4 ★★☆: a Dataset of your own


# %% tags=["exercise"]
def spine_dataset(images_hu, labels):
    """Return a Dataset of the slices that show spine, in their order.

    images_hu: int16 array [slice, row, column], HU.
    labels:    uint8 array of the same shape; 0 is background.
    An item is a pair of float32 tensors [1, row, column]: the image, in which -250 HU and below
    are 0 and 1000 HU and above are 1, and the mask, 0 or 1. Write the class inside the function.
    """
    raise NotImplementedError


# %%
check("3.4", spine_dataset)

# %% [markdown]
# ## 5. Image and mask together (15 min)
#
# Few patients are shown in many versions: turned, enlarged, blurred, noisier. Geometric steps must move
# image and mask alike; intensity steps must leave the mask as it is. albumentations does both when it is
# given both. One transform each:

# %%
hu = np.ascontiguousarray(to_slices(crop.ct.array, "axial")[28], np.float32)
unit = np.clip((hu + 250) / 1250, 0, 1)
mask = np.ascontiguousarray(to_slices(crop.labels.array, "axial")[28])
transforms = {
    "Affine": A.Affine(rotate=(18, 18), scale=(1.2, 1.2), mask_interpolation=0, p=1),
    "ElasticTransform": A.ElasticTransform(alpha=60, sigma=6, p=1),
    "RandomBrightnessContrast": A.RandomBrightnessContrast((0.04, 0.04), (0.3, 0.3), p=1),
    "GaussianBlur": A.GaussianBlur(blur_limit=0, sigma_limit=(1.2, 1.2), p=1),
    "Downscale": A.Downscale((0.5, 0.5), p=1),
    "GaussNoise": A.GaussNoise(std_range=(0.06, 0.06), p=1),
}
made = {name: A.Compose([step], seed=3)(image=unit, mask=mask) for name, step in transforms.items()}


# %%
def show_pair(axes, image, mask, title, pixel_mm):
    extent = (0, mask.shape[1] * pixel_mm, mask.shape[0] * pixel_mm, 0)
    axes.imshow(image, vmin=0, vmax=1, extent=extent, interpolation="nearest")
    axes.contour(mask > 0, [0.5], colors="#E69F00", linewidths=1.2, extent=extent, origin="upper")
    axes.set(title=title, xticks=(0, 50, 100), yticks=(0, 50, 100))


figure, panels = plt.subplots(2, 3, figsize=(6.2, 4.4), sharex=True, sharey=True)
for axes, (name, changed) in zip(panels.flat, made.items()):
    show_pair(axes, changed["image"], changed["mask"], name, crop.ct.spacing_mm[0])
figure.supxlabel("R   mm   L", fontsize=8)
figure.supylabel("P   mm   A", fontsize=8)
plt.show()

# %% [markdown]
# *Figure: one slice with its mask (outline) after six transforms of albumentations.*
# <!-- alt: turned and enlarged; bent; with more contrast; blurred; with coarse pixels; noisy. The outline
# follows the bone in every one. -->
#
# The commonest error is to transform the image alone. Nothing stops: the loss still falls, and the network
# learns masks beside the bones.
#
# ### Exercise 3.5 ★★☆: rotate image and mask


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
# Try each step with a slider. Could a patient or a scanner have done this? From which strength on would
# you no longer recognise the vertebra?

# %%
from spine_lib.explore import AugmentationExplorer

l3 = int(np.argwhere(abdomen.labels.array == 22)[:, 2].mean())
AugmentationExplorer(abdomen.ct, abdomen.labels, index=l3, case_id="abdomen")

# %% [markdown]
# *Figure: the explorer, here as a still: a slice before and after a rotation.*
#
# | step | what it imitates |
# |---|---|
# | rotation, shear, elastic | another posture, another person's shape |
# | zoom | a small or a large patient |
# | mirror | the other side; labels here have no sides |
# | contrast, brightness | contrast medium, bone density, tube voltage |
# | blur, sharpening | the reconstruction kernel |
# | coarse, noise | larger voxels; a lower dose |

# %% [markdown]
# ## 6. Seeds that reach every worker (3 min)
#
# With `num_workers=2` two processes make the items. Each gets a *copy* of the Dataset, random generators
# included. PyTorch gives every worker another seed for `torch`, `random` and `np.random`, but it does not
# know the generators inside your transform, albumentations' or `np.random.default_rng` of your own.
# Here is a random brightness for four items, with two workers, over two epochs.

# %%
import multiprocessing

forks = (
    "fork" in multiprocessing.get_all_start_methods()
)  # Windows cannot start workers from a cell
WORKERS = {"num_workers": 2, "multiprocessing_context": "fork"} if forks else {"num_workers": 0}


class FourItems(Dataset):
    def __init__(self):
        self.transform = A.Compose([A.RandomBrightnessContrast((0, 0.5), 0, p=1)], seed=0)

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return float(self.transform(image=np.zeros((8, 8), np.float32))["image"].mean())


def print_epochs(loader):
    for epoch in (0, 1):
        print(f"epoch {epoch}:", [round(float(item), 3) for item in loader])


print_epochs(DataLoader(FourItems(), **WORKERS))

# %% [markdown]
# Two numbers instead of eight: both workers draw the same, and each epoch repeats the last, since the
# copies start anew, so a network sees far fewer versions than the loop suggests. `worker_init_fn` runs once
# in each new worker, whose seed comes from the loader's `generator` and differs between workers and epochs.


# %%
def seed_worker(worker_id):
    worker = torch.utils.data.get_worker_info()
    worker.dataset.transform.set_random_seed(worker.seed % 2**32)


for run in (1, 2):
    generator = torch.Generator().manual_seed(0)
    print("run", run)
    loader = DataLoader(FourItems(), worker_init_fn=seed_worker, generator=generator, **WORKERS)
    print_epochs(loader)

# %% [markdown]
# Eight different numbers, and the second run repeats the first. They still depend on the number of
# workers. The library seeds each item by (run, epoch, position), which does not.

# %% [markdown]
# ## 7. Must an augmentation be physical? (4 min)
#
# HU are a measurement, and some steps made for photographs destroy it.

# %%
body = np.ascontiguousarray(to_slices(abdomen.ct.array, "sagittal")[x])
unit = np.clip((body.astype(np.float32) + 250) / 1250, 0, 1)
bones = np.ascontiguousarray(to_slices(abdomen.labels.array, "sagittal")[x]) > 0
fat = (body > -120) & (body < -60)
steps = {
    "as it is": A.NoOp(p=1),
    "InvertImg": A.InvertImg(p=1),
    "Brightness + 0.24": A.RandomBrightnessContrast((0.24, 0.24), 0, p=1),
}
for name, step in steps.items():
    changed = A.Compose([step])(image=unit)["image"]
    means = [1250 * changed[tissue].mean() - 250 for tissue in (fat, bones)]
    print(f"{name:18} fat {means[0]:4.0f} HU, vertebrae {means[1]:4.0f} HU")

# %% [markdown]
# Exchanged, bone is darker than fat; and 300 HU more make fat brighter than the vertebrae were. Not physical is
# not the same as useless, though. A network that trains on a few patients may rely on their tissues'
# brightness; changes beyond the physical take that away
# ([Billot 2023](https://doi.org/10.1016/j.media.2023.102789)).
#
# So it was measured, with the small network and the patients of section 3, each real patient held out in turn:
# without augmentation; with physical steps (mirror, affine, little brightness and noise); and with two steps
# that are not physical in half of the slices, `InvertImg` and brightness shifted by up to 300 HU. **Predict**:
# which of the two helps beside the physical steps?

# %%
kept = lesson_result("augmentation")
arms = {
    arm: {name: [row["arms"][arm][name] for row in kept["seeds"]] for name in names}
    for arm in kept["seeds"][0]["arms"]
}
for arm, scores in arms.items():
    by_seed = np.mean(list(scores.values()), axis=0)
    print(f"{arm:20} mean Dice {by_seed.mean():.3f}, by seed {by_seed.round(3)}")
beside = {arm: scores for arm, scores in arms.items() if arm.startswith("physical")}
figures.patient_scores(beside, "Dice on the held-out patient", limits=(0.4, 0.9))

# %% [markdown]
# *Figure: Dice of each held-out patient with three sets of augmentations, three seeds each.*
# <!-- alt: With black and white exchanged, all runs of the chest and most of the abdomen lie lowest; with
# shifted brightness, the DICOM patient gains and the chest loses. -->
#
# Physical steps gain about 0.03 on average, but not with every seed. Exchanging black and white beside them
# lowers the mean with each of the three seeds. The brightness shift is as unphysical, yet the DICOM patient
# gains from it and the chest loses; its mean changes by less than the seeds differ, so that three seeds on four
# patients cannot tell whether it helps.
# So "is it physical?" is where to begin, and a measurement over seeds decides.

# %%
progress()

# %% [markdown]
# ## 8. Without the library (2 min)
#
# From two NIfTI files to seeded, augmented batches, with nibabel, albumentations and PyTorch only. Slices
# and masks equal the library's.


# %%
class ScanSlices(Dataset):
    def __init__(self, ct_file, mask_file, transform):
        hu, ids = (nib.as_closest_canonical(nib.load(f)).dataobj for f in (ct_file, mask_file))
        hu, ids = (np.asarray(a).transpose(2, 1, 0)[:, ::-1, ::-1] for a in (hu, ids))
        self.images = np.clip((hu.astype(np.float32) + 250) / 1250, 0, 1)
        self.masks = ((ids >= 25) & (ids <= 50)).astype(np.float32)  # TotalSegmentator's spine
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        made = self.transform(image=self.images[k], mask=self.masks[k])
        return torch.from_numpy(made["image"])[None], torch.from_numpy(made["mask"])[None]


steps = [A.HorizontalFlip(p=0.5), A.Affine(rotate=(-20, 20), mask_interpolation=0, p=1)]
dataset = ScanSlices(
    abdomen.ct.path, abdomen.labels.path, A.Compose([*steps, A.RandomCrop(96, 96)], seed=0)
)
loader = DataLoader(dataset, 16, shuffle=True, generator=torch.Generator().manual_seed(0))
image, mask = next(iter(loader))
assert image.shape == mask.shape == (16, 1, 96, 96)

# %%
from spine_lib.slices.augment import to_unit

assert np.allclose(dataset.images, to_unit(to_slices(abdomen.ct.array, "axial")), atol=1e-6)
assert np.array_equal(dataset.masks > 0, to_slices(abdomen.labels.array, "axial") > 0)

# %% [markdown]
# ## What you can do now
#
# - **Cut** upright slices in three planes: transpose, then reverse rows and columns.
# - **Resample** images linearly with smoothing; labels by nearest neighbour or one-hot with argmax, never
#   by interpolating ids.
# - **Split** by patient; the same slices score about 0.2 in Dice higher under a split by slice.
# - **Write** a `Dataset` and a `DataLoader`, and seed every worker's transforms.
# - **Augment** image and mask together in 0..1, and measure whether a step helps.
#
# Next: lesson 4 builds the network that was used here without explanation.
