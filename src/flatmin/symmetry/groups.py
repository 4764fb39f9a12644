"""Groups of units, the layers that stop others, and how a symmetry acts on named tensors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flatmin.symmetry.slots import Slot

# Why the units of the last layer are never offered.
OUTPUTS = "these units are outputs of the model"


@dataclass(frozen=True, slots=True)
class Group:
    """Units that carry one element of a symmetry each.

    Args:
        size: Number of units.
        slots: Every part of a parameter or buffer that moves with the units.
        producers: Layers whose outputs the units are.
        consumers: Layers that read the units, and undo the transformation.
        note: Under which condition the symmetry is exact; empty if always.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from flatmin.symmetry import find_scalings
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> group = find_scalings(model, torch.zeros(1, 2)).groups[0]
        >>> group.size, group.producers, group.consumers
        (3, ('0',), ('2',))
        >>> [(slot.name, slot.power) for slot in group.slots]
        [('0.weight', 1), ('0.bias', 1), ('2.weight', -1)]
    """

    size: int
    slots: tuple[Slot, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """A layer that keeps units from being transformed, and why.

    Args:
        layer: The layer or operation that stops them.
        reason: Why it does.
        producers: The layers whose output units are not offered because of it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from flatmin.symmetry import find_scalings
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
        >>> stop = find_scalings(model, torch.zeros(1, 2)).stopped[0]
        >>> stop.layer, stop.reason, stop.producers
        ('1', 'GELU does not commute with positive scaling', ('0',))
    """

    layer: str
    reason: str
    producers: tuple[str, ...]


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
    def far(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw an element far from the identity, under which a false claim shows."""

    @abstractmethod
    def check(self, elements: Sequence[Tensor]) -> None:
        """Refuse elements that are no symmetry."""

    @abstractmethod
    def move(self, slot: Slot, tensor: Tensor, element: Tensor) -> Tensor:
        """Return ``tensor`` with the part ``slot`` names transformed."""

    def shape(self, group: Group) -> tuple[int, ...]:
        """Return the shape of the tensor that a group takes."""
        return (group.size,)

    @final
    def apply(self, state: Mapping[str, Tensor], elements: Sequence[Tensor]) -> dict[str, Tensor]:
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
        wanted = [self.shape(group) for group in self.groups]
        if shapes and not wanted:
            raise ValueError(
                f"there are no groups to transform, got {len(shapes)} tensors; print these "
                f"{type(self).__name__} to see what stopped them"
            )
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
