"""The one exception that the library raises on purpose."""


class SpineError(Exception):
    """Something the user can put right.

    The message is one sentence: what was wrong, in which file, with which value, and what to do.
    The command line prints it without a traceback and leaves with exit code 2.
    """
