"""Which loss targets of a stranger's mean, in the form in which it takes them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def fitting_loss(outputs: Tensor, targets: Tensor) -> tuple[Loss, Tensor]:
    """Integers are classes and mean cross-entropy; other numbers mean squared errors.

    Args:
        outputs: What the network gives for the first examples, ``[n, …]``.
        targets: Those of all examples, ``[N, …]``: classes, also as ``[N, 1]`` or with a one in the
            row of each, in any type of integers or as truth values; or numbers like the outputs.

    Returns:
        The mean loss of a batch, and the targets in its form.

    Raises:
        ValueError: If targets and outputs do not fit together.

    Example:
        >>> loss, classes = fitting_loss(torch.zeros(2, 3), torch.tensor([[0, 0, 1], [1, 0, 0]]))
        >>> loss.__name__, classes.tolist()
        ('cross_entropy', [2, 0])
    """
    if targets.is_complex():
        raise ValueError("targets must be integers or real numbers, got complex ones.")
    if not targets.is_floating_point():
        return F.cross_entropy, _classes(outputs, targets)
    shape = outputs.shape[1:]
    if _without_ones(targets.shape[1:]) != _without_ones(shape):
        raise ValueError(
            f"targets that are no integers must have the shape of the outputs, "
            f"{['N', *shape]}, got {['N', *targets.shape[1:]]}; return classes as integers."
        )
    return F.mse_loss, targets.reshape(-1, *shape)


def could_be_classes(targets: Tensor) -> bool:
    """Whether numbers look as if they named classes: whole, or shares of a row."""
    whole = bool((targets == targets.round()).all())
    shares = targets.ndim > 1 and targets.shape[1] > 1 and bool((targets >= 0).all())
    return whole or (shares and bool((targets.sum(1) - 1).abs().max() < 1e-4))


def _classes(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class indices, int64, of the shape that cross-entropy takes."""
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        raise ValueError(
            "targets that are integers mean classes, and the network gives one number for each "
            "example; let it return a logit for each class, or return targets in floating point "
            "for squared errors."
        )
    wanted = (len(targets), *outputs.shape[2:])
    found = targets.long()
    if found.shape != wanted and found.ndim > 1 and found.shape[1] == 1:
        found = found.squeeze(1)
    if found.shape[1:] == outputs.shape[1:] and found.shape != wanted:
        if not bool(((found == 0) | (found == 1)).all() and (found.sum(1) == 1).all()):
            raise ValueError(
                "targets that are integers mean one class for each example, and some rows have "
                "not exactly one 1; return the class of each, or targets in floating point for "
                "squared errors."
            )
        found = found.argmax(1)
    if found.shape != wanted:
        raise ValueError(
            f"classes for outputs of shape {['N', *outputs.shape[1:]]} must have the shape "
            f"{['N', *wanted[1:]]}, got {['N', *targets.shape[1:]]}; the dimension of the classes "
            "is the second one of the outputs."
        )
    lowest, highest = int(found.min()), int(found.max())
    if lowest < 0:
        raise ValueError(
            f"classes count from 0, but the data have a class {lowest}; leave those examples out."
        )
    if highest >= outputs.shape[1]:
        raise ValueError(
            f"the network tells {outputs.shape[1]} classes apart, but the data have a class "
            f"{highest}; name the data it was trained on with --data and --dataset."
        )
    return found


def _without_ones(shape: torch.Size) -> list[int]:
    return [size for size in shape if size != 1]
