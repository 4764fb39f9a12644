"""Factors through layers with weights: they read units and make new ones."""

import torch
from torch import Tensor, fx

from flatmin.symmetry.factor_rules import pairs
from flatmin.symmetry.factors import FactorWalk
from flatmin.symmetry.laws import Bilinear, Convolution, Linear, Lookup, Matmul
from flatmin.symmetry.numbering import FIXED, ZERO
from flatmin.symmetry.walk import Given


def linear(walk: FactorWalk, law: Linear, node: fx.Node, given: Given) -> Tensor:
    """Rows make units, columns read them."""
    weight = given["weight"]
    made = weighted(walk, walk.units(given["input"]), weight, node, rows=0)
    return walk.follow(given["bias"], made.expand(walk.shape(node)), node)


def bilinear(walk: FactorWalk, law: Bilinear, node: fx.Node, given: Given) -> Tensor | None:
    """Two layers are read, one is made."""
    weight, both = given["weight"], []
    if not walk.is_free(weight):
        return None
    for name in ("input1", "input2"):
        x = walk.units(given[name])
        both.append(walk.tied(x, range(x.ndim - 1), node).flatten().clamp_min(FIXED))
        walk.consume(x, node, weight)
    made = walk.fresh(walk.shape(weight)[0], node, weight)
    rows, one, other = made[:, None, None], both[0][:, None], both[1]
    walk.forms[str(walk.name(weight))] = [(1, rows), (-1, one), (-1, other)]
    return walk.follow(given["bias"], made, node)


def matmul(walk: FactorWalk, law: Matmul, node: fx.Node, given: Given) -> Tensor:
    """A matrix of parameters makes units; others tie what is summed over."""
    one, other = (given[name] for name in law.factors)
    shape = walk.shape(node)
    if walk.is_free(other) and len(walk.shape(other)) == 2:
        made = weighted(walk, walk.units(one), other, node, rows=1)
    elif walk.is_free(one) and len(walk.shape(one)) == 2 and len(walk.shape(other)) > 1:
        made = weighted(walk, walk.units(other).mT, one, node, rows=0).mT
    else:
        a, b = walk.units(one), walk.units(other)
        walk.consume(torch.cat([a.flatten(), b.flatten()]), node)
        made = pairs(walk, a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b, node)
        made = made.squeeze(-2) if a.ndim == 1 else made
        made = made.squeeze(-1) if b.ndim == 1 else made
    made = made.expand(shape)
    return made if law.addend is None else walk.follow(given[law.addend], made, node)


def weighted(walk: FactorWalk, x: Tensor, weight: object, node: fx.Node, rows: int) -> Tensor:
    """Return the units of x Wᵀ, where the rows of W lie along its axis ``rows``."""
    if bool((x == ZERO).all()):
        return torch.tensor(ZERO, device="cpu").expand(*x.shape[:-1], walk.shape(weight)[rows])
    if not walk.is_free(weight):
        matrix = walk.units(weight)
        made = pairs(walk, x, matrix.mT if rows == 0 else matrix, node)
        walk.consume(x, node, weight)
        return made
    name, shape = walk.name(weight), walk.shape(weight)
    assert name is not None
    lines = x.reshape(-1, x.shape[-1])
    first = lines.amax(0)
    plain = bool(((lines == first) | (lines == ZERO)).all())
    if not plain:
        # Each line may have one factor of its own, beside those that its entries share.
        first, lines = lines[0].clamp_min(FIXED), lines.clamp_min(FIXED)
        walk.equate([(1, lines), (-1, first[None]), (-1, lines[:, :1]), (1, first[:1])])
    first = first.clamp_min(FIXED)
    made = walk.fresh(shape[rows], node, weight)
    walk.forms[name] = [(1, made.unsqueeze(1 - rows)), (-1, first.unsqueeze(rows))]
    walk.consume(x, node, weight)
    if plain:
        return made.expand(*x.shape[:-1], len(made))
    return walk.combined([(1, made), (1, x.clamp_min(FIXED)[..., :1]), (-1, first[:1])], node)


def convolution(walk: FactorWalk, law: Convolution, node: fx.Node, given: Given) -> Tensor:
    """As a linear layer over channels; neighbors are tied."""
    x, weight = walk.units(given["input"]), given["weight"]
    transposed = given["transposed"] if law.transposed is None else law.transposed
    spatial = len(walk.shape(weight)) - 2
    groups, channels, outputs = given["groups"], x.ndim - spatial - 1, walk.shape(node)
    axes = [axis for axis in range(x.ndim) if axis != channels]
    read = walk.tied(x, axes, node).flatten().clamp_min(FIXED)
    walk.consume(read, node, weight)
    made = walk.fresh(outputs[channels], node, weight)
    # One matrix of (outputs, inputs of a group), for each of the groups.
    if transposed:
        row = made.view(groups, -1).repeat_interleave(len(read) // groups, 0)
        column = read[:, None]
    else:
        row = made[:, None]
        column = read.view(groups, -1).repeat_interleave(len(made) // groups, 0)
    row, column = (each.view(*each.shape, *[1] * spatial) for each in (row, column))
    if walk.is_free(weight):
        walk.forms[str(walk.name(weight))] = [(1, row), (-1, column)]
    else:
        walk.equate([(1, walk.units(weight)), (1, column), (-1, row)])
    shown = made.view(-1, *[1] * spatial)
    if given["bias"] is not None:
        bias = walk.follow(given["bias"], made, node)
        shown = bias.view(-1, *[1] * spatial)
    return shown


def lookup(walk: FactorWalk, law: Lookup, node: fx.Node, given: Given) -> Tensor:
    """The units of an embedding are the columns of its table."""
    table, indices = given["weight"], given["indices"]
    if walk.is_free(table) and indices in walk.traced.varying:
        made = walk.fresh(walk.shape(table)[1], node, table)
        walk.forms[str(walk.name(table))] = [(1, made[None])]
        return made
    units = walk.units(table)
    if indices in walk.traced.varying:
        return walk.tied(units, [0], node)[0]
    return units[walk.traced.values[indices]]
