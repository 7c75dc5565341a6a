# %% [markdown]
# # Training on GPU: a loop by hand, Lightning, and what a GPU changes
#
# Two networks are trained on real patients; every cell runs on `device`, a GPU where there is one, the CPU
# otherwise. In this notebook you will
#
# - **train** smp's U-Net and DeepLabv3+ on real patients, with a loop written by hand and with Lightning,
#   and score them on patients that they were not trained on,
# - **choose** a loss for one pixel in a hundred, by measurement over seeds, and a schedule,
# - **stop** a run, resume it to the same numbers, and recognise overfitting in a validation curve,
# - **compute** what a step keeps in memory, and make a batch fit that does not,
# - **use** half precision, loaders, a profile and several processes, and say what each changes.
#
# It takes about 75 minutes, six exercises included; the cells alone run in about three minutes on one core.

# %% [markdown]
# ## 1. A device and real patients (4 min)
#
# What computes here? A T4 (Colab, Kaggle) has no bfloat16, and PyTorch would emulate it slowly;
# `including_emulation=False` asks what the hardware has.

# %% tags=["gpu"]
# The device
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spine_lib.training import choose_precision

plt.style.use("spine_lib.course.lesson")
apple = "mps" if torch.backends.mps.is_available() else "cpu"
device = "cuda" if torch.cuda.is_available() else apple
if device == "cuda":
    card = torch.cuda.get_device_properties(0)
    print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute {card.major}.{card.minor}")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    half = torch.bfloat16 if bf16 else torch.float16
else:
    half = torch.bfloat16 if choose_precision("auto", device) == "bf16-mixed" else None
    print(f"no CUDA GPU: {device}, {torch.get_num_threads()} threads; half precision: {half}")

# %% [markdown]
# Training takes the **chest** (C6 to L3). The **abdomen** (T11 to S1) is held out to *choose* with: when to
# stop, which weights to keep. The test pair, **dicom** and **crop**, is scored once, when nothing is left to
# choose. On a CPU pixels are 3 mm and patches small; a GPU takes the course's 1.5 mm.

# %%
from spine_lib.course import check, course_case, hint, pick, progress, solution
from spine_lib.slices import cut_slices, network_input

pixel_mm, side = (1.5, 128) if device == "cuda" else (3.0, 64)
names = ("chest", "abdomen", "dicom", "crop")
patients = {name: cut_slices(course_case(name), "axial", pixel_mm) for name in names}
for name, pixels in patients.items():
    known = pixels["label"][pixels["label"] != 255]
    print(f"{name:8} {pixels.shape}, spine in {100 * np.mean(known > 0):.2f} % of the pixels")

# %% [markdown]
# The dataset is lesson 3's: a slice, random changes seeded by the item's number, a crop that shows spine three
# times in four.

# %%
import albumentations as A
from torch.utils.data import DataLoader, Dataset

air = {"border_mode": 0, "fill": -1024, "fill_mask": 255}
affine = A.Affine(scale=(0.8, 1.25), rotate=(-15, 15), **air, p=0.8)
augment = A.Compose([A.PadIfNeeded(side, side, **air), affine, A.HorizontalFlip(p=0.5)])


# %%
class Patches(Dataset):
    def __init__(self, names, length, seed=0):
        self.names, self.length, self.seed = names, length, seed

    def __len__(self):
        return self.length

    def __getitem__(self, item):
        random = np.random.default_rng((self.seed, item))
        pixels = patients[self.names[item % len(self.names)]]
        pixels = pixels[random.integers(len(pixels))]
        augment.set_random_seed(int(random.integers(2**31)))
        changed = augment(image=pixels["hu"].astype(np.float32), mask=pixels["label"])
        hu, label = changed["image"], changed["mask"]
        spine = np.argwhere((label > 0) & (label < 255))
        middle = random.integers(hu.shape)
        if len(spine) and random.random() < 0.75:
            middle = random.choice(spine) + random.integers(-side // 4, side // 4 + 1, 2)
        row, column = np.clip(middle - side // 2, 0, np.subtract(hu.shape, side))
        window = np.s_[row : row + side, column : column + side]
        image = network_input(hu[window]) * random.uniform(0.9, 1.1) + random.uniform(-0.1, 0.1)
        known = label[window] != 255
        parts = image, known & (label[window] > 0), known
        return tuple(torch.from_numpy(part[None].astype(np.float32)) for part in parts)


# %% [markdown]
# ## 2. The loop, by hand (18 min)
#
# A batch goes through the network and comes out as **logits**, one number a pixel: above 0 means "rather
# spine". The **loss** says how wrong it is, as one number that depends on every weight. Binary
# cross-entropy takes the negative logarithm of the probability given to the right answer; a network that
# always says 50 % pays $\log 2$, or 0.69.

# %%
import segmentation_models_pytorch as smp

torch.manual_seed(0)
loader = DataLoader(Patches(["chest"], 8), batch_size=8, pin_memory=device == "cuda")
image, target, weight = (part.to(device, non_blocking=True) for part in next(iter(loader)))
network = smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)
network = network.to(device, memory_format=torch.channels_last)
loss = functional.binary_cross_entropy_with_logits(network(image), target)
loss.backward()
first = network.encoder.conv1.weight
print(f"loss {loss.item():.3f}; derivative by the first weight {first.grad.flatten()[0]:.5f}")

# %% [markdown]
# `backward` computes the **gradient**, the derivative of the loss by each weight, and *adds* it to `.grad`.
# Without `zero_grad` there is no error; the optimiser follows the sum of all batches so far. The optimiser
# moves every weight against its gradient, AdamW at first by about the **learning rate**.
#
# ### Exercise 6.1 ★☆☆: a training step


# %% tags=["exercise"]
def training_step(network, optimiser, image, target):
    """Do one step of training: the weights change a little, so that the loss gets smaller.

    network:   maps images to logits; it may be in evaluation mode, and is to be in training mode.
    optimiser: holds the network's weights; gradients of an earlier step may still be there.
    image:     float32 tensor [batch, 1, row, column].
    target:    float32 tensor of the same shape, 0 or 1.
    returns the loss before the step, a Python number: the mean binary cross-entropy, which takes
    logits (torch.nn.functional.binary_cross_entropy_with_logits).
    """
    raise NotImplementedError


# %%
check("6.1", training_step)

# %% [markdown]
# Training repeats that step. The loss is cross-entropy plus soft Dice (next section) over the labelled
# pixels. Multiplications run in 16 bits (`autocast`); if these are float16, a `GradScaler` keeps small
# gradients from becoming 0 (section 8).


# %%
def dice_loss(logits, target, weight, smoothing=10.0):
    probability = logits.sigmoid() * weight
    overlap, total = (probability * target).sum(), probability.sum() + (target * weight).sum()
    return 1 - (2 * overlap + smoothing) / (total + smoothing)


def loss_of(logits, target, weight):
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * weight).sum() / weight.sum() + dice_loss(logits, target, weight)


