"""Sphinx configuration; `make docs` builds with warnings as errors."""

import relaxjax

project = "relaxjax"
author = "The relaxjax authors"
release = relaxjax.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
autodoc_member_order = "bysource"
# Docstrings are plain text laid out by indentation, not reStructuredText.
myst_heading_anchors = 2


def as_written(app, what, name, obj, options, lines):
    lines[:] = ["::", "", *(f"    {line}" for line in lines), ""]


def setup(app):
    app.connect("autodoc-process-docstring", as_written)
