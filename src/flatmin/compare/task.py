"""What is compared on: a Python file of the user's, read and tried before anything is trained."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from flatmin._streams import stream
from flatmin.data import DataSet, as_data_set
from flatmin.train import TrainConfig
from flatmin.train._conditions import own_defaults, own_randomness
from flatmin.train.parts import hold_out

BETTER = ("larger", "smaller")
# Of what is not tested on, so much is held out: to choose by, and to draw the epochs on.
_HELD_OUT, _MOST_HELD_OUT = 5, 10_000

_read: dict[tuple[str, str], Task] = {}


@dataclass(frozen=True, eq=False)
class Task:
    """A file that defines ``model()`` and ``data()``, or ``run(arm, seed, budget)``.

    Attributes:
        path: The file.
        digest: SHA-256 of its text.
        module: What it defines.
    """

    path: Path
    digest: str
    module: ModuleType

    @property
    def has_loop(self) -> bool:
        """Whether the file trains by itself."""
        return hasattr(self.module, "run")

    @property
    def loss(self) -> Any:
        """The loss; None for cross-entropy."""
        return getattr(self.module, "loss", None)

    @property
    def metric(self) -> Any:
        """The metric; None for the accuracy, or for the loss where there is none."""
        return getattr(self.module, "metric", None)

    @property
    def better(self) -> str | None:
        """Whether the ``larger`` or the ``smaller`` metric is better; None where nobody asks."""
        return getattr(self.module, "better", None)

    @property
    def config(self) -> TrainConfig:
        """How the base is trained; its ``lr`` is the middle of what is searched."""
        usual = TrainConfig(model="own", optimizer="adamw", lr=1e-3, crop_padding=0, flip=False)
        found: TrainConfig = getattr(self.module, "config", usual)
        return found

    @property
    def lr(self) -> float | None:
        """Middle of the learning rates that are tried; None where a loop of its own names none."""
        if self.has_loop:
            return getattr(self.module, "lr", None)
        return self.config.lr

    @property
    def own_arms(self) -> Mapping[str, Callable[[Any], Any]]:
        """Functions from parameters to an optimizer, by name."""
        found: Mapping[str, Callable[[Any], Any]] = getattr(self.module, "arms", {})
        return found

    @cached_property
    def cuts_by_seed(self) -> bool:
        """Whether ``data`` takes a seed, so that each has a split of its own."""
        return bool(inspect.signature(self.module.data).parameters)

    def model(self, seed: int) -> nn.Module:
        """A new network, from the seed alone."""
        with own_randomness(seed, torch.device("cpu")), own_defaults(torch.float32):
            network = self.call("model")
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"model() of {self.path.name} must return a torch.nn.Module, got "
                f"{type(network).__name__}."
            )
        return network

    def whole(self, seed: int) -> tuple[DataSet, DataSet]:
        """What may be trained on, and what is tested on; anew at each call."""
        with own_randomness(0, torch.device("cpu")):
            found = self.call("data", *([seed] if self.cuts_by_seed else []))
        pair = found if isinstance(found, tuple | list) else (found,)
        try:
            sets = [as_data_set(part) for part in pair]
        except TypeError as error:
            raise ValueError(f"data() of {self.path.name}: {error}") from error
        if len(sets) == 2:
            return sets[0], sets[1]
        if len(sets) != 1:
            raise ValueError(
                f"data() of {self.path.name} must return a training set, or one and a test set, "
                f"got {len(sets)} sets."
            )
        count = len(sets[0]) // _HELD_OUT
        order = torch.randperm(len(sets[0]), generator=stream("test part"))
        return sets[0].subset(order[count:].sort().values), sets[0].subset(order[:count])

    def parts(self, seed: int) -> tuple[DataSet, DataSet, DataSet]:
        """What is trained on, held out to choose by, and tested on."""
        key = seed if self.cuts_by_seed else 0
        if key not in self._cut:
            train, test = self.whole(key)
            fit, held = hold_out(train, min(len(train) // _HELD_OUT, _MOST_HELD_OUT))
            if held is None or not len(test):
                raise ValueError(
                    f"data() of {self.path.name} must have at least {_HELD_OUT} training examples "
                    f"and a test example, got {len(train)} and {len(test)}."
                )
            self._cut.clear()  # of data that are cut by seed, one cut at a time
            self._cut[key] = fit, held, test
        return self._cut[key]

    def data_key(self, seed: int) -> str:
        """A text that is another one for other data."""
        prints = [part.fingerprint() for part in self.parts(seed)]
        return hashlib.sha256(repr(prints).encode()).hexdigest()[:16]

    def forget(self) -> None:
        """Let the data go, so that they are made anew when they are next asked for."""
        self._cut.clear()

    @cached_property
    def _cut(self) -> dict[int, tuple[DataSet, DataSet, DataSet]]:
        return {}

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the file; what it raises becomes a sentence with its place.

        Raises:
            ValueError: If it raised.
        """
        try:
            return getattr(self.module, name)(*arguments)
        except (OSError, MemoryError, torch.OutOfMemoryError):
            raise  # of the machine, not of the file
        except Exception as error:  # a stranger's function can fail in any way
            raise ValueError(f"{name}() of {self.path.name} failed: {told(error)}.") from error


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


def told(error: BaseException) -> str:
    """What went wrong in a stranger's code, short enough for a sentence, and where."""
    text = " ".join(str(error).split()).rstrip(".")
    last = traceback.extract_tb(error.__traceback__)[-1]
    short = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    return f"{short} ({Path(last.filename).name}, line {last.lineno})"


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
