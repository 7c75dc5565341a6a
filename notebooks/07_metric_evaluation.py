# %% [markdown]
# # Metric evaluation: what a score counts, and what it hides
#
# Two networks have predicted two masks. Which is better, by how much, and would it be better on the
# next patient too? In this notebook you will
#
# - **compute** IoU, Dice, F1 and accuracy from four counts, and compare with MONAI's and torchmetrics'
#   answers,
# - **choose** an averaging, a rule for empty masks and a region to ignore, and see what each choice
#   does to the score of one prediction and of 218 real patients,
# - **measure** surface distances in mm, on voxels that are not cubes,
# - **tell apart** two predictions of equal Dice that suit different uses,
# - **give** an interval and a paired test over patients, and say when neither can be given.
#
# It takes about 75 minutes, five exercises included; the cells alone run in about half a minute. A good
# place for a break is after section 5.

# %% [markdown]
# ## 1. A guess by eye (3 min)
#
# We open a patient that neither of the two networks which come with the library has seen: a box around
# L3. Their predictions are stored, so nobody has to wait.

# %%
from spine_lib.course import check, held_out_case, hint, progress, solution

crop = held_out_case("crop")
print(
    crop.data.ct.shape, "voxels of", crop.data.ct.spacing_mm, "mm, predicted by", *crop.probability
)

# %% [markdown]
# Look at the errors. **Predict** two numbers before you go on: how much of each prediction is right, in per
# cent? And which network would you take? (`CompareViewer` of `spine_lib.explore` shows all slices.)

# %%
import matplotlib.pyplot as plt
import numpy as np

from spine_lib.ct import WINDOWS
from spine_lib.explore import figures, render

plt.style.use("spine_lib.course.lesson")
ct, labels = crop.data.ct, crop.data.labels.array
truth, ignore = labels > 0, crop.data.ignore.array
middle = int(np.median(np.nonzero(labels == 22)[0]))  # through L3


def draw_errors(axes, mask, right, title, skipped=None):
    volumes = [None if one is None else ct.with_array(one) for one in (right, mask, skipped)]
    rgb = render.render_slice(
        ct, middle, "sagittal", WINDOWS["bone"], *volumes[:2], "error", volumes[2]
    )
    figures.show_slice(axes, rgb, "sagittal", render.pixel_size_mm(ct, "sagittal"))
    axes.set_title(title)


# %%
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.9))
for panel, (name, probability) in zip(axes, crop.probability.items()):
    draw_errors(panel, probability.array >= 0.5, truth, name, ignore)
figure.legend(
    handles=figures.legend_handles(render.ERROR_SWATCHES), loc="outside lower center", ncols=4
)
plt.show()

# %% [markdown]
# *Figure: the errors of both networks in one sagittal slice.*
# <!-- alt: A sagittal slice through three lumbar vertebrae twice, with true positives, false positives and
# false negatives marked; the errors lie along the rims. -->
#
# Keep your two numbers. "Per cent right" can be computed from these masks in several ways, and the results
# differ by a fifth.

# %% [markdown]
# ## 2. Four counts (16 min)
#
# First by hand, on 24 voxels. A prediction becomes a mask at a threshold, here one half; then each
# voxel is one of four kinds.

# %% tags=["nbval-check-output"]
small = np.array([[0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0]])
moved = np.roll(small, 1, axis=1)
print(np.array([["tn", "fp"], ["fn", "tp"]])[small, moved])

# %% [markdown]
# The prediction is the truth, moved by one column. Positive means *predicted* as spine, true means that
# this is right.
#
# ### Exercise 7.1 ★☆☆: four counts
#
# Some voxels are unlabelled, for example where the image cuts a vertebra; they must not affect any
# score.


# %% tags=["exercise"]
def count_voxels(prediction, truth, ignore):
    """Count true positives, false positives, false negatives and true negatives.

    prediction, truth: boolean arrays of one shape, True is spine.
    ignore:            boolean array of the same shape, True where nobody knows what is right:
                       such voxels are counted nowhere.
    returns four whole numbers: tp, fp, fn, tn.
    """
    raise NotImplementedError


# %%
check("7.1", count_voxels)

# %% [markdown]
# The library's version is `confusion` in `spine_lib/metrics/overlap.py`. Now the patient.

