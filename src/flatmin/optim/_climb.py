"""The climb: a ball's shift applied to weights in place.

The shift needs one number about all tensors together, the ball's support; everything else is local
to a piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flatmin import _tree as tree
from flatmin.ball import Ball
from flatmin.optim import _sharded
from flatmin.optim._cut import cut
from flatmin.optim._gradients import Groups, finite_here
from flatmin.optim._pieces import Piece
from flatmin.optim._report import StepReport, report
from flatmin.optim._restore import Saved
from flatmin.optim._workspace import Workspace

_Parts = dict[_sharded.Spread | None, list[Tensor]]


def ascend(
    pieces: Sequence[Piece], outside: Sequence[dict[str, Any]], groups: Groups, saved: Saved
) -> tuple[StepReport | None, str | None]:
    """Shift all weights, unless a gradient is not finite.

    Args:
        pieces: The parameters in the ball, with their gradients.
        outside: The groups that take no part in it.
        groups: All groups.
        saved: Filled with weights and their old values before they change.

    Returns:
        What the climb was, if there was one; why the step has to be skipped, if it has.
    """
    told, finite = None, finite_here(outside)
    if pieces:
        by_ball, support = _supports(pieces, careful=False)
        if pieces[0].ball.p == 2.0 and _sharded.agree(bool(tree.lost_squares(support)), groups):
            by_ball, support = _supports(pieces, careful=True)
        told = report(by_ball, support)
        finite = finite and math.isfinite(support.item())
    if not _sharded.agree(finite, groups):
        return told, "the gradient at the weights was not finite"
    if pieces:
        _shift(pieces, support, saved)
    return told, None


def squared_norm(groups: Groups) -> float:
    """Squared Euclidean norm of all gradients together, over all processes that share them."""
    grads = [(p, p.grad) for group in groups for p in group["params"] if p.grad is not None]
    pairs = [(str(i), p, grad) for i, (p, grad) in enumerate(grads)]
    _, norm = _supports(list(cut(Ball(1.0), 1.0, pairs, Workspace())), careful=True)
    return float(norm.double().square().item())


def _supports(pieces: Sequence[Piece], *, careful: bool) -> tuple[dict[Ball, Tensor], Tensor]:
    """Support of each ball, over all pieces and processes that share it, and of all together."""
    parts: dict[Ball, _Parts] = {}
    for piece in pieces:
        support = piece.support(careful=careful)
        parts.setdefault(piece.ball, {}).setdefault(piece.spread, []).append(support)
    by_ball = {
        ball: _combine(norms, ball.dual_order, careful=careful).cpu()
        for ball, norms in parts.items()
    }
    order = pieces[0].ball.dual_order
    return by_ball, tree.combine(by_ball.values(), order, careful=careful)


def _shift(pieces: Sequence[Piece], support: Tensor, saved: Saved) -> None:
    """Shift all weights, given the support of all balls together on the CPU."""
    ties = None
    if pieces[0].ball.p == 1.0:
        counts: _Parts = {}
        for piece in pieces:
            counts.setdefault(piece.spread, []).append(piece.ties(support))
        ties = _combine(counts, 1.0)
    lengths: dict[Ball, float] = {}
    for piece in pieces:
        if piece.ball not in lengths:
            lengths[piece.ball] = piece.ball.length(support, ties).item()
        piece.climb(support, lengths[piece.ball], saved)
    torch.clear_autocast_cache()  # which may hold the weights of before in half precision


def _combine(parts: _Parts, order: float, *, careful: bool = False) -> Tensor:
    """One norm from those of pieces, first on this process, then over all that share them."""
    return tree.combine(
        [
            _sharded.combine(tree.combine(norms, order, careful=careful), spread, order)
            for spread, norms in parts.items()
        ],
        order,
        careful=careful,
    )
