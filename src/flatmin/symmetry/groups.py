"""Units that move together, and layers that keep units from moving."""

from dataclasses import dataclass

from flatmin.symmetry.slots import Slot


@dataclass(frozen=True, slots=True)
class Group:
    """Units that carry one element of a symmetry each.

    Args:
        size: Number of units.
        slots: Every part of a parameter or buffer that moves with the units.
        producers: Layers whose outputs the units are.
        consumers: Layers that read the units, and undo the transformation.
        note: Under which condition the symmetry is exact; empty if always.
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
    """

    layer: str
    reason: str
    producers: tuple[str, ...]
