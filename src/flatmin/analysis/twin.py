"""The copy of a network that is measured in its place, so that it stays as it is."""

from __future__ import annotations

import copy
from itertools import islice

import torch
from torch import nn

from flatmin.objective import EmpiricalLoss
from flatmin.objective._conditions import devices_of, measuring
from flatmin.objective._evaluation import Evaluated, evaluate
from flatmin.objective._ties import tie_fault
from flatmin.symmetry.private import views_of
from flatmin.train.named import one_line


def as_written(model: nn.Module) -> nn.Module:
    """The network itself, where ``torch.compile`` has put one around it."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


def twin_of(model: nn.Module) -> nn.Module:
    """Copy a network; what it has kept of earlier calls is copied as numbers.

    Args:
        model: The network; as it is left.

    Returns:
        The copy.

    Raises:
        ValueError: If something in it cannot be copied, or parameters are tied by their memory,
            which a copy would cut.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> model.kept = 2 * model.weight  # a result, which copy.deepcopy refuses
        >>> twin_of(model).kept.requires_grad
        False
    """
    if fault := tie_fault(model, dict(model.named_parameters()), None):
        raise ValueError(fault)
    results = {
        id(t): t.detach().clone()
        for t in (*model.buffers(), *views_of(model))
        # A view of a weight would not follow it.
        if not t.is_leaf and (t._base is None or not t._base.is_leaf)
    }
    try:
        return copy.deepcopy(model, results)
    except Exception as error:  # a stranger's network can fail in any way
        raise ValueError(
            f"the network must be such that copy.deepcopy(model) works, got {one_line(error)}; a "
            "copy is measured, so that the network itself stays as it is: take from it what cannot "
            "be copied, such as a view of a weight, which the forward can make anew."
        ) from error


def require_followed(objective: EmpiricalLoss, original: nn.Module) -> None:
    """Refuse a loss that is computed from the network itself, where its copy is measured.

    Args:
        objective: The loss of the copy.
        original: The network that was copied.

    Raises:
        ValueError: If the loss would not see all parameters move.

    Example:
        >>> model, data = nn.Linear(1, 1), [(torch.ones(2, 1), torch.zeros(2, 1))]
        >>> def penalized(outputs, targets):
        ...     return nn.functional.mse_loss(outputs, targets) + model.weight.square().sum()
        >>> require_followed(EmpiricalLoss(twin_of(model), penalized, data), model)
        Traceback (most recent call last):
        ValueError: the loss must follow the copy of the network that is measured, but it reaches \
'weight' of the network itself, as a penalty or a function that has closed over it does, and would \
not see it move; leave that out, or measure EmpiricalLoss(model, loss, batches) itself by \
flatmin.sharpness.
    """
    named = {name: p for name, p in original.named_parameters() if p.requires_grad}
    reached: list[str] = []
    loss = objective.loss_function
    if isinstance(loss, nn.Module):  # whose own tensors are constants where it is evaluated
        own = {id(p) for p in loss.parameters()}
        reached += [name for name, p in named.items() if id(p) in own]

    def note(at: Evaluated) -> None:
        if named and at.loss.requires_grad:
            slopes = torch.autograd.grad(at.loss, list(named.values()), allow_unused=True)
            reached.extend(n for n, slope in zip(named, slopes, strict=True) if slope is not None)

    with measuring(devices_of(objective.model)), torch.enable_grad():
        first = islice(objective.batches, 1)
        evaluate(objective.model, loss, first, objective.params, note)
    if reached:
        raise ValueError(
            "the loss must follow the copy of the network that is measured, but it reaches "
            f"{reached[0]!r} of the network itself, as a penalty or a function that has closed "
            "over it does, and would not see it move; leave that out, or measure "
            "EmpiricalLoss(model, loss, batches) itself by flatmin.sharpness."
        )
