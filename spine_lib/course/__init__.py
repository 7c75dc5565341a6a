"""The exercises of the course, the patients and the kept measurements of the lessons.

A lesson begins with

    from spine_lib.course import check, hint, progress, solution
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "capstone": ["certify"],
        "checking": ["check", "hint", "progress", "solution"],
        "measurements": ["cohort_rows", "cohort_scores", "lesson_result"],
        "patients": ["course_case", "held_out_case", "pick"],
    },
)
