"""The climb and the way back: a ball's shift applied to weights in place.

The shift needs one number about all tensors together, the ball's support; everything else is local.
So the weights are cut into pieces small enough to stay in the processor's cache, and each piece is
scaled, saved and shifted while it is there: the memory is walked once, not once per operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.ball import Ball
from flatmin.optim import _sharded

# Numbers per piece on a CPU: with their gradients and scratch they fit in a second-level cache.
# An accelerator has no use for pieces; there one launch over all tensors is best.
_PIECE = 1 << 16

Saved = list[tuple[list[Tensor], list[Tensor]]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Local tensors of one group, device and layout over processes, with their gradients."""

    ball: Ball
    sign: float
    spread: _sharded.Spread | None
    params: dict[str, Tensor]
    grads: dict[str, Tensor]

    def point(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and gradients in a precision in which norms neither overflow nor vanish."""
        return _widened(self.params), _widened(self.grads)


def cut(ball: Ball, sign: float, pairs: dict[str, tuple[Tensor, Tensor]]) -> list[Piece]:
    """Cut named (parameter, gradient) pairs of one group into pieces."""
    pieces: list[Piece] = []
    room = 0
    key: object = None
    for name, (param, grad) in pairs.items():
        spread = _sharded.spread(param)
        w, g = _sharded.local(param), _sharded.local(grad)
        if g.is_sparse:
            g = g.to_dense()
        for part_w, part_g in _parts(w, g):
            if (
                key != (key := (w.device, w.dtype, spread))
                or room < part_w.numel()
                or (name in pieces[-1].params)
            ):
                pieces.append(Piece(ball, sign, spread, {}, {}))
                room = _PIECE if w.device.type == "cpu" else 1 << 62
            if part_w.numel():
                pieces[-1].params[name] = part_w
                pieces[-1].grads[name] = part_g
                room -= part_w.numel()
    return pieces


def joint_support(pieces: list[Piece]) -> Tensor:
    """Support of the ball that all pieces form together, over all processes."""
    order = pieces[0].ball.dual_order
    parts: dict[_sharded.Spread | None, list[Tensor]] = {}
    for piece in pieces:
        parts.setdefault(piece.spread, []).append(piece.ball.support(*piece.point()))
    return tree.combine(
        (
            _sharded.combine(tree.combine(supports, order), spread, order)
            for spread, supports in parts.items()
        ),
        order,
    )


def climb(pieces: list[Piece], support: Tensor, saved: Saved, *, fused: bool = False) -> None:
    """Shift the weights in place; what they were is added to ``saved`` before they change."""
    ties = _joint_ties(pieces, support) if pieces[0].ball.p == 1.0 else None
    for piece in pieces:
        if not piece.params:
            continue
        weights = list(piece.params.values())
        point, grad = piece.point()
        here = next(iter(grad.values())).device
        shift = piece.ball.shift(point, grad, support=support.to(here), ties=ties)
        old = [torch.empty_like(w) for w in weights]
        torch._foreach_copy_(old, weights)
        saved.append((weights, old))
        torch._foreach_add_(weights, list(shift.values()), alpha=piece.sign)


def restore(saved: Saved) -> None:
    """Copy the weights back into their own memory, last first, so that overlaps come out right."""
    try:
        for weights, old in reversed(saved):
            torch._foreach_copy_(weights, old)
    except BaseException:
        # An interrupt in here must not leave half the weights behind; copying twice is harmless.
        for weights, old in reversed(saved):
            torch._foreach_copy_(weights, old)
        raise


def _joint_ties(pieces: list[Piece], support: Tensor) -> Tensor:
    counts: dict[_sharded.Spread | None, Tensor] = {}
    for piece in pieces:
        count = torch.zeros_like(support)
        if piece.params:
            count = piece.ball.ties(*piece.point(), support.to(count.device)).to(count)
        counts[piece.spread] = counts.get(piece.spread, 0) + count
    return torch.stack([_sharded.combine(c, s, 1.0) for s, c in counts.items()]).sum()


def _parts(w: Tensor, g: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The pair whole, or in flat pieces if it is large and both lie densely in the same order."""
    if (
        w.device.type != "cpu"
        or w.numel() <= _PIECE
        or w.stride() != g.stride()
        or not _is_dense(w)
    ):
        yield w, g
        return
    flat_w, flat_g = (t.as_strided((t.numel(),), (1,)) for t in (w, g))
    yield from zip(torch.split(flat_w, _PIECE), torch.split(flat_g, _PIECE), strict=True)


def _is_dense(t: Tensor) -> bool:
    """Whether the elements fill a stretch of memory without gaps or overlaps, in any order."""
    expected = 1
    for stride, size in sorted(zip(t.stride(), t.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
        for name, t in tensors.items()
    }
