"""Settings of Sphinx for the site; `spine site` gathers the sources and calls it."""

from spine_lib import __version__
from spine_lib.book.docstrings import to_rst

project = "Spine segmentation in CT"
author = "The spine_lib authors"
copyright = author  # no year: the same sources make the same pages
version = release = __version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["parts", "viewers"]
templates_path = ["_templates"]

# The lessons are shown as they were executed; nothing runs here.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # by default two scripts from a server
# No "dollarmath": formulae would be drawn by a script from a server.
myst_enable_extensions = ["colon_fence", "attrs_block"]
myst_heading_anchors = 3

# The reference, from docstrings in Google's style. A constant that is a plain value of Python's has
# no source page of its own: following it would list a module "builtins" that nothing describes.
viewcode_follow_imported_members = False
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "ignore-module-all": True,  # each name once, in the module that it is written in
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False
toc_object_entries_show_parents = "hide"

default_role = "py:obj"  # `name` in a docstring links to what it names


def setup(app):
    """Turn the Markdown of docstrings into what Sphinx reads, before napoleon sees it."""

    def process(app, what, name, subject, options, lines):
        lines[:] = to_rst(lines)

    app.connect("autodoc-process-docstring", process, priority=400)


# Pages that need no network: no fonts, scripts or styles but those that lie beside them.
html_theme = "pydata_sphinx_theme"
html_domain_indices = False
html_title = "Spine segmentation in CT"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("viewers.js", {"defer": "defer"})]
html_extra_path = ["viewers"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches pages, which a browser forbids to a file
html_context = {"default_mode": "auto"}
html_theme_options = {
    "back_to_top_button": False,
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "explore": []}
