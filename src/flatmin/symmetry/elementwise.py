"""What activations, dropout and pooling do to units: pass them on, or stop them."""

from typing import Any

from torch import Tensor, fx

from flatmin.symmetry.layers import argument, unknown
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.walk import Kind, Rule, Walk, Wire

_VERBS = {"scale": "positive scaling", "permute": "permutation", "flip": "a change of sign"}


def commutes(*kinds: Kind, spatial: int = 0) -> Rule:
    """Give the rule of an operation on one tensor that keeps units where they are.

    Args:
        kinds: The transformations it commutes with.
        spatial: Last axes over which it mixes entries, as pooling does.
    """

    def rule(walk: Walk, node: fx.Node) -> Wire | None:
        if any(walk.is_tensor(other) for other in node.all_input_nodes[1:]):
            return unknown(walk, node)
        return _passed(walk, node, kinds, spatial)

    return rule


def dropout(walk: Walk, node: fx.Node) -> Wire | None:
    """Dropout scales or drops; in training its mask would not follow a permutation."""
    module = walk.module(node)
    active = argument(node, 2, "training", True) if module is None else module.training
    return _passed(walk, node, ("scale", "flip") if active else ("scale", "flip", "permute"))


def symmetric_clip(walk: Walk, node: fx.Node) -> Wire | None:
    """Hardtanh is odd where its bounds are opposite."""
    module = walk.module(node)
    low: Any = argument(node, 1, "min_val", -1.0) if module is None else module.min_val
    high: Any = argument(node, 2, "max_val", 1.0) if module is None else module.max_val
    return _passed(walk, node, ("permute", "flip") if low == -high else ("permute",))


def prelu(walk: Walk, node: fx.Node) -> Wire | None:
    """PReLU commutes with positive scaling; its slopes follow a permutation."""
    module = walk.module(node)
    slopes = walk.tensor(argument(node, 1, "weight")) if module is None else module.weight
    if not isinstance(slopes, Tensor):
        return unknown(walk, node)
    x = _passed(walk, node, ("scale", "permute"))
    if x is not None and walk.kind == "permute" and len(slopes) > 1:
        if x.dim != 1:
            return unknown(walk, node)
        walk.attach(x, node, slopes, Slot("", 0, 0, x.block))
    return x


def _passed(walk: Walk, node: fx.Node, kinds: tuple[Kind, ...], spatial: int = 0) -> Wire | None:
    source = argument(node, 0, "input")
    x = walk.wire(source)
    if x is None:
        return unknown(walk, node)
    before, after = walk.shape(source), walk.shape(node)
    if len(after) != len(before) or after[x.dim] != before[x.dim]:
        return unknown(walk, node)
    if x.dim >= len(after) - spatial:
        walk.stop(x, node, "mixes units")
        return None
    if walk.kind not in kinds:
        module = walk.module(node)
        name = node.name if module is None else type(module).__name__
        walk.stop(x, node, f"{name} does not commute with {_VERBS[walk.kind]}")
    return x
