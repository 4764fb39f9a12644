"""Find the symmetries of an ordinary network by tracing it."""

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from flatmin._given import check_network
from flatmin.symmetry.confirm import confirmed
from flatmin.symmetry.groups import Symmetries
from flatmin.symmetry.permuting import Orders
from flatmin.symmetry.solution import Factors
from flatmin.symmetry.symmetries import Flips, Permutations, Scalings
from flatmin.symmetry.table import KEPT
from flatmin.symmetry.trace import trace
from flatmin.symmetry.walk import Kind

Found = TypeVar("Found", bound=Symmetries)


def find_scalings(model: nn.Module, example: Any, *, opaque: Sequence[str] = ()) -> Scalings:
    r"""Find every group of units that may be rescaled without changing the function.

    .. math:: f(\tau z) = \tau f(z) \;\Rightarrow\; W_2\, f(W_1 x) = (W_2 / \tau)\, f(\tau W_1 x)

    The model is exported with ``torch.export`` in its present mode and run on ``example``; both
    happen on copies. Every operation is an equation between the factors of what it reads and
    computes, and the groups are what these equations leave free. What cannot be proven is not
    offered. Then all is tried: a copy in float64 is transformed at random, on the example, near it
    and on inputs drawn anew, and a group under which an output moves is dropped and named.

    Layers joined by residual additions form one group, with one factor per channel for all of
    them; queries and keys form one, whose factors cancel in every score. In eval mode the running
    statistics of a BatchNorm belong to its group, and ``var + eps`` is what scales, so a running
    variance may come to lie below zero, never below ``-eps``. In train mode BatchNorm undoes a
    scale exactly only for ``eps`` of zero, or 1e-38 where torch asks for a positive one.

    Args:
        model: Any module that ``torch.export`` can trace. Read, never written.
        example: An input, a tuple of inputs, or a mapping of keyword arguments; it should be an
            ordinary one, for what is claimed is tried on it and near it.
        opaque: Names of submodules to leave untraced, such as one that branches on its data.
            Nothing that enters them is offered.

    Returns:
        The groups, and each layer that stopped one, with the reason; ``print`` shows a table.

    Raises:
        ValueError: If the model cannot be traced or run.

    Example:
        >>> import torch
        >>> relu = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> print(find_scalings(relu, torch.zeros(1, 2)))
        Scalings: 1 group
          0: 3 units of 0, read by 2
        stopped: 1
          2: these units are outputs of the model (output)
        >>> gelu = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
        >>> find_scalings(gelu, torch.zeros(1, 2)).stopped[0].reason
        'GELU does not commute with positive scaling'

    Source:
        Neyshabur et al. 2015, arXiv:1506.02617, on rescaling of ReLU networks.
    """
    return _find("scale", Scalings, model, example, opaque)


def find_permutations(
    model: nn.Module, example: Any, *, opaque: Sequence[str] = ()
) -> Permutations:
    """Find every group of units that may be reordered without changing the function.

    Valid for any activation that treats all units alike, GELU and tanh included.

    Args:
        model: As for ``find_scalings``.
        example: As for ``find_scalings``.
        opaque: As for ``find_scalings``.

    Returns:
        The groups, and each layer that stopped one.

    Raises:
        ValueError: If the model cannot be traced or run.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
        >>> [group.size for group in find_permutations(model, torch.zeros(1, 2)).groups]
        [3]

    Source:
        Chen et al. 1993, On the geometry of feedforward neural network error surfaces, Neural
        Computation 5(6).
    """
    return _find("permute", Permutations, model, example, opaque)


def find_flips(model: nn.Module, example: Any, *, opaque: Sequence[str] = ()) -> Flips:
    """Find every group of units whose sign may be changed: odd activations, or none at all.

    Args:
        model: As for ``find_scalings``.
        example: As for ``find_scalings``.
        opaque: As for ``find_scalings``.

    Returns:
        The groups, and each layer that stopped one.

    Raises:
        ValueError: If the model cannot be traced or run.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> [group.size for group in find_flips(model, torch.zeros(1, 2)).groups]
        [3]

    Source:
        Chen et al. 1993, On the geometry of feedforward neural network error surfaces, Neural
        Computation 5(6).
    """
    return _find("flip", Flips, model, example, opaque)


def _find(
    kind: Kind, made: type[Found], model: nn.Module, example: Any, opaque: Sequence[str]
) -> Found:
    check_network(model)
    traced = trace(model, example, opaque, KEPT)
    walk = Orders(traced) if kind == "permute" else Factors(kind, traced)
    walk.run()
    return confirmed(made(*walk.found()), model, example)
