"""The climb and the way back: a ball's shift applied to weights in place.

The shift needs one number about all tensors together, the ball's support; everything else is local.
On a CPU large tensors are therefore cut into pieces that stay in the cache while they are scaled,
saved and shifted: the memory is walked once, not once per operation. Small tensors share a piece,
so that an operation is dispatched once for many of them; on an accelerator all tensors do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.ball import Ball
from flatmin.optim import _fused, _sharded

# Numbers per piece on a CPU: few enough for the cache, enough to keep two threads busy.
_PIECE = 1 << 18

Saved = list[tuple[list[Tensor], list[Tensor]]]
Pairs = dict[str, tuple[Tensor, Tensor]]
"""Names to (parameter, gradient)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Local tensors of one group, device, type and layout over processes, with their gradients.

    A fused piece is one flat tensor whose arithmetic is compiled, and whose old weights take the
    place of its gradient.
    """

    ball: Ball
    sign: float
    spread: _sharded.Spread | None
    fused: bool
    weights: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)

    def support(self) -> Tensor:
        """Support of the ball, as far as this piece goes."""
        if self.fused:
            return _fused.support(self.ball, self.weights, self.grads)
        return self.ball.support(_widened(self.weights), _widened(self.grads))

    def ties(self, support: Tensor) -> Tensor:
        """Coordinates of this piece that share the largest value."""
        if not self.weights:
            return torch.zeros_like(support)
        here = next(iter(self.weights.values())).device
        point = _widened(self.weights), _widened(self.grads)
        return self.ball.ties(*point, support.to(here)).to(support)

    def climb(self, support: Tensor, length: Tensor, saved: Saved) -> None:
        """Shift the weights; what they were is added to ``saved`` before they change."""
        if self.fused:
            _fused.climb(self.ball, self.weights, self.grads, self.sign * length, saved)
            return
        weights = list(self.weights.values())
        here = weights[0].device
        shift = self.ball.direction(_widened(self.weights), _widened(self.grads), support.to(here))
        old = _clones(weights)
        saved.append((weights, old))
        torch._foreach_add_(weights, list(shift.values()), alpha=self.sign * length.item())


def cut(ball: Ball, sign: float, pairs: Pairs, *, fused: bool) -> list[Piece]:
    """Cut the parameters of one group into pieces."""
    pieces: list[Piece] = []
    shared: dict[object, tuple[Piece, int]] = {}
    sharded = _sharded.active()
    for name, (param, grad) in pairs.items():
        w, g, spread = param, grad, None
        if sharded:
            w, g, spread = _sharded.local(param), _sharded.local(grad), _sharded.spread(param)
        if g.is_sparse:
            g = g.to_dense()
        size = w.numel()
        on_cpu = w.is_cpu
        if fused and _fused.suits(ball, w, g) and _is_flat(w, g):
            flat = ({name: t.as_strided((size,), (1,))} for t in (w, g))
            pieces.append(Piece(ball, sign, spread, True, *flat))
        elif size > _PIECE and on_cpu and _is_flat(w, g):
            flats = (torch.split(t.as_strided((size,), (1,)), _PIECE) for t in (w, g))
            pieces += [
                Piece(ball, sign, spread, False, {name: part_w}, {name: part_g})
                for part_w, part_g in zip(*flats, strict=True)
            ]
        else:
            key = (w.device, w.dtype, spread)
            piece, room = shared.get(key, (None, 0))
            if piece is None or (on_cpu and room < size):
                piece, room = Piece(ball, sign, spread, False), _PIECE
                pieces.append(piece)
            if size:
                piece.weights[name], piece.grads[name] = w, g
            shared[key] = (piece, room - size)
    return pieces


def joint_support(pieces: list[Piece]) -> Tensor:
    """Support of the ball that all pieces form together, over all processes."""
    order = pieces[0].ball.dual_order
    parts: dict[_sharded.Spread | None, list[Tensor]] = {}
    for piece in pieces:
        parts.setdefault(piece.spread, []).append(piece.support())
    return _combine(parts, order)


def climb(pieces: list[Piece], support: Tensor, saved: Saved) -> None:
    """Shift all weights.

    Args:
        pieces: What ``cut`` gave.
        support: Their joint support, finite, on the CPU.
        saved: Filled with weights and their old values, for ``restore``.
    """
    ties = None
    if pieces[0].ball.p == 1.0:
        counts: dict[_sharded.Spread | None, list[Tensor]] = {}
        for piece in pieces:
            counts.setdefault(piece.spread, []).append(piece.ties(support))
        ties = _combine(counts, 1.0)
    for piece in pieces:
        if piece.weights:
            piece.climb(support, piece.ball.length(support, ties), saved)


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


def _combine(parts: dict[_sharded.Spread | None, list[Tensor]], order: float) -> Tensor:
    """One norm from those of pieces, first on this process, then over all that share them."""
    return tree.combine(
        [
            _sharded.combine(tree.combine(norms, order), spread, order)
            for spread, norms in parts.items()
        ],
        order,
    )


def _is_flat(w: Tensor, g: Tensor) -> bool:
    """Whether both fill a stretch of memory in the same order, without gaps or overlaps."""
    if w.stride() != g.stride():
        return False
    expected = 1
    for stride, size in sorted(zip(w.stride(), w.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _clones(tensors: list[Tensor]) -> list[Tensor]:
    if hasattr(torch, "_foreach_clone"):  # torch 2.8 and newer
        return list(torch._foreach_clone(tensors))
    return [t.clone() for t in tensors]


def _widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In a precision in which norms neither overflow nor vanish; a piece has one type."""
    first = next(iter(tensors.values()), None)
    if first is None or first.dtype not in (torch.float16, torch.bfloat16):
        return tensors
    return {name: t.float() for name, t in tensors.items()}
