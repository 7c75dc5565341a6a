"""Lessons 4 and 5: the networks; `build_model` makes the paper's two."""

from spine_lib.models.factory import ARCHITECTURES, build_model, split_name

__all__ = ["ARCHITECTURES", "build_model", "split_name"]
