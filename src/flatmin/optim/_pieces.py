"""Parameters that are scaled, saved and shifted at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flatmin.ball import Ball
from flatmin.optim import _fused, _sharded
from flatmin.optim._in_place import InPlace, wide
from flatmin.optim._restore import Move, Saved
from flatmin.optim._workspace import Workspace, joined


@dataclass(frozen=True, slots=True)
class Piece:
    """Local tensors of one group, device, type and layout over processes, with their gradients.

    Where the tensors are views, ``whole`` is the parameter that they are views of.
    """

    ball: Ball
    sign: float
    spread: _sharded.Spread | None
    workspace: Workspace
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
        saved.old.append((weights, self.workspace.copies(weights)))
        torch._foreach_add_(weights, list(shift.values()), alpha=self.sign * length)

    def keep_whole(self, saved: Saved) -> None:
        """Remember where the parameter lies, of which this is a part."""
        if self.whole is not None:
            saved.views.append((self.whole, self.whole.detach()))


@dataclass(frozen=True, slots=True)
class Alike(Piece):
    """Ordinary tensors on a CPU that are scaled alike, worked on in memory that is there.

    Where there are ``targets``, such as gradients that are spent, the shifted weights are written
    into them, and ``moving`` are the parameters that lie there when all pieces have been climbed.
    """

    targets: Sequence[Tensor] = ()
    moving: Sequence[Move] = ()

    def in_place(self) -> InPlace:
        """The arithmetic."""
        return InPlace(self.ball, next(iter(self.weights)), self.workspace)

    def lists(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and gradients to compute on."""
        return list(self.weights.values()), list(self.grads.values())

    def support(self, *, careful: bool) -> Tensor:
        """Support of the ball, as far as this piece goes."""
        if careful:
            return Piece.support(self, careful=True)
        return self.in_place().support(*self.lists())

    def climb(self, support: Tensor, length: float, saved: Saved) -> None:
        """Shift the weights; what they were is added to ``saved`` before they change."""
        weights, grads = self.lists()
        in_place = self.in_place()
        shift = in_place.direction(weights, grads, support)
        if self.targets:
            for w, s, target in zip(weights, shift, self.targets, strict=True):
                torch.add(w, s, alpha=self.sign * length, out=target)
            saved.moving.extend(self.moving)
            return
        self.keep_whole(saved)
        saved.old.append((weights, self.workspace.copies(weights)))
        torch._foreach_add_(weights, shift, alpha=self.sign * length)

    def ties(self, support: Tensor) -> Tensor:
        """Coordinates of this piece that share the largest value."""
        return self.in_place().ties(*self.lists(), support)


@dataclass(frozen=True, slots=True)
class Stack(Alike):
    """Such tensors of one shape, small and many, copied into one to be worked on."""

    # The copies of the weights, made once: they are what is put back as well.
    old: list[Tensor] = field(default_factory=list)

    def lists(self) -> tuple[list[Tensor], list[Tensor]]:
        """One tensor each; all are scaled alike, so one name can stand for them."""
        weights, grads = list(self.weights.values()), list(self.grads.values())
        if not self.old:
            self.old.extend(self.workspace.another(weights))
            torch.stack(weights, out=joined(self.old))
        room = self._room()
        if room[0].dtype == grads[0].dtype:
            torch.stack(grads, out=joined(room))
        else:
            torch._foreach_copy_(room, grads)
        return [joined(self.old)], [joined(room)]

    def climb(self, support: Tensor, length: float, saved: Saved) -> None:
        """Shift the weights; what they were is added to ``saved`` before they change."""
        weights = list(self.weights.values())
        old, grads = self.lists()
        (shift,) = self.in_place().direction(old, grads, support)
        saved.old.append((weights, self.old))
        torch.add(old[0], shift, alpha=self.sign * length, out=shift)
        torch._foreach_copy_(weights, self._room())

    def _room(self) -> list[Tensor]:
        weights = list(self.weights.values())
        return self.workspace.room("direction", weights, wide(weights[0].dtype))


@dataclass(frozen=True, slots=True)
class Fused(Piece):
    """One flat tensor whose arithmetic is compiled; its gradient's memory is used."""

    moving: Sequence[Move] = ()

    def support(self, *, careful: bool) -> Tensor:
        """Support of the ball, as far as this piece goes."""
        if careful:
            return Piece.support(self, careful=True)
        return _fused.support(self.ball, self.weights, self.grads)

    def climb(self, support: Tensor, length: float, saved: Saved) -> None:
        """Write the shifted weights to where they move."""
        _fused.climb(self.ball, self.weights, self.grads, self.sign * length)
        saved.moving.extend(self.moving)


def _widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In a precision in which norms neither overflow nor vanish; a piece has one type."""
    return {
        name: t if wide(t.dtype) is t.dtype else t.to(wide(t.dtype)) for name, t in tensors.items()
    }