# %%
from spine_lib import metrics

counts = {
    name: metrics.confusion(probability.array >= 0.5, truth, ignore)
    for name, probability in crop.probability.items()
}
for name, count in counts.items():
    print(f"{name:11} {count}")

# %% [markdown]
# Both have similar recall; DeepLabv3+ has nearly twice as many false positives. From these four
# numbers follow all the scores of the paper's table:
#
# | score | formula | meaning |
# |---|---|---|
# | accuracy | $\frac{TP + TN}{TP + FP + FN + TN}$ | share of correct voxels |
# | IoU, Jaccard index | $\frac{TP}{TP + FP + FN}$ | overlap over union |
# | Dice | $\frac{2\,TP}{2\,TP + FP + FN}$ | overlap over the masks' mean size |
# | precision | $\frac{TP}{TP + FP}$ | share of the prediction that is right |
# | recall, sensitivity | $\frac{TP}{TP + FN}$ | share of the truth that was found |
#
# F1 is the harmonic mean of precision and recall. How does it differ from Dice?

# %%
print(f"{'':11}" + "".join(f"{name:>10}" for name in metrics.SCORES))
for name, count in counts.items():
    row = metrics.scores(count).values()
    print(f"{name:11}" + "".join(f"{value:10.3f}" for value in row))

# %% [markdown]
# F1 *is* Dice: two names for one number. IoU is the lower of the two, $IoU = Dice / (2 - Dice)$, and orders predictions of one patient just as Dice does. Accuracy lies far above
# everything else. What do such errors look like? Four predictions of one truth:

# %%
from matplotlib.colors import ListedColormap

row, column = np.indices((48, 64))


def disc(radius, middle=24):
    return np.hypot(row - 24, column - middle) < radius


pictures = {"A": disc(9), "B": disc(19), "C": disc(13, middle=30), "D": disc(13)}
pictures["D"][4:7, 58:61] = True
figure, axes = plt.subplots(1, 4, figsize=(7, 1.8))
for panel, (letter, mask) in zip(axes, pictures.items()):
    panel.imshow(mask, cmap=ListedColormap(["white", "#E69F00"]))
    panel.contour(disc(13), [0.5], colors="#0072B2")
    panel.set(title=letter, xticks=[], yticks=[])
    panel.spines[:].set_visible(True)
plt.show()

# %% [markdown]
# *Figure: four predictions (orange), and the outline of the truth (blue).*
# <!-- alt: a blue circle four times; an orange disc lies within it (A), beyond it (B), to its right (C), or
# fills it, with a small square far away (D). -->
#
# ### Exercise 7.2 ★☆☆: which panel is it?


# %% tags=["exercise"]
def panel_with(description):
    """Return the letter of the panel above that fits a description: "A", "B", "C" or "D".

    description: "precision 1", "precision far below recall", "precision equal to recall" or "the
                 highest Dice, and the largest distance". Each fits one panel.
    One line does it: return {"precision 1": "...", ...}[description]
    """
    raise NotImplementedError


# %%
check("7.2", panel_with)

# %% [markdown]
# [MONAI](https://docs.monai.io/en/stable/metrics.html) and
# [torchmetrics](https://lightning.ai/docs/torchmetrics/stable/) have these scores; both want tensors with a
# batch and, MONAI, a channel axis.

# %%
import torch
from monai.metrics import compute_dice, compute_iou
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

guess = crop.probability["U-Net"].array >= 0.5
predicted, true = (torch.from_numpy(mask)[None, None] for mask in (guess, truth))
print(f"MONAI        Dice {compute_dice(predicted, true).item():.3f}", end="  ")
print(f"IoU {compute_iou(predicted, true).item():.3f}")
print(f"torchmetrics F1   {binary_f1_score(predicted.int(), true.int()).item():.3f}", end="  ")
print(f"IoU {binary_jaccard_index(predicted.int(), true.int()).item():.3f}")

# %% [markdown]
# The same as our row for U-Net but for the ignored voxels, which the two tools count. They disagree where a
# mask is empty.

