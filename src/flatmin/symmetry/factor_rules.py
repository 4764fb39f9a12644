"""Factors through arithmetic: functions of one entry, sums, products, reductions."""

from typing import Any

import torch
from torch import Tensor, fx

from flatmin.symmetry.factors import FactorWalk
from flatmin.symmetry.laws import Join, Pick, Pointwise, Pool, Product, Reduce, Slopes
from flatmin.symmetry.moves import pick, picked_axes, reduced_axes
from flatmin.symmetry.numbering import FIXED
from flatmin.symmetry.walk import Given

_VERBS = {0: "positive scaling", 2: "a change of sign"}


def pointwise(walk: FactorWalk, law: Pointwise, node: fx.Node, given: Given) -> Tensor:
    """Pass units on to a power, or stop them."""
    source = next(each for each in given.values() if isinstance(each, fx.Node))
    units = walk.units(source)
    power = law.flip if walk.system.modulus else law.scale
    kept = not _is_rounded(walk, source, node)
    if power == 1 and kept:
        return units
    if power == 0:
        return torch.tensor(FIXED, device="cpu")
    if power is None or not kept:
        verb = _VERBS[walk.system.modulus]
        walk.refuse(source, node, f"{walk.label(node)} does not commute with {verb}")
        return torch.tensor(FIXED, device="cpu")
    return walk.combined([(power, units)], node)


def _is_rounded(walk: FactorWalk, source: object, node: fx.Node) -> bool:
    before, after = walk.traced.values[source], walk.traced.values[node]  # type: ignore[index]
    return before.is_floating_point() and not (after.is_floating_point() or after.is_complex())


def join(walk: FactorWalk, law: Join, node: fx.Node, given: Given) -> Tensor | None:
    """Sums tie what they join; a parameter that is free moves with what it is added to."""
    if law.choice is not None:
        walk.refuse(given[law.choice], node, "which entries are chosen depends on it")
    one, other = (given[name] for name in law.operands)
    if not law.odd and walk.system.modulus:
        return None
    shape = walk.shape(node)
    if walk.is_free(one) and not walk.is_free(other):
        one, other = other, one
    return walk.follow(other, walk.units(one).expand(shape), node)


def compare(walk: FactorWalk, law: Any, node: fx.Node, given: Given) -> Tensor | None:
    """What is larger stays the same if both sides scale alike."""
    if walk.system.modulus:
        return None
    walk.follow(given["other"], walk.units(given["self"]).expand(walk.shape(node)), node)
    return torch.tensor(FIXED, device="cpu")


def product(walk: FactorWalk, law: Product, node: fx.Node, given: Given) -> Tensor | None:
    """Factors multiply."""
    if given.get("rounding_mode") is not None:
        return None
    one, other = walk.units(given["self"]), walk.units(given["other"])
    if law.inverse:
        other = other.clamp_min(FIXED)  # what divides is no zero
    return walk.combined([(1, one), (-1 if law.inverse else 1, other)], node)


def reduce(walk: FactorWalk, law: Reduce, node: fx.Node, given: Given) -> Any:
    """Tie what is reduced to one entry."""
    power = law.flip if walk.system.modulus else law.scale
    if power is None:
        return None
    units = walk.units(given["self"])
    axes = reduced_axes(given, units.ndim)
    common = walk.tied(units, axes, node)
    if power == 0:
        return torch.tensor(FIXED, device="cpu")
    if power != 1:
        common = walk.combined([(power, common)], node)
    shape = walk.shape(node)
    if law.along:
        return common.expand(shape)
    return common if len(shape) == units.ndim else common.reshape(shape)


def pool(walk: FactorWalk, law: Pool, node: fx.Node, given: Given) -> Tensor | None:
    """Tie what lies along the last axes."""
    source = next(iter(given.values()))
    if walk.system.modulus and not law.odd:
        return None
    units = walk.units(source)
    return walk.tied(units, range(units.ndim - law.axes, units.ndim), node)


def picks(walk: FactorWalk, law: Pick, node: fx.Node, given: Given) -> Any:
    """Move what indices name; where they depend on the inputs, all that they may name is tied."""
    axes = picked_axes(walk, node, given)
    if axes is None:
        return None
    source = walk.units(given["self"])
    return pick(walk, node, given, walk.tied(source, axes, node).expand(source.shape))


def attention(walk: FactorWalk, law: Any, node: fx.Node, given: Given) -> Tensor:
    """Queries against keys, whose products may not change; values are averaged over positions."""
    query, key, value = (walk.units(given[name]) for name in ("query", "key", "value"))
    if given.get("attn_mask") is not None:
        walk.refuse(given["attn_mask"], node, "is added to scores, which a softmax reads")
    if given.get("enable_gqa"):
        key, value = (
            each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value)
        )
    walk.consume(torch.cat([query.flatten(), key.flatten(), value.flatten()]), node)
    scores = pairs(walk, query, key.transpose(-2, -1), node)
    walk.stop(scores, node, "softmax does not commute with " + _VERBS[walk.system.modulus])
    return walk.tied(value, [value.ndim - 2], node)


def pairs(walk: FactorWalk, a: Tensor, b: Tensor, node: fx.Node) -> Tensor:
    """Return the units of a product of matrices, [..., m, k] times [..., k, n]."""
    a, b = a.clamp_min(FIXED), b.clamp_min(FIXED)
    # a(m, k) + b(k, n) = y(m, n) for all k: asked along n = 0 and along m = 0.
    for a_part, b_part in ((a, b[..., :1]), (a[..., :1, :], b)):
        if (a_part == a_part[..., :1]).all() and (b_part == b_part[..., :1, :]).all():
            continue
        left, right = a_part[..., :, :, None], b_part[..., None, :, :]
        walk.equate([(1, left), (1, right), (-1, left[..., :1, :]), (-1, right[..., :1, :])])
    return walk.combined([(1, a[..., :, :1]), (1, b[..., :1, :])], node)


def slopes(walk: FactorWalk, law: Slopes, node: fx.Node, given: Given) -> Tensor | None:
    """PReLU commutes with positive factors as long as its slopes stay."""
    if walk.system.modulus:
        return None
    walk.refuse(given["weight"], node, "slopes stay where they are")
    return walk.units(given["self"])


def unchanged(walk: FactorWalk, law: Any, node: fx.Node, given: Given) -> Tensor:
    """Dropout: what is kept is scaled by a constant."""
    return walk.units(next(iter(given.values())))
