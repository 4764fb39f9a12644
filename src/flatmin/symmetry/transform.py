"""Apply a symmetry to a network in place."""

from collections.abc import Sequence

from torch import Tensor, nn

from flatmin.symmetry.groups import Symmetries
from flatmin.symmetry.mixings import Mixings
from flatmin.symmetry.private import changed, load, state_of
from flatmin.symmetry.symmetries import Flips, Permutations, Scalings


def rescale(model: nn.Module, scalings: Scalings, factors: Sequence[Tensor]) -> None:
    """Multiply units by factors where they are made, and divide where they are read, in place.

    Weights, biases and running statistics move. Parameters stay the same objects in the same
    memory, so an optimizer built before still updates them. Computed in float64, rounded once. If
    anything is refused, nothing was written.

    Args:
        model: The network that ``scalings`` was found on. Mutated.
        scalings: What ``find_scalings`` returned. ``scalings.weights_only()`` leaves biases
            behind, which is NOT a symmetry.
        factors: One tensor per group, positive; ``scalings.sample()`` draws them.

    Raises:
        ValueError: If the factors do not fit the groups or are not positive and finite.
        TypeError: If ``scalings`` are not ``Scalings``.

    Example:
        >>> import torch
        >>> from flatmin.symmetry import find_scalings
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = model[0].weight.data.fill_(3.0), model[2].weight.data.fill_(4.0)
        >>> rescale(model, find_scalings(model, torch.ones(1, 1)), [torch.tensor([2.0])])
        >>> model[0].weight.item(), model[2].weight.item()
        (6.0, 2.0)

    Source:
        Neyshabur et al. 2015, arXiv:1506.02617, on rescaling of ReLU networks.
    """
    _transform(model, scalings, factors, Scalings)


def permute(model: nn.Module, permutations: Permutations, orders: Sequence[Tensor]) -> None:
    """Reorder units in place: new unit k of a group is its old unit ``order[k]``.

    Args:
        model: The network that ``permutations`` was found on. Mutated.
        permutations: What ``find_permutations`` returned.
        orders: One tensor of indices per group.

    Raises:
        ValueError: If an order is no permutation.
        TypeError: If ``permutations`` are not ``Permutations``.

    Example:
        >>> import torch
        >>> from flatmin.symmetry import find_permutations
        >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.GELU(), nn.Linear(2, 1))
        >>> _ = model[0].weight.data.copy_(torch.tensor([[3.0], [4.0]]))
        >>> permute(model, find_permutations(model, torch.ones(1, 1)), [torch.tensor([1, 0])])
        >>> model[0].weight.flatten().tolist()
        [4.0, 3.0]

    Source:
        Chen et al. 1993, On the geometry of feedforward neural network error surfaces, Neural
        Computation 5(6).
    """
    _transform(model, permutations, orders, Permutations)


def flip(model: nn.Module, flips: Flips, signs: Sequence[Tensor]) -> None:
    """Change the signs of units in place.

    Args:
        model: The network that ``flips`` was found on. Mutated.
        flips: What ``find_flips`` returned.
        signs: One tensor of -1 and 1 per group.

    Raises:
        ValueError: If a sign is neither -1 nor 1.
        TypeError: If ``flips`` are not ``Flips``.

    Example:
        >>> import torch
        >>> from flatmin.symmetry import find_flips
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1))
        >>> _ = model[0].weight.data.fill_(3.0)
        >>> flip(model, find_flips(model, torch.ones(1, 1)), [torch.tensor([-1.0])])
        >>> model[0].weight.item()
        -3.0

    Source:
        Chen et al. 1993, On the geometry of feedforward neural network error surfaces, Neural
        Computation 5(6).
    """
    _transform(model, flips, signs, Flips)


def mix(model: nn.Module, mixings: Mixings, matrices: Sequence[Tensor]) -> None:
    """Multiply units by matrices where they are made, and by their inverses where they are read.

    Args:
        model: The network that ``mixings`` was found on. Mutated.
        mixings: What ``find_mixings`` returned.
        matrices: One tensor per group, of shape ``(heads, width, width)``, each matrix invertible;
            ``mixings.sample()`` draws them.

    Raises:
        ValueError: If the matrices do not fit the groups, or one has no inverse.
        TypeError: If ``mixings`` are not ``Mixings``.

    Example:
        >>> import torch
        >>> from flatmin.symmetry import find_mixings
        >>> model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1)).double()
        >>> x = torch.ones(1, 3).double()
        >>> before = model(x)
        >>> mix(model, find_mixings(model, x), [torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])])
        >>> torch.allclose(model(x), before)
        True

    Source:
        da Silva et al. 2025, arXiv:2505.05409.
    """
    _transform(model, mixings, matrices, Mixings)


def _transform(
    model: nn.Module, symmetries: Symmetries, elements: Sequence[Tensor], wanted: type[Symmetries]
) -> None:
    state = state_of(model)
    check_kind(symmetries, wanted)
    load(model, changed(state, symmetries.apply(state, elements)))


def check_kind(symmetries: object, wanted: type[Symmetries]) -> None:
    """Refuse symmetries of another kind, and what are none.

    Raises:
        TypeError: If they are.
    """
    if not isinstance(symmetries, wanted):
        raise TypeError(
            f"{wanted.__name__} are needed, got {type(symmetries).__name__}; "
            "find_scalings goes with rescale, find_permutations with permute, find_flips with "
            "flip, find_mixings with mix"
        )