# %%
nothing, something = torch.zeros(2, 1, 1, 8, 8, 8)
something[..., 2:5, 2:5, 2:5] = 1
pairs = {
    "both empty": (nothing, nothing),
    "only a prediction": (something, nothing),
    "only a truth": (nothing, something),
}
for name, (mask, right) in pairs.items():
    ours = metrics.dice(metrics.confusion(mask.numpy(), right.numpy()))
    monai, f1 = compute_dice(mask, right).item(), binary_f1_score(mask.int(), right.int()).item()
    print(f"{name:18} MONAI {monai:3.0f}   torchmetrics {f1:.0f}   spine_lib {ours:3.0f}")

# %% [markdown]
# Three conventions. MONAI leaves out every scan with an empty truth, also where the network predicted
# something: false positives on healthy slices cost nothing. torchmetrics gives 0 for a correct empty
# prediction. `spine_lib` leaves out what is undefined and gives 0 where only one mask is empty.

# %% [markdown]
# ## 3. Finding nothing, with 99 per cent (2 min)
#
# Take the other held-out patient, a whole axial field of view, and a program that predicts *nothing at
# all*. **Predict** its accuracy.

# %%
dicom = held_out_case("dicom")
true_spine = dicom.data.labels.array > 0
unet = dicom.probability["U-Net"].array >= 0.5
for name, mask in (("nothing", np.zeros_like(unet)), ("U-Net", unet)):
    found = metrics.scores(metrics.confusion(mask, true_spine))
    print(f"{name:8} accuracy {found['accuracy']:.4f}  Dice {found['dice']:.3f}")
print(f"{true_spine.mean():.2%} of the voxels are spine")

# %% [markdown]
# The accuracy of nothing is the share of background. In the data that the paper very probably used, 0.79 % of
# the voxels are spine (section 4's 218 scans): predicting nothing scores 99.2 %, and the paper's models are
# given 98.5 and 98.6 %. And accuracy depends on the *frame*: here is the same prediction with air around.

# %%
for margin in (0, 20, 60):
    found = metrics.scores(metrics.confusion(np.pad(guess, margin), np.pad(truth, margin)))
    print(f"{margin:3} voxels of air: accuracy {found['accuracy']:.4f}  Dice {found['dice']:.4f}")

# %% [markdown]
# The prediction is the same. True negatives are the only count that grows with the image, and Dice and
# IoU do not contain them. That is why medical papers report Dice
# ([Metrics Reloaded](https://doi.org/10.1038/s41592-023-02151-z) helps to choose among all scores).

# %% [markdown]
# ## 4. One prediction, many averages (12 min)
#
# A network for slices is often scored slice by slice. **Predict**: U-Net's Dice on the DICOM patient is
# about 0.82 over all voxels. What is the mean over its axial slices? Over coronal ones?

# %%
pooled = metrics.dice(metrics.confusion(unet, true_spine))
print(f"all voxels pooled                   {pooled:.3f}")
by_plane = {
    plane: metrics.confusions_by_slice(unet, true_spine, axis=axis)
    for plane, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0))
}
for plane, slices in by_plane.items():
    found = metrics.mean_scores(slices)
    print(f"mean over {found['defined']:3} of {len(slices):3} {plane:8} slices {found['dice']:.3f}")

# %% [markdown]
# A slice in which the spine covers a few voxels counts as much as a full one, and few voxels are easily
# missed. Hence the mean over slices is lower, most of all in the sagittal plane. The slices that are not
# counted show no spine, and none was predicted: 0 / 0. What if a rule counted them?

# %%
print(f"{'':10}{'empty: 1':>10}{'left out':>10}{'empty: 0':>10}")
for plane, slices in by_plane.items():
    dice = np.array([metrics.dice(one) for one in slices])
    values = (np.nan_to_num(dice, nan=1).mean(), np.nanmean(dice), np.nan_to_num(dice).mean())
    print(f"{plane:10}" + "".join(f"{value:10.3f}" for value in values))

# %% [markdown]
# One prediction has a "Dice" between less than 0.1 and more than 0.9, depending on the rule for empty
# slices alone. The library leaves them out, says how many they were, and counts slices with a prediction
# and no truth in a line of their own.
#
# ### Exercise 7.3 ★☆☆: a mean with empty slices


# %% tags=["exercise"]
def mean_dice(counts):
    """Average Dice over slices, under the rules of this course for empty ones.

    counts: int array [slice, 3] of tp, fp and fn.
    A slice in which neither prediction nor truth has a voxel is left out of the mean. One with a
    prediction but no truth scores 0, and so does one with a truth but no prediction.
    returns three numbers: the mean; how many slices were left out; how many had a prediction but
    no truth.
    """
    raise NotImplementedError


