"""The parameters of a group, cut into pieces.

On a CPU large tensors are cut into pieces that stay in the cache meanwhile: the memory is walked
once, not once per operation. Small tensors share a piece, so that an operation is dispatched once
for many of them; on an accelerator all tensors do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flatmin.ball import Ball
from flatmin.optim import _fused, _in_place, _sharded
from flatmin.optim._pieces import Alike, Fused, Piece, Stack
from flatmin.optim._restore import Move
from flatmin.optim._spare import can_move, is_held, is_spare
from flatmin.optim._stretches import LONG, STRETCH, are_flat, flat, portions, stretches
from flatmin.optim._workspace import Workspace

# So many small tensors of one shape are copied into one to be worked on.
_STACK = 4

# Numbers from which on it pays to ask whether a gradient's memory is spare.
_SPARED = 1 << 14

Pairs = list[tuple[str, Tensor, Tensor]]
"""Names, parameters and gradients."""


class _Kind(NamedTuple):
    """What small tensors must have in common; None where it does not matter."""

    spread: _sharded.Spread | None
    device: torch.device
    dtype: torch.dtype
    in_place: bool
    moves: bool = False
    scaling: Hashable = None
    shape: torch.Size | None = None


def pieces_of(
    params: Sequence[Tensor],
    directions: Callable[[], Sequence[Tensor | None]],
    ball: Ball,
    sign: float,
    names: list[str | None],
    workspace: Workspace,
    *,
    fused: bool,
) -> list[Piece]:
    """What has a direction among the parameters of a group, cut for the climb."""
    pairs: Pairs = []
    free: set[str] = set()
    taken: set[str] = set()
    # What somebody else looks at must stay what it is: a gradient that the user holds, or a
    # direction that is none.
    held = [p.numel() < _SPARED or is_held(p) for p in params]
    for i, (name, p, g) in enumerate(zip(names, params, directions(), strict=True)):
        # Two models that share an optimizer may have names in common.
        known = name if name and name not in taken else f"{i}.{name or ''}"
        taken.add(known)
        if g is not None:
            pairs.append((known, p, g))
            if not held[i] and g is p.grad:
                free.add(known)
    return list(cut(ball, sign, pairs, workspace, free=free, lend=True, fused=fused))


def names_of(group: dict[str, Any], model: nn.Module | None) -> list[str | None]:
    """The name of each parameter of a group: the base's, else the model's, else None."""
    if "param_names" in group:
        names = list(group["param_names"])
        if len(names) != len(group["params"]):
            raise ValueError(
                f"a group has {len(group['params'])} parameters and {len(names)} param_names, of "
                "which each is to be that of one; change both lists together."
            )
        return names
    if model is None:
        return [None] * len(group["params"])
    known = {id(p): name for name, p in model.named_parameters(remove_duplicate=False)}
    return [known.get(id(p)) for p in group["params"]]


def cut(
    ball: Ball,
    sign: float,
    pairs: Pairs,
    workspace: Workspace,
    *,
    free: Collection[str] = (),
    lend: bool = False,
    fused: bool = False,
) -> Iterator[Piece]:
    """Cut the parameters of one group into pieces.

    A scale that says which parameters it treats alike, number by number, may see them cut up and
    stacked; another one sees each whole, by its own name.

    Args:
        ball: The neighbourhood.
        sign: Which way to climb.
        pairs: What to cut.
        workspace: Memory to work in.
        free: Names of parameters whose gradients nobody else refers to.
        lend: Whether others may lie in memory that the workspace lends.
        fused: Whether parameters of free gradients may be fused.
    """
    alike: Callable[[str], Hashable] | None = getattr(ball.scale, "alike", None)
    small: dict[_Kind, Pairs] = {}
    spent = set()  # names of those that may lie in their gradient's memory
    for name, whole, w, g, spread in _local(pairs):
        if alike is None:
            _sharded.refuse_parts(spread, ball.scale)
            kind = _Kind(spread, w.device, w.dtype, False)
            small.setdefault(kind, []).append((name, w, g))
            continue
        in_place = _in_place.suits(w, g)
        movable = whole is not None or not w.is_cpu
        spare = name in free and movable and is_spare(g, w)
        lends = lend and in_place and whole is not None and w.numel() >= _SPARED
        if fused and spare and _fused.suits(ball, w, g) and are_flat(w, g):
            part = (ball, sign, spread, workspace, {name: flat(w)}, {name: flat(g)})
            yield Fused(*part, moving=[(w, g, None)])
            continue
        if w.is_cpu and w.numel() > STRETCH and are_flat(w, g):
            move = _move(w, g, workspace, spare=spare, lends=lends) if in_place else None
            target = w if move is None else move[1]
            most = LONG if in_place and _in_place.is_bare(ball, name) else STRETCH
            parts = stretches([w], [g], [target], most=most)
            for i, ((part_w,), (part_g,), there) in enumerate(parts, 1):
                part = (ball, sign, spread, workspace, {name: part_w}, {name: part_g})
                if move is not None:
                    last = i == len(parts)
                    yield Alike(*part, targets=there, moving=[move] if last else ())
                else:
                    yield (Alike if in_place else Piece)(*part, whole if i == 1 else None)
            continue
        if in_place:
            moves = spare or (lends and can_move(w))
            kind = _Kind(spread, w.device, w.dtype, True, moves, alike(name), w.shape)
        else:
            kind = _Kind(spread, w.device, w.dtype, False)
        if spare:
            spent.add(name)
        small.setdefault(kind, []).append((name, w, g))
    yield from _share(ball, sign, workspace, small, spent)


def _local(
    pairs: Pairs,
) -> Iterator[tuple[str, Tensor | None, Tensor, Tensor, _sharded.Spread | None]]:
    """Names, whole parameters, and what is here of them and of gradients, dense and summed."""
    alone = not _sharded.active()
    for name, w, g in pairs:
        if alone:
            yield name, w, w, g.to_dense() if g.is_sparse else g, None
            continue
        spread = _sharded.spread(w)
        g = _sharded.summed(g, w)
        g = g.to_dense() if g.is_sparse else g
        yield name, w if spread is None else None, _sharded.local(w), _sharded.local(g), spread


def _share(
    ball: Ball,
    sign: float,
    workspace: Workspace,
    small: dict[_Kind, Pairs],
    spent: Collection[str],
) -> Iterator[Piece]:
    """Stack what is of one shape; on an accelerator, or if shapes differ, make lists."""
    lists: dict[_Kind, Pairs] = {}
    for kind, pairs in small.items():
        # A stack pays where several operations share it.
        bare = _in_place.is_bare(ball, pairs[0][0])
        # Two that lie in one place are shifted by the sum of their shifts.
        apart = len({w.data_ptr() for _, w, _ in pairs}) == len(pairs)
        if kind.shape is None or bare or len(pairs) < _STACK or not kind.shape.numel() or not apart:
            lists.setdefault(kind._replace(shape=None), []).extend(pairs)
            continue
        for part in portions(pairs, itemgetter(1)):
            yield Stack(ball, sign, kind.spread, workspace, *_columns(part))
    for kind, pairs in lists.items():
        # An empty part of a sharded tensor still has to take part in what its processes agree on.
        full = [pair for pair in pairs if pair[1].numel()]
        if not kind.in_place or not full:
            yield Piece(ball, sign, kind.spread, workspace, *_columns(full))
            continue
        # Scratch is for one piece; a list that needs none is dispatched as a whole.
        scratch = kind.moves or not _in_place.is_bare(ball, full[0][0])
        for part in portions(full, itemgetter(1)) if scratch else [full]:
            moving: list[Move] = [
                (w, g, None) if name in spent else (w, workspace.lend(w), workspace)
                for name, w, g in (part if kind.moves else ())
            ]
            targets = [target for _, target, _ in moving]
            columns = _columns(part)
            yield Alike(
                ball, sign, kind.spread, workspace, *columns, targets=targets, moving=moving
            )


def _move(w: Tensor, g: Tensor, workspace: Workspace, *, spare: bool, lends: bool) -> Move | None:
    """Where a large parameter moves to, if it can: its gradient's memory, or some that is lent."""
    if spare:
        return w, g, None
    return (w, workspace.lend(w), workspace) if lends and can_move(w) else None


def _columns(pairs: Pairs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and gradients, by name."""
    return {name: w for name, w, _ in pairs}, {name: g for name, _, g in pairs}
