"""Formulas as MathML, which browsers draw themselves: no script, and nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

_DOTS = re.compile(r"\\dots(?![a-z])")  # docutils knows its relatives only


def formula(translator: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula in a line, or in a paragraph of its own."""
    block = isinstance(node, nodes.math_block)
    written = tex2mathml(_DOTS.sub(r"\\dotso", node.astext()), as_block=block)
    written = written.replace("<mo>‖</mo>", '<mo stretchy="false">‖</mo>')  # bars of one height
    translator.body.append(f'<div class="math">{written}</div>' if block else written)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Take the place of MathJax."""
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