# %%
check("7.3", mean_dice)

# %% [markdown]
# There is one more average, over *classes*: background is a class too, and a very easy one. Lesson 8 shows
# what it does to an IoU. This course gives the mean over patients of the spine's own Dice first.
#
# ### 218 real patients
#
# Another group trained nnU-Net on the very data set that the paper probably used, held out 218 scans, and
# [published](https://github.com/prada-1/nnunet-spine-segmentation) the counts of every scan and vertebra
# (MIT licence). So we can average one set of predictions in any way we like.

# %%
from spine_lib.course.measurements import holdout_counts

counts_218 = holdout_counts()
print(counts_218.head(3).to_string(index=False))
print(f"{counts_218.case.nunique()} of 218 scans show a vertebra; the other 7 are both empty")

# %% [markdown]
# A row is one vertebra in one scan; a level that is swapped with its neighbour counts as wrong. **Predict**
# how far apart the largest and the smallest of these seven "Dice" lie.


# %%
def dice_of(table):
    return 2 * table.tp / (2 * table.tp + table.fp + table.fn)


per_row = counts_218.assign(dice=dice_of(counts_218))
per_case = dice_of(counts_218.groupby("case")[["tp", "fp", "fn"]].sum())
seven = {
    "mean over scans of the mean over their vertebrae": per_row.groupby("case").dice.mean().mean(),
    "mean over vertebra names of the mean over scans": per_row.groupby("label").dice.mean().mean(),
    "mean over all vertebrae of all scans": per_row.dice.mean(),
    "the same without levels that are not there": per_row[per_row.eval("tp + fn > 0")].dice.mean(),
    "mean over scans, vertebrae pooled": per_case.mean(),
    "all voxels pooled": dice_of(counts_218[["tp", "fp", "fn"]].sum()),
    "median over scans, vertebrae pooled": per_case.median(),
}
for name, value in seven.items():
    print(f"{value:.3f}  {name}")
spurious = per_row.query("tp + fn == 0")
print(
    f"{len(spurious)} vertebrae in {spurious.case.nunique()} scans were predicted and are not there"
)

# %% [markdown]
# One set of predictions, seven honest numbers, a tenth of Dice between them: more than separates most
# published networks. The median hides the failures, the pooled value hides small vertebrae, and leaving
# out the levels that are not there hides the hallucinated ones. The paper's abstract names no choice.

# %% [markdown]
# ## 5. What nobody has labelled (1 min)
#
# VerSe labels only vertebrae that are wholly in the image: here L3 alone, since L2 and L4 are cut. We take
# their labels away and score U-Net again, in two ways.

# %%
from scipy import ndimage

labelled = labels == 22  # L3
unlabelled = (labels > 0) & ~labelled
rim = ndimage.binary_dilation(unlabelled, iterations=2) & ~labelled
for name, skipped in (("as background", None), ("ignored", rim)):
    count = metrics.confusion(guess, labelled, skipped)
    print(f"unlabelled bone {name:13} Dice {metrics.dice(count):.3f}")

# %% [markdown]
# A difference of three tenths of Dice, only because the network found vertebrae that are not labelled. The
# ignored region holds these vertebrae *and a rim* of two voxels, since errors there cannot be judged either.
# It must not depend on the prediction: here it comes with the case, from image and mask alone. What counts as
# spine differs from data set to data set, so a score is given with its target and with what it ignored.

# %% [markdown]
# ## 6. How far off, in mm (5 min)
#
# Overlap does not say *where* the errors are. Surfaces do: for every voxel on the surface of the
# prediction, how far is the surface of the truth? Voxels are seldom cubes: those of the chest patient are
# 0.7 mm wide and 2.5 mm high. **Predict** what one voxel to the side costs, and one voxel up.

# %%
from spine_lib.course import course_case

