"""Permutations through operations: what treats all units alike lets them change places."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from flatmin.symmetry.laws import Dropout, Join, Law, Move, Pick, Pool, Reduce, Slopes, Softmax
from flatmin.symmetry.moves import move, pick, picked_axes, reduced_axes
from flatmin.symmetry.numbering import FIRST, FIXED
from flatmin.symmetry.orders import OrderWalk
from flatmin.symmetry.walk import Given

_FIXED = torch.tensor(FIXED, device="cpu")


def moves(walk: OrderWalk, law: Move, node: fx.Node, given: Given) -> Any:
    """Run the operation on unit numbers; units that it leaves out are told from the others."""
    found = move(walk, law, node, given)
    for part in found if isinstance(found, list) else [found]:
        if part is not None:
            walk.counted(part)
    return found


def picks(walk: OrderWalk, law: Pick, node: fx.Node, given: Given) -> Tensor | None:
    """As above, unless the inputs decide which units are looked up."""
    units, axes = walk.units(given["self"]), picked_axes(walk, node, given)
    if axes is None or walk.one_for(units, axes, node) is None:
        return None
    hold_indices(walk, node, given)
    if not _looks_alike(walk, node, given, units):
        return None
    return walk.counted(pick(walk, node, given, units))


def _looks_alike(walk: OrderWalk, at: fx.Node, given: Given, units: Tensor) -> bool:
    """Tell whether indices look at the same place for all units, wherever they stand."""
    if "indices" in given:
        pairs = [(axis, index) for axis, index in enumerate(given["indices"]) if index is not None]
        chosen = any(index in walk.traced.varying for _, index in pairs)
        return not chosen or all(walk.one_for(units, [axis], at) is not None for axis, _ in pairs)
    node = given.get("index")
    index = walk.traced.values[node] if isinstance(node, fx.Node) else None
    if not isinstance(index, Tensor) or index.ndim != units.ndim:
        return True
    for axis in {*range(units.ndim)} - {given["dim"] % units.ndim}:
        if index.shape[axis] > 1 and walk.one_for(units, [axis], at) is None:
            known = node not in walk.traced.varying and bool(
                (index == index.narrow(axis, 0, 1)).all()
            )
            if not known and index.stride(axis):  # nor expanded
                return False
    return True


def hold_indices(walk: OrderWalk, node: fx.Node, given: Given) -> None:
    """Stop units whose places are looked up: where a maximum lies goes where its unit goes."""
    named = [given.get("index"), given.get("indices")]
    every = [each for one in named for each in (one if isinstance(one, list | tuple) else [one])]
    for index in every:
        if isinstance(index, fx.Node) and bool((walk.units(index) >= FIRST).any()):
            walk.refuse(index, node, "which entries are looked up depends on it")


def pointwise(walk: OrderWalk, law: Law, node: fx.Node, given: Given) -> Tensor:
    """Any function of each entry."""
    return walk.units(next(each for each in given.values() if isinstance(each, fx.Node)))


def softmax(walk: OrderWalk, law: Softmax, node: fx.Node, given: Given) -> Tensor:
    """What is normalized together is treated alike."""
    units = walk.units(given["self"])
    axes = reduced_axes(given, units.ndim)
    if walk.one_for(units, axes, node) is None:
        _together(walk, units, axes)
    return units


def _together(walk: OrderWalk, units: Tensor, axes: Sequence[int]) -> None:
    # Units are told apart by those with which they are put together.
    left = [1 if axis in axes else size for axis, size in enumerate(units.shape)]
    walk.mark(units, torch.arange(math.prod(left), device="cpu").view(left))


def dropout(walk: OrderWalk, law: Dropout, node: fx.Node, given: Given) -> Tensor | None:
    """In training the mask of a dropout would not follow."""
    active = given.get("train", given.get("training"))
    return None if active else walk.units(given["input"])


def joined(walk: OrderWalk, node: fx.Node, operands: list[object]) -> Tensor:
    """Operands whose units meet are tied; one that is the same for all units may be anything."""
    shape = walk.shape(node)
    free = [each for each in operands if walk.is_free(each)]
    known = [each for each in operands if not walk.is_free(each)]
    parts = [(each, walk.units(each).expand(shape)) for each in known]
    met = [units for _, units in parts if bool((units >= FIRST).any())]
    still = [(each, units) for each, units in parts if not bool((units >= FIRST).any())]
    total = torch.zeros(shape, dtype=torch.int64, device="cpu")
    if met:
        total = walk.meet(met, node, "meets what does not move with them")
    for _, units in still:
        total = torch.maximum(total, units)
    for each, _ in still:
        _same_for_all(walk, node, each, total)
    for each in free:
        moving(walk, node, each, total)
    return total


def _extent_axes(walk: OrderWalk, operand: object, rank: int) -> list[int]:
    shape = walk.shape(operand)
    return [rank - len(shape) + axis for axis, size in enumerate(shape) if size > 1]


def _same_for_all(walk: OrderWalk, node: fx.Node, operand: object, units: Tensor) -> None:
    if walk.one_for(units, _extent_axes(walk, operand, units.ndim), node) is None:
        walk.stop(units, node, "meets what does not move with them")


def moving(walk: OrderWalk, node: fx.Node, operand: object, units: Tensor) -> None:
    """Let a parameter with one entry per unit move with the units."""
    axes = _extent_axes(walk, operand, units.ndim)
    line = walk.one_for(units, [a for a in range(units.ndim) if a not in axes], node)
    varying = [a for a in axes if line is not None and walk.one_for(units, [a], node) is None]
    if line is None or len(varying) > 1:
        if bool((units >= FIRST).any()) and walk.one_for(units, axes, node) is None:
            walk.stop(units, node, "meets a parameter of another layout")
        walk.fix(str(walk.name(operand)), "is used in another way as well", node)
        return
    shape = walk.shape(operand)
    line = line.reshape(line.shape[units.ndim - len(shape) :])
    for axis in range(line.ndim):
        if units.ndim - len(shape) + axis not in varying:
            line = line.narrow(axis, 0, 1)
    walk.attach(operand, line, 1, node)


def join(walk: OrderWalk, law: Join, node: fx.Node, given: Given) -> Tensor:
    """Sums and choices."""
    names = [*law.operands, *([law.choice] if law.choice else [])]
    return joined(walk, node, [given[name] for name in names])


def product(walk: OrderWalk, law: Law, node: fx.Node, given: Given) -> Tensor:
    """Products, quotients and comparisons, entry by entry."""
    return joined(walk, node, [given["self"], given["other"]])


def reduce(walk: OrderWalk, law: Reduce, node: fx.Node, given: Given) -> Any:
    """Over all units alike, or over other axes."""
    units = walk.units(given["self"])
    axes = reduced_axes(given, units.ndim)
    common = walk.one_for(units, axes, node)
    if common is None and (law.along or not law.alike):
        return None
    if common is None:
        _together(walk, units, axes)
        return _FIXED
    shape = walk.shape(node)
    if law.along:
        return common.expand(shape)
    return common if len(shape) == units.ndim else common.reshape(shape)


def pool(walk: OrderWalk, law: Pool, node: fx.Node, given: Given) -> Tensor | None:
    """Channel by channel."""
    units = walk.units(next(iter(given.values())))
    return walk.one_for(units, range(units.ndim - law.axes, units.ndim), node)


def slopes(walk: OrderWalk, law: Slopes, node: fx.Node, given: Given) -> Tensor | None:
    """The slopes of a PReLU move with their channels."""
    x, weight = walk.units(given["self"]), given["weight"]
    if math.prod(walk.shape(weight)) > 1:
        line = walk.line(x, 1, node)
        walk.attach(weight, line.reshape([-1 if n > 1 else 1 for n in walk.shape(weight)]), 1, node)
    return x
