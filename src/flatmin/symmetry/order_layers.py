"""Permutations through layers with weights: rows make units, columns move with what they read."""

import math

import torch
from torch import Tensor, fx

from flatmin.symmetry.laws import (
    Attention,
    BatchNorm,
    Bilinear,
    Convolution,
    Linear,
    Lookup,
    Matmul,
    Normalize,
)
from flatmin.symmetry.numbering import FIRST, FIXED
from flatmin.symmetry.order_rules import hold_indices, moving
from flatmin.symmetry.orders import OrderWalk
from flatmin.symmetry.walk import Given

_FIXED = torch.tensor(FIXED, device="cpu")


def linear(walk: OrderWalk, law: Linear, node: fx.Node, given: Given) -> Tensor | None:
    """Rows make units, columns read them."""
    made = weighted(walk, walk.units(given["input"]), given["weight"], node, rows=0)
    if made is not None:
        walk.attach(given["bias"], made, 1, node)
    return made


def bilinear(walk: OrderWalk, law: Bilinear, node: fx.Node, given: Given) -> Tensor | None:
    """Two layers are read, one is made."""
    weight = given["weight"]
    if not walk.is_free(weight):
        return None
    made = walk.fresh(walk.shape(weight)[0], node, weight)
    walk.attach(weight, made[:, None, None], 1, node)
    for power, name, shape in ((-1, "input1", (-1, 1)), (-2, "input2", (1, -1))):
        x = walk.units(given[name])
        line = walk.counted(walk.line(x, x.ndim - 1, node))
        walk.attach(weight, line.view(1, *shape), power, node)
        walk.consume(x, node, weight)
    walk.attach(given["bias"], made, 1, node)
    return made


def matmul(walk: OrderWalk, law: Matmul, node: fx.Node, given: Given) -> Tensor | None:
    """A matrix of parameters makes units; otherwise units are summed over in pairs."""
    one, other = (given[name] for name in law.factors)
    if walk.is_free(other) and len(walk.shape(other)) == 2:
        made = weighted(walk, walk.units(one), other, node, rows=1)
    elif walk.is_free(one) or walk.is_free(other):
        return None
    else:
        a, b = walk.units(one), walk.units(other)
        made = pairs(walk, a, b, node) if a.ndim > 1 and b.ndim > 1 else None
    if made is None or law.addend is None:
        return made
    shape = walk.shape(node)
    if not walk.is_free(given[law.addend]):
        return None
    moving(walk, node, given[law.addend], made.expand(shape))
    return made.expand(shape)


def weighted(walk: OrderWalk, x: Tensor, weight: object, node: fx.Node, rows: int) -> Tensor | None:
    """Return the units of x Wᵀ; the columns of W move with those of x."""
    if not walk.is_free(weight):
        return None
    line = walk.line(x, x.ndim - 1, node)
    made = walk.fresh(walk.shape(weight)[rows], node, weight)
    walk.attach(weight, made.unsqueeze(1 - rows), 1, node)
    walk.attach(weight, walk.counted(line).unsqueeze(rows), -1, node)
    walk.consume(x, node, weight)
    return made


def pairs(walk: OrderWalk, a: Tensor, b: Tensor, node: fx.Node) -> Tensor | None:
    """Return the units of a product of matrices, [..., m, k] times [..., k, n]."""
    summed_a, summed_b = (walk.one_for(t, [t.ndim - 1 - i], node) for i, t in ((0, a), (1, b)))
    if summed_a is None or summed_b is None:
        left, right = walk.one_for(a, [a.ndim - 2], node), walk.one_for(b, [b.ndim - 1], node)
        if left is None or right is None:
            return None
        tied = walk.meet([left.mT, right], node, "is summed with what does not move with it")
        _apart(walk, tied)
        return _FIXED
    for each in (summed_a, summed_b):
        _apart(walk, each)
    if bool((summed_a >= FIRST).any()) and bool((summed_b >= FIRST).any()):
        return None
    return torch.maximum(summed_a, summed_b)


