"""Reproduce a spine-CT segmentation paper, one lesson at a time.

Each room of this package belongs to one lesson of the course in ``notebooks/``: the notebook
explains an idea, the module of the same topic holds the polished version of its code. Start with
`spine_lib.ct`, which loads a scan, and follow the lessons from there.
"""

__version__ = "0.1.0"
