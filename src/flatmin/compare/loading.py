"""A task read from its file, and refused where it is none."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from flatmin.compare.task import Task, told
from flatmin.train import TrainConfig

BETTER = ("larger", "smaller")

_read: dict[tuple[str, str], Task] = {}


def load_task(path: Path | str) -> Task:
    """Read a file, and refuse what is no task.

    Args:
        path: A Python file.

    Returns:
        The task; the same one while the file stays as it is.

    Raises:
        ValueError: If there is no such file, it cannot be run, or it lacks a function.
    """
    path = Path(path).resolve()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); name a Python file that every machine that "
            "trains can read under this path."
        ) from error
    key = str(path), digest
    if key not in _read:
        task = Task(path, digest, _module(path, digest))
        _check_names(task)
        _read[key] = task
    return _read[key]


def _module(path: Path, digest: str) -> ModuleType:
    name = f"flatmin_task_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} must be a Python file, with the ending .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # what pickles or inspects its classes looks here
    if str(path.parent) not in sys.path:  # as for `python file.py`: it may import what lies beside
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be imported: {told(error)}.") from error
    return module


def _check_names(task: Task) -> None:
    """Refuse a file without its functions, or with ones that contradict each other."""
    module, name = task.module, task.path.name
    functions = [word for word in ("run", "model", "data") if callable(getattr(module, word, None))]
    if functions not in (["run"], ["model", "data"]):
        raise ValueError(
            f"{name} must define model() and data(), or run(arm, seed, budget) alone, and it "
            f"defines {' and '.join(functions) or 'none of them'}."
        )
    if (task.has_loop or task.metric is not None) and task.better not in BETTER:
        what = "run" if task.has_loop else "metric"
        raise ValueError(
            f'{name} defines {what}, and must say which is better, by better = "larger" or '
            f'better = "smaller", got {task.better!r}.'
        )
    if task.has_loop and not isinstance(task.lr, float | int | None):
        raise ValueError(f"lr of {name} must be a number, got {task.lr!r}.")
    if not (isinstance(task.own_arms, Mapping) and all(map(callable, task.own_arms.values()))):
        raise ValueError(
            f"arms of {name} must map names to functions from parameters to an optimizer."
        )
    config = task.config
    if not isinstance(config, TrainConfig) or (config.model, config.minimizer) != ("own", "none"):
        raise ValueError(
            f'config of {name} must be a TrainConfig with model="own" and no minimizer: it is that '
            "of the base."
        )
