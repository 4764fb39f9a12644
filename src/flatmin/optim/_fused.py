"""The climb of one large tensor, compiled: each number is read once and written once.

The compiled functions take flat tensors of any length and are shared by all optimizers whose balls
differ in no more than the radius. Compilation needs what ``torch.compile`` needs (on a CPU, a C++
compiler).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.ball import Ball, Scale, is_bias

# Of a memory block: the gradient, and the handle through which the uses are counted.
_OWN_USES = 2

# Below this, calling a compiled function costs more than it saves.
_WORTH_IT = 1 << 15


def suits(ball: Ball, weight: Tensor, grad: Tensor) -> bool:
    """Whether to fuse: large, ordinary, and with a gradient whose memory nobody else looks at.

    DDP's buckets and FSDP's shards are such others: they would overwrite what is kept there.
    """
    return (
        ball.p != 1.0
        and weight.numel() >= _WORTH_IT
        and weight.is_floating_point()
        and weight.dtype == grad.dtype
        and torch._C._storage_Use_Count(grad.untyped_storage()._cdata) <= _OWN_USES
        and grad.untyped_storage().nbytes() == grad.numel() * grad.element_size()
        and not torch.equal(_sample(weight), _sample(grad))
    )


def support(ball: Ball, weights: dict[str, Tensor], grads: dict[str, Tensor]) -> Tensor:
    """Support of the ball, as far as one flat tensor goes."""
    ((name, weight),), (grad,) = weights.items(), grads.values()
    norm, _ = _kernels(ball.p, ball.scale, is_bias(name))
    return norm(_alias(weight), _alias(grad)) * ball.rho


def climb(
    ball: Ball,
    weights: dict[str, Tensor],
    grads: dict[str, Tensor],
    length: float,
    saved: list[tuple[list[Tensor], list[Tensor]]],
) -> None:
    """Shift one flat weight by ``length`` times its direction; old values replace the gradient."""
    ((name, weight),), (grad,) = weights.items(), grads.values()
    _, shift = _kernels(ball.p, ball.scale, is_bias(name))
    before = _sample(grad)
    try:
        shift(_alias(weight), _alias(grad), torch.tensor(length, device=weight.device))
        torch.autograd.graph.increment_version(weight)
        saved.append(([weight], [grad]))
    except BaseException:
        # An interrupt may come before or after the one kernel that does the exchange. ``suits`` has
        # made sure that the gradient tells which: it differs from the weights.
        recorded = bool(saved) and saved[-1][0][0] is weight
        if not recorded and not torch.equal(_sample(grad), before):
            weight.copy_(grad)
        raise


def _alias(t: Tensor) -> Tensor:
    """The same memory as a tensor of its own: views are compiled anew for each shape of base."""
    return t.new_empty(0).set_(t.untyped_storage(), t.storage_offset(), (t.numel(),), (1,))


def _sample(t: Tensor) -> Tensor:
    flat = t.as_strided((t.numel(),), (1,))
    return flat[:: max(1, t.numel() // 64)].clone()


@functools.cache
def _kernels(
    p: float, scale: Scale, bias: bool
) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], None]]:
    ball = Ball(1.0, p, scale)
    name = "bias" if bias else "weight"
    order = ball.dual_order

    def norm(weight: Tensor, grad: Tensor) -> Tensor:
        (v,) = ball.stretch({name: weight.float()}, {name: grad.float()}).values()
        # A sum in float64 costs nothing extra here: the memory is slower.
        power = v.square() if order == 2.0 else v.abs() if order == 1.0 else v.abs().pow(order)
        total = power.sum(dtype=torch.float64)
        return total if order == 1.0 else total.pow(1.0 / order)

    def shift(weight: Tensor, grad: Tensor, length: Tensor) -> None:
        point = {name: weight.float()}, {name: grad.float()}
        new = tree.add({name: weight}, ball.direction(*point, length), alpha=length)[name]
        grad.copy_(weight)
        weight.copy_(new)

    return (
        torch.compile(norm, dynamic=True, fullgraph=True),
        torch.compile(shift, dynamic=True, fullgraph=True),
    )
