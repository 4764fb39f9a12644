"""The parameters of a group, cut into pieces that are scaled, saved and shifted at once.

On a CPU large tensors are cut into pieces that stay in the cache meanwhile: the memory is walked
once, not once per operation. Small tensors share a piece, so that an operation is dispatched once
for many of them; on an accelerator all tensors do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.ball import Ball
from flatmin.optim import _fused, _sharded
from flatmin.optim._restore import Saved
from flatmin.scale import Identity

# Numbers per piece on a CPU: few enough for the cache, enough to keep two threads busy.
_PIECE = 1 << 18

# So many small tensors of one shape, up to so many numbers, are copied into one to be worked on.
_STACK, _STACKED = 4, 1 << 19

Pairs = list[tuple[str, Tensor, Tensor]]
"""Names, parameters and gradients."""

_Kind = tuple[_sharded.Spread | None, torch.device, torch.dtype, torch.Size | None, Hashable]
"""What small tensors must have in common: where they are, type, shape (None: any), scaling."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Local tensors of one group, device, type and layout over processes, with their gradients.

    Where the tensors are views, ``whole`` is the parameter that they are views of.
    """

    ball: Ball
    sign: float
    spread: _sharded.Spread | None
    weights: dict[str, Tensor]
    grads: dict[str, Tensor]
    whole: Tensor | None = None

    def point(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and gradients to compute on."""
        return self.weights, self.grads

    def support(self, *, careful: bool) -> Tensor:
        """Support of the ball, as far as this piece goes; ``careful`` where squares are lost."""
        weights, grads = self.point()
        support = self.ball.support if careful else self.ball.plain_support
        return support(_widened(weights), _widened(grads))

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
        self.keep_whole(saved)
        saved.old.append((weights, clones(weights)))
        torch._foreach_add_(weights, list(shift.values()), alpha=self.sign * length)

    def keep_whole(self, saved: Saved) -> None:
        """Remember where the parameter lies, of which this is a part."""
        if self.whole is not None:
            saved.views.append((self.whole, self.whole.detach()))


