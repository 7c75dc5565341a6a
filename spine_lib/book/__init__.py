"""The course as a web site: the executed lessons, their viewers with sliders, and the reference.

`build_site` gathers what the repository holds into one folder of sources and lets Sphinx make pages
of them that need neither Python nor a network.
"""

from spine_lib.book.build import build_site

__all__ = ["build_site"]