def _apart(walk: OrderWalk, units: Tensor) -> None:
    # Matrices of a batch (heads) are told apart.
    batch = units.shape[:-2]
    sides = torch.arange(math.prod(batch), device="cpu").view(*batch, 1, 1)
    walk.mark(units, sides)


def attention(walk: OrderWalk, law: Attention, node: fx.Node, given: Given) -> Tensor | None:
    """Queries and keys change places together, values with what reads them."""
    query, key, value = (walk.units(given[name]) for name in ("query", "key", "value"))
    if given.get("attn_mask") is not None:
        walk.refuse(given["attn_mask"], node, "is added to scores")
    if given.get("enable_gqa"):
        key, value = (
            walk.repeated(each, query.shape[-3] // each.shape[-3], -3) for each in (key, value)
        )
    made = walk.one_for(value, [value.ndim - 2], node)
    if pairs(walk, query, key.mT, node) is None or made is None:
        return None
    walk.consume(torch.cat([query.flatten(), key.flatten(), value.flatten()]), node)
    _apart(walk, made)
    return made


def convolution(walk: OrderWalk, law: Convolution, node: fx.Node, given: Given) -> Tensor | None:
    """As a linear layer over channels; a depthwise filter moves along with its channel."""
    x, weight = walk.units(given["input"]), given["weight"]
    transposed = given["transposed"] if law.transposed is None else law.transposed
    spatial = len(walk.shape(weight)) - 2
    channels = x.ndim - spatial - 1
    if not walk.is_free(weight):
        return None
    line, shape, tail = walk.line(x, channels, node), walk.shape(weight), [1] * spatial
    walk.consume(x, node, weight)
    if given["groups"] == 1:
        made = walk.fresh(shape[int(transposed)], node, weight)
        read = walk.counted(line)
        by_row, by_column = (made, read) if not transposed else (read, made)
        power = -1 if transposed else 1
        walk.attach(weight, by_row.view(-1, 1, *tail), power, node)
        walk.attach(weight, by_column.view(1, -1, *tail), -power, node)
    elif shape[1] == 1 and not transposed:
        made = walk.repeated(line, shape[0] // len(line), 0)
        walk.attach(weight, made.view(-1, 1, *tail), 1, node)
    else:
        return walk.refused(node, "a grouped convolution ties its units to their place")  # type: ignore[no-any-return]
    walk.attach(given["bias"], made, 1, node)
    return made.view(-1, *tail)


def lookup(walk: OrderWalk, law: Lookup, node: fx.Node, given: Given) -> Tensor | None:
    """The units of an embedding are the columns of its table."""
    if not walk.is_free(given["weight"]):
        return None
    hold_indices(walk, node, given)
    made = walk.fresh(walk.shape(given["weight"])[1], node, given["weight"])
    walk.attach(given["weight"], made[None], 1, node)
    return made


def batch_norm(walk: OrderWalk, law: BatchNorm, node: fx.Node, given: Given) -> Tensor | None:
    """Gain, bias and statistics move with the channels."""
    x = walk.units(given["input"])
    line = walk.line(x, 1, node)
    for name in ("running_mean", "running_var", "weight", "bias"):
        walk.attach(given.get(name), line, 1, node)
    return line.view(-1, *[1] * (x.ndim - 2))


def normalize(walk: OrderWalk, law: Normalize, node: fx.Node, given: Given) -> Tensor | None:
    """What is normalized together is treated alike."""
    x = walk.units(given["input"])
    axis = 1 if law.channels else x.ndim - 1
    line = walk.line(x, axis, node)
    if law.channels:
        count = given["num_groups"] if "num_groups" in given else given["group"]
        sides = torch.arange(len(line), device="cpu") // (len(line) // count)
        walk.mark(line, sides)
    elif len(given["normalized_shape"]) != 1:
        return None
    for name in ("weight", "bias"):
        walk.attach(given.get(name), line, 1, node)
    return line.view(-1, *[1] * (x.ndim - 2)) if law.channels else line
