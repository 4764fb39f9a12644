"""The scales T_w that shape a neighbourhood, and which parameters they cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flatmin import _room as room
from flatmin import _tree as tree
from flatmin._given import make_plain, shown
from flatmin._types import Params


class Scale(Protocol):
    """A diagonal, non-negative map T_w that stretches the unit ball at a point ``w``.

    It sees each tensor whole, under the name that the parameter has. One that works number by
    number may say so by a method ``alike(name)``, whose answer, hashable, is equal for parameters
    that are scaled by one and the same function: optimizers then cut large tensors and stack small
    ones, and show the scale one name of those that are alike. Such a one may also say where T is
    one, by ``is_one(name)``, and put the diagonal for some tensors into others of their shapes, by
    ``write(weights, room)``; then no memory is allocated for it.
    """

    def __call__(self, params: Params, *, leading: int = 0) -> dict[str, Tensor]:
        """Give the diagonal of T_w, as tensors that broadcast; it is one where a name is missing.

        The tensors are new, for the caller to write into. ``leading`` is 1 for stacked networks.
        """

    def __hash__(self) -> int:
        """Scales are values: what is compiled for one serves all that equal it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The scale of SAM: every direction counts the same.

    .. math:: T_w = 1

    Example:
        Names that are missing have T = 1.

        >>> Identity()({"x": torch.tensor([3.0, -4.0])})
        {}

    Source:
        Foret et al. 2021, arXiv:2010.01412.
    """

    def __call__(self, params: Params, *, leading: int = 0) -> dict[str, Tensor]:
        """Scale nothing."""
        return {}

    def alike(self, name: str) -> bool:
        """All parameters are."""
        return True

    def is_one(self, name: str) -> bool:
        """T is one everywhere."""
        return True


@dataclass(frozen=True, slots=True)
class Elementwise:
    r"""The scale of ASAM: each parameter moves in proportion to its own size.

    .. math:: T_w = \operatorname{diag}(|w_i| + \eta)

    With ``eta=0`` and ``biases=True``, the default and the choice for *measuring*, the ball is
    exactly equivariant under every rescaling of units: a network and its rescaled copy have the
    same sharpness. The published optimizer (``ASAM``) uses ``eta=0.01`` and ``biases=False``, which
    is not invariant.

    Args:
        eta: Added to every scaled ``|w_i|``, in parameter units, so that a zero parameter can move;
            one number, or a tensor ``[members]`` for stacked networks.
        biases: Whether parameters named ``bias`` (last component of the name) are scaled too.
            Where false, T is one on them.

    Raises:
        ValueError: If ``eta`` is negative or not finite.

    Example:
        >>> w = {"weight": torch.tensor([3.0, -4.0]), "bias": torch.tensor([5.0])}
        >>> {name: t.tolist() for name, t in Elementwise()(w).items()}
        {'weight': [3.0, 4.0], 'bias': [5.0]}
        >>> {name: t.tolist() for name, t in Elementwise(eta=0.5, biases=False)(w).items()}
        {'weight': [3.5, 4.5]}

    Source:
        Kwon et al. 2021, arXiv:2102.11600, section 3; biases as in Müller et al. 2023,
        arXiv:2306.04226.
    """

    eta: float | Tensor = 0.0
    biases: bool = True

    def __post_init__(self) -> None:
        make_plain(self)
        check_radius("eta", self.eta)

    def __call__(self, params: Params, *, leading: int = 0) -> dict[str, Tensor]:
        """Give ``|w| + eta``."""
        names = [name for name in params if self.biases or not is_bias(name)]
        if not names:
            return {}
        weights = [params[name] for name in names]
        found = room.each(torch.abs, weights)
        factors = list(torch._foreach_abs(weights)) if found is None else found
        if isinstance(self.eta, Tensor):
            factors = [f + tree.expand(self.eta, f) for f in factors]
        elif self.eta:
            torch._foreach_add_(factors, self.eta)
        return dict(zip(names, factors, strict=True))

    def alike(self, name: str) -> bool:
        """Biases are, where they are not scaled, and all others."""
        return self.biases or not is_bias(name)

    def is_one(self, name: str) -> bool:
        """T is one on biases, where they are not scaled."""
        return not self.alike(name)

    def write(self, weights: Sequence[Tensor], room: Sequence[Tensor]) -> None:
        """Write ``|w| + eta``."""
        for w, factor in zip(weights, room, strict=True):
            if w.dtype == factor.dtype:
                torch.abs(w, out=factor)
            else:
                factor.copy_(w).abs_()
        if isinstance(self.eta, Tensor):
            for t in room:
                t.add_(self.eta)
        elif self.eta:
            torch._foreach_add_(list(room), self.eta)


@dataclass(frozen=True, slots=True)
class Filterwise:
    r"""Each filter (row of a matrix, output channel of a convolution) moves as a whole.

    .. math:: T_w = \operatorname{diag}(\|f_i\|_2), \quad f_i \text{ the filter that holds } w_i

    A parameter of one dimension has no filters; there T is elementwise, ``|w_i|``. Invariant when a
    filter in front of a normalization layer is rescaled, and *not* when the units of an ordinary
    network are.

    Example:
        >>> w = {"weight": torch.tensor([[3.0, -4.0], [0.0, 2.0]])}
        >>> Filterwise()(w)["weight"].tolist()
        [[5.0], [2.0]]

    Source:
        Kwon et al. 2021, arXiv:2102.11600, section 3; Li et al. 2018, arXiv:1712.09913.
    """

    def __call__(self, params: Params, *, leading: int = 0) -> dict[str, Tensor]:
        """Give the norm of each filter."""
        return tree.tree_map(lambda w: _filter_norms(w, leading), params)


@dataclass(frozen=True, slots=True)
class Layerwise:
    r"""Each parameter tensor moves as a whole.

    .. math:: T_w = \operatorname{diag}(\|W_l\|_2), \quad W_l \text{ the tensor that holds } w_i

    Invariant when whole layers are rescaled against each other, not when units are.

    Example:
        >>> w = {"weight": torch.tensor([[3.0, -4.0]])}
        >>> Layerwise()(w)["weight"].tolist()
        [[5.0]]

    Source:
        Kwon et al. 2021, arXiv:2102.11600, section 3.
    """

    def __call__(self, params: Params, *, leading: int = 0) -> dict[str, Tensor]:
        """Give the norm of each tensor."""
        return tree.tree_map(lambda w: _tensor_norm(w, leading), params)


def is_bias(name: str) -> bool:
    """Whether a parameter counts as a bias: the last component of its name is ``bias``.

    Args:
        name: The name, as ``named_parameters`` gives it.

    Returns:
        True for ``layer.bias``; false for ``pos_embed_bias`` or ``bias.weight``.

    Example:
        >>> is_bias("block.0.bias"), is_bias("bias.weight")
        (True, False)
    """
    return name.rpartition(".")[2] == "bias"


def check_radius(name: str, value: object) -> None:
    """Refuse what is no radius: one number, or one per member, finite and not negative.

    Raises:
        TypeError: If it is no number or tensor.
        ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, float | int | Tensor):
        raise TypeError(f"{name} must be a number or a tensor [members], got {shown(value)}.")
    if isinstance(value, Tensor):
        if value.ndim > 1:
            raise ValueError(
                f"{name} must be a number or a tensor of shape [members], "
                f"got shape {tuple(value.shape)}."
            )
        good = bool(torch.isfinite(value).all() and (value >= 0).all())
    else:
        good = math.isfinite(value) and value >= 0
    if not good:
        raise ValueError(f"{name} must be finite and at least 0, got {value}.")


def _filter_norms(weight: Tensor, leading: int) -> Tensor:
    if weight.ndim - leading < 2:
        return weight.abs()
    dims = tuple(range(leading + 1, weight.ndim))
    norms: Tensor = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
    return norms


def _tensor_norm(weight: Tensor, leading: int) -> Tensor:
    dims = tuple(range(leading, weight.ndim))
    norm: Tensor = (
        torch.linalg.vector_norm(weight, dim=dims, keepdim=True) if dims else weight.abs()
    )
    return norm
