"""The balanced representative of a network among its rescalings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flatmin._given import check_named, check_network
from flatmin.symmetry.groups import Group
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.symmetries import Scalings
from flatmin.symmetry.transform import check_kind, rescale


@dataclass(frozen=True, slots=True)
class Balance:
    """What balances a network.

    Args:
        factors: One float64 tensor of factors per group.
        idle: One tensor of booleans per group: units without incoming or without outgoing weight,
            which no factor balances. They keep their scale, so along them the representative is
            not unique.
        sweeps: Passes over all groups until nothing moved.

    Example:
        >>> Balance((torch.tensor([2.0, 1.0]),), (torch.tensor([False, True]),), 3).num_idle
        1
    """

    factors: tuple[Tensor, ...]
    idle: tuple[Tensor, ...]
    sweeps: int

    @property
    def num_idle(self) -> int:
        """Number of units left alone."""
        return int(sum(units.sum().item() for units in self.idle))


def balance(
    params: Mapping[str, Tensor],
    scalings: Scalings,
    *,
    tolerance: float = 1e-13,
    max_sweeps: int = 10_000,
) -> Balance:
    r"""Find the factors under which every unit receives as much weight as it sends.

    .. math:: \|w^{in}_i\|^2 + b_i^2 = \|w^{out}_i\|^2 \quad \text{for every unit } i

    The solution is the smallest norm that rescaling can reach; the problem is convex in the
    logarithms of the factors and the solution unique, but for idle units. Units that only a
    BatchNorm reads send no weight; they get incoming norm one.

    Args:
        params: Parameters by name. Read, never written.
        scalings: What ``find_scalings`` returned.
        tolerance: Largest relative change of a factor in the last sweep.
        max_sweeps: Passes before giving up.

    Returns:
        The factors and the units left alone.

    Raises:
        RuntimeError: If the sweeps do not converge.
        TypeError: If an argument is something else.

    Example:
        >>> from flatmin.symmetry import find_scalings
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = model[0].weight.data.fill_(16.0), model[2].weight.data.fill_(1.0)
        >>> scalings = find_scalings(model, torch.ones(1, 1))
        >>> balance(dict(model.named_parameters()), scalings).factors[0].item()  # 16 τ = 1 / τ
        0.25

    Source:
        Stock et al. 2019 (ENorm), arXiv:1902.10416.
    """
    check_named(params)
    check_kind(scalings, Scalings)
    squares = {name: tensor.detach().double().square() for name, tensor in params.items()}
    home = torch.device("cpu")
    logs = [torch.zeros(group.size, dtype=torch.float64, device=home) for group in scalings.groups]
    idle = [torch.zeros(group.size, dtype=torch.bool, device=home) for group in scalings.groups]
    for sweep in range(1, max_sweeps + 1):
        largest = 0.0
        for index, group in enumerate(scalings.groups):
            step, idle[index] = _step(squares, group)
            for slot in group.slots:
                if slot.name in squares:
                    moved = slot.scaled(squares[slot.name], (2 * step).exp())
                    squares[slot.name] = moved
            logs[index] += step.to(logs[index].device)
            largest = max(largest, step.abs().max().item())
        if largest <= tolerance:
            return Balance(tuple(log.exp() for log in logs), tuple(idle), sweep)
    raise RuntimeError(
        f"balancing did not converge: factors still move by {largest:.1e} after {max_sweeps} "
        "sweeps; raise max_sweeps or tolerance"
    )


def canonicalize(model: nn.Module, scalings: Scalings) -> Balance:
    """Bring a network to the balanced representative of its rescalings, in place.

    Every network that ``rescale`` can make of this one is brought to the same tensors, up to
    rounding, so any measure taken afterwards is invariant.

    Args:
        model: The network that ``scalings`` was found on. Mutated as by ``rescale``.
        scalings: What ``find_scalings`` returned.

    Returns:
        The factors applied, and the units left alone.

    Raises:
        RuntimeError: If the balance is not found.

    Example:
        >>> from flatmin.symmetry import find_scalings
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = model[0].weight.data.fill_(16.0), model[2].weight.data.fill_(1.0)
        >>> _ = canonicalize(model, find_scalings(model, torch.ones(1, 1)))
        >>> model[0].weight.item(), model[2].weight.item()
        (4.0, 4.0)

    Source:
        Stock et al. 2019 (ENorm), arXiv:1902.10416.
    """
    check_network(model)
    found = balance(dict(model.named_parameters()), scalings)
    rescale(model, scalings, found.factors)
    return found


def _step(squares: Mapping[str, Tensor], group: Group) -> tuple[Tensor, Tensor]:
    # Logarithm of the factor that balances each unit, all others held fixed.
    slots = [slot for slot in group.slots if slot.name in squares]
    entering = [slot for slot in slots if slot.power > 0]
    leaving = [slot for slot in slots if slot.power < 0]
    received, sent = _weight(squares, entering, group), _weight(squares, leaving, group)
    if not leaving:
        sent = torch.ones_like(received)
    idle = (received == 0) | (sent == 0)
    # The largest powers bound how fast both sides change: such a step never overshoots.
    rate = max((s.power for s in entering), default=1) - min((s.power for s in leaving), default=0)
    step = (sent.log() - received.log()) / (2 * rate)
    if {s.name for s in entering} & {s.name for s in leaving}:
        step = step / 2  # the units exchange weight with each other: half steps never overshoot
    return torch.where(idle, 0.0, step), idle


def _weight(squares: Mapping[str, Tensor], slots: Sequence[Slot], group: Group) -> Tensor:
    totals = [abs(s.power) * s.totals(squares[s.name], group.size) for s in slots]
    return torch.stack(totals).sum(0) if totals else torch.zeros(group.size, dtype=torch.float64)
