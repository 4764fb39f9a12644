"""The three kinds of symmetry: positive scalings, permutations, changes of sign."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor

from flatmin.symmetry.groups import Symmetries
from flatmin.symmetry.slots import Slot


def _device_of(generator: torch.Generator | None) -> torch.device:
    # Not the default device: what is drawn from a seed does not depend on a setting elsewhere.
    return torch.device("cpu") if generator is None else generator.device


@final
@dataclass(frozen=True, slots=True)
class Scalings(Symmetries):
    """Positive rescalings: a unit times τ where it is produced, divided by τ where it is read.

    Example:
        >>> from torch import nn
        >>> from flatmin.symmetry import find_scalings
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> found = find_scalings(model, torch.zeros(1, 2))
        >>> moved = found.apply(dict(model.named_parameters()), [torch.tensor([2.0, 4.0, 8.0])])
        >>> torch.equal(moved["2.weight"], model[2].weight / torch.tensor([2.0, 4.0, 8.0]))
        True
    """

    def sample(
        self, generator: torch.Generator | None = None, low: float = 0.5, high: float = 1.5
    ) -> tuple[Tensor, ...]:
        """Draw factors τ, independent and uniform on [low, high], as the report does.

        Args:
            generator: Source of randomness, for a repeatable result.
            low: Smallest factor; positive.
            high: Largest factor.

        Returns:
            One float64 tensor of shape ``(group.size,)`` per group; dimensionless.

        Raises:
            ValueError: If not 0 < low ≤ high.
        """
        if not 0 < low <= high < float("inf"):
            raise ValueError(f"factors need 0 < low <= high, got low={low}, high={high}")
        return tuple(
            torch.empty(group.size, dtype=torch.float64, device=_device_of(generator)).uniform_(
                low, high, generator=generator
            )
            for group in self.groups
        )

    def far(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw powers of two, none of them one: they scale numbers of any precision exactly."""
        device, powers = _device_of(generator), torch.tensor([0.25, 0.5, 2.0, 4.0], device="cpu")
        return tuple(
            powers.to(device, torch.float64)[
                torch.randint(4, (group.size,), generator=generator, device=device)
            ]
            for group in self.groups
        )

    def check(self, elements: Sequence[Tensor]) -> None:
        """Raise ValueError on factors that are not positive and finite."""
        for index, element in enumerate(elements):
            if not bool(((element > 0) & element.isfinite()).all()):
                raise ValueError(
                    f"factors must be positive and finite; those of group {index} lie in "
                    f"[{element.min():g}, {element.max():g}]"
                )

    def move(self, slot: Slot, tensor: Tensor, element: Tensor) -> Tensor:
        """Multiply by τ to the slot's power."""
        return slot.scaled(tensor, element)

    def weights_only(self) -> Self:
        """Return the report's scaling of weights alone. NOT a symmetry if a producer has a bias.

        Leaving out the biases changes the function of a network that has them: outputs move by
        tens of times their own size. It exists to reproduce the report, and as a negative control.

        Returns:
            The same groups without the parameters whose last name component is ``bias``.
        """
        note = "weights only: NOT a symmetry if there are biases"
        groups = []
        for group in self.groups:
            slots = tuple(s for s in group.slots if s.name.rpartition(".")[2] != "bias")
            groups.append(replace(group, slots=slots, note=note))
        return replace(self, groups=tuple(groups))


@final
@dataclass(frozen=True, slots=True)
class Permutations(Symmetries):
    """Reorderings of the units of a group: new unit k is old unit ``order[k]``.

    Example:
        >>> from torch import nn
        >>> from flatmin.symmetry import find_permutations
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
        >>> found = find_permutations(model, torch.zeros(1, 2))
        >>> moved = found.apply(dict(model.named_parameters()), [torch.tensor([2, 1, 0])])
        >>> torch.equal(moved["2.weight"], model[2].weight.flip(1))
        True
    """

    def sample(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw one uniformly random order per group."""
        device = _device_of(generator)
        return tuple(
            torch.randperm(group.size, generator=generator, device=device) for group in self.groups
        )

    def far(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw orders in which no unit keeps its place."""
        cycles = self.sample(generator)
        return tuple(torch.empty_like(c).index_copy_(0, c, c.roll(1)) for c in cycles)

    def check(self, elements: Sequence[Tensor]) -> None:
        """Raise ValueError on what is no permutation."""
        for index, element in enumerate(elements):
            counted = torch.arange(len(element), device=element.device)
            if not torch.equal(element.sort().values, counted):
                raise ValueError(
                    f"the order of group {index} must hold each of 0 … {len(element) - 1} once"
                )

    def move(self, slot: Slot, tensor: Tensor, element: Tensor) -> Tensor:
        """Reorder along the slot's axis."""
        return slot.reordered(tensor, element)


@final
@dataclass(frozen=True, slots=True)
class Flips(Symmetries):
    """Changes of sign of the units of a group, undone where they are read.

    Example:
        >>> from torch import nn
        >>> from flatmin.symmetry import find_flips
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> found = find_flips(model, torch.zeros(1, 2))
        >>> moved = found.apply(dict(model.named_parameters()), [torch.tensor([-1.0, -1.0, -1.0])])
        >>> torch.equal(moved["2.weight"], -model[2].weight)
        True
    """

    def sample(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw signs -1 or 1 with equal chance."""
        return tuple(
            2.0
            * torch.randint(
                0, 2, (group.size,), generator=generator, device=_device_of(generator)
            ).double()
            - 1.0
            for group in self.groups
        )

    def far(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw signs of which at least one is -1."""
        return tuple(
            -signs if bool((signs > 0).all()) else signs for signs in self.sample(generator)
        )

    def check(self, elements: Sequence[Tensor]) -> None:
        """Raise ValueError on what is neither -1 nor 1."""
        for index, element in enumerate(elements):
            if not bool((element.abs() == 1).all()):
                raise ValueError(f"the signs of group {index} must be -1 or 1, got {element}")

    def move(self, slot: Slot, tensor: Tensor, element: Tensor) -> Tensor:
        """Multiply by the sign to the slot's power."""
        return slot.scaled(tensor, element)
