"""A figure as a file: the same figure gives the same bytes, without a version or a date in them."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from flatmin.record.style import house_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """The figure as points."""
    file = io.BytesIO()
    with house_style():
        figure.savefig(
            file, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True}
        )
    return file.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as lines, which are sharp at any size."""
    file = io.BytesIO()
    with house_style():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    # Hundredths of a point are enough, and half as long.
    text = re.sub(
        rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), file.getvalue()
    )
    # Matplotlib names some regions after the address of an object.
    regions = dict.fromkeys(re.findall(rb'<clipPath id="(\w+)"', text))
    for number, name in enumerate(regions):
        text = text.replace(name, b"region%d" % number)
    return text
