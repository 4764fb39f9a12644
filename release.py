"""Build the wheel and the source archive, and try the wheel where nothing else is.

    python3 run.py release

makes ``dist/`` and, for the lowest and the newest torch that the metadata allow, an environment of
its own in a temporary folder. There the wheel is installed with what its tests need, and what a
user does first is done: the blocks of README.md and of the start page, the command line, a script
checked by ``mypy --strict``, and the suite of optimizers and measures. The project's folder is not
on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOOLS = ["pytest", "pytest-timeout", "pytest-xdist", "scipy", "mypy"]
TYPED = """
import torch

from flatmin import ASAM, Ball, EmpiricalLoss
from flatmin.sharpness import worst_case_sharpness

model = torch.nn.Linear(3, 2)
optimizer = ASAM(torch.optim.SGD(model.named_parameters(), lr=0.1), rho=0.5)
inputs, targets = torch.randn(8, 3), torch.randint(2, (8,))
loss = torch.nn.functional.cross_entropy(model(inputs), targets)
torch.autograd.backward(loss)
with optimizer.perturbed():
    torch.autograd.backward(torch.nn.functional.cross_entropy(model(inputs), targets))
optimizer.step()
objective = EmpiricalLoss(model, torch.nn.functional.cross_entropy, [(inputs, targets)])
rise: float = worst_case_sharpness(objective, objective.params, Ball(0.1)).value
print(rise)
"""


def torch_versions() -> list[str]:
    """The lowest torch that the metadata allow, and the one that everything is tested with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = re.search(r"torch>=([\d.]+)", " ".join(project["dependencies"]))
    pinned = re.search(r"^torch==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert lowest is not None and pinned is not None
    return [lowest[1], pinned[1]]


def build() -> Path:
    """Make ``dist/`` anew, and return the wheel."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run([sys.executable, "-m", "build", "--outdir", str(ROOT / "dist"), str(ROOT)])
    (wheel,) = (ROOT / "dist").glob("*.whl")
    return wheel


def attempt(wheel: Path, torch: str, folder: Path) -> None:
    """Use the wheel with this torch, in an environment and a folder that know nothing else."""
    print(f"release.py: {wheel.name} with torch {torch}", flush=True)
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    asked = [f"{wheel}[experiments]", f"torch=={torch}", *TOOLS]
    run([python, "-m", "pip", "install", "-q", *asked])
    # Elsewhere than the project, whose folder would be found before the wheel.
    work = folder / "work"
    for name in ("docs", "examples", "tests"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("_build"))
    for name in ("README.md", "pyproject.toml"):  # and how pytest is to treat warnings
        shutil.copy(ROOT / name, work / name)
    (work / "typed.py").write_text(TYPED)
    run([python, "typed.py"], work)
    run([python, "-m", "mypy", "--strict", "typed.py"], work)
    run([python, "-m", "flatmin", "list"], work)
    suites = [f"tests/{name}" for name in ("optim", "objective", "sharpness", "test_ball.py")]
    pages = ["tests/test_examples_in_readme.py", "-k", "README or start"]
    for what in (suites, pages):
        run([python, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", *what], work)


def run(command: list[str], folder: Path | None = None) -> None:
    """Run a program, and end with its exit code if it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if code := subprocess.run(command, cwd=folder, env=clean).returncode:
        sys.exit(code)


def main() -> None:
    """Build once, and try with each torch."""
    wheel = build()
    for torch in torch_versions():
        with tempfile.TemporaryDirectory() as folder:
            attempt(wheel, torch, Path(folder))
    print(f"release.py: {wheel} and the source archive beside it are ready.")


if __name__ == "__main__":
    main()
