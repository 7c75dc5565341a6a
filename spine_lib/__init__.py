"""Reproduce a spine-CT segmentation paper, one lesson at a time.

The notebooks in ``notebooks/`` explain an idea; the room of the same topic has its tested code:

- `ct`: load a scan in HU, on its grid (lesson 1)
- `annotations`: label schemes and checks of label maps (lesson 2)
- `datasets`: where patients come from: the built-in sample, public sets, phantoms
- `slices`: cut, split, store and augment slices (lesson 3)
- `models`: U-Net and DeepLabv3+ (lessons 4 and 5)
- `training`: recipes, losses, training and checkpoints (lesson 6)
- `metrics`: scores, regions, statistics, published tables (lessons 7 and 8)
- `volumes`: predict whole scans, clean up, measure (lesson 9)
- `explore`: draw scans and masks, viewers with sliders
- `reproduce`: the whole experiment with its report (lesson 8)
- `course`: exercises, hints and their checks

Each room imports only from those above it; `cli` is the command line.
"""

__version__ = "0.1.0"


class SpineError(Exception):
    """An error that the user can put right.

    The message is one sentence: what was wrong, in which file, with which value, and what to do.
    The command line prints it without a traceback and leaves with exit code 2. Line breaks, as in
    a message of another library, become spaces.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(str(message).split("\n")))