# %%
def whole_slices(name, every=1):
    """Return image, target and weight of every n-th slice of a patient, padded with air."""
    pixels = patients[name][::every]
    padding = [(0, 0), *((0, -n % 32) for n in pixels.shape[1:])]
    hu = np.pad(pixels["hu"], padding, constant_values=-1024)
    label = np.pad(pixels["label"], padding, constant_values=255)
    parts = network_input(hu), (label > 0) & (label != 255), label != 255
    return tuple(torch.from_numpy(part[:, None].astype(np.float32)) for part in parts)


def score(network, name, every=1):
    """Return loss and Dice of whole slices."""
    image, target, weight = whole_slices(name, every)
    with torch.inference_mode(), torch.autocast(device, half, enabled=half is not None):
        parts = [network.eval()(part.to(device)).float().cpu() for part in image.split(16)]
    logits = torch.cat(parts)
    predicted = (logits > 0) * weight
    dice = 2 * (predicted * target).sum() / (predicted.sum() + target.sum())
    return loss_of(logits, target, weight).item(), dice.item()


# %% [markdown]
# One step, and the loop around it. At times the abdomen is scored, and the weights are kept if they are the
# best so far. A checkpoint that is there is loaded; delete the file to train anew.


# %%
def one_step(network, optimiser, scaler, batch):
    """Return the loss of a batch; the weights are moved."""
    image, target, weight = (part.to(device, non_blocking=True) for part in batch)
    with torch.autocast(device, half, enabled=half is not None):
        logits = network.train()(image.contiguous(memory_format=torch.channels_last))
    loss = loss_of(logits.float(), target, weight)
    optimiser.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    scaler.step(optimiser)
    scaler.update()
    return loss.detach()


# %%
def train(network, names, steps, every, path, rate=1e-3):
    """Train, or load what was trained; return rows of step, loss, and the abdomen's loss and Dice."""
    if not path.is_file():
        rows, losses, started = [], [], time.process_time()
        optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.2)
        scaler = torch.amp.GradScaler(device, enabled=half is torch.float16)
        loader = DataLoader(Patches(names, 8 * steps), 8, pin_memory=device == "cuda")
        for step, batch in enumerate(loader, start=1):
            losses.append(one_step(network, optimiser, scaler, batch))
            schedule.step()
            if step % every == 0:
                mean = torch.stack(losses[-every:]).mean().item()
                rows.append((step, mean, *score(network, "abdomen", 8)))
                if rows[-1][-1] == max(row[-1] for row in rows):
                    best = {key: value.clone() for key, value in network.state_dict().items()}
        torch.save({"weights": best, "rows": rows, "cpu_s": time.process_time() - started}, path)
    kept = torch.load(path, map_location=device, weights_only=True)
    network.load_state_dict(kept["weights"])
    print(f"trained in {kept['cpu_s']:.0f} s of processor time")
    return kept["rows"]


# %%
from spine_lib.datasets import sample_root