chest = course_case("chest")
t8 = chest.labels.array == 15
(box,) = ndimage.find_objects(t8.astype(np.uint8))
t8 = np.pad(t8[box], 2)
for name, axis in (("to the right", 0), ("upwards", 2)):
    moved = np.roll(t8, 1, axis)
    dice = metrics.dice(metrics.confusion(moved, t8))
    print(f"T8 one voxel {name:12} Dice {dice:.3f}", end="  ")
    in_mm = metrics.surface_distances(moved, t8, chest.ct.spacing_mm)
    in_voxels = metrics.surface_distances(moved, t8, (1, 1, 1))
    print(f"HD95 {metrics.hd95(in_mm):.1f} mm, or {metrics.hd95(in_voxels):.0f} voxel")

# %% [markdown]
# In voxels both errors are 1. In the patient one is well under a millimetre, and the other more than the
# 2 mm by which a pedicle screw may usually miss the bone. HD95 is the 95th percentile of these distances,
# in both directions: a process that the prediction misses has no surface there. With $S_P$ and $S_T$ the surfaces of prediction and truth, and
# $d(a, S) = \min_{b \in S} \lVert a - b \rVert$ in mm,
#
# $$HD_{95} = \max\{\, P_{95}\{d(a, S_T) : a \in S_P\},\; P_{95}\{d(b, S_P) : b \in S_T\} \,\}.$$


# %% [markdown]
# The second score is the **surface Dice**, NSD: the share of both surfaces that lie within a tolerance.

# %%
tolerances_mm = np.arange(0.5, 5.01, 0.5)
figure, axes = plt.subplots(figsize=(4.6, 2.7))
for (name, probability), style in zip(crop.probability.items(), ("o-", "s--")):
    distances = metrics.surface_distances(probability.array >= 0.5, truth, ct.spacing_mm, ignore)
    shares = [metrics.nsd(distances, mm) for mm in tolerances_mm]
    axes.plot(tolerances_mm, shares, style, label=name)
    print(f"{name:11} HD95 {metrics.hd95(distances):.1f} mm")
axes.set(xlabel="tolerance, mm", ylabel="surface Dice (NSD)", ylim=(0, 1.02))
axes.legend()
plt.show()

# %% [markdown]
# *Figure: the surface Dice of both models against the tolerance.*
# <!-- alt: Both curves rise to nearly 1 at 5 mm; U-Net's lies above. -->
#
# A large tolerance makes the NSD as high as one likes, so it is chosen *before* the evaluation, from what the
# use can bear and from how exact the labels are; this course takes 2 mm. MONAI has both scores. HD95 has two
# definitions in use: the larger of the two directed percentiles, and the percentile of both sets of distances
# pooled. Which is larger?

# %%
import warnings

from monai.metrics import compute_hausdorff_distance, compute_surface_dice

warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
spacing = ct.spacing_mm
masks = predicted.float(), true.float()
monai_hd95 = compute_hausdorff_distance(*masks, percentile=95, spacing=spacing).item()
monai_nsd = compute_surface_dice(*masks, class_thresholds=[2.0], spacing=spacing).item()
both = metrics.surface_distances(guess, truth, spacing)
print(f"HD95 MONAI {monai_hd95:.2f} mm, spine_lib {metrics.hd95(both):.2f} mm", end=", ")
print(f"pooled {np.percentile(np.concatenate(both), 95):.2f} mm")
print(f"NSD at 2 mm: MONAI {monai_nsd:.3f}, spine_lib {metrics.nsd(both, 2.0):.3f}")

# %% [markdown]
# The two agree, and the pooled percentile is lower. They differ where a mask is empty: MONAI gives NaN,
# which drops the worst failures from a mean; `spine_lib` gives infinity, which is counted apart.

# %% [markdown]
# ## 7. Equal Dice, different use (3 min)
#
# We make two predictions for the crop: the truth, smoothed by 2 mm, and the truth without voxels of L4, from
# the back, until its Dice is the same. With $N$ true voxels and $n$ of them missing, Dice is
# $2 (N - n) / (2 N - n)$, which we solve for $n$.

# %%
sigma_voxels = [2 / size for size in ct.spacing_mm]
smoothed = ndimage.gaussian_filter(truth.astype(np.float32), sigma_voxels) > 0.5
dice = metrics.dice(metrics.confusion(smoothed, truth))
missing = round(2 * truth.sum() * (1 - dice) / (2 - dice))

