"""The climb and the way back: a ball's shift applied to weights in place.

The shift needs one number about all tensors together, the ball's support; everything else is local.
On a CPU large tensors are therefore cut into pieces that stay in the cache while they are scaled,
saved and shifted: the memory is walked once, not once per operation. Small tensors share a piece,
so that an operation is dispatched once for many of them; on an accelerator all tensors do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.ball import Ball
from flatmin.optim import _fused, _sharded
from flatmin.scale import Identity, is_bias

# Numbers per piece on a CPU: few enough for the cache, enough to keep two threads busy.
_PIECE = 1 << 18

# So many small tensors of one shape, up to so many numbers, are copied into one to be worked on.
_STACK, _STACKED = 4, 1 << 19

Saved = list[tuple[list[Tensor], list[Tensor]]]
Pairs = dict[str, tuple[Tensor, Tensor]]
"""Names to (parameter, gradient)."""

_Kind = tuple[_sharded.Spread | None, torch.device, torch.dtype, torch.Size | None, bool]
"""What small tensors must have in common: where they are, type, shape (None: any), bias or not."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Local tensors of one group, device, type and layout over processes, with their gradients."""

    ball: Ball
    sign: float
    spread: _sharded.Spread | None
    weights: dict[str, Tensor]
    grads: dict[str, Tensor]

    def point(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and gradients to compute on."""
        return self.weights, self.grads

    def support(self) -> Tensor:
        """Support of the ball, as far as this piece goes."""
        weights, grads = self.point()
        return self.ball.support(_widened(weights), _widened(grads))

    def ties(self, support: Tensor) -> Tensor:
        """Coordinates of this piece that share the largest value."""
        weights, grads = self.point()
        if not weights:
            return torch.zeros_like(support)
        support_here = support.to(next(iter(weights.values())).device)
        return self.ball.ties(_widened(weights), _widened(grads), support_here).to(support)

    def climb(self, support: Tensor, length: float, saved: Saved) -> None:
        """Shift the weights; what they were is added to ``saved`` before they change."""
        if not self.weights:
            return
        weights = list(self.weights.values())
        support = support.to(weights[0].device)
        shift = self.ball.direction(_widened(self.weights), _widened(self.grads), support)
        saved.append((weights, _clones(weights)))
        torch._foreach_add_(weights, list(shift.values()), alpha=self.sign * length)


@dataclass(frozen=True, slots=True)
class Stack(Piece):
    """Small tensors of one shape, copied into one to be worked on."""

    def point(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One tensor each; all are biases or none is, so one name can stand for them."""
        name = next(iter(self.weights))
        return (
            {name: torch.stack(list(self.weights.values()))},
            {name: torch.stack(list(self.grads.values()))},
        )

    def climb(self, support: Tensor, length: float, saved: Saved) -> None:
        """Shift the weights; what they were is added to ``saved`` before they change."""
        weights = list(self.weights.values())
        point, grad = self.point()
        ((name, old),) = point.items()
        shift = self.ball.direction(_widened(point), _widened(grad), support)[name]
        saved.append((weights, list(old.unbind())))
        new = torch.add(old, shift, alpha=self.sign * length)
        torch._foreach_copy_(weights, list(new.unbind()))


@dataclass(frozen=True, slots=True)
class Fused(Piece):
    """One flat tensor whose arithmetic is compiled; its old values replace the gradient."""

    def support(self) -> Tensor:
        """Support of the ball, as far as this piece goes."""
        return _fused.support(self.ball, self.weights, self.grads)

    def climb(self, support: Tensor, length: float, saved: Saved) -> None:
        """Shift the weights; what they were is added to ``saved``."""
        _fused.climb(self.ball, self.weights, self.grads, self.sign * length, saved)


def cut(ball: Ball, sign: float, pairs: Pairs, *, fuse: Collection[str] = ()) -> Iterator[Piece]:
    """Cut the parameters of one group into pieces; those named in ``fuse`` may be fused."""
    small: dict[_Kind, Pairs] = {}
    sharded = _sharded.active()
    scaled = ball.scale != Identity()
    for name, (w, g) in pairs.items():
        spread = None
        if sharded:
            w, g, spread = _sharded.local(w), _sharded.local(g), _sharded.spread(w)
        if g.is_sparse:
            g = g.to_dense()
        if name in fuse and _fused.suits(ball, w, g) and _is_flat(w, g):
            yield Fused(ball, sign, spread, *({name: flat} for flat in _flat(w, g)))
        elif w.is_cpu and w.numel() > _PIECE and _is_flat(w, g):
            for parts in zip(*(torch.split(flat, _PIECE) for flat in _flat(w, g)), strict=True):
                yield Piece(ball, sign, spread, *({name: part} for part in parts))
        else:
            # A stack pays where several operations share it: not for a scale that does nothing.
            shape = w.shape if w.is_cpu and scaled else None
            kind = (spread, w.device, w.dtype, shape, scaled and is_bias(name))
            small.setdefault(kind, {})[name] = (w, g)
    yield from _share(ball, sign, small)


def _share(ball: Ball, sign: float, small: dict[_Kind, Pairs]) -> Iterator[Piece]:
    """Stack what is of one shape; on an accelerator, or if shapes differ, make lists."""
    lists: dict[tuple[_sharded.Spread | None, torch.device, torch.dtype], Pairs] = {}
    for (spread, device, dtype, shape, _), pairs in small.items():
        if shape is None or len(pairs) < _STACK or not shape.numel():
            lists.setdefault((spread, device, dtype), {}).update(pairs)
            continue
        names = list(pairs)
        count = _STACKED // shape.numel()
        for start in range(0, len(names), count):
            yield Stack(ball, sign, spread, *_columns(pairs, names[start : start + count]))
    for (spread, _device, _dtype), pairs in lists.items():
        # An empty part of a sharded tensor still has to take part in what its processes agree on.
        names = [name for name, (w, _) in pairs.items() if w.numel()]
        yield Piece(ball, sign, spread, *_columns(pairs, names))


def supports(pieces: list[Piece]) -> dict[Ball, Tensor]:
    """Support of each ball, over all pieces and processes that share it."""
    parts: dict[Ball, dict[_sharded.Spread | None, list[Tensor]]] = {}
    for piece in pieces:
        parts.setdefault(piece.ball, {}).setdefault(piece.spread, []).append(piece.support())
    return {ball: _combine(norms, ball.dual_order) for ball, norms in parts.items()}


def joint_support(by_ball: dict[Ball, Tensor]) -> Tensor:
    """Support of the ball that all balls form together."""
    return tree.combine(by_ball.values(), next(iter(by_ball)).dual_order)


def _columns(pairs: Pairs, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """Parameters, then gradients."""
    return ({name: pairs[name][i] for name in names} for i in (0, 1))


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
    lengths: dict[Ball, float] = {}
    for piece in pieces:
        if piece.ball not in lengths:
            lengths[piece.ball] = piece.ball.length(support, ties).item()
        piece.climb(support, lengths[piece.ball], saved)


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


def _flat(w: Tensor, g: Tensor) -> Iterator[Tensor]:
    return (t.as_strided((t.numel(),), (1,)) for t in (w, g))


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