@dataclass(frozen=True, slots=True)
class Stack(Piece):
    """Small tensors of one shape, copied into one to be worked on."""

    def point(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One tensor each; all are scaled alike, so one name can stand for them."""
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
        saved.old.append((weights, list(old.unbind())))
        new = torch.add(old, shift, alpha=self.sign * length)
        torch._foreach_copy_(weights, list(new.unbind()))


@dataclass(frozen=True, slots=True)
class Fused(Piece):
    """One flat tensor whose arithmetic is compiled; its old values replace the gradient."""

    def support(self, *, careful: bool) -> Tensor:
        """Support of the ball, as far as this piece goes."""
        if careful:
            return Piece.support(self, careful=True)
        return _fused.support(self.ball, self.weights, self.grads)

    def climb(self, support: Tensor, length: float, saved: Saved) -> None:
        """Shift the weights; what they were is added to ``saved``."""
        self.keep_whole(saved)
        _fused.climb(self.ball, self.weights, self.grads, self.sign * length, saved)


def pieces_of(
    params: Sequence[Tensor],
    directions: Callable[[], Sequence[Tensor | None]],
    ball: Ball,
    sign: float,
    names: list[str | None],
    *,
    fused: bool,
) -> list[Piece]:
    """What has a direction among the parameters of a group, cut for the climb."""
    pairs: Pairs = []
    fuse: set[str] = set()
    taken: set[str] = set()
    # What somebody else looks at must stay what it is: a gradient that the user holds, or a
    # direction that is none.
    held = [not fused or _fused.is_held(p) for p in params]
    for i, (name, p, g) in enumerate(zip(names, params, directions(), strict=True)):
        # Two models that share an optimizer may have names in common.
        known = name if name and name not in taken else f"{i}.{name or ''}"
        taken.add(known)
        if g is not None:
            pairs.append((known, p, g))
            if not held[i] and g is p.grad:
                fuse.add(known)
    return list(cut(ball, sign, pairs, fuse=fuse))


def names_of(group: dict[str, Any], model: nn.Module | None) -> list[str | None]:
    """The name of each parameter of a group: the base's, else the model's, else None."""
    if "param_names" in group:
        return list(group["param_names"])
    if model is None:
        return [None] * len(group["params"])
    known = {id(p): name for name, p in model.named_parameters(remove_duplicate=False)}
    return [known.get(id(p)) for p in group["params"]]


def cut(ball: Ball, sign: float, pairs: Pairs, *, fuse: Collection[str] = ()) -> Iterator[Piece]:
    """Cut the parameters of one group into pieces; those named in ``fuse`` may be fused.

    A scale that says which parameters it treats alike, number by number, may see them cut up and
    stacked; another one sees each whole, by its own name.
    """
    alike: Callable[[str], Hashable] | None = getattr(ball.scale, "alike", None)
    scaled = ball.scale != Identity()
    small: dict[_Kind, Pairs] = {}
    for name, w, g in _local(pairs):
        spread = _sharded.spread(w)
        whole = w if spread is None else None
        w, g = _sharded.local(w), _sharded.local(g)
        if alike is None:
            _sharded.refuse_parts(spread, ball.scale)
            small.setdefault((spread, w.device, w.dtype, None, None), []).append((name, w, g))
        elif name in fuse and _fused.suits(ball, w, g) and _is_flat(w, g):
            flat_w, flat_g = _flat(w, g)
            yield Fused(ball, sign, spread, {name: flat_w}, {name: flat_g}, whole)
        elif w.is_cpu and w.numel() > _PIECE and _is_flat(w, g):
            for part_w, part_g in zip(
                *(torch.split(flat, _PIECE) for flat in _flat(w, g)), strict=True
            ):
                yield Piece(ball, sign, spread, {name: part_w}, {name: part_g}, whole)
                whole = None
        else:
            # A stack pays where several operations share it: not for a scale that does nothing.
            shape = w.shape if w.is_cpu and scaled else None
            kind = (spread, w.device, w.dtype, shape, scaled and alike(name))
            small.setdefault(kind, []).append((name, w, g))
    yield from _share(ball, sign, small)


def _local(pairs: Pairs) -> Iterator[tuple[str, Tensor, Tensor]]:
    """With gradients that are dense, and summed over processes."""
    for name, w, g in pairs:
        g = _sharded.summed(g, w)
        yield name, w, g.to_dense() if g.is_sparse else g


def _share(ball: Ball, sign: float, small: dict[_Kind, Pairs]) -> Iterator[Piece]:
    """Stack what is of one shape; on an accelerator, or if shapes differ, make lists."""
    lists: dict[tuple[_sharded.Spread | None, torch.device, torch.dtype], Pairs] = {}
    for (spread, device, dtype, shape, _), pairs in small.items():
        if shape is None or len(pairs) < _STACK or not shape.numel():
            lists.setdefault((spread, device, dtype), []).extend(pairs)
            continue
        count = _STACKED // shape.numel()
        for start in range(0, len(pairs), count):
            yield Stack(ball, sign, spread, *_columns(pairs[start : start + count]))
    for (spread, _device, _dtype), pairs in lists.items():
        # An empty part of a sharded tensor still has to take part in what its processes agree on.
        yield Piece(ball, sign, spread, *_columns([pair for pair in pairs if pair[1].numel()]))


def _columns(pairs: Pairs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and gradients, by name."""
    return {name: w for name, w, _ in pairs}, {name: g for name, _, g in pairs}


def _flat(w: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return w.as_strided((w.numel(),), (1,)), g.as_strided((g.numel(),), (1,))


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


def clones(tensors: list[Tensor]) -> list[Tensor]:
    """Copies of all, in one operation where torch has it."""
    if hasattr(torch, "_foreach_clone"):  # torch 2.8 and newer
        return list(torch._foreach_clone(tensors))
    return [t.clone() for t in tensors]


def _widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In a precision in which norms neither overflow nor vanish; a piece has one type."""
    first = next(iter(tensors.values()), None)
    if first is None or first.dtype not in (torch.float16, torch.bfloat16):
        return tensors
    return {name: t.float() for name, t in tensors.items()}
