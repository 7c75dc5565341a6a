# %% [markdown]
# # Capstone: an unseen scan, an empty notebook
#
# Nine lessons took you from a file to a judged segmentation, with help at every step. Now there is a
# scan that no network of this course was trained on, and no help. With the field's own tools you will
#
# - **load** an unseen CT and look at it before anything else,
# - **segment** its spine with a trained network that you build and load by yourself,
# - **clean** the mask up, with a reason for each step,
# - **export** it so that it lies on its scan in any program,
# - **say** in five sentences how far you would trust it.
#
# It takes about 75 minutes. Everything that you need was in the lessons: nibabel in
# [lesson 1](01_ct_loading.ipynb), the network in [lesson 4](04_unet.ipynb), whole scans, cleaning and
# export in [lesson 9](09_from_slices_to_volumes.ipynb).

# %% [markdown]
# ## 1. What you are given (5 min)
#
# The library's part ends with this cell: it says where the scan and the weights lie. The patient has a
# chest CT, C7 to L1, with wires in the sternum from an operation.

# %%
from spine_lib.datasets import unseen_patient
from spine_lib.training.pretrained import weights_path

ct_path, _ = unseen_patient()
weights = weights_path("unet_light")
print(ct_path.name, "and", weights.name)

# %% [markdown]
# The weights, stored in half precision, fit
# [`smp.Unet`](https://smp.readthedocs.io/en/latest/models.html#unet) with the encoder
# `timm-tf_efficientnet_lite0` and one input channel. They were trained on
#
# - axial slices with pixels of 1.5 mm, rows from anterior to posterior, columns from the patient's right
#   to left;
# - HU clipped to $[-250, 1000]$ and scaled linearly to $[-1.5, 2.5]$;
# - one logit a pixel, spine where the probability is at least 0.5.
#
# Your mask counts from 1 where there is spine, and lies on the scan's own grid, in its own orientation.
# Do not import `spine_lib` again before section 3. To work on a scan of your own, for example of
# [VerSe](https://github.com/anjany/verse), name its path instead.

# %% [markdown]
# ## 2. Your notebook (50 min)
#
# Write below; add cells as you need them. A plan, if you want one, with what each step should make you
# look at:
#
# 1. Load: shape, spacing, orientation, range of HU. Does anything contradict CT in HU?
# 2. Look: one sagittal slice in the bone window, upright, in true proportions.
# 3. Prepare: orientation, scaling, padding to a multiple of 32.
# 4. Predict in batches, without gradients; undo the padding.
# 5. Clean: which pieces are there, how large, and where? Keep what you can justify.
# 6. Measure: the mask's volume in millilitres. Is it plausible for C7 to L1?
# 7. Export with the scan's affine and header, as small integers; open the file again and draw it over
#    the scan.

# %% tags=["exercise"]
# Load and look.


# %% tags=["exercise"]
# Prepare, predict, clean.


# %% tags=["exercise"]
# Export as my_mask.nii.gz, and look at it again.


# %% [markdown]
# ## 3. Hand it in (5 min)
#
# The check compares your file with its scan: grid, position, the Dice near T12, the only vertebra that
# is labelled here, and how far along the scan there is spine. Voxels more than 3 mm from T12 are not
# scored, since nobody labelled them; you have looked at them. If all is right, it writes a certificate
# with your name and the exercises that you solved in this folder.

# %%
from spine_lib.course import certify

certify("my_mask.nii.gz", name="")

# %% [markdown]
# The library's own `spine predict` reaches a Dice of 0.93 by this rule, a threshold of 200 HU one of
# 0.61. For another scan, give `certify` its `ct_path` and `truth_path`.

# %% [markdown]
# ## 4. How far would you trust it? (15 min)
#
# Write five sentences here, for a colleague who will measure vertebrae on your mask:
#
# 1. On what was the network trained, and how does this patient differ?
# 2. Where did you look, and where is the mask wrong?
# 3. What does one Dice near T12, from labels that a model made, say about the other vertebrae?
# 4. What did your cleaning remove that may have been spine, and keep that was not?
# 5. What would have to be measured, on whom, before anyone acts on such a mask?
#
# A good answer names slices and structures, and no number that you did not measure.

# %% [markdown]
# ## 5. What you can do now
#
# - **load** a CT and doubt it before using it,
# - **segment** a spine with a network, without this library,
# - **clean** a mask, and say what that may cost,
# - **export** a mask that lies on its scan,
# - **say** what a score means, and what it does not.
#
# From here: `spine fetch --more` brings more patients, `spine reproduce` takes them, and a network for
# your own scans begins with labels of your own.
