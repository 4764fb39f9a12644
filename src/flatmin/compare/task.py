"""What is compared on: a Python file of the user's, read and tried before anything is trained."""

from __future__ import annotations

import hashlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from flatmin._streams import stream
from flatmin.compare.arms import Arm
from flatmin.data import DataSet, as_data_set
from flatmin.train import TrainConfig
from flatmin.train._conditions import own_defaults, own_randomness
from flatmin.train.parts import hold_out

# Of what is not tested on, so much is held out: to choose by, and to draw the epochs on.
_HELD_OUT, _MOST_HELD_OUT = 5, 10_000
# A path that is wrong today is wrong tomorrow, on whichever machine. An OSError without a number is
# one of a library, such as a download that failed.
_OF_THE_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)


@dataclass(frozen=True, eq=False)
class Task:
    """A file that defines ``model()`` and ``data()``, or ``run(arm, seed, budget)``.

    Attributes:
        path: The file.
        digest: SHA-256 of its text, and of the files beside it that it imports.
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
        usual = TrainConfig(model="own", optimizer="adamw", lr=1e-3)
        found: TrainConfig = getattr(self.module, "config", usual)
        return found

    @property
    def lr(self) -> float | None:
        """Middle of the learning rates that are tried; None where a loop of its own names none."""
        if self.has_loop:
            return getattr(self.module, "lr", None)
        return self.config.lr

    def lr_of(self, arm: Arm) -> float | None:
        """Middle of the learning rates of an arm; of the task's own arms it is their optimizer's.

        Raises:
            ValueError: If such an optimizer is none, or has several learning rates.
        """
        if not arm.own or self.has_loop:
            return self.lr
        make, parameters = self.own_arms[arm.name], list(self.model(0).parameters())
        try:
            rates = {float(group["lr"]) for group in make(parameters).param_groups}
        except Exception as error:  # a stranger's function can fail in any way
            raise ValueError(
                f"the arm {arm.name} of {self.path.name} must make a torch optimizer of a list of "
                f"parameters: {told(error)}."
            ) from error
        if len(rates) != 1:
            raise ValueError(
                f"the arm {arm.name} of {self.path.name} must have one learning rate, got "
                f"{sorted(rates)}: the schedule sets one for all groups."
            )
        return rates.pop()

    @property
    def own_arms(self) -> Mapping[str, Callable[[Any], Any]]:
        """Functions from parameters to an optimizer, by name."""
        found: Mapping[str, Callable[[Any], Any]] = getattr(self.module, "arms", {})
        return found

    @cached_property
    def cuts_by_seed(self) -> bool:
        """Whether ``data`` takes a seed, so that each has a split of its own."""
        try:
            return "seed" in inspect.signature(self.module.data).parameters
        except (TypeError, ValueError):  # it has no signature
            return False

    def model(self, seed: int) -> nn.Module:
        """A new network, from the seed alone."""
        with own_randomness(seed, torch.device("cpu")), own_defaults(torch.float32):
            network = self.call("model")
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"model() of {self.path.name} must return a torch.nn.Module, got "
                f"{type(network).__name__}."
            )
        held = [*network.named_parameters(), *network.named_buffers()]
        waiting = [name for name, tensor in held if is_lazy(tensor)]
        if waiting:
            raise ValueError(
                f"model() of {self.path.name} returned a network whose {waiting[0]!r} waits for a "
                "first batch; call the network on one before it is returned."
            )
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError(
                f"model() of {self.path.name} returned a network in which no parameter requires a "
                "gradient, so that nothing can be trained; leave some with requires_grad."
            )
        return network

    def whole(self, seed: int) -> tuple[DataSet, DataSet]:
        """What may be trained on, and what is tested on; anew at each call."""
        with own_randomness(0, torch.device("cpu")):
            found = self.call("data", **({"seed": seed} if self.cuts_by_seed else {}))
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

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a function of the file; what it raises becomes a sentence with its place.

        Raises:
            ValueError: If it raised.
            OSError: What comes of the machine is raised as it is.
            MemoryError: Likewise.
            OutOfMemoryError: Likewise.
        """
        try:
            return getattr(self.module, name)(*arguments, **named)
        except (OSError, MemoryError, torch.OutOfMemoryError) as error:
            if not (isinstance(error, _OF_THE_FILE) or getattr(error, "errno", 0) is None):
                raise  # of the machine
            raise ValueError(f"{name}() of {self.path.name} failed: {told(error)}.") from error
        except (Exception, SystemExit) as error:  # a stranger's function can fail in any way
            raise ValueError(f"{name}() of {self.path.name} failed: {told(error)}.") from error


def told(error: BaseException) -> str:
    """What went wrong in a stranger's code, short enough for a sentence, and where."""
    text = " ".join(str(error).split()).rstrip(".")
    last = traceback.extract_tb(error.__traceback__)[-1]
    short = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    return f"{short} ({Path(last.filename).name}, line {last.lineno})"
