"""The rules of permutations, one for each kind of operation."""

from collections.abc import Callable
from typing import Any

from torch import fx

from flatmin.symmetry.laws import (
    Attention,
    BatchNorm,
    Bilinear,
    Compare,
    Convolution,
    Dropout,
    Join,
    Law,
    Linear,
    Lookup,
    Matmul,
    Move,
    Normalize,
    Pick,
    Pointwise,
    Pool,
    Product,
    Reduce,
    Slopes,
    Softmax,
)
from flatmin.symmetry.order_layers import (
    attention,
    batch_norm,
    bilinear,
    convolution,
    linear,
    lookup,
    matmul,
    normalize,
)
from flatmin.symmetry.order_rules import (
    dropout,
    join,
    moves,
    picks,
    pointwise,
    pool,
    product,
    reduce,
    slopes,
    softmax,
)
from flatmin.symmetry.orders import OrderWalk
from flatmin.symmetry.walk import Given

RULES: dict[type[Law], Callable[..., Any]] = {
    Move: moves,
    Pick: picks,
    Lookup: lookup,
    Pointwise: pointwise,
    Softmax: softmax,
    Join: join,
    Compare: product,
    Product: product,
    Reduce: reduce,
    Pool: pool,
    Linear: linear,
    Bilinear: bilinear,
    Matmul: matmul,
    Convolution: convolution,
    Attention: attention,
    BatchNorm: batch_norm,
    Normalize: normalize,
    Slopes: slopes,
    Dropout: dropout,
}


class Orders(OrderWalk):
    """A walk over permutations."""

    def apply(self, law: Law, node: fx.Node, given: Given) -> object:
        """Apply the rule of a law."""
        found = RULES[type(law)](self, law, node, given)
        value = self.traced.values[node]
        if isinstance(law, Reduce | Pool) and isinstance(value, tuple | list):
            # The place of a unit's maximum goes where the unit goes.
            return None if found is None else [found for _ in value]
        return found
