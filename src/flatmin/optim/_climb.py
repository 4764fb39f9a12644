"""The climb and the way back: a ball's shift applied to weights in place.

The shift needs one number about all tensors together, the ball's support; everything else is local.
On a CPU the weights are therefore cut into pieces that stay in the cache while they are scaled,
saved and shifted: the memory is walked once, not once per operation. Large tensors are cut, small
ones are gathered. On an accelerator a piece is all tensors at once, in one launch an operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.ball import Ball, is_bias
from flatmin.optim import _sharded

# Numbers per piece on a CPU; a few such arrays fit in a core's cache.
_PIECE = 1 << 18

Saved = list[tuple[list[Tensor], list[Tensor]]]
Pairs = dict[str, tuple[Tensor, Tensor]]
"""Names to (parameter, gradient)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Local tensors of one group, device, type and layout over processes, with their gradients."""

    ball: Ball
    sign: float
    spread: _sharded.Spread | None
    weights: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)

    @property
    def gathered(self) -> bool:
        """Whether the tensors are copied into one before they are worked on."""
        return len(self.weights) > 1 and next(iter(self.weights.values())).device.type == "cpu"

    def point(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and gradients to compute on."""
        if not self.gathered:
            return self.weights, self.grads
        # All are biases or none is: one name can stand for them.
        name = next(iter(self.weights))
        flat_w, flat_g = (_gather(list(tensors.values())) for tensors in (self.weights, self.grads))
        return {name: flat_w}, {name: flat_g}


def cut(ball: Ball, sign: float, pairs: Pairs) -> list[Piece]:
    """Cut the parameters of one group into pieces."""
    pieces: list[Piece] = []
    filling: dict[object, tuple[Piece, int]] = {}
    for name, (param, grad) in pairs.items():
        spread = _sharded.spread(param)
        w, g = _sharded.local(param), _sharded.local(grad)
        if g.is_sparse:
            g = g.to_dense()
        on_cpu = w.device.type == "cpu"
        if on_cpu and w.numel() > _PIECE and w.stride() == g.stride() and _is_dense(w):
            flat = [torch.split(t.as_strided((t.numel(),), (1,)), _PIECE) for t in (w, g)]
            pieces += [
                Piece(ball, sign, spread, {name: part_w}, {name: part_g})
                for part_w, part_g in zip(*flat, strict=True)
            ]
            continue
        key = (w.device, w.dtype, spread, on_cpu and is_bias(name))
        piece, room = filling.get(key, (None, 0))
        if piece is None or (on_cpu and room < w.numel()):
            piece, room = Piece(ball, sign, spread), _PIECE
            pieces.append(piece)
        if w.numel():
            piece.weights[name], piece.grads[name] = w, g
        filling[key] = (piece, room - w.numel())
    return pieces


def joint_support(pieces: list[Piece]) -> Tensor:
    """Support of the ball that all pieces form together, over all processes."""
    order = pieces[0].ball.dual_order
    parts: dict[_sharded.Spread | None, list[Tensor]] = {}
    for piece in pieces:
        support = piece.ball.support(*_widened(piece.point()))
        parts.setdefault(piece.spread, []).append(support)
    return tree.combine(
        [
            _sharded.combine(tree.combine(supports, order), spread, order)
            for spread, supports in parts.items()
        ],
        order,
    )


def climb(pieces: list[Piece], support: Tensor, saved: Saved, *, in_place: bool) -> None:
    """Shift the weights; what they were is added to ``saved`` before they change.

    Args:
        pieces: What ``cut`` gave.
        support: Their joint support, finite.
        saved: Filled with weights and their old values, for ``restore``.
        in_place: Whether the old values may take the place of the gradients.
    """
    ties = _joint_ties(pieces, support) if pieces[0].ball.p == 1.0 else None
    lengths: dict[Ball, float] = {}
    for piece in pieces:
        if not piece.weights:
            continue
        if piece.ball not in lengths:
            lengths[piece.ball] = piece.ball.length(support, ties).item()
        alpha = piece.sign * lengths[piece.ball]
        weights = list(piece.weights.values())
        point = piece.point()
        here = weights[0].device
        shift = list(piece.ball.direction(*_widened(point), support.to(here)).values())
        if piece.gathered:
            (old,) = point[0].values()
            saved.append((weights, _scatter(old, weights)))
            torch._foreach_copy_(weights, _scatter(torch.add(old, shift[0], alpha=alpha), weights))
        else:
            # With the gradients as the place, the shift may be among them: it is used up first.
            new = torch._foreach_add(weights, shift, alpha=alpha) if in_place else []
            grads = list(piece.grads.values())
            olds = grads if in_place else [torch.empty_like(w) for w in weights]
            torch._foreach_copy_(olds, weights)
            saved.append((weights, olds))
            if in_place:
                torch._foreach_copy_(weights, new)
            else:
                torch._foreach_add_(weights, shift, alpha=alpha)


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
    counts: dict[_sharded.Spread | None, list[Tensor]] = {}
    for piece in pieces:
        count = torch.zeros_like(support)
        if piece.weights:
            point = _widened(piece.point())
            here = next(iter(point[0].values())).device
            count = piece.ball.ties(*point, support.to(here)).to(count)
        counts.setdefault(piece.spread, []).append(count)
    return tree.combine(
        [_sharded.combine(tree.combine(c, 1.0), spread, 1.0) for spread, c in counts.items()], 1.0
    )


def _gather(tensors: list[Tensor]) -> Tensor:
    flat: Tensor = torch._C._nn.flatten_dense_tensors(tensors)
    return flat


def _scatter(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    """Views of a gathered tensor, in the shapes of its parts."""
    return list(torch._C._nn.unflatten_dense_tensors(flat, like))


def _is_dense(t: Tensor) -> bool:
    """Whether the elements fill a stretch of memory without gaps or overlaps, in any order."""
    expected = 1
    for stride, size in sorted(zip(t.stride(), t.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _widened(
    point: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """In a precision in which norms neither overflow nor vanish."""
    low = (torch.float16, torch.bfloat16)
    weights, grads = (
        {name: t.float() if t.dtype in low else t for name, t in part.items()} for part in point
    )
    return weights, grads
