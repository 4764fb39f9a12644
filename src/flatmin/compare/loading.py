"""A task read from its file, and refused where it is none."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from flatmin.compare.beside import check_fresh, check_origin, digest_with, files_beside
from flatmin.compare.task import Task, told
from flatmin.train import TrainConfig

BETTER = ("larger", "smaller")

_read: dict[tuple[str, str], Task] = {}


def load_task(path: Path | str) -> Task:
    """Read a file, and refuse what is no task.

    Args:
        path: A Python file.

    Returns:
        The task; the same one while the file, and those beside it that it imports, stay as they
        are.

    Raises:
        ValueError: If there is no such file, it cannot be run, it lacks a function, or Python has
            imported a file beside it as it was before.
    """
    path = Path(path).resolve()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); name a Python file that every machine that "
            "trains can read under this path."
        ) from error
    beside = files_beside(path)
    digest = digest_with(path, text, beside)
    key = str(path), digest
    if key not in _read:
        check_fresh(beside)
        task = Task(path, digest, _module(path, digest))
        check_origin(path, beside)
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
    except (Exception, SystemExit) as error:  # a script may end, or read a command line
        del sys.modules[name]
        below = ""
        if isinstance(error, SystemExit):
            below = '; keep what a script does below if __name__ == "__main__"'
        raise ValueError(f"{path} cannot be imported: {told(error)}{below}.") from error
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
    if not task.has_loop:
        _check_data(task)
    config = task.config
    if not isinstance(config, TrainConfig) or (config.model, config.minimizer) != ("own", "none"):
        raise ValueError(
            f'config of {name} must be a TrainConfig with model="own" and no minimizer: it is that '
            "of the base."
        )
    lr = getattr(module, "lr", config.lr)
    if not task.has_loop and isinstance(lr, float | int) and lr != config.lr:
        raise ValueError(
            f"lr of {name} is {lr:g} and that of its config {config.lr:g}, which counts beside "
            "model() and data(): give config = TrainConfig(..., lr=lr), or leave lr out."
        )


def _check_data(task: Task) -> None:
    """Refuse a function that takes something else than a seed."""
    try:
        parameters = inspect.signature(task.module.data).parameters.values()
    except (TypeError, ValueError):
        return  # a function without a signature is called without arguments
    for parameter in parameters:
        if (
            parameter.name != "seed"
            and parameter.default is parameter.empty
            and (parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD))
        ):
            raise ValueError(
                f"data() of {task.path.name} may take seed and nothing else, got "
                f"{parameter.name}; give it a default."
            )