is_l4 = labels == 23
l4 = np.argwhere(is_l4)
from_behind = l4[np.argsort(l4[:, 1])]  # y grows to the front
l4_cut = truth.copy()
l4_cut[tuple(from_behind[:missing].T)] = False
print(f"{missing} of {len(l4)} voxels of L4 are removed")

# %%
candidates = {"smoothed": smoothed, "L4 cut": l4_cut}
for name, mask in candidates.items():
    found = metrics.evaluate_volume(mask, truth, ct.spacing_mm, tolerance_mm=2)
    l4_dice = metrics.dice(metrics.confusion(mask & is_l4, is_l4))
    print(f"{name:9} Dice {found['dice']:.3f}  NSD {found['nsd']:.3f}", end="  ")
    print(f"HD95 {found['hd95']:.1f} mm  L4 alone: Dice {l4_dice:.3f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8))
for one, (name, mask) in zip(axes, candidates.items()):
    draw_errors(one, mask, truth, name)
figure.legend(
    handles=figures.legend_handles(render.ERROR_SWATCHES[:3]), loc="outside lower center", ncols=3
)
plt.show()

# %% [markdown]
# *Figure: the errors of both candidates in a sagittal slice.*
# <!-- alt: Left, single voxels along the rims; right, one solid piece at the back of L4. -->
#
# **Decide**, before you read on, which of the two you would take: for the density of the vertebral bodies;
# to plan screws through the pedicles; to count vertebrae.
#
# For density the second is better, since the bodies are exact. For screws it is useless: the posterior part of
# L4 is missing. Counting works with either. Dice cannot tell them apart, surface distances and a score for
# each vertebra can. The use determines the metric.

# %% [markdown]
# ## 8. A sliding threshold (5 min)
#
# All masks so far were cut at one half. Move the threshold and watch every score at once. Find the best one
# for Dice, for precision, for recall, for HD95: do they agree?

# %%
from spine_lib.explore import ThresholdExplorer

ThresholdExplorer(
    ct,
    crop.data.labels,
    crop.probability["DeepLabv3+"],
    crop.data.ignore,
    case_id="crop",
    tolerance_mm=2.0,
)

# %% [markdown]
# *Figure: the explorer, here as a still.*
# <!-- alt: an axial slice with the errors of DeepLabv3+ at threshold 0.5. -->
#
# Precision rises with the threshold and recall falls, so neither means much alone; Dice has a maximum in
# between. A threshold chosen *on the patient that is reported* gains up to two hundredths of Dice here, and
# tests nothing. It is chosen on training patients left out in turn, or stays at one half, as it does here.

# %% [markdown]
# ## 9. Thirty phantoms (10 min)
#
# U-Net is better than DeepLabv3+ on both patients. Is it better in general? Two patients cannot say. Since we
# do not have thirty more, both networks have predicted thirty *phantoms*, whole spines that no model was
# trained, chosen or tuned on. What follows shows how statistics work, not how good these models are.

# %%
from spine_lib.course import cohort_rows, cohort_scores, lesson_result

kept = lesson_result("cohort")
unet_dice, deeplab_dice = (cohort_scores(model) for model in ("U-Net", "DeepLabv3+"))
print(
    f"{len(unet_dice)} phantoms, measured {kept['made']} in {kept['seconds'] / 60:.0f} minutes on {kept['device']}"
)

# %%
dice = np.array([list(unet_dice.values()), list(deeplab_dice.values())])
order = dice[0].argsort()
figure, axes = plt.subplots(figsize=(6.4, 2.6))
axes.plot(dice[0, order], "o", label="U-Net")
axes.plot(dice[1, order], "s", mfc="none", label="DeepLabv3+")
axes.vlines(range(dice.shape[1]), dice[1, order], dice[0, order], color="grey", lw=0.8)
axes.set(xlabel="phantom, ordered by U-Net's Dice", ylabel="Dice")
axes.legend(loc="lower right", ncols=2)
plt.show()

# %% [markdown]
# *Figure: the Dice of both models on thirty phantoms.*
# <!-- alt: U-Net's lies above on every one. One phantom is lowest for both models, and for U-Net far below all
# others. -->
#
# One phantom is an outlier. Before averaging, look at it: what happened there?

# %%
worst = min(unet_dice, key=unet_dice.get)
for region, found in cohort_rows("U-Net")[worst]["regions"].items():
    print(f"{worst} {region:9} Dice {found['dice']:.3f}, {found['fn']} voxels missed")

# %% [markdown]
# The whole cervical region is missing and half of the thoracic one; two regions are fine. **Predict**: had we
# drawn thirty other phantoms, by how much would U-Net's mean have moved?
#
# We cannot examine others, but we can resample these: draw thirty of them *with replacement*, so that some
# come twice and some not at all. That is the bootstrap ([Efron 1987](https://doi.org/10.2307/2289144)). After
# some thousand draws, two percentiles of the means bound an interval:
# $[\,q_{0.025}(\bar x^*),\ q_{0.975}(\bar x^*)\,]$.
#
# ### Exercise 7.5 ★☆☆: an interval over patients


# %% tags=["exercise"]
def interval_of_mean(values, resamples, seed):
    """Return a 95 % bootstrap interval of a mean over patients.

    values:    float array, one score for each patient.
    resamples: how often a new set of as many patients is drawn from them, with replacement.
    seed:      decides the draws; the same seed always gives the same interval.
    returns two numbers: between them lie the middle 95 % of the resampled sets' means.
    """
    raise NotImplementedError


# %%
check("7.5", interval_of_mean)

# %% [markdown]
# SciPy has the bootstrap, with a correction for skewed scores (BCa), and keeps the resampled means. The
# library's `bootstrap_interval` calls it and widens the interval a little for small cohorts, where it is too
# narrow.

# %%
from scipy import stats

drawn = stats.bootstrap((dice[0],), np.mean, method="BCa", rng=np.random.default_rng(0))
figure, axes = plt.subplots(figsize=(5.2, 2.4))
axes.hist(drawn.bootstrap_distribution, bins=60, color="#56B4E9")
for bound in drawn.confidence_interval:
    axes.axvline(bound, color="#D55E00")
axes.set(xlabel="mean Dice of a resampled cohort", ylabel="cohorts")
plt.show()

# %% [markdown]
# *Figure: the mean Dice of 9999 resampled cohorts, and a 95 % interval.*
# <!-- alt: a histogram that is skewed to the left, with the two bounds. -->

# %%
from spine_lib.metrics import bootstrap_interval, paired_differences, sign_flip_test

for model, values in zip(("U-Net", "DeepLabv3+"), dice):
    found = bootstrap_interval(values)
    print(f"{model:11} {found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})")

# %% [markdown]
# The two intervals lie far apart. U-Net's reaches farther down than up: another cohort might hold two such
# failures, or none.
#
# The unit is the phantom. What if every *slice* counts as a patient? A short measure is the *standard error*
# of the mean, $s / \sqrt{n}$ with the standard deviation $s$ of the single values.

# %%
rows = [row["slices"] for row in cohort_rows("U-Net").values()]
count = np.array([row["count"] for row in rows])
means, spreads = (np.array([row[name] for row in rows]) for name in ("mean", "sd"))
overall = np.average(means, weights=count)
variance = np.average(spreads**2 + (means - overall) ** 2, weights=count)
print(f"{count.sum()} slices: standard error {np.sqrt(variance / count.sum()):.4f}")
print(f"{len(rows)} phantoms:   standard error {means.std(ddof=1) / np.sqrt(len(rows)):.4f}")

# %% [markdown]
# Six times as small, and wrong: slices of one spine are not independent. Where the cervical region is missed,
# it is missed in dozens of slices at once. There are as many independent values as patients.
#
# ## 10. A paired test (12 min)
#
# Both models saw the same phantoms, so we compare them phantom by phantom. If they were equally good, each
# difference could as well have come out with the other sign. How often would such signs, drawn by chance
# alone, give a mean at least as far from 0? That share is the *p-value*.
#
# ### Exercise 7.6 ★★☆: a paired test


# %% tags=["exercise"]
def sign_flip_p(differences):
    """Return the exact two-sided p-value of paired differences, by flipping signs.

    differences: float array, one model's score minus the other's, one for each patient.
    If the models were equally good, every difference could as well have come out with the
    other sign. So take all 2 ** n choices of signs, the observed one among them.
    returns the share of them whose mean is at least as far from 0 as the observed mean.
    """
    raise NotImplementedError


# %%
check("7.6", sign_flip_p)

# %%
gaps = np.array(list(paired_differences(unet_dice, deeplab_dice).values()))
found = bootstrap_interval(gaps)
p_value = sign_flip_test(gaps).p_value
print(f"U-Net minus DeepLabv3+: {found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})")
print(f"p = {p_value:.5f}; U-Net is better on {np.sum(gaps > 0)} of {gaps.size} phantoms")

# %% [markdown]
# U-Net is better on all thirty, and the p-value is the smallest that 100 000 random flips can show. Where does
# the observed mean lie among the flipped ones? SciPy's `permutation_test` keeps them.

# %%
flips = stats.permutation_test(
    (gaps,), np.mean, permutation_type="samples", n_resamples=9999, rng=0
)
figure, axes = plt.subplots(figsize=(5.2, 2.4))
axes.hist(flips.null_distribution, bins=60, color="#56B4E9", label="signs flipped at random")
axes.axvline(gaps.mean(), color="#D55E00", label="observed")
axes.set(xlabel="mean difference in Dice", ylabel="flips")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# *Figure: the mean difference under random signs, and the observed one.*
# <!-- alt: a histogram centred at 0, and the observed mean far to its right. -->
#
# The interval says more than the p-value: six to seven hundredths of Dice, on phantoms like these. A small
# p-value says that a difference is hardly chance, not that it matters. Where several questions are asked at
# once, say one for each region, `holm` of `spine_lib.metrics` enlarges the p-values accordingly. And a patient
# that spoils a mean, like the outlier above, is reported and not left out: it is often the finding.
#
# ### Two patients
#
# Back to the two held-out patients. Both differences favour U-Net. **Predict** the smallest p-value that
# flipping two signs can give.

# %% tags=["nbval-check-output"]
for patients in (2, 3, 4, 5, 6, 10):
    print(f"{patients:2} patients: at best p = 2 / {2**patients} = {2 / 2**patients:.4f}")
print(sign_flip_test([0.04, 0.05]).reason)
print(bootstrap_interval([0.90, 0.82]).reason)

# %% [markdown]
# However large the difference is, half of all sign flips are as extreme: with two patients p is never
# below 0.5. Six are the fewest with which 0.05 can be reached at all, and the bootstrap of two has only three
# possible means. So reports of this course give, below six patients, the scores of each, the standard
# deviation over training seeds, and a sentence that says why there is no interval.

# %% [markdown]
# ## 11. Without the library (2 min)
#
# The scores of one patient by MONAI, an interval and a paired test over the thirty phantoms by SciPy. The
# `assert`s compare with ours.

# %%
prediction = torch.from_numpy(guess)[None, None].float()
target = torch.from_numpy(truth)[None, None].float()
spacing = ct.spacing_mm
monai_scores = [
    compute_dice(prediction, target).item(),
    compute_surface_dice(prediction, target, class_thresholds=[2.0], spacing=spacing).item(),
    compute_hausdorff_distance(prediction, target, percentile=95, spacing=spacing).item(),
]
low, high = stats.bootstrap((dice[0],), np.mean, method="BCa", rng=0).confidence_interval
p_value = stats.permutation_test(
    (dice[0] - dice[1],), np.mean, permutation_type="samples", n_resamples=9999, rng=0
).pvalue
print(
    np.round(monai_scores, 3),
    f"mean {dice[0].mean():.3f} ({low:.3f} to {high:.3f}), p = {p_value:.4f}",
)

ours = metrics.evaluate_volume(guess, truth, spacing, tolerance_mm=2.0)
assert np.allclose(monai_scores, [ours["dice"], ours["nsd"], ours["hd95"]], atol=1e-4)
wider = bootstrap_interval(dice[0])
assert wider.low - 0.005 < low < high < wider.high + 0.005 and p_value < 0.001

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Compute** scores from four counts; F1 is Dice, and accuracy depends on the background.
# - **Choose** an averaging, a rule for empty masks and an ignore region, and name all three: on 218 patients
#   the averaging alone moves the score by a tenth.
# - **Measure** surface distances in mm, in both directions, with a tolerance that was chosen before.
# - **Tell apart** predictions of equal Dice: by surfaces, by vertebra, by eye, and by what they are for.
# - **Give** an interval and a paired test over patients, never over slices, and give neither for two.
#
# Next: lesson 8 takes these tools to a published table.
