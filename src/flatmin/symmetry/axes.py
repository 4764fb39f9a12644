"""What operations that move or mix axes do to units."""

import math
from collections.abc import Sequence

import torch
from torch import fx

from flatmin.symmetry.elementwise import commutes
from flatmin.symmetry.layers import argument, unknown
from flatmin.symmetry.walk import Kind, Rule, Walk, Wire


def reshape(walk: Walk, node: fx.Node) -> Wire | None:
    """Any reshaping that keeps the entries of a unit together, as flattening pixels does."""
    x = walk.wire(argument(node, 0, "input"))
    if x is None or any(isinstance(option, torch.dtype) for option in node.args):
        return unknown(walk, node)  # view(dtype) reinterprets bits
    before, after = walk.shape(argument(node, 0, "input")), walk.shape(node)
    outer = math.prod(before[: x.dim])
    fits = [
        axis
        for axis in range(len(after))
        if math.prod(after[:axis]) == outer and after[axis] % walk.size(x) == 0
    ]
    if not fits:
        walk.stop(x, node, "mixes units into another axis")
        return None
    dim = x.dim if x.dim in fits else fits[-1]
    return Wire(x.units, dim, after[dim] // walk.size(x))


def transpose(walk: Walk, node: fx.Node) -> Wire | None:
    """Exchange two axes."""
    x = walk.wire(argument(node, 0, "input"))
    if x is None:
        return None
    axes = list(range(len(walk.shape(node))))
    a, b = argument(node, 1, "dim0"), argument(node, 2, "dim1")
    if not isinstance(a, int) or not isinstance(b, int):
        return unknown(walk, node)
    axes[a], axes[b] = axes[b], axes[a]
    return Wire(x.units, axes.index(x.dim), x.block)


def permute_axes(walk: Walk, node: fx.Node) -> Wire | None:
    """Reorder all axes."""
    x = walk.wire(argument(node, 0, "input"))
    if x is None:
        return None
    axes = _axes(argument(node, 1, "dims"), node.args[1:], len(walk.shape(node)))
    if axes is None:
        return unknown(walk, node)
    return Wire(x.units, axes.index(x.dim), x.block)


def reduction(*kinds: Kind) -> Rule:
    """Give the rule of a mean or sum over axes that hold no units."""

    def rule(walk: Walk, node: fx.Node) -> Wire | None:
        x = walk.wire(argument(node, 0, "input"))
        if x is None:
            return None
        rank = len(walk.shape(argument(node, 0, "input")))
        dims = argument(node, 1, "dim")
        axes = list(range(rank)) if dims is None else _axes(dims, node.args[1:2], rank)
        if walk.kind not in kinds or axes is None or x.dim in axes or not walk.is_tensor(node):
            return unknown(walk, node)
        kept = len(walk.shape(node)) == rank
        return Wire(x.units, x.dim - (0 if kept else sum(a < x.dim for a in axes)), x.block)

    return rule


def padding(walk: Walk, node: fx.Node) -> Wire | None:
    """Padding of axes that hold no units, with zeros or with what is there."""
    if argument(node, 3, "value"):
        return unknown(walk, node)
    widths = argument(node, 1, "pad")
    return commutes("scale", "permute", "flip", spatial=len(widths) // 2)(walk, node)


def metadata(walk: Walk, node: fx.Node) -> Wire | None:
    """Shapes and the like hold no units."""
    if node.target is getattr and node.args[1] not in {"shape", "ndim", "dtype", "device"}:
        return unknown(walk, node)
    return None


def _axes(first: object, rest: Sequence[object], rank: int) -> list[int] | None:
    dims = first if isinstance(first, Sequence) else rest or [first]
    return (
        [axis % rank for axis in dims if isinstance(axis, int)]
        if all(isinstance(axis, int) for axis in dims)
        else None
    )
