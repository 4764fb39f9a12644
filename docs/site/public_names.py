"""A public name that no page of the reference documents is a warning, and so an error."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flatmin

if TYPE_CHECKING:  # the tests ask for names where Sphinx is not installed
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


def rooms() -> list[str]:
    """The package and its rooms that say what is public in them."""
    names = [f"flatmin.{info.name}" for info in pkgutil.iter_modules(flatmin.__path__)]
    public = [name for name in names if not name.rpartition(".")[2].startswith("_")]
    return ["flatmin", *(n for n in public if hasattr(importlib.import_module(n), "__all__"))]


def promised() -> Iterator[tuple[str, frozenset[str]]]:
    """Each public name, and all the names under which the same object may be documented."""
    places: dict[int, set[str]] = {}
    for room in rooms():
        module = importlib.import_module(room)
        for name in module.__all__:
            thing = getattr(module, name)
            home = f"{getattr(thing, '__module__', room)}.{getattr(thing, '__qualname__', name)}"
            places.setdefault(id(thing), set()).update((f"{room}.{name}", home))
    for alike in places.values():
        yield min(alike, key=len), frozenset(alike)
    # Of the doors, whose frameworks need not be there, the text is read.
    folder = Path(flatmin.__path__[0]) / "integrations"
    for file in sorted(folder.glob("[!_]*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                path = f"flatmin.integrations.{file.stem}.{node.name}"
                yield path, frozenset({path})


def missing(documented: Iterable[str]) -> list[str]:
    """The public names that are not among the documented ones."""
    there = set(documented)
    return sorted(name for name, alike in promised() if not alike & there)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each name that is missing."""
    from sphinx.util.logging import getLogger

    for name in missing(env.domains["py"].data["objects"]):
        getLogger(__name__).warning(
            "no page of the reference documents %s", name, type="public", subtype=name
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Check when all pages are read."""
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
