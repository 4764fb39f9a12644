"""Imports run downward only and in no circle, and `import flatmin` is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import flatmin

SOURCE = Path(flatmin.__file__).parent

# From the bottom up. A part imports itself and the rows below it, never a sibling. The empty name
# is the package's `__init__`, which collects the public names.
ROWS = (
    {"_types", "_streams", "_told", "_given", "_ours", "_room", "_memory"},
    {"_tree", "_draw"},
    {"scale", "spectral"},
    {"ball", "objective", "data", "models"},
    {"optim", "sharpness", "symmetry"},
    {""},
    {"train", "ensemble", "integrations"},
    {"record"},
    {"compare", "analysis"},
    {"experiments"},
    {"cli"},
    {"__main__"},
)
RANK = {part: rank for rank, row in enumerate(ROWS) for part in row}

# The wings of the experiments: a study each, and none knows of another.
WINGS = {path.parent.name for path in (SOURCE / "experiments").glob("*/__init__.py")}

# Outside libraries with a single door: the modules that may use them, as prefixes.
DOORS = {
    "matplotlib": ("record", "compare", "analysis", "experiments"),
    "torch.distributed": ("train", "optim._sharded", "objective"),
    "lightning": ("integrations",),
    "transformers": ("integrations",),
}
HEAVY = {"matplotlib", "PIL", "pyarrow", "sklearn", "tqdm", "tyro", "scipy", "torchvision"}


def within(name: str, prefix: str) -> bool:
    """Whether a dotted name is the prefix or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def uses(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything a module of flatmin imports, wherever it does.

    `module` is relative to flatmin, such as ``optim.sam``. `from a import b` yields ``a.b``.
    `torch.distributed.f()` without an import of its own counts as a use of ``torch.distributed``.
    """
    package = ["flatmin", *(module.split(".") if module else [])]
    if not is_package:
        package.pop()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Attribute) and _is_torch_distributed(node):
            yield node.lineno, "torch.distributed"


def _is_torch_distributed(node: ast.Attribute) -> bool:
    return node.attr == "distributed" and ast.unparse(node) == "torch.distributed"


def wing(name: str) -> str | None:
    """The wing of the experiments in which something lies, named relative to flatmin."""
    part, _, rest = name.partition(".")
    folder = rest.partition(".")[0]
    return folder if part == "experiments" and folder in WINGS else None


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Say, one sentence each, how a module breaks the layers."""
    part = module.split(".")[0]
    if part not in RANK:
        return [f"{module}: the layers do not know the part {part!r}"]
    found = []
    for line, name in uses(source, module, is_package=is_package):
        where = f"{module or '__init__'}:{line}"
        if within(name, "flatmin"):
            target = [*name.split("."), ""][1]
            target = target if target in RANK else ""  # a public name, or `__version__`
            if target != part and RANK[target] >= RANK[part]:
                found.append(f"{where}: {part!r} must not import {target or 'flatmin'!r}")
            own, other = wing(module), wing(name.removeprefix("flatmin."))
            if own and other and own != other:
                found.append(f"{where}: the wing {own!r} must not import {other!r}")
        for library, doors in DOORS.items():
            if within(name, library) and not any(within(module, door) for door in doors):
                found.append(f"{where}: only {', '.join(doors)} may use {library}")
    return found


def module_name(path: Path) -> str:
    """Name a file of the package relative to flatmin: `optim/sam.py` is ``optim.sam``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


@pytest.mark.parametrize("module", FILES)
def test_imports_run_downward(module: str) -> None:
    path = FILES[module]
    found = violations(path.read_text(), module, is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


def imports_within(room: str) -> dict[str, set[str]]:
    """Map each module of a room to those of the room that it imports, wherever it does.

    An import for the type checker alone counts: files that name each other's types are one idea.
    """
    inside = {module: path for module, path in FILES.items() if within(module, room)}
    found: dict[str, set[str]] = {module: set() for module in inside}
    for module, path in inside.items():
        package = path.name == "__init__.py"
        for _, name in uses(path.read_text(), module, is_package=package):
            target = name.removeprefix("flatmin.")
            while target and target not in inside:
                target = target.rpartition(".")[0]
            if target and target != module:
                found[module].add(target)
    return found


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Give the modules that lie on a circle of imports, or between two."""
    left = dict(imports)
    while True:
        used = {name for names in left.values() for name in names}
        ends = [module for module, names in left.items() if not names & left.keys()]
        ends += [module for module in left if module not in used]
        if not ends:
            return sorted(left)
        left = {module: names for module, names in left.items() if module not in ends}


@pytest.mark.parametrize("room", sorted({module.split(".")[0] for module in FILES} - {""}))
def test_there_is_no_circle_in_a_room(room: str) -> None:
    assert circle(imports_within(room)) == []


def test_a_circle_would_be_noticed() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]


