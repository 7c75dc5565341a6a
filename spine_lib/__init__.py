"""Reproduce a spine-CT segmentation paper, one lesson at a time.

Each room of this package belongs to one lesson of the course in ``notebooks/``: the notebook
explains an idea, the module of the same topic holds the polished version of its code. Start with
`spine_lib.ct.volume`, which loads a scan, and follow the lessons from there.
"""

__version__ = "0.1.0"


class SpineError(Exception):
    """Something the user can put right.

    The message is one sentence: what was wrong, in which file, with which value, and what to do.
    The command line prints it without a traceback and leaves with exit code 2.
    """
