"""The gradients that a pass has left in the parameters: found, checked, spoiled, set aside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.optim import _sharded

Groups = Sequence[dict[str, Any]]


def local_gradients(groups: Groups) -> list[Tensor]:
    """The numbers of all gradients that are on this process."""
    grads = [p.grad for group in groups for p in group["params"]]
    local = [_sharded.local(g) for g in grads if g is not None]
    return [g._values() if g.is_sparse else g for g in local if g.numel()]


def all_finite(groups: Groups) -> bool:
    """Whether all gradients are finite, on all processes that share a parameter."""
    grads = local_gradients(groups)
    # The largest number tells, but on a CPU the 2-norm is six times as fast, and can be no
    # other than finite unless it overflows.
    finite = not grads or any(_has_finite_norm(grads, order) for order in (2.0, math.inf))
    return _sharded.agree(finite, groups)


@contextmanager
def spoiled(groups: Groups) -> Iterator[None]:
    """Let no gradient of the body be finite, so that all who look at gradients notice.

    Replicas notice because theirs are averaged with ours, ``GradScaler`` because it looks.
    """
    params = [p for group in groups for p in group["params"] if p.requires_grad]
    hooks = [p.register_hook(lambda grad: grad * math.nan) for p in params]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        # Gradients that the body did not get from autograd, as in sharded models.
        for grad in local_gradients(groups)[:1]:
            grad.detach().fill_(math.nan)


def set_aside(groups: Groups, sums: dict[Tensor, Tensor]) -> None:
    """Add the gradients to the sums of earlier ones, and clear them."""
    for group in groups:
        for p in group["params"]:
            if p.grad is not None:
                sums[p] = p.grad if p not in sums else sums[p].add_(p.grad)
                p.grad = None


def _has_finite_norm(tensors: list[Tensor], order: float) -> bool:
    norms = [norm.float() for norm in torch._foreach_norm(tensors, order)]
    return math.isfinite(tree.combine(norms, math.inf).item())