def test_every_wing_is_known() -> None:
    assert {"scaling", "toy", "images"} <= WINGS


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ball", "from flatmin.optim.sam import SAM"),
        ("ball", "from flatmin import objective"),
        ("ball", "from flatmin import Objective"),
        ("ball", "import flatmin"),
        ("ball", "import flatmin.data.cifar as cifar"),
        ("ball", "from . import objective"),
        ("data.cifar", "from ..models import mlp"),
        ("data.cifar", "from .. import models"),
        ("optim.sam", "def f():\n    from flatmin.sharpness import ascent"),
        ("symmetry.scaling", "if True:\n    from ..optim import sam"),
        ("_types", "from flatmin import _tree"),
        ("train.loop", "from flatmin.record import files"),
        ("train.loop", "from flatmin.ensemble import Ensemble"),
        ("ensemble.ensemble", "from flatmin.train import loop"),
        ("record.store", "from flatmin.experiments import discover"),
        ("record.page", "from flatmin.compare import statistics"),
        ("compare.runs", "from flatmin.analysis import subject"),
        ("analysis.subject", "from flatmin.compare.runs import Runs"),
        ("compare.search", "from flatmin.experiments.images import _study"),
        ("experiments.toy.fig5", "from flatmin.experiments.images import _study"),
        ("experiments.toy.fig5", "from flatmin.experiments import scaling"),
        ("experiments.images.fig7", "from ..toy._study import train"),
        ("experiments.toy.fig1", "from flatmin import cli"),
        ("cli", "import matplotlib.pyplot as plt"),
        ("cli", "def f():\n    from matplotlib import pyplot"),
        ("train.loop", "import matplotlib"),
        ("ball", "import torch.distributed as dist"),
        ("optim.sam", "from torch import distributed"),
        ("optim.sam", "from torch.distributed.tensor import DTensor"),
        ("sharpness.ascent", "import torch\ntorch.distributed.all_reduce(x)"),
        ("optim._sharded_too", "import torch.distributed"),
        ("helpers", "import torch"),
    ],
)
def test_checker_finds_what_is_forbidden(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_tree", "from flatmin._types import Params\nimport torch"),
        ("ball", "from flatmin import _tree as tree\nfrom ._types import Params"),
        ("optim.sam", "from flatmin.ball import Ball\nfrom ._perturbed import Perturbed"),
        ("optim.sam", "from . import _perturbed\nfrom .. import ball"),
        ("train.loop", "from flatmin import SAM, data\nimport torch.distributed as dist"),
        ("optim._sharded", "from torch.distributed.tensor import DTensor"),
        ("objective", "def f():\n    import torch.distributed as dist"),
        ("record.style", "import matplotlib.pyplot as plt"),
        ("compare.panels", "from flatmin.record.style import INK\nimport matplotlib"),
        ("analysis.sources", "from flatmin.train import load_checkpoint"),
        ("experiments.toy.fig5", "from flatmin.experiments.toy import _study"),
        ("experiments.toy.fig5", "from flatmin.experiments import discover"),
        ("cli", "from flatmin.experiments import discover\nfrom flatmin import train"),
        ("ball", "import torch.distributions, matplotlib_inline, flatmin_extra"),
    ],
)
def test_checker_lets_pass_what_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_checker_resolves_a_package_from_within() -> None:
    assert list(uses("from . import sam", "optim", is_package=True)) == [(1, "flatmin.optim.sam")]
    assert list(uses("from . import sam", "optim.gsam")) == [(1, "flatmin.optim.sam")]
    assert list(uses("from .. import ball", "optim.gsam")) == [(1, "flatmin.ball")]
    assert list(uses("from .ball import Ball", "", is_package=True)) == [(1, "flatmin.ball.Ball")]


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh process has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.slow
def test_library_loads_nothing_heavier_than_torch() -> None:
    """Neither `import flatmin` nor any part below the experiments; torch itself may load tqdm."""
    own = {"cli", "__main__", "experiments", "integrations"}  # their framework is what they are for
    names = [name for name in FILES if name.split(".")[0] not in own]
    imports = ", ".join(f"flatmin.{name}" if name else "flatmin" for name in names)
    assert not (loaded_by(f"import {imports}") - loaded_by("import torch")) & HEAVY


@pytest.mark.slow
def test_rooms_are_there_without_an_import_of_their_own() -> None:
    """And loaded only then."""
    code = "import flatmin; a = 'flatmin.train' in sys.modules; flatmin.train.TrainConfig; print(a)"
    done = subprocess.run([sys.executable, "-c", f"import sys; {code}"], capture_output=True)
    assert done.stdout.split() == [b"False"]
    for room in flatmin._ROOMS:
        assert getattr(flatmin, room).__name__ == f"flatmin.{room}"
        assert room in dir(flatmin)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = flatmin.nothing


def test_heavy_modules_would_be_noticed() -> None:
    assert loaded_by("from PIL import Image") & HEAVY == {"PIL"}
