"""The files beside a task that it imports: its numbers depend on them as on itself."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

# Of each file that was imported, the text that Python has got.
_texts: dict[Path, str] = {}


def files_beside(path: Path) -> list[Path]:
    """The Python files of a task's own folder that it imports, and those that these import.

    They are read from the text, so that an import within a function counts too. What is installed
    does not belong to them, nor what is loaded by another way than ``import``.

    Args:
        path: The task's file.

    Returns:
        The files, in the order of their names.
    """
    found: set[Path] = set()
    todo = [path]
    while todo:
        for file in _imported(todo.pop(), path.parent):
            if file not in found and file != path and file.is_relative_to(path.parent):
                found.add(file)
                todo.append(file)
    return sorted(found)


def digest_with(path: Path, text: bytes, files: list[Path]) -> str:
    """SHA-256 of a task's text, and of the files beside it where there are any."""
    digest = hashlib.sha256(text)
    for file in files:
        digest.update(str(file.relative_to(path.parent)).encode())
        digest.update(_digest(file).encode())
    return digest.hexdigest()


def check_fresh(files: list[Path]) -> None:
    """Refuse files that Python has imported with another text.

    Raises:
        ValueError: If one has changed, for Python would go on with what it was.
    """
    for file in files:
        if _texts.setdefault(file, _digest(file)) != _digest(file):
            raise ValueError(
                f"{file} has changed since this Python imported it, and would be used as it was; "
                "start Python anew."
            )


def check_origin(path: Path, files: list[Path]) -> None:
    """Refuse a name that stands for another file in this Python.

    Raises:
        ValueError: If a module of that name was imported from elsewhere before.
    """
    for file in files:
        parts = file.relative_to(path.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        here = getattr(sys.modules.get(name), "__file__", None)
        if (
            here
            and Path(here).resolve() != file.resolve()
            and parts[0] not in sys.stdlib_module_names
        ):
            raise ValueError(
                f"{path.name} imports {name}, and this Python has another one, from {here}; start "
                "Python anew, or give one of the two another name."
            )


def _imported(file: Path, folder: Path) -> Iterator[Path]:
    """The files in a folder that a file of it names in its imports."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except SyntaxError:
        return  # whoever imports it is told
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _along(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = min(node.level, len(file.parents)) - 1
            start = file.parents[above] if node.level else folder
            names = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _along(start, [*names, alias.name])


def _along(folder: Path, names: list[str]) -> Iterator[Path]:
    """The files that are run when ``import a.b.c`` is, as far as there are any in the folder."""
    for name in names:
        folder = folder / name
        for file in (folder / "__init__.py", folder.with_suffix(".py")):
            if file.is_file():
                yield file


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
