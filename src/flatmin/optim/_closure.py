"""The first call of a closure: what it made, and whether it added to gradients of before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from flatmin.optim._gradients import version
from flatmin.optim._visit import Probe, Visit


def first_call(closure: Callable[[], Any], params: Sequence[Tensor], visit: Visit) -> Any:
    """Call the closure at the weights.

    Args:
        closure: The user's.
        params: Whose gradients it may make.
        visit: Learns from ``zero_grad`` of the optimizer that gradients were cleared.

    Returns:
        What the closure returned; whether it made gradients; whether it added them to earlier
        ones, which a second call could not bring back.
    """
    earlier = {p: (p.grad, version(p.grad)) for p in params if p.grad is not None}
    visit.cleared = False
    probe = Probe(params)
    try:
        loss = closure()
    finally:
        probe.close()
    made = probe.added is not None or any(
        p.grad is not None and (p not in earlier or _differs(p.grad, *earlier[p])) for p in params
    )
    if not made or visit.cleared:
        return loss, made, False
    kept = any(p.grad is grad for p, (grad, _) in earlier.items())
    if probe.added is None:  # autograd did not bring it a gradient: in sharded models, or unused
        return loss, made, kept
    # Where the gradient that was looked at made room for a new one, all others should have.
    replaced = probe.param is not None and probe.param.grad is not earlier[probe.param][0]
    return loss, made, probe.added or (kept and replaced)


def _differs(grad: Tensor, earlier: Tensor, before: int) -> bool:
    return grad is not earlier or version(grad) != before
