"""The report, item by item: one file each, with its claim, its computation, figure and verdict.

Items lie in wings that know nothing of each other: ``scaling`` (figures 1 to 4, table 2), ``toy``
(figures 5 and 6), ``images`` (table 1, figure 7) and ``others`` (tables and text), and beside them
the report's open questions, ``ext_*``. A file of a wing that begins with an underscore is no item.
"""

from __future__ import annotations

import ast
import pkgutil
import re
from pathlib import Path

from flatmin.record.item import Item

TITLE = "A report on ASAM, reproduced"
ABOUT = (
    "The report is “Adaptive Sharpness-Aware Minimization (ASAM) for Scale-Invariant Learning of "
    "Deep Neural Networks” by Gomez Donoso, Ghenassia and Vannier (EPFL)"
)


def discover() -> dict[str, Item]:
    """Find the items by their file names, without importing them, in the report's order."""
    found: dict[str, Item] = {}
    for wing in pkgutil.iter_modules(__path__):
        folder = Path(getattr(wing.module_finder, "path", "")) / wing.name
        for info in pkgutil.iter_modules([str(folder)]):
            if info.name.startswith("_"):
                continue
            module = f"{__name__}.{wing.name}.{info.name}"
            item = _read_item(module, folder / f"{info.name}.py")
            if item.name in found:
                raise RuntimeError(f"two files are named for the item {item.name}: rename one.")
            found[item.name] = item
    return dict(sorted(found.items(), key=lambda pair: _order(pair[0])))


def _read_item(module: str, file: Path) -> Item:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    paragraphs = (ast.get_docstring(tree) or "").split("\n\n")
    title = paragraphs[0].strip().rstrip(".")
    claims = [" ".join(p.split()) for p in paragraphs if p.startswith("Claim:")]
    if not title or len(claims) != 1:
        raise RuntimeError(
            f"the docstring of {file.name} must have a title and one paragraph 'Claim: …'."
        )
    stem = file.stem
    name = stem if stem.startswith("ext_") else stem.partition("_")[0]
    return Item(name, module, title, claims[0].removeprefix("Claim: "))


def _order(name: str) -> tuple[int, str, int, str]:
    kind, number = re.fullmatch(r"([a-z]*)(\d*).*", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return (kind == "ext", kind, int(number or 0), name)
