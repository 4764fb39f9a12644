"""A network brought near another one by what does not change its function."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.symmetry import (
    Group,
    Permutations,
    canonicalize,
    find_permutations,
    find_scalings,
    permute,
)
from flatmin.symmetry.slots import Slot

_SWEEPS = 100


def balanced(model: nn.Module, example: Any) -> tuple[nn.Module, str | None]:
    """Copy a network as the balanced one among its rescalings.

    Args:
        model: The network; as it is left.
        example: Inputs that it takes.

    Returns:
        The copy, and why it is as it was, if it is.
    """
    twin = copy.deepcopy(model)
    try:
        scalings = find_scalings(twin, example)
        if not scalings.groups:
            return twin, "nothing in it may be rescaled"
        canonicalize(twin, scalings)
    except (ValueError, RuntimeError) as error:
        return copy.deepcopy(model), " ".join(str(error).split())
    return twin, None


def matched(model: nn.Module, to: nn.Module, example: Any) -> tuple[nn.Module, str | None]:
    r"""Copy a network with its units in the order in which they lie nearest to another's.

    .. math:: \max_{P_1, P_2, \dots} \sum_l \langle W_l, P_l V_l P_{l-1}^\top \rangle

    One group of units after the other is put into its best order, the others held, until none
    moves: a local maximum, so another order may lie nearer.

    Args:
        model: The network; as it is left.
        to: The other one, of the same kind.
        example: Inputs that both take.

    Returns:
        The copy, and why it is as it was, if it is.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> other = copy.deepcopy(model)
        >>> permute(other, find_permutations(other, torch.ones(1, 1)), [torch.tensor([1, 0])])
        >>> back, _ = matched(other, model, torch.ones(1, 1))
        >>> torch.equal(back[0].weight, model[0].weight)
        True

    Source:
        Ainsworth et al. 2023, arXiv:2209.04836, section 3.2.
    """
    twin = copy.deepcopy(model)
    try:
        permutations = find_permutations(twin, example)
    except ValueError as error:
        return twin, " ".join(str(error).split())
    if not permutations.groups:
        return twin, "nothing in it may be reordered"
    wanted = {name: p.detach().double() for name, p in to.named_parameters()}
    state = {name: p.detach().double() for name, p in twin.named_parameters()}
    orders = [torch.arange(group.size) for group in permutations.groups]
    nearest = _nearness(state, wanted)
    for _ in range(_SWEEPS):
        moved = False
        for k, group in enumerate(permutations.groups):
            order = _best_order(group, state, wanted)
            tried = _reordered(permutations, state, k, order)
            now = _nearness(tried, wanted)
            if now > nearest + 1e-12 * abs(nearest):
                state, nearest, moved = tried, now, True
                orders[k] = orders[k][order]
        if not moved:
            break
    permute(twin, permutations, orders)
    return twin, None


def _reordered(
    permutations: Permutations, state: Mapping[str, Tensor], k: int, order: Tensor
) -> dict[str, Tensor]:
    """The parameters after one group alone has its new order."""
    found = dict(state)
    for slot in permutations.groups[k].slots:
        if slot.name in found:
            found[slot.name] = slot.reordered(found[slot.name], order.to(found[slot.name].device))
    return found


def _best_order(group: Group, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            'Matching units needs scipy: pip install "flatmin[experiments]".'
        ) from error
    alike = torch.zeros(group.size, group.size, dtype=torch.float64)
    for slot in group.slots:
        if slot.name in state:
            own, others = (_by_unit(slot, each[slot.name], group.size) for each in (wanted, state))
            alike += (own @ others.T).cpu()
    _, order = linear_sum_assignment(alike.numpy(), maximize=True)
    return torch.as_tensor(order)


def _by_unit(slot: Slot, tensor: Tensor, size: int) -> Tensor:
    """The numbers of each unit in a row."""
    along = [axis for axis, length in enumerate(slot.units.shape) if length > 1]
    axis = (along[0] if along else 0) - slot.units.ndim + tensor.ndim
    places = slot.places(size).flatten().to(tensor.device)
    return tensor.movedim(axis, 0)[places].reshape(size, -1)


def _nearness(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    return sum(float((state[name] * t).sum()) for name, t in wanted.items())
