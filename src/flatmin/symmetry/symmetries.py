"""The three kinds of symmetry: positive scalings, permutations, changes of sign."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor

from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.slots import Slot

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Symmetries(ABC):
    """What may be done to the units of a network without changing its function.

    Args:
        groups: What may be transformed; an element of the symmetry is one tensor per group.
        stopped: What may not, and which layer stopped it.
    """

    groups: tuple[Group, ...]
    stopped: tuple[Stop, ...]

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw one tensor per group, of shape ``(group.size,)``."""

    @abstractmethod
    def check(self, elements: Sequence[Tensor]) -> None:
        """Refuse elements that are no symmetry."""

    @abstractmethod
    def move(self, slot: Slot, tensor: Tensor, element: Tensor) -> Tensor:
        """Return ``tensor`` with the part ``slot`` names transformed."""

    @final
    def apply(self, state: State, elements: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the transformed state; the pure form of ``rescale``, ``permute`` and ``flip``.

        Computed in float64 and rounded once to the dtype of each tensor.

        Args:
            state: Names to tensors, as ``{**dict(model.named_parameters()),
                **dict(model.named_buffers())}``. Read, never written; what no group touches is
                returned as it is.
            elements: One tensor per group, as ``sample`` returns them.

        Returns:
            A state of the same names, shapes and dtypes.

        Raises:
            ValueError: If a name is missing from ``state``, or the elements do not fit.
        """
        self._check_shapes(elements)
        self.check(elements)
        slots = [slot for group in self.groups for slot in group.slots]
        for slot in slots:
            if slot.name not in state:
                raise ValueError(
                    f"the state lacks {slot.name!r}, which the symmetry moves; pass parameters and "
                    "buffers together, under the names the model gives them"
                )
        moved = {name: state[name].double() for name in dict.fromkeys(s.name for s in slots)}
        for group, element in zip(self.groups, elements, strict=True):
            for slot in group.slots:
                tensor = moved[slot.name]
                moved[slot.name] = self.move(slot, tensor, element.to(tensor.device))
        return dict(state) | {name: new.to(state[name].dtype) for name, new in moved.items()}

    def _check_shapes(self, elements: Sequence[Tensor]) -> None:
        shapes = [tuple(element.shape) for element in elements]
        wanted = [(group.size,) for group in self.groups]
        if shapes != wanted:
            raise ValueError(
                f"one tensor per group of shapes {wanted} is needed, got {shapes}; draw them with "
                f"{type(self).__name__}.sample()"
            )

    def __str__(self) -> str:
        count = len(self.groups)
        lines = [f"{type(self).__name__}: {count} {'group' if count == 1 else 'groups'}"]
        for index, group in enumerate(self.groups):
            note = f" ({group.note})" if group.note else ""
            made, read = ", ".join(group.producers), ", ".join(group.consumers)
            lines.append(f"  {index}: {group.size} units of {made}, read by {read}{note}")
        lines.append(f"stopped: {len(self.stopped)}")
        for stop in self.stopped:
            lines.append(f"  {', '.join(stop.producers)}: {stop.reason} ({stop.layer})")
        return "\n".join(lines)


@final
@dataclass(frozen=True, slots=True)
class Scalings(Symmetries):
    """Positive rescalings: a unit times τ where it is produced, divided by τ where it is read."""

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
            torch.empty(group.size, dtype=torch.float64).uniform_(low, high, generator=generator)
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
    """Reorderings of the units of a group: new unit k is old unit ``order[k]``."""

    def sample(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw one uniformly random order per group."""
        return tuple(torch.randperm(group.size, generator=generator) for group in self.groups)

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
    """Changes of sign of the units of a group, undone where they are read."""

    def sample(self, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Draw signs -1 or 1 with equal chance."""
        return tuple(
            2.0 * torch.randint(0, 2, (group.size,), generator=generator).double() - 1.0
            for group in self.groups
        )

    def check(self, elements: Sequence[Tensor]) -> None:
        """Raise ValueError on what is neither -1 nor 1."""
        for index, element in enumerate(elements):
            if not bool((element.abs() == 1).all()):
                raise ValueError(f"the signs of group {index} must be -1 or 1, got {element}")

    def move(self, slot: Slot, tensor: Tensor, element: Tensor) -> Tensor:
        """Multiply by the sign to the slot's power."""
        return slot.scaled(tensor, element)
