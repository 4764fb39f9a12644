"""What is shown of a comparison, from its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_table(record: Mapping[str, Any]) -> str:
    """The differences as lines for a terminal."""
    lines = [("arm", "at equal", "difference [95 %]", "p (Holm)", "detectable", "verdict")]
    for row in record["differences"]:
        interval = f"{row['value']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
        least = "–" if row["detectable"] is None else f"{row['detectable']:.2g}"
        lines.append((row["arm"], row["at"], interval, f"{row['p']:.3f}", least, row["verdict"]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
