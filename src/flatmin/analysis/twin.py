"""The copy of a network that is measured in its place, so that it stays as it is."""

from __future__ import annotations

import copy

from torch import nn

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
        ValueError: If something in it cannot be copied.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> model.kept = 2 * model.weight  # a result, which copy.deepcopy refuses
        >>> twin_of(model).kept.requires_grad
        False
    """
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
