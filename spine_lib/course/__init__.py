"""The exercises of the course: `check` an answer, ask for a `hint`, read the `solution`.

A lesson needs these four and nothing else:

    from spine_lib.course import check, hint, progress, solution
"""

from spine_lib.course.checking import check, hint, progress, solution

__all__ = ["check", "hint", "progress", "solution"]
