"""Which loss targets of a stranger's mean, in the form in which it takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]

# What marks a target that does not count, in torch as in transformers.
IGNORED = -100


def token_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy where the classes lie along the last axis, as in language models.

    Example:
        >>> loss = token_cross_entropy(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.long))
        >>> torch.isclose(loss, torch.tensor(3.0).log()).item()
        True
    """
    return F.cross_entropy(outputs.movedim(-1, 1), targets, ignore_index=IGNORED)


def fitting_loss(outputs: Tensor, targets: Tensor) -> tuple[Loss, Tensor]:
    """Integers are classes and mean cross-entropy, or several labels; numbers mean squared errors.

    Args:
        outputs: What the network gives for the first examples, ``[n, …]``.
        targets: Those of all examples, ``[N, …]``: classes, also as ``[N, 1]`` or with a one in the
            row of each, in any type of integers or as truth values, with ``-100`` where none
            counts; a class for each place, ``[N, …]`` where the outputs are ``[N, …, C]`` or
            ``[N, C, …]``; zeros and ones like the outputs, with several ones or none in some rows,
            each the label of a binary cross-entropy; or numbers like the outputs.

    Returns:
        The mean loss of a batch, and the targets in its form.

    Raises:
        ValueError: If targets and outputs do not fit together.

    Example:
        >>> loss, classes = fitting_loss(torch.zeros(2, 3), torch.tensor([[0, 0, 1], [1, 0, 0]]))
        >>> loss.__name__, classes.tolist()
        ('cross_entropy', [2, 0])
        >>> several = torch.tensor([[True, False, True], [False, False, True]])
        >>> fitting_loss(torch.zeros(2, 3), several)[0].__name__
        'binary_cross_entropy_with_logits'
    """
    if targets.is_complex():
        raise ValueError("targets must be integers or real numbers, got complex ones.")
    shape = outputs.shape[1:]
    if not targets.is_floating_point():
        if _are_labels(outputs, targets):
            return F.binary_cross_entropy_with_logits, targets.to(outputs.dtype)
        last = outputs.ndim > 2 and targets.shape[1:] == outputs.shape[1:-1]
        if not last:
            return F.cross_entropy, _classes(outputs, targets)
        if targets.shape[1:] == outputs.shape[2:]:
            raise ValueError(
                f"outputs of shape {['N', *shape]} may have their classes in the second dimension "
                "or in the last, for both fit; flatten the places into examples, or name the loss "
                "(from Python, loss=)."
            )
        return token_cross_entropy, _in_range(targets.long(), outputs.shape[-1])
    if _without_ones(targets.shape[1:]) != _without_ones(shape):
        raise ValueError(
            f"targets that are no integers must have the shape of the outputs, "
            f"{['N', *shape]}, got {['N', *targets.shape[1:]]}; return classes as integers."
        )
    return F.mse_loss, targets.reshape(-1, *shape)


def weight_of(loss: Loss, targets: Iterable[Tensor]) -> Callable[[Tensor], int | Tensor]:
    """What a loss divides by: examples, or the targets that count where some do not.

    Args:
        loss: Of ``fitting_loss``, or another.
        targets: Of all batches.

    Returns:
        The weight of a batch, from its targets.

    Example:
        >>> targets = torch.tensor([[1, -100], [0, 2]])
        >>> int(weight_of(token_cross_entropy, [targets])(targets))
        3
    """
    ignoring = loss in (F.cross_entropy, token_cross_entropy)
    if ignoring and any(bool((t == IGNORED).any()) for t in targets):
        return lambda batch: (batch != IGNORED).sum()
    return len


def remark(loss: Loss, targets: Iterable[Tensor]) -> str | None:
    """What to say of a loss that was chosen, where targets could mean another.

    Args:
        loss: Of ``fitting_loss``, or another.
        targets: Of all batches.

    Returns:
        A sentence, or None where nothing needs to be said.

    Example:
        >>> remark(F.cross_entropy, [torch.tensor([0, 1])]) is None
        True
    """
    if loss is F.binary_cross_entropy_with_logits:
        return (
            "some rows of the targets have several ones or none, so each is taken for a label and "
            "the loss is the binary cross-entropy of logits; return numbers in floating point for "
            "squared errors."
        )
    if loss is F.mse_loss and any(could_be_classes(t) for t in targets):
        return (
            "the targets are in floating point, so the loss is the mean squared error; if they "
            "name classes, return integers for cross-entropy, and if they are labels, truth values."
        )
    return None


def could_be_classes(targets: Tensor) -> bool:
    """Whether numbers look as if they named classes: whole, or shares of a row."""
    whole = bool((targets == targets.round()).all())
    shares = targets.ndim > 1 and targets.shape[1] > 1 and bool((targets >= 0).all())
    return whole or (shares and bool((targets.sum(1) - 1).abs().max() < 1e-4))


def _are_labels(outputs: Tensor, targets: Tensor) -> bool:
    """Whether targets are zeros and ones like the outputs, and not one 1 for each example."""
    if outputs.ndim < 2 or outputs.shape[1] < 2 or targets.shape[1:] != outputs.shape[1:]:
        return False
    binary = bool(((targets == 0) | (targets == 1)).all())
    return binary and not bool((targets.long().sum(1) == 1).all())


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
        if not bool(((found == 0) | (found == 1)).all()):
            raise ValueError(
                "targets that are integers mean one class for each example, or zeros and ones for "
                f"several labels, and these go up to {int(found.max())} in the shape of the "
                "outputs; return the class of each, or targets in floating point for squared "
                "errors."
            )
        found = found.argmax(1)
    if found.shape != wanted:
        raise ValueError(
            f"classes for outputs of shape {['N', *outputs.shape[1:]]} must have the shape "
            f"{['N', *wanted[1:]]}, got {['N', *targets.shape[1:]]}; the dimension of the classes "
            "is the second one of the outputs, or the last."
        )
    return _in_range(found, outputs.shape[1])


def _in_range(found: Tensor, classes: int) -> Tensor:
    counted = found[found != IGNORED]
    if not counted.numel():
        raise ValueError(f"every target is {IGNORED}, which marks those that do not count.")
    lowest, highest = int(counted.min()), int(counted.max())
    if lowest < 0:
        raise ValueError(
            f"classes count from 0, but the data have a class {lowest}; mark targets that do not "
            f"count with {IGNORED}, or leave those examples out."
        )
    if highest >= classes:
        raise ValueError(
            f"the network tells {classes} classes apart, but the data have a class "
            f"{highest}; name the data it was trained on (on the command line: --data, --dataset)."
        )
    return found


def _without_ones(shape: torch.Size) -> list[int]:
    return [size for size in shape if size != 1]
