"""Homogeneous linear equations between the logarithms of factors, solved as they come."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

Number = int | Fraction
# A sum of logarithms of factors: from units to how often each is counted.
Sum = dict[int, Number]


class Exponents:
    r"""The factors that a network leaves free.

    .. math:: \sum_k c_k \log \tau_{u_k} = 0 \quad \text{for every equation}

    Each equation expresses the unit that was made last by those made before, so that what is free
    at the end is named by its first producer.

    Args:
        modulus: 0 for positive factors; 2 for signs, where an even power is no change.

    Example:
        >>> system = Exponents()
        >>> system.add({2: 1, 3: 1})  # τ₂ τ₃ = 1
        >>> system.add({4: 1, 3: -2})  # τ₄ = τ₃²
        >>> system.value(4)
        {2: -2}
    """

    def __init__(self, modulus: int = 0):
        self.modulus = modulus
        self._values: dict[int, Sum] = {}

    def value(self, unit: int) -> Sum:
        """Express a unit by those that are free; an empty sum is a factor of one."""
        known = self._values.get(unit)
        if known is None:
            return {unit: 1}
        if any(other in self._values for other in known):
            # Chains are as long as a network is deep: no recursion.
            stack = [unit]
            while stack:
                top = stack[-1]
                waiting = [
                    other
                    for other in self._values[top]
                    if other in self._values and self._open(other)
                ]
                if waiting:
                    stack += waiting
                    continue
                self._values[stack.pop()] = self._total(self._values[top])
        return self._values[unit]

    def add(self, equation: Mapping[int, Number]) -> None:
        """Ask that a sum of logarithms is zero."""
        for unit in equation:
            self.value(unit)
        total = self._total(equation)
        if not total:
            return
        last = max(total)
        scale = total.pop(last)
        self._values[last] = {
            unit: self.reduced(-count * scale if scale in (1, -1) else Fraction(-count) / scale)
            for unit, count in total.items()
        }

    def define(self, unit: int, terms: Mapping[int, Number]) -> None:
        """Let a new unit, of which nothing is known, be a sum of others."""
        for other in terms:
            self.value(other)
        self._values[unit] = self._total(terms)

    def copy(self) -> "Exponents":
        """Return the same equations, to which others may be added."""
        twin = Exponents(self.modulus)
        twin._values = dict(self._values)
        return twin

    def _open(self, unit: int) -> bool:
        return any(other in self._values for other in self._values[unit])

    def _total(self, terms: Mapping[int, Number]) -> Sum:
        total: Sum = {}
        for unit, count in terms.items():
            known = self._values.get(unit)
            for other, times in {unit: 1}.items() if known is None else known.items():
                total[other] = total.get(other, 0) + count * times
        reduced = {unit: self.reduced(count) for unit, count in total.items()}
        return {unit: count for unit, count in reduced.items() if count}

    def reduced(self, count: Number) -> Number:
        """Return a count as an integer where it is one, and modulo two for signs."""
        if self.modulus:
            return int(count) % self.modulus
        return int(count) if count == int(count) else count


def summed(pairs: Iterable[tuple[int, Number]]) -> Sum:
    """Add up terms, of which several may name one unit."""
    total: Sum = {}
    for unit, count in pairs:
        total[unit] = total.get(unit, 0) + count
    return total
