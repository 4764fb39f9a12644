"""First and second derivatives of a scalar with respect to named tensors, by autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatmin import _room as room
from flatmin import _tree as tree
from flatmin._types import Params

# From so many numbers on they are summed in stretches that stay in the cache.
_FEW, _STRETCH = 1 << 14, 1 << 18

_REMEDY = "FiniteDifferences(objective) takes differences of gradients instead."


def check(params: Params) -> None:
    """Refuse what cannot be differentiated by."""
    if not params:
        raise ValueError("params must name at least one tensor to differentiate by, got none.")
    for name, t in params.items():
        if not t.is_floating_point():
            raise TypeError(f"params must be floating tensors, got {t.dtype} for {name!r}.")


def leaves(params: Params) -> dict[str, Tensor]:
    """Copies as starting points of a graph of their own."""
    check(params)
    copied = room.copies(list(params.values()))
    return {name: t.requires_grad_() for name, t in zip(params, copied, strict=True)}


def gradient(loss: Tensor, point: Params, *, create_graph: bool = False) -> dict[str, Tensor]:
    """Gradient at leaves; zero for a leaf that the loss does not use, if it uses any."""
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on the parameters: it has no gradient; check that it uses "
            "the params it is given, and that nothing detaches them."
        )
    grads = torch.autograd.grad(
        loss, list(point.values()), create_graph=create_graph, materialize_grads=True
    )
    if any(t.grad is not None for t in point.values()):
        raise RuntimeError(
            "the backward pass of the model must be one, but it runs another inside, as older "
            "kinds of activation checkpointing do; switch that off for measuring."
        )
    return dict(zip(point, grads, strict=True))


def second(loss: Tensor, point: Params, vector: Params) -> dict[str, Tensor]:
    """Hessian times a vector by double backward: the gradient of ⟨gradient, vector⟩."""
    first = gradient(loss, point, create_graph=True)
    # Copies, for what was made in inference mode cannot be saved for a backward pass.
    copied = dict(zip(vector, room.copies(list(vector.values())), strict=True))
    product = sum((first[name] * copied[name]).sum() for name in point)
    if not isinstance(product, Tensor) or not product.requires_grad:
        return {name: torch.zeros_like(t) for name, t in tree.tree_map(torch.detach, point).items()}
    return dict(zip(point, again(product, list(point.values())), strict=True))


def again(
    first: Tensor, inputs: Sequence[Tensor], *, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """Differentiate what was made of derivatives; refuse operations that cannot be."""
    if _forgets(first):
        raise ValueError(f"an operation of the network is marked as once_differentiable; {_REMEDY}")
    try:
        return torch.autograd.grad(first, inputs, retain_graph=retain_graph, materialize_grads=True)
    except RuntimeError as error:  # of which NotImplementedError is one
        if "is not implemented" not in str(error):
            raise
        reason = str(error).partition(". ")[0].rstrip(".")
        raise ValueError(
            f"an operation of the network has no second derivative in torch ({reason}); {_REMEDY}"
        ) from error


def _forgets(first: Tensor) -> bool:
    """Whether the graph is cut where a first derivative was computed: autograd would give zero."""
    waiting, seen = [first.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def zeros(params: Params) -> dict[str, Tensor]:
    """Where derivatives are summed: in float64."""
    sums = room.like(list(params.values()), torch.float64)
    return {name: t.zero_() for name, t in zip(params, sums, strict=True)}


def accumulate(total: dict[str, Tensor], part: Params, share: float) -> None:
    """Add the share of a batch."""
    for name, t in part.items():
        here, t = total[name], t.detach()
        if t.dtype == here.dtype or t.numel() < _FEW or not (_is_row(here) and _is_row(t)):
            here.add_(t, alpha=share)
            continue
        # torch widens a whole tensor before it adds, into memory of its own.
        (scratch,) = room.like([here.view(-1)[:_STRETCH]])
        rows = (torch.split(row.view(-1), _STRETCH) for row in (here, t))
        for some, more in zip(*rows, strict=True):
            some.add_(scratch[: len(some)].copy_(more), alpha=share)


def narrowed(total: dict[str, Tensor], params: Params) -> dict[str, Tensor]:
    """Sums in the types of what they belong to."""
    wide = [name for name, t in params.items() if total[name].dtype != t.dtype]
    found = room.like([params[name] for name in wide])
    return {
        **total,
        **{name: t.copy_(total[name]) for name, t in zip(wide, found, strict=True)},
    }


def _is_row(t: Tensor) -> bool:
    return t.is_cpu and t.layout == torch.strided and t.is_contiguous()
