"""Settings of Sphinx: the lessons as they were executed, pages of viewers, the reference."""

import shutil
from pathlib import Path

import nbformat
from docutils.nodes import SkipNode
from latex2mathml.converter import convert

from spine_lib import __version__
from spine_lib.datasets import make_phantom
from spine_lib.explore import OrthoViewer, SliceViewer

DOCS = Path(__file__).parent
for folder in ("api", "lessons", "_extra/viewers"):  # made anew, so that nothing old stays
    shutil.rmtree(DOCS / folder, ignore_errors=True)
    (DOCS / folder).mkdir(parents=True)

project = html_title = "Spine segmentation in CT"
author = copyright = "The spine_lib authors"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository that are no pages
    "ref.python",  # a type such as `slice` that is also the name of an attribute
]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # by default two scripts from a server
myst_enable_extensions = ["colon_fence", "dollarmath"]
html_math_renderer = "mathml"  # browsers draw it without a script, and so without a server
myst_heading_anchors = 3

default_role = "py:obj"  # `name` in a docstring links to what it names
autosummary_ignore_module_all = True
autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches pages, which a browser forbids to a file


def write_formula(translator, node):
    """Write a formula as MathML."""
    display = "inline" if node.tagname == "math" else "block"
    translator.body.append(convert(node.astext(), display=display))
    raise SkipNode


def write_lessons(app):
    """Copy the executed lessons; a picture without alt text gets the description below it."""
    for path in sorted((DOCS.parent / "notebooks").glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        figure = ""
        for cell in reversed(notebook.cells):
            if cell.cell_type == "markdown" and "*Figure:" in cell.source:
                figure = " ".join(cell.source.split("*Figure:")[1].split("*")[0].split())
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    alt = output.metadata.get("image/png", {}).get("alt") or figure
                    cell.metadata["mystnb"] = {"image": {"alt": alt}}
                elif output.get("data", {}).get("text/plain", "").startswith("VBox("):
                    output.data = {"text/plain": "(A slider: it needs Python. Run `make lab`.)"}
        nbformat.write(notebook, DOCS / "lessons" / path.name)
    shutil.copytree(DOCS.parent / "notebooks" / "figures", DOCS / "lessons" / "figures")


def write_viewers(app):
    """Write two pages with sliders that need no Python."""
    case = make_phantom(seed=4, shape=(100, 84, 195), spacing_mm=3.0, scoliosis_deg=0.0)
    for name, viewer in (("slices", SliceViewer), ("planes", OrthoViewer)):
        page = DOCS / "_extra" / "viewers" / f"{name}.html"
        viewer(case.ct, case.labels, case_id="phantom").save_html(page, max_slices=64)


def setup(app):
    """Make what the pages are made from."""
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("builder-inited", write_lessons, priority=100)
    app.connect("builder-inited", write_viewers, priority=100)