runs = sample_root().parent / pick(full="lesson-06", fast="lesson-06-fast")
runs.mkdir(exist_ok=True)
on_gpu = device == "cuda"
steps = pick(full=3000 if on_gpu else 100, fast=4)
torch.manual_seed(0)
unet = smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)
unet = unet.to(device, memory_format=torch.channels_last)
rows = train(unet, ["chest"], steps, max(2, steps // 10), runs / f"unet_{side}.pt")
for step, train_loss, loss, dice in rows:
    print(f"step {step:4}: loss {train_loss:.3f}, abdomen: loss {loss:.3f}, Dice {dice:.3f}")

# %% [markdown]
# The training loss falls all the way; the abdomen's Dice swings, is best at step 90, and those weights are kept.
# At step 50 the training loss has halved and the Dice is 0.07: a training loss says little about another patient.
# Random weights and one patient are little to start from; section 5 begins with pretrained ones.
#
# This validation runs, and its number differs from the one above: it has four faults.


# %%
import copy


def validate(network, batches):
    scores = []
    for image, target in batches:
        prediction = torch.sigmoid(network(image)) > 0
        overlap = (prediction * target).sum()
        scores.append(2 * overlap / (prediction.sum() + target.sum()))
    return np.mean(scores)


twin = copy.deepcopy(unet).cpu().train()  # as within a loop
images, targets, _ = whole_slices("abdomen", 8)
print(f"Dice of the abdomen: {validate(twin, list(zip(images.split(2), targets.split(2)))):.3f}")

# %% [markdown]
# ### Exercise 6.2 ★☆☆: four faults in a validation


# %% tags=["exercise"]
def validate(network, batches):
    """Return the Dice of a network on held-out batches, all their pixels pooled, a Python number.

    network: maps images to logits; it comes and leaves in training mode, and predicts in
             evaluation mode, without a graph for gradients.
    batches: list of pairs: image and target, float32 tensors [batch, 1, row, column].
    A pixel is spine where its probability is above one half.
    """
    raise NotImplementedError


# %%
check("6.2", validate)

# %% [markdown]
# ## 3. A loss for one pixel in a hundred (9 min)
#
# An empty mask is right in 99 % of the pixels of a slice. Three losses compete: **cross-entropy**, in which
# every pixel counts alike; **soft Dice**; and **focal loss**, cross-entropy with little weight for pixels
# that are nearly right. With probabilities $p$, targets $t$ and weights $w$ (0 where unlabelled), summed
# over the batch,
#
# $$\mathrm{Dice\ loss} = 1 - \frac{2 \sum p\,t\,w + s}{\sum p\,w + \sum t\,w + s},$$
#
# where the smoothing $s$ keeps a batch without spine from dividing 0 by 0. Imagine a network that gives
# *every* pixel the same probability. **Predict** which probability each loss prefers.

# %%
from spine_lib.training import segmentation_loss

share = float(np.mean((patients["chest"]["label"] > 0) & (patients["chest"]["label"] < 255)))
truth = torch.zeros(8, 1, 64, 64)
truth.view(-1)[: round(share * truth.numel())] = 1
answers, ones = torch.linspace(0.002, 0.998, 250), torch.ones_like(truth)
constant = [torch.full_like(truth, float(p)).logit() for p in answers]
curves = {
    kind: [segmentation_loss(c, truth, ones, kind) for c in constant] for kind in ("bce", "focal")
}
for smoothing in (10, 1):
    curves[f"Dice, s = {smoothing}"] = [dice_loss(c, truth, ones, smoothing) for c in constant]
for name, losses in curves.items():
    print(f"{name:12} lowest at {answers[np.argmin(losses)]:.3f}: {min(losses):.3f}")

# %% [markdown]
# Cross-entropy prefers the prevalence, focal loss somewhat more; both find nothing and cost little. Dice is
# close to 1 for every constant: only *where* counts. Which constant it prefers is an artefact of the
# smoothing: almost nothing with $s = 10$ pixels, spine everywhere with $s = 1$. The gradients differ more: at
# 50 % everywhere, 1 % of cross-entropy's gradient lies on spine, as of the pixels, and half of Dice's.
#
# The focal loss ([Lin et al. 2017](https://doi.org/10.1109/ICCV.2017.324)), with $q$ the
# probability of the right answer, is
#
# $$-(1 - q)^2 \log q.$$
#
# ### Exercise 6.3 ★☆☆: focal loss


# %% tags=["exercise"]
def focal_loss(logits, target, weight):
    """Return the focal loss of a batch, a tensor that has a slope.

    logits: float32 tensor [batch, 1, row, column], sometimes as large as 200.
    target: float32 tensor of the same shape, 0 or 1.
    weight: float32 tensor of the same shape, 1 where the label is known and 0 elsewhere.
    Each pixel's cross-entropy is multiplied by the square of how wrong the pixel is: of one minus
    the probability that the network gives to the right answer. The loss is the mean of that over
    the pixels whose label is known.
    """
    raise NotImplementedError


# %%
check("6.3", focal_loss)

# %% [markdown]
# A small network was trained with each loss on coarse phantoms (1.4 % of the pixels are spine; in the paper's
# probable data 0.79 % of the voxels), with three seeds. Here is its last Dice on held-out phantoms.

# %%
import pandas as pd

from spine_lib.course import lesson_result

rows = lesson_result("losses")["seeds"]
last = {
    f"seed {row['seed']}": {kind: found["curve"][-1][1] for kind, found in row["losses"].items()}
    for row in rows
}
print(pd.DataFrame(last).round(3).to_string())

# %% [markdown]
# With the third seed, cross-entropy, focal loss and focal plus Dice have learnt next to nothing: one seed would
# have misled. This course takes `bce_dice`, among the best with every seed.

# %% [markdown]
# ## 4. The learning rate (6 min)
#
# 0.001 with AdamW is a common first choice; a *range test*
# ([Smith 2017](https://doi.org/10.1109/WACV.2017.58)), in which the rate rises step by step, finds another.
# Most runs start small, since the first gradients are large, and end small, so that the weights settle.
#
# ### Exercise 6.4 ★☆☆: a schedule


# %% tags=["exercise"]
def learning_rate(step, steps, highest, warm_up):
    """Return the learning rate of one step: a straight line up, then half a cosine wave down.

    step:    number of the step, from 0.
    steps:   how many there are; the wave would reach 0 at a step of that number.
    highest: reached in the last step of the warm-up, and still there in the one after it.
    warm_up: number of steps that the line takes; the first of them has highest / warm_up.
    """
    raise NotImplementedError


# %%
check("6.4", learning_rate)

# %% [markdown]
# The loop above took PyTorch's *one cycle* ([Smith and Topin](https://doi.org/10.1117/12.2520589)): up along a
# cosine for a fifth of the run, and down for the rest.

# %% [markdown]
# ## 5. The same in Lightning (9 min)
#
# [Lightning](https://lightning.ai/docs/pytorch/stable/) has device, precision, clipping, checkpoints and
# logs; a `LightningDataModule` and a `LightningModule` state the rest. The encoder is a light one, whose
# ImageNet weights come in a Python package; `encoder_weights="imagenet"` would download ResNet34's. On a GPU the
# network is DeepLabv3+, on a CPU a U-Net, which needs fewer steps.

# %%
import logging

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import ConcatDataset, TensorDataset
from torchmetrics.classification import BinaryF1Score

from spine_lib.models import build_model

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
encoder = "timm-tf_efficientnet_lite0"
pretrained = build_model(f"unet_{encoder}", encoder_weights="package").encoder.state_dict()


def new_network():
    architecture = smp.DeepLabV3Plus if device == "cuda" else smp.Unet
    network = architecture(encoder, encoder_weights=None, in_channels=1)
    network.encoder.load_state_dict(pretrained)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # EfficientNet's 0.01 is too slow for a short run
    return network


# %%
class Data(L.LightningDataModule):
    def __init__(self, fresh):
        super().__init__()
        self.fresh = fresh

    def train_dataloader(self):
        length = 800 if device == "cuda" else 64
        if self.fresh:
            return DataLoader(Patches(["chest"], length, self.trainer.current_epoch), 8)
        return DataLoader(ConcatDataset([Patches(["chest"], 16)] * (length // 16)), 8)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*whole_slices("abdomen", 8)), 16)


# %%
class Segmentation(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = new_network()
        self.dice = BinaryF1Score(ignore_index=-1)  # F1 and Dice are the same number (lesson 7)

    def training_step(self, batch, index):
        loss = loss_of(self.network(batch[0]).float(), *batch[1:])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        image, target, weight = batch
        logits = self.network(image).float()
        self.dice(logits.sigmoid(), torch.where(weight > 0, target, -1).int())
        self.log_dict({"val_loss": loss_of(logits, target, weight), "val_dice": self.dice})

    def configure_optimizers(self):
        optimiser = torch.optim.AdamW(self.parameters(), 1e-3, weight_decay=0.01)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, steps, pct_start=0.2)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


# %% [markdown]
# No `backward`, no `zero_grad`, no `.to(device)`: the `Trainer` does these. Callbacks keep the weights of
# the best Dice, and stop when the abdomen's loss has not fallen for five epochs. Two runs: with the *same*
# 16 patches over and over (a seed that never changes), and with fresh ones. **Predict** how their loss curves
# differ.


# %%
def fit(name, fresh):
    """Train until the validation Dice stops rising, or load; return the log as a table."""
    folder = runs / f"{name}_{side}"
    if not (folder / "finished").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(0)
        started = time.process_time()
        best = ModelCheckpoint(
            folder, "best", monitor="val_dice", mode="max", save_weights_only=True
        )
        stop = EarlyStopping("val_loss", patience=5)
        precision = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}.get(half, "32-true")
        trainer = L.Trainer(
            accelerator=device, devices=1, precision=precision, gradient_clip_val=1.0,
            max_epochs=pick(full=14, fast=2), reload_dataloaders_every_n_epochs=1,
            callbacks=[best, stop], log_every_n_steps=8,
            logger=[CSVLogger(folder, "", ""), TensorBoardLogger(folder, "", "")],
            num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Segmentation(), Data(fresh))
        (folder / "finished").write_text(f"{time.process_time() - started:.0f}")
    print(f"{name}: trained in {(folder / 'finished').read_text()} s of processor time")
    return pd.read_csv(folder / "metrics.csv").groupby("epoch").first()


# %%
import shutil
import warnings

warnings.filterwarnings("ignore", module="lightning")
logs = {"same": fit("same", fresh=False), "fresh": fit("fresh", fresh=True)}
for name, log in logs.items():
    best = log["val_dice"].idxmax()
    print(
        f"{name:5} stopped after {len(log)} epochs; best in epoch {best}: {log['val_dice'][best]:.3f}"
    )

# %%
figure, panels = plt.subplots(1, 2, figsize=(6.2, 2.8), sharey=True)
for axes, (name, log) in zip(panels, logs.items()):
    axes.plot(log["train_loss"], label="training")
    axes.plot(log["val_loss"], "--", label="validation")
    axes.plot(log["val_dice"], ":", color="C3", label="validation Dice")
    axes.axvline(log["val_dice"].idxmax(), color="#D55E00", linewidth=0.8, label="weights kept")
    axes.set(title=f"{name} patches", xlabel="epoch", ylim=(0, 1.8))
panels[0].set_ylabel("loss, Dice")
panels[1].legend()
plt.show()

# %% [markdown]
# *Figure: training and validation curves of two runs, and the epoch whose weights were kept.*
# <!-- alt: left, the training loss falls to 0.3, the validation loss stays near 1, and the Dice peaks at 0.3 in
# epoch 4 and falls to 0.07; right, the losses fall to 0.5 and 0.7, and the Dice rises to 0.6. -->
#
# With the same 16 patches the training loss goes on falling while the abdomen's stays near 1, and its Dice, best
# in epoch 4, falls to 0.07: the patches have been learnt by heart. That is **overfitting**, and why the weights
# of epoch 4 are kept. With fresh patches both losses fall. `EarlyStopping` ends a run after five epochs without
# progress; neither had as many. `tensorboard --logdir` with the folder shows the curves while a run goes on (on
# Colab `%load_ext tensorboard`, then `%tensorboard --logdir ...`).
#
# Now the test pair, once, with nothing left to choose:

# %%
checkpoint = runs / f"fresh_{side}" / "best.ckpt"
light = Segmentation.load_from_checkpoint(checkpoint, weights_only=True).network.to(device)
test = {}
for name, network in {"loop": unet, "Lightning": light}.items():
    test[name] = {patient: score(network, patient)[1] for patient in ("dicom", "crop")}
    print(f"{name:10}", "  ".join(f"{patient} {dice:.3f}" for patient, dice in test[name].items()))

# %% [markdown]
# With the pretrained encoder and fresh patches dicom comes to 0.72, against 0.55 from random weights. The crop, a
# box that holds hardly more than L3 and looks like no training patch, comes to 0.58 against 0.69: with one
# patient to train on, one seed, pixels of 3 mm and a coarse mask of dicom, such an order means little. While the
# lesson was written, six variants were scored on this pair as well; none was chosen by it. The shipped models are
# judged in lesson 7.

# %% [markdown]
# ## 6. Killed, and resumed to the same numbers (9 min)
#
# Runs end early: a time limit, a full disk. What must a checkpoint hold so that the run goes on as if
# nothing had happened? More than the weights.
#
# ### Exercise 6.6 ★☆☆: a checkpoint


# %% tags=["exercise"]
def make_checkpoint(network, optimiser, schedule, step):
    """Gather all that a run needs to go on after a stop as if there had been none.

    network:   with dropout, which draws from PyTorch's random numbers (torch.get_rng_state).
    optimiser: AdamW, which remembers a mean gradient for every weight.
    schedule:  of the learning rate.
    step:      number of steps done.
    returns a dict with the keys "network", "optimiser", "schedule", "random" and "step". It is
    written by torch.save and read by torch.load(..., weights_only=True), which takes tensors,
    numbers and containers of them, and refuses objects that could run code.
    """
    raise NotImplementedError


# %%
check("6.6", make_checkpoint)

# %% [markdown]
# `load_or_train` of the library is section 5 with exactly this: data that resume, atomic files, averaged
# weights. A script calls it in a process of its own, on small phantoms, so that it can be killed.

# %%
import tempfile

work = Path(tempfile.mkdtemp(prefix="lesson-06-"))
script = """\
import sys
from pathlib import Path
from spine_lib.datasets import phantom_cases
from spine_lib.slices import Augmentation, prepare
from spine_lib.training import Processes, Recipe, load_or_train

recipe = Recipe(steps=12, steps_per_epoch=4, batch=4, workers=0, averaging=0.5,
                precision="32-true", augmentation=Augmentation(size=32))

def run(name, devices=1):
    here, grid = Path(__file__).parent, {"shape": (64, 64, 32), "spacing_mm": 4.0}
    stores = [prepare(phantom_cases(count, 400 + count, **grid), here / f"{count}", spacing_mm=4)
              for count in (2, 1)]
    return load_or_train("unet_resnet18", recipe, *stores, here / name, "cpu", False,
                         processes=Processes(devices))

if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
"""
_ = (work / "job.py").write_text(script, encoding="utf-8")

# %%
import subprocess
import sys

command, pipe = [sys.executable, str(work / "job.py")], subprocess.PIPE
process = subprocess.Popen([*command, "killed", "1"], stdout=pipe, stderr=pipe)
while process.poll() is None and not (work / "killed" / "last.ckpt").is_file():
    time.sleep(0.02)
process.kill()
process.communicate()
print(sorted(path.name for path in (work / "killed").glob("[!.]*")))

# %% [markdown]
# The process was killed in the middle of an epoch. `last.ckpt` is of the end of an epoch; there is no
# `weights.safetensors`, which only a finished run has. Now a run that is never interrupted, and the killed
# one again, in this notebook:

# %%
sys.path.insert(0, str(work))
from job import run

pair = [run(name).network.state_dict() for name in ("unbroken", "killed")]
largest = max(float((pair[0][key] - pair[1][key]).abs().max()) for key in pair[0])
print("largest difference of any weight:", largest)
for name in ("last.ckpt", "weights.safetensors"):
    print(f"{name:20} {(work / 'unbroken' / name).stat().st_size / 1e6:6.1f} MB")

# %% [markdown]
# Zero, on a CPU; on a GPU, whose sums come in varying order, nearly. The checkpoint is several times as
# large: AdamW keeps two more numbers for each weight. Pass on the safetensors file, which holds numbers only; a
# `.ckpt` can run code unless it is opened with `weights_only=True`.

# %% [markdown]
# ## 7. What a step keeps in memory (10 min)
#
# Four things: parameters, their gradients, AdamW's two moments, and the **activations**, outputs of layers
# that `backward` needs. The first three depend on the network alone: for $P$ parameters in 32 bits,
#
# $$4P + 4P + 8P = 16P \ \text{bytes}.$$
#
# Activations grow with batch and patch. PyTorch calls a hook for every tensor that it saves; adding up
# their sizes needs no GPU.


# %%
def saved_mib(network, image, dtype=None):
    """Return how much memory the tensors take that a forward pass saves for backward, in MiB."""
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast(device, dtype, enabled=dtype is not None):
            output = network(image)
    weights = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    del output
    return sum(size for address, size in sizes.items() if address not in weights) / 2**20


# %%
parameters = sum(p.numel() for p in unet.parameters())
print(f"{parameters / 1e6:.1f} million parameters: 16P = {16 * parameters / 2**20:.0f} MiB")
unet.train()
for batch, size in ((2, 128), (4, 128), (8, 128)):
    image = torch.zeros(batch, 1, size, size, device=device)
    print(f"{batch} x {size}²: activations {saved_mib(unet, image):5.0f} MiB in float32,", end=" ")
    print(f"{saved_mib(unet, image, half or torch.bfloat16):5.0f} MiB in 16 bits")

# %% [markdown]
# In float32, activations are proportional to batch and area. In 16 bits they are half as large, and 16-bit
# copies of the weights ($2P$) come in addition. On a GPU the next cell measures a step, then allows itself
# 2 GiB and doubles the batch until PyTorch raises `OutOfMemoryError`.

# %% tags=["gpu"]
# Memory of a step on the GPU, and out of memory
optimiser = torch.optim.AdamW(unet.parameters(), 0.0)
no_scaler = torch.amp.GradScaler(device, enabled=False)
blank = [torch.zeros(8, 1, 128, 128), torch.zeros(8, 1, 128, 128), torch.ones(8, 1, 128, 128)]
if device == "cuda":
    one_step(unet, optimiser, no_scaler, blank)
    torch.cuda.reset_peak_memory_stats()
    one_step(unet, optimiser, no_scaler, blank)
    in_use, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    print(f"after a step {in_use / 2**20:.0f} MiB, at most {peak / 2**20:.0f} MiB")
    torch.cuda.set_per_process_memory_fraction(2 * 2**30 / card.total_memory)  # 2 GiB
    batch = 8
    try:
        while True:
            one_step(unet, optimiser, no_scaler, [p.repeat(batch // 8, 1, 1, 1) for p in blank])
            batch *= 2
    except torch.cuda.OutOfMemoryError as error:
        print(f"batch {batch}: {str(error).split('. ')[0]}")
    optimiser.zero_grad()
    for part in blank[0].repeat(batch // 8, 1, 1, 1).split(batch // 4):  # gradients add up
        with torch.autocast(device, half):
            unet(part.to(device)).float().mean().backward()
    print(f"batch {batch} fits in four parts")
    torch.cuda.set_per_process_memory_fraction(1.0)

# %% [markdown]
# The cures, in the order to try them: 16 bits; a smaller batch; **accumulation**, a batch in parts;
# **checkpointing**, which saves less and computes it again. Gradients add up, so a batch of 16 can pass in
# four parts of 4, with one optimiser step at the end. Is it exactly the same step?
#
# ### Exercise 6.5 ★☆☆: a batch in parts


# %% tags=["exercise"]
def accumulated_step(network, optimiser, image, target, parts):
    """Do one step on a batch that does not fit into memory, in several parts.

    network:   maps images to logits; it has no BatchNorm.
    optimiser: holds its weights; gradients of an earlier step may still be there.
    image:     float32 tensor [batch, 1, row, column]; target is of the same shape.
    parts:     how many parts to cut the batch into (torch.tensor_split makes them nearly equal).
    The weights end where one step on the mean binary cross-entropy of the whole batch would bring
    them. returns that mean, a Python number.
    """
    raise NotImplementedError


# %%
check("6.5", accumulated_step)


# %% [markdown]
# The gradients are equal up to rounding for cross-entropy, a mean over equally many pixels. They are not for
# **Dice**, since the mean of four overlaps is not the overlap of all, nor with **batch normalisation** in
# training mode, which subtracts the mean of *its* part. Checkpointing changes no gradient; it trades about a
# third more time for memory:

# %%
from torch.utils.checkpoint import checkpoint


def checkpointed(image):
    features = checkpoint(unet.encoder, image, use_reentrant=False)
    return unet.segmentation_head(unet.decoder(features))


image = torch.zeros(8, 1, 128, 128, device=device)
for name, network in {"as it is": unet, "encoder checkpointed": checkpointed}.items():
    print(f"{name:20} keeps {saved_mib(network, image):4.0f} MiB")

# %% [markdown]
# ## 8. Speed: half precision, copies, a profile (5 min)
#
# A GPU's matrix units take 16-bit numbers several times as fast. There are two kinds of them.

# %% tags=["nbval-check-output"]
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    info = torch.finfo(dtype)
    small_gradient, near_one = torch.tensor([2e-8, 1.001]).to(dtype)
    scaled = (torch.tensor(2e-8) * 2**16).to(dtype).float() / 2**16
    print(f"{str(dtype)[6:]:8} largest {info.max:.0e}, smallest normal {info.tiny:.0e}:", end=" ")
    print(f"2e-8 is {small_gradient:.0e}, scaled first {scaled:.0e}; 1.001 is {near_one:.4f}")

# %% [markdown]
# float16 loses digits below its smallest normal number, $2^{-14}$, and is 0 below $2^{-25}$: small
# gradients vanish, so a `GradScaler` multiplies the loss first and divides the gradients afterwards.
# bfloat16 has float32's range and needs none; but 1.001 is 1, and small steps of a weight would be lost.
# Hence **mixed** precision: weights and sums in float32, multiplications in 16 bits. The second switch is
# the order in memory, *channels last*.


# %%
def step_ms(network, dtype, layout, steps):
    """Return milliseconds of a forward and backward pass; the first is not counted."""
    image = torch.zeros(8, 1, side, side, device=device).contiguous(memory_format=layout)
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype is not None):
            loss = network(image).float().mean()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()  # a GPU's calls return before it has finished
    return 1000 * (time.perf_counter() - started) / steps


# %% tags=["gpu"]
# Milliseconds of a step
resnet = smp.Unet("resnet18", encoder_weights=None, in_channels=1).to(device)
for layout in (torch.contiguous_format, torch.channels_last):
    resnet.to(memory_format=layout)
    for dtype in dict.fromkeys((None, half)):
        ms = step_ms(resnet, dtype, layout, steps=pick(full=4, fast=1))
        print(f"{str(layout)[6:]:18} {str(dtype or torch.float32)[6:]:8} {ms:6.0f} ms")

# %% [markdown]
# Read these for *your* machine, and run the cell twice. On a GPU, **TF32** multiplies float32 in 19 bits,
# **cudnn.benchmark** tries several algorithms for each new shape and keeps the fastest, and
# **`torch.compile`** fuses operations, after a first step that takes half a minute.

# %% tags=["gpu"]
# Switches of a GPU
if device == "cuda":
    last = torch.channels_last
    print(f"as it is         {step_ms(resnet, half, last, 20):.1f} ms")
    torch.set_float32_matmul_precision("high")  # TF32
    torch.backends.cudnn.benchmark = True
    print(f"cudnn.benchmark  {step_ms(resnet, half, last, 20):.1f} ms")
    print(f"float32 as TF32  {step_ms(resnet, None, last, 20):.1f} ms")
    print(f"torch.compile    {step_ms(torch.compile(resnet), half, last, 20):.1f} ms")

# %% [markdown]
# And what keeps a GPU waiting? Copies: from *pinned* memory (`pin_memory=True`) and with
# `non_blocking=True`, as in `one_step`, they run beside the computation. The loader, where making a batch
# takes longer than a step. And the step itself: a profiler lists its operations, by the *device's* time
# where there is one.

# %% tags=["gpu"]
# A profile
import os

from torch.profiler import ProfilerActivity, profile

os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler's own messages
started = time.perf_counter()
batch = next(iter(DataLoader(Patches(["chest"], 8), 8)))
print(f"the loader takes {1000 * (time.perf_counter() - started):.0f} ms for a batch")
wanted = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
with profile(activities=wanted) as profiler:
    one_step(unet, optimiser, no_scaler, batch)
time_of = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
ordered = sorted(profiler.key_averages(), key=lambda row: -getattr(row, time_of))
total = sum(getattr(row, time_of) for row in ordered)
for row in ordered[:5]:
    print(f"{getattr(row, time_of) / total:5.0%}  {row.count:5} times  {row.key[:50]}")

# %% [markdown]
# Convolutions and their gradients should lead. If the loader's time is near the step's, add `num_workers`,
# processes that make the next batches meanwhile. And what does a GPU print?

# %%
from spine_lib import SpineError

try:
    for title, text in lesson_result("lesson06_gpu")["outputs"].items():
        print(f"--- {title}\n{text}")
except SpineError:
    print("This lesson has not been run on a GPU yet; `make lessons-gpu` runs it on one")
    print("and keeps here what its cells print.")

# %% [markdown]
# A benchmark on one H200 is in `docs/gpu.md`: 1583 images a second with TF32, 2134 in bf16, 2742 compiled.

# %% [markdown]
# ## 9. Two processes, a cluster, a hosted notebook (2 min)
#
# With several GPUs each has a copy of the network and takes its share of the batch; then gradients are
# averaged (*distributed data parallel*). The script of section 6 does it on two processes of this machine:

# %%
from spine_lib.training import read_log

finished = subprocess.run([*command, "two", "2"], capture_output=True, text=True)
print("exit code", finished.returncode, finished.stderr[-300:])
for name in ("unbroken", "two"):
    rows = [row for row in read_log(work / name / "metrics.csv") if "val_loss" in row]
    losses = ", ".join(f"{row['val_loss']:.3f}" for row in rows)
    print(f"{name:9} validation losses {losses}")
shutil.rmtree(work)

# %% [markdown]
# The batch is still 4, two patches for each process, the *same* patches. The numbers differ because of
# batch normalisation over two patches each. On GPUs `sync_batchnorm` shares the statistics.

# %% [markdown]
# On a cluster, SLURM starts the processes. `spine.sbatch`, handed in by `sbatch spine.sbatch`:
#
# ```
#  #!/bin/bash
# #SBATCH --job-name=spine           the name in `squeue`
# #SBATCH --nodes=1                  machines
# #SBATCH --ntasks-per-node=4        processes on each, one for every GPU
# #SBATCH --gpus-per-node=4
# #SBATCH --cpus-per-task=8          for the loader's workers of each process
# #SBATCH --mem=64G                  of the machine, not of the GPU
# #SBATCH --time=04:00:00            killed afterwards; the same line resumes it
# #SBATCH --output=%x-%j.log         name and number of the job
# srun .venv/bin/spine reproduce --recipe paper --devices 4 --nodes 1
# ```
#
# (Leave out the comments at the ends of lines: SLURM would take them for options.) The folder must lie on a
# disk that all machines see. Without SLURM, `torchrun --nproc-per-node 4 -m spine_lib reproduce --devices 4`
# does the same.

# %% [markdown]
# Two hosts lend a GPU for nothing:
#
# | hosted | turn the GPU on | precision | keep what is made |
# |---|---|---|---|
# | [Colab](https://research.google.com/colaboratory/faq.html) | Runtime, Change runtime type, T4 GPU | fp16: a T4 has no bf16 | mount Google Drive; a session ends when idle |
# | [Kaggle](https://www.kaggle.com/docs/notebooks) | Settings, Accelerator, GPU T4 x2 | the same | `/kaggle/working`; Save Version; at most 12 hours |

# %% [markdown]
# ## 10. Without the library (2 min)
#
# The test of the crop again, with nibabel, torch and smp alone.

# %%
import nibabel as nib
from scipy import ndimage

folder = sample_root() / "crop"
scans = (nib.load(folder / name) for name in ("ct.nii.gz", "mask.nii.gz"))
ct, mask = (nib.as_closest_canonical(scan).get_fdata(dtype=np.float32) for scan in scans)
hu, label = (torch.from_numpy(a[::-1, ::-1].T.copy())[:, None] for a in (ct, mask))
shape = [round(n * 1.5 / pixel_mm) for n in hu.shape[2:]]
ratio = hu.shape[2] / shape[0]
sigma = 0.4 * ratio if ratio > 1 else 0  # smoothed before pixels are dropped
hu = torch.from_numpy(ndimage.gaussian_filter(hu.numpy(), sigma, axes=(2, 3), mode="nearest"))
hu = functional.interpolate(hu, shape, mode="bilinear")
truth = functional.interpolate(label, shape, mode="nearest-exact") > 0
image = (hu.clip(-250, 1000) + 250) / 1250 * 4 - 1.5
image = functional.pad(image, (0, -shape[1] % 32, 0, -shape[0] % 32), value=-1.5)
network = smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)
network.load_state_dict(torch.load(runs / f"unet_{side}.pt", "cpu", weights_only=True)["weights"])
with torch.inference_mode():
    predicted = network.eval()(image)[..., : shape[0], : shape[1]] > 0
dice = float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
print(f"Dice of the crop: {dice:.3f}; above: {test['loop']['crop']:.3f}")
assert abs(dice - test["loop"]["crop"]) < 0.01

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - **Train** with a loop and with Lightning, and score on patients kept apart.
# - **Choose** a loss over several seeds, knowing what a smoothing does, and a schedule.
# - **Stop** a run, resume it to the same numbers, and recognise overfitting where the two losses part.
# - **Compute** 16 bytes a parameter plus activations; save by 16 bits, accumulation and checkpointing.
# - **Use** mixed precision with a scaler where it is float16, pinned copies, a profile by device time,
#   several processes.
#
# Next: lesson 7 asks what the numbers on the validation curve are worth.
