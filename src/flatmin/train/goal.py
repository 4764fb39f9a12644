"""What training makes small, and what it reports: sums over examples, whatever the batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.objective._structure import map_tensors, tensors

Measure = Callable[[Any, Tensor], Tensor]
"""A loss or a metric: outputs and targets of some examples to its mean over them."""

# What torch's losses leave out by default, as padding.
_LEFT_OUT = -100
# What a mean that works in float32 may differ by, relative to its parts.
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Goal:
    """Loss and metric of a run.

    Attributes:
        loss: A mean over examples; None for the cross-entropy of classes.
        metric: A mean over examples; None for the accuracy, where targets are classes. An example
            whose highest logit is not finite is classified wrongly.
        classes: How many the data are known to have; None where each batch has to tell.

    Example:
        >>> goal = Goal(loss=F.mse_loss)
        >>> goal.loss_sum(torch.tensor([1.0, 3.0]), torch.zeros(2)).item()
        10.0
    """

    loss: Measure | None = None
    metric: Measure | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        for name, measure in (("loss", self.loss), ("metric", self.metric)):
            if isinstance(measure, type):
                raise TypeError(
                    f"{name} must be a function of outputs and targets, got the class "
                    f"{measure.__name__}; make one, as in {measure.__name__}()."
                )
            if measure is not None and not callable(measure):
                raise TypeError(
                    f"{name} must be a function of outputs and targets, got "
                    f"{type(measure).__name__}."
                )
            if isinstance(measure, nn.Module) and any(True for _ in measure.parameters()):
                raise ValueError(
                    f"{name} has parameters, which nobody would train; make them a part of the "
                    "network."
                )

    def describe(self) -> dict[str, str | None]:
        """The names of both, as far as they can be told apart by name; None for the usual ones."""
        return {"loss": name_of(self.loss), "metric": name_of(self.metric)}

    def check(self, outputs: Any, targets: Tensor, *, means: bool) -> None:
        """Refuse outputs and targets that do not fit, and measures that are no means.

        Args:
            outputs: What the network returned.
            targets: Those of the same examples.
            means: Whether to ask the measures again about parts of the batch.

        Raises:
            TypeError: If outputs or targets are of another kind.
            ValueError: If shapes do not fit, or a measure depends on how examples are batched.
        """
        if self.loss is None:
            self._check_classes(outputs, targets)
        if means:
            for name, measure in (("loss", self.loss), ("metric", self.metric)):
                if measure is not None:
                    _check_mean(name, measure, outputs, targets)

    def loss_sum(self, outputs: Any, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """The loss, summed over examples; where one has several targets, their mean is its loss."""
        if self.loss is not None:
            return _value("loss", self.loss, outputs, targets) * len(targets)
        total = F.cross_entropy(outputs, targets.long(), reduction="sum", label_smoothing=smoothing)
        return total if targets.ndim == 1 else total * (len(targets) / targets.numel())

    def metric_sum(self, outputs: Any, targets: Tensor) -> Tensor | float:
        """The metric, summed over examples; NaN if there is none, or a target names no class."""
        if self.metric is not None:
            alone = map_tensors(torch.Tensor.detach, outputs)
            return _value("metric", self.metric, alone, targets) * len(targets)
        if not _are_classes(outputs, targets):
            return math.nan
        # Of NaN alone the first would be the highest, and class 0 rightly found.
        known = outputs.amax(dim=1).isfinite()
        right: Tensor = ((outputs.argmax(dim=1) == targets) & known).sum()
        if targets.ndim > 1:
            right = right * (len(targets) / targets.numel())
        left_out = getattr(self.loss, "ignore_index", _LEFT_OUT)
        named = (targets >= 0) & (targets < outputs.shape[1]) | (targets == left_out)
        # Counts are integers too, and name no logit. As a tensor, for a look would wait for a GPU.
        return torch.where(named.all(), right.double(), math.nan)

    def record(self, part: str, loss: float, metric: float) -> dict[str, float | None]:
        """The fields of an ``Epoch`` for one part of the data."""
        name = "accuracy" if self.metric is None else "metric"
        return {f"{part}_loss": loss, f"{part}_{name}": None if math.isnan(metric) else metric}

    def _check_classes(self, outputs: Any, targets: Tensor) -> None:
        count = len(targets)
        if targets.is_floating_point():
            raise TypeError(
                "Cross-entropy takes classes, integers from 0, and the targets are "
                f"{targets.dtype}; give the loss that is meant, such as "
                "loss=torch.nn.functional.mse_loss."
            )
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            what = (
                f"{outputs.dtype}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            )
            raise TypeError(
                "The network must return its logits, one tensor [examples, classes] of real "
                f"numbers, got {what}; wrap it in a module that returns the logits alone, or give "
                "a loss of such outputs."
            )
        # The images of a set have labels that are known to be classes; of others each batch tells.
        lowest, highest = (
            (0, self.classes - 1) if self.classes else map(int, targets.long().aminmax())
        )
        more = list(targets.shape[1:])
        fits = outputs.ndim >= 2 and len(outputs) == count and list(outputs.shape[2:]) == more
        if not fits or outputs.shape[1] <= highest:
            beside = "".join(f", {size}" for size in more)
            raise ValueError(
                f"The network must return logits of shape [{count} examples, {highest + 1} classes "
                f"or more{beside}], got {list(outputs.shape)}."
            )
        if lowest < 0:
            raise ValueError(
                f"Classes count from 0, and the data have a class {lowest}; leave such examples "
                "out, or give a loss that knows what it means."
            )


def _are_classes(outputs: Any, targets: Tensor) -> bool:
    """Whether there is a logit for each class, and targets of a kind that can name one."""
    return (
        not targets.is_floating_point()
        and isinstance(outputs, Tensor)
        and outputs.ndim >= 2
        and outputs.shape[1] > 1
        and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    )


def _value(name: str, measure: Measure, outputs: Any, targets: Tensor) -> Tensor:
    value: Any = measure(outputs, targets)
    if name == "metric" and isinstance(value, int | float):
        value = torch.tensor(float(value))
    if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
        shown = (
            f"{value.dtype} of shape {list(value.shape)}"
            if isinstance(value, Tensor)
            else f"a {type(value).__name__}"
        )
        raise TypeError(
            f"{name} must return one real number, its mean over the examples, got {shown}."
        )
    return value.reshape(())


def _check_mean(name: str, measure: Measure, outputs: Any, targets: Tensor) -> None:
    """Ask about two unequal parts of a batch: on a mean depends nothing but the examples."""
    count = len(targets)
    found = list(tensors(outputs))
    if count < 2 or not all(t.ndim and len(t) == count for t in found):
        return
    first = -(-count // 3)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        whole, *parts = (
            _value(name, measure, map_tensors(itemgetter(rows), outputs), targets[rows]).item()
            for rows in (slice(0, count), slice(0, first), slice(first, count))
        )
    together = (first * parts[0] + (count - first) * parts[1]) / count
    if not math.isfinite(whole) or not math.isfinite(together):
        return  # the loop says so, with the step
    if abs(whole - together) > _ROUNDING * max(abs(whole), *map(abs, parts)):
        shapes = " and ".join(str(list(t.shape)) for t in [*found, targets])
        raise ValueError(
            f"{name} must be a mean over examples, whatever the batch, but over {count} it gives "
            f"{whole:.6g}, and over {first} and {count - first} of them {together:.6g} in the mean "
            f"(outputs and targets of shape {shapes}); divide its sum by len(targets)."
        )


def name_of(measure: Any) -> str | None:
    """What tells a function from another one, as far as a name does; None for none."""
    if measure is None:
        return None
    if isinstance(measure, functools.partial):
        given = [repr(value) for value in measure.args]
        given += [f"{key}={value!r}" for key, value in sorted(measure.keywords.items())]
        return f"{name_of(measure.func)}({', '.join(given)})"
    if isinstance(measure, nn.Module):
        return " ".join(repr(measure).split())
    kind = measure if hasattr(measure, "__qualname__") else type(measure)
    return f"{kind.__module__}.{kind.__qualname__}"
