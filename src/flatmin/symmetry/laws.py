"""What an operation does to the units of a network, as far as symmetries ask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flatmin.symmetry.exponents import Number


@dataclass(frozen=True, slots=True)
class Law:
    """A kind of operation; each walk has one rule for each kind."""


@dataclass(frozen=True, slots=True)
class Move(Law):
    """Entries are copied, cut, joined and reordered; none is computed.

    Args:
        data: Arguments that hold the entries; all others say where they go.
    """

    data: tuple[str, ...] = ("self",)


@dataclass(frozen=True, slots=True)
class Pick(Law):
    """Entries are looked up by indices, which may depend on the inputs."""


@dataclass(frozen=True, slots=True)
class Pointwise(Law):
    r"""A function of each entry.

    .. math:: f(\tau z) = \tau^k f(z) \text{ for } \tau > 0, \qquad f(-z) = (-1)^s f(z)

    Args:
        scale: The degree k; None if there is none.
        flip: The parity s; None if there is none.
    """

    scale: Number | None = None
    flip: int | None = None


@dataclass(frozen=True, slots=True)
class Join(Law):
    """A sum, or a choice: the result scales as the operands do, if they scale alike.

    Args:
        operands: Names of the arguments that are joined.
        odd: Whether f(-a, -b) = -f(a, b).
        choice: The argument that chooses, which must not change.
    """

    operands: tuple[str, ...] = ("self", "other")
    odd: bool = True
    choice: str | None = None


@dataclass(frozen=True, slots=True)
class Compare(Law):
    """Which of two entries is larger: the same as long as they scale alike."""


@dataclass(frozen=True, slots=True)
class Product(Law):
    """A product or quotient of entries."""

    inverse: bool = False


@dataclass(frozen=True, slots=True)
class Reduce(Law):
    """Entries along axes become one, homogeneous of a degree in all of them together.

    Args:
        scale: The degree k.
        flip: The parity s; None if there is none.
        alike: Whether it treats the entries alike, whatever their order.
        along: Whether the axis stays, as in a cumulative sum.
    """

    scale: Number = 1
    flip: int | None = 1
    alike: bool = True
    along: bool = False


@dataclass(frozen=True, slots=True)
class Pool(Law):
    """Neighbors along the last axes are mixed, channel by channel.

    Args:
        axes: Number of those axes.
        odd: Whether f(-x) = -f(x).
    """

    axes: int
    odd: bool


@dataclass(frozen=True, slots=True)
class Linear(Law):
    """y = x Wᵀ + b over the last axis."""


@dataclass(frozen=True, slots=True)
class Bilinear(Law):
    """y = aᵀ W b + c, a matrix for each output."""


@dataclass(frozen=True, slots=True)
class Matmul(Law):
    """A product of matrices, one or both of which may be parameters.

    Args:
        factors: Names of the two arguments.
        addend: Name of what is added, if something is.
    """

    factors: tuple[str, str] = ("self", "mat2")
    addend: str | None = None


@dataclass(frozen=True, slots=True)
class Convolution(Law):
    """A convolution of any dimension, grouped or transposed.

    Args:
        transposed: Whether the weight is stored by input channels; None if an argument says so.
    """

    transposed: bool | None = None


@dataclass(frozen=True, slots=True)
class Attention(Law):
    """softmax(q kᵀ) v, with a mask, and with fewer heads of keys than of queries."""


@dataclass(frozen=True, slots=True)
class Softmax(Law):
    """An axis is normalized by a function that treats its entries alike."""


@dataclass(frozen=True, slots=True)
class Lookup(Law):
    """Rows of a table (an embedding)."""


@dataclass(frozen=True, slots=True)
class Slopes(Law):
    """PReLU: homogeneous, with slopes that belong to units."""


@dataclass(frozen=True, slots=True)
class Dropout(Law):
    """Entries are scaled or dropped; in training its mask would not follow a permutation."""


@dataclass(frozen=True, slots=True)
class BatchNorm(Law):
    """Channels are normalized by statistics of the batch, or by running ones."""


@dataclass(frozen=True, slots=True)
class Normalize(Law):
    """LayerNorm, RMSNorm, GroupNorm: groups of units are normalized together.

    Args:
        channels: Whether gain and bias belong to the axis 1, and not to the last ones.
        centered: Whether a mean is subtracted.
    """

    channels: bool = False
    centered: bool = True


# The law of an operation, or how it follows from the arguments.
Entry = Law | Callable[[Mapping[str, Any]], Law]
