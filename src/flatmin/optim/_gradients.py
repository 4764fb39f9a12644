"""The gradients that a pass has left in the parameters: found, checked, spoiled, set aside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.optim import _sharded

Groups = Sequence[dict[str, Any]]


def parameters(groups: Groups) -> list[Tensor]:
    """The parameters of all groups."""
    return [p for group in groups for p in group["params"]]


def any_in(groups: Groups) -> bool:
    """Whether any parameter has a gradient."""
    return any(p.grad is not None for p in parameters(groups))


def given(groups: Groups) -> dict[Tensor, torch.layout]:
    """The parameters that have a gradient, and of which layout that is."""
    return {p: p.grad.layout for p in parameters(groups) if p.grad is not None}


def fill(layouts: Mapping[Tensor, torch.layout]) -> None:
    """Let those that have no gradient any more have one of zeros, of the layout that it had."""
    for p, layout in layouts.items():
        if p.grad is None:
            p.grad = torch.zeros_like(p, layout=layout, requires_grad=False)


def version(grad: Tensor | None) -> int:
    """Changes with each operation that writes into a gradient."""
    return -1 if grad is None or grad.is_inference() else _sharded.local(grad)._version


def is_anything(grad: Tensor) -> bool:
    """Whether any number of a gradient is not zero."""
    values = grad.coalesce().values() if grad.is_sparse else _sharded.local(grad)
    return bool(torch.count_nonzero(values.detach()))


def drop(groups: Groups) -> None:
    """Clear the gradients, whatever a base understands by ``zero_grad``."""
    for p in parameters(groups):
        p.grad = None


def local_gradients(groups: Groups) -> list[Tensor]:
    """The numbers of all gradients that are on this process."""
    grads = [p.grad for p in parameters(groups)]
    local = [_sharded.local(g) for g in grads if g is not None]
    return [v for g in local if (v := g._values() if g.is_sparse else g).numel()]


def all_finite(groups: Groups) -> bool:
    """Whether all gradients are finite, on all processes that share a parameter."""
    return _sharded.agree(finite_here(groups), groups)


def finite_here(groups: Groups) -> bool:
    """Whether all gradients are finite, as far as this process sees them."""
    return are_finite(local_gradients(groups))


def are_finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers of some tensors, none of them empty, are finite."""
    # The largest number tells, but on a CPU the 2-norm is six times as fast, and can be no
    # other than finite unless it overflows.
    return not tensors or any(_has_finite_norm(tensors, order) for order in (2.0, math.inf))


@contextmanager
def spoiled(groups: Groups, failure: str | None) -> Iterator[None]:
    """After a failure, let no gradient of the body be finite, so that all who look notice.

    Replicas notice because theirs are averaged with ours, ``GradScaler`` because it looks.
    """
    if failure is None:
        yield
        return
    params = [p for p in parameters(groups) if p.requires_grad]
    hooks = [p.register_hook(lambda grad: grad * math.nan) for p in params]  # type: ignore[no-untyped-call]
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
    for p in parameters(groups):
        if p.grad is not None:
            sums[p] = p.grad if p not in sums else sums[p].add_(p.grad)
            p.grad = None


def bring_back(sums: dict[Tensor, Tensor]) -> None:
    """Add what was set aside to the gradients, and leave nothing set aside."""
    for p, grad in sums.items():
        p.grad = grad if p.grad is None else p.grad.add_(grad)
    sums.clear()


def _has_finite_norm(tensors: list[Tensor], order: float) -> bool:
    found = torch._foreach_norm(tensors, order)
    norms = [norm if norm.dtype == torch.float64 else norm.float() for norm in found]
    return math.isfinite(tree.combine(norms, math.inf).item())
