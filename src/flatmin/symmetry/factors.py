"""Positive factors and signs: every operation is an equation between the factors of its units."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from flatmin.symmetry.exponents import Exponents, Number, Sum, summed
from flatmin.symmetry.numbering import FIXED, ZERO, crossing, differing, shared, together
from flatmin.symmetry.trace import Trace
from flatmin.symmetry.walk import Walk

# The logarithm of the factors of a tensor: a sum of units, each counted so often.
Form = list[tuple[Number, Tensor]]

# Sums that have to vanish, the layer that asks, and why.
Kept = tuple[list[Sum], str, str]

# A parameter that is used in an unusual way gets a unit per entry, if it has no more than these.
_MOST_ENTRIES = 1 << 17


class FactorWalk(Walk):
    """What all rules of factors build on: units whose logarithms obey linear equations."""

    def __init__(self, traced: Trace, modulus: int):
        super().__init__(traced)
        self.system = Exponents(modulus)
        self.forms: dict[str, Form] = {}
        self.offsets: dict[str, float] = {}
        self.kept: list[Kept] = []

    # Equations.

    def equate(self, form: Form) -> None:
        """Ask that the factors of a form are one, for every entry."""
        for row in self._rows(form):
            self.system.add(row)

    def keep(self, form: Form, layer: str, reason: str) -> None:
        """Withdraw the units of a form, with the reason: what is asked last is named."""
        rows = [row for row in self._rows(form) if row]
        if rows:
            self.kept.append((rows, layer, reason))

    def _rows(self, form: Form) -> list[Sum]:
        counts = [count for count, _ in form]
        rows, _ = together(crossing([units for _, units in form]))
        return [
            summed((u, c) for u, c in zip(row, counts, strict=True) if u != FIXED)
            for row in rows.tolist()
            if ZERO not in row
        ]

    def stop(self, units: Tensor, node: fx.Node, reason: str) -> None:
        """Withdraw units."""
        self.keep([(1, units)], self.layer(node), reason)

    def unify(self, a: Tensor, b: Tensor, node: fx.Node, reason: str) -> Tensor:
        """Tie what meets, and return the units of the result; zeros go along with any."""
        for one, other in differing(a, b):
            if FIXED in (one, other):
                moving = torch.tensor(max(one, other), device="cpu")
                self.stop(moving, node, reason)
            else:
                self.system.add({one: 1, other: -1})
        return torch.maximum(a, b)

    def tied(self, units: Tensor, axes: Sequence[int], node: fx.Node) -> Tensor:
        """Tie all entries along axes, and return one for each; the axes stay with size one."""
        common = shared(units, axes)
        self.unify(units, common, node, "mixes units with what cannot follow")
        return common

    def combined(self, form: Form, node: fx.Node) -> Tensor:
        """Return units whose factors are those of a form."""
        rows, inverse = together([units for _, units in form])
        found: list[int] = []
        sums: list[Sum] = []
        for row in rows.tolist():
            total = {
                unit: count
                for unit, count in summed(
                    (u, c) for u, (c, _) in zip(row, form, strict=True) if u != FIXED
                ).items()
                if count
            }
            if ZERO in row:
                found.append(ZERO)
            elif not total:
                found.append(FIXED)
            elif list(total.values()) == [1]:
                found.append(next(iter(total)))
            else:
                found.append(self._next + len(sums))
                sums.append(total)
        # Made at once: a mixer has as many of these as tokens times channels.
        made = self.fresh(len(sums), node).tolist() if sums else []
        for unit, total in zip(made, sums, strict=True):
            self.system.define(unit, total)
        return torch.tensor(found, device="cpu")[inverse]

    # Parameters and buffers.

    def is_free(self, argument: object) -> bool:
        """Tell whether an argument is a parameter that nothing has used yet."""
        name = self.name(argument)
        return name in self.traced.params and name not in self.forms

    def read(self, name: str, node: fx.Node) -> Tensor:
        """Return the units of a parameter or buffer that is used as an ordinary tensor."""
        value = self.traced.values[node]
        if name not in self.traced.params:
            self.fix(name, f"{name!r} is read elsewhere as well", node)
            return torch.tensor(FIXED, device="cpu")
        if name not in self.forms:
            if value.numel() > _MOST_ENTRIES:
                self.forms[name] = [(1, torch.tensor(FIXED, device="cpu"))]
            else:
                self.forms[name] = [(1, self.fresh(value.numel(), node, node).view(value.shape))]
        form = self.forms[name]
        if len(form) == 1 and form[0][0] == 1:
            return form[0][1]
        if value.numel() > _MOST_ENTRIES:
            self.fix(name, f"{name!r} is used more than once", node)
            return torch.tensor(FIXED, device="cpu")
        return self.combined([(c, u.expand(value.shape)) for c, u in form], node)

    def follow(self, argument: object, units: Tensor, node: fx.Node) -> Tensor:
        """Let what is added to units move with them, and return the units of the sum."""
        if argument is None:
            return units
        name, shape = self.name(argument), self.shape(argument)
        lead = units.ndim - len(shape)
        if not self.is_free(argument) or lead < 0 or bool((units == ZERO).any()):
            return self.unify(units, self.units(argument), node, "adds what cannot follow")
        assert name is not None
        axes = [*range(lead)]
        axes += [lead + i for i, n in enumerate(shape) if n == 1 and units.shape[lead + i] > 1]
        common = self.tied(units, axes, node)
        common = common.reshape(common.shape[lead:])
        self.forms[name] = [(1, common)]
        return torch.maximum(units, common)

    def follow_statistics(self, argument: object, form: Form, offset: float = 0.0) -> None:
        """Let running statistics move with what they are statistics of."""
        name = self.name(argument)
        if name is None:
            return
        if name in self.forms:
            self.keep(self.forms[name], name, f"{name!r} is used more than once")
            self.keep(form, name, f"{name!r} is used more than once")
        self.forms[name] = form
        self.offsets[name] = offset

    def fix(self, name: str, reason: str, node: fx.Node | None = None) -> None:
        """Keep a parameter or buffer where it is."""
        if name in self.forms:
            self.keep(self.forms[name], name if node is None else self.layer(node), reason)
        elif node is not None or name not in self.traced.params:
            self.forms[name] = [(1, torch.tensor(FIXED, device="cpu"))]
