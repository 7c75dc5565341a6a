"""Whether an augmentation that no scanner could make still helps, measured.

A small network is trained on all patients but one and scored on that one: without augmentation,
with physical steps (mirror, turn, zoom, brightness, noise), and with two that no scanner makes, in
half of the slices: black and white exchanged, and brightness shifted by up to 300 HU. The same seed
draws the same slices in every arm.
"""

import time

import numpy as np
import torch

from spine_lib.course import demonstrations
from spine_lib.slices import augment  # noqa: F401  (sets what albumentations reads)

import albumentations as A  # isort: skip

NAME = "augmentation"
SEEDS = (0, 1, 2)

PATIENTS = demonstrations.PATIENTS
"""The patients held out in turn."""

PHANTOMS, PIXEL_MM, BOX = 4, 4.0, 32
"""As in `leakage`."""

STEPS, BATCH, LEARNING_RATE = 200, 16, demonstrations.LEARNING_RATE

PHYSICAL = (
    A.HorizontalFlip(p=0.5),
    A.Affine(rotate=(-20, 20), scale=(0.8, 1.25), fill_mask=255, mask_interpolation=0, p=0.8),
    A.RandomBrightnessContrast(0.04, 0.1, p=0.5),
    A.GaussNoise(std_range=(0.0, 0.04), p=0.5),
)
EXCHANGED = (A.InvertImg(p=0.5),)
BRIGHTER = (A.RandomBrightnessContrast(0.24, 0.0, p=0.5),)  # up to 300 HU to either side
ARMS = {
    "none": (),
    "physical": PHYSICAL,
    "exchanged": EXCHANGED,
    "physical, exchanged": PHYSICAL + EXCHANGED,
    "physical, brighter": PHYSICAL + BRIGHTER,
}


def run(seed: int, fast: bool = False) -> dict:
    """Hold out each real patient in turn and train once with each arm.

    Args:
        seed: decides everything random.
        fast: few steps and one phantom, to see that it runs.

    Returns:
        "arms": by arm the Dice of each held-out patient; and the CPU "seconds".
    """
    started = time.process_time()
    patients = demonstrations.leakage_patients(1 if fast else PHANTOMS, PIXEL_MM, BOX)
    steps = 4 if fast else STEPS
    arms = {
        arm: {name: train_and_score(patients, name, arm, seed, steps) for name in PATIENTS}
        for arm in ARMS
    }
    return {"arms": arms, "seconds": round(time.process_time() - started, 1)}


def train_and_score(patients, held_out: str, arm: str, seed: int, steps: int) -> float:
    """Return the Dice on all slices of a patient that the network was not trained on."""
    others = [patient for patient in patients if patient.name != held_out]
    transform = A.Compose(list(ARMS[arm]))
    transform.set_random_seed(seed)
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    network = demonstrations.SmallUNet().to(memory_format=torch.channels_last)
    batches = iter(lambda: augmented_batch(others, transform, random), None)
    for _ in demonstrations.train_small(network, batches, steps, LEARNING_RATE):
        pass
    (number,) = (n for n, patient in enumerate(patients) if patient.name == held_out)
    pairs = np.array([(number, index) for index in range(len(patients[number]))])
    return demonstrations.score_slices(network.eval(), patients, pairs)


def augmented_batch(patients, transform, random: np.random.Generator):
    """Return slices at random, each patient drawn from as often, after the transform."""
    images, labels = [], []
    for _ in range(BATCH):
        patient = patients[random.integers(len(patients))]
        index = random.integers(len(patient))
        unit = (patient.images[index, 0] + 1.5) / 4  # albumentations takes 0 to 1
        made = transform(image=unit, mask=patient.labels[index, 0])
        images.append(4 * made["image"].reshape(1, BOX, BOX) - 1.5)
        labels.append(made["mask"].reshape(1, BOX, BOX))
    return demonstrations.as_batch(images, labels)
