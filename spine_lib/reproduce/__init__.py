"""Lesson 8: the whole experiment as one call, its report, and comparisons."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "run": ["reproduce"],
        "sources": ["gather", "prepare"],
        "evaluate": ["evaluate_all"],
        "report": [
            "deviations",
            "duration",
            "results_table",
            "write_report",
        ],
        "compare": ["compare_runs", "comparison_text", "load_run"],
        "provenance": ["device_name", "versions"],
    },
)
