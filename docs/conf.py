"""How Sphinx makes a site of these pages: `python3 run.py docs`, with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "site"), str(DOCS.parent / "src")]

import flatmin  # noqa: E402  of this tree, whatever is installed

project = "flatmin"
author = "The flatmin authors"
project_copyright = "the flatmin authors, MIT licence"
version = release = flatmin.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "math_ml",  # of site/
    "public_names",  # of site/
    "verbs",  # of site/
]
exclude_patterns = ["_build"]
nitpicky = True  # a name that is linked is there
nitpick_ignore_regex = [
    # Nobody else's pages are asked for, so that the site is built without a network.
    (r"py:.*", r"(abc|collections|concurrent|pathlib|typing)\..*"),
    (r"py:.*", r"(torch|nn|numpy|lightning|transformers)\..*|ProcessGroup|DataLoader|Optimizer"),
    (r"py:class", r"Figure|Tensor|(flatmin\.analysis\.pictures\.)?Pictures"),
    # What signatures name and no reader needs: type variables, aliases, parts of a comparison.
    (r"py:class", r"LossFunction|Examples|Weight|flatmin\.sharpness\.per_layer\.R"),
    (
        r"py:class",
        r"flatmin\.(compare\.(job\.Job|executor\.Future|arms\.Arm)|train\.distributed\.Team)",
    ),
    (r"py:class", r"flatmin\.symmetry\.(slots\.Slot|groups\.Symmetries)"),
    (r"py:class", r"flatmin\.optim\._\w+\.\w+"),
]

# Headings have the addresses that they have elsewhere, to the third level.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_mock_imports = ["lightning", "transformers"]  # needed for their doors only
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"flatmin {release}"
html_static_path = ["site/static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
