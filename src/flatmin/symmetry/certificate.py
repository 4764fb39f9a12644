"""The record of a measure along networks of one function, and its verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a measure did while the function of the network stayed.

    Args:
        values: The measure before, and after each transformation.
        deviations: How far the outputs had moved after each, relative to their rms.
        weight_norms: Norm of all parameters, before and after each: a control that does change.
        tolerance: Spread up to which the measure counts as unchanged.
        allowed_deviation: Deviation up to which the outputs count as unchanged.
        units: Number of units that carried a factor (or changed place or sign).
        coverage: The part of the numbers in parameters that the transformations moved; biases of
            the outputs, which none could move, are not counted.
        untouched: Names of the parameters that none of them moved, apart from those biases.
        sees_tested: Whether the measure changes with noise on the parameters that were moved.
        sees_untouched: Whether it changes with noise on the others.
        mixed_values: The measure after units were mixed by matrices, where that was tried.
        mixed_deviations: How far the outputs had moved after each of these.
        mixings: How many matrices of which size.

    Example:
        >>> print(Certificate((1.0, 3.0), (1e-16,), (1.0, 2.0), 1e-9, 1e-9, units=4))
        NOT invariant: spread 1 while the function stayed
          values       1 … 3, first 1, 2 networks
          outputs      moved by at most 1.0e-16 of their rms
          weight norm  spread 0.67 on the same networks (control)
          took part    4 units, 100 % of the parameters
    """

    values: tuple[float, ...]
    deviations: tuple[float, ...]
    weight_norms: tuple[float, ...]
    tolerance: float
    allowed_deviation: float
    units: int
    coverage: float = 1.0
    untouched: tuple[str, ...] = ()
    sees_tested: bool = True
    sees_untouched: bool = False
    mixed_values: tuple[float, ...] = ()
    mixed_deviations: tuple[float, ...] = ()
    mixings: str = ""

    @property
    def spread(self) -> float:
        """Range of the values over their absolute mean; NaN if any of them is not finite."""
        return _spread(self.values)

    @property
    def deviation(self) -> float:
        """Largest deviation of the outputs; NaN if any of them is."""
        return math.nan if any(map(math.isnan, self.deviations)) else max(self.deviations)

    @property
    def mixed_spread(self) -> float:
        """The same over the network itself and those whose units were mixed by matrices."""
        return _spread((self.values[0], *self.mixed_values))

    @property
    def num_not_finite(self) -> int:
        """Number of values that are NaN or infinite."""
        return sum(not math.isfinite(value) for value in self.values)

    @property
    def function_kept(self) -> bool:
        """Whether the outputs stayed, without which the spread says nothing."""
        return self.deviation <= self.allowed_deviation

    @property
    def unchanged(self) -> bool:
        """Whether the measure stayed, under what was tried, while the outputs did."""
        stayed = self.function_kept and any(self.values) and self.spread <= self.tolerance
        return stayed and self.sees_tested

    @property
    def invariant(self) -> bool:
        """Whether the measure stayed while the outputs did, and all that it sees took part."""
        return self.unchanged and not self.sees_untouched

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        return self._of_factors() + self._of_matrices()

    def _of_matrices(self) -> str:
        if not self.mixings or not self.function_kept:
            return ""
        moved = max(self.mixed_deviations, key=_nan_last)
        if not moved <= self.allowed_deviation:
            return f"; void under matrices that mix units: the outputs moved by {moved:.1e}"
        spread = f"({self.mixings}): spread {self.mixed_spread:.2g}"
        if self.mixed_spread <= self.tolerance:
            return f"; also unchanged under the matrices that mix units {spread}"
        return f"; NOT invariant under the matrices that mix units {spread}"

    def _of_factors(self) -> str:
        if not self.function_kept:
            return (
                f"void: the outputs moved by {self.deviation:.1e} of their rms, so the function "
                "was not kept and the spread says nothing"
            )
        if self.num_not_finite:
            return f"not finite in {self.num_not_finite} of {len(self.values)} values"
        if not any(self.values):
            return "always zero: this measure tells nothing here"
        if not self.sees_tested:
            return (
                "not tested: the measure has the same value when the parameters that may be "
                "rescaled are changed at random, so it does not depend on them"
            )
        within = f"spread {self.spread:.1e}, within {self.tolerance:.0e}"
        if self.invariant:
            return f"invariant under the {self.units} units that may be rescaled here: {within}"
        if self.unchanged:
            return (
                f"unchanged under the {self.units} units that may be rescaled here: {within}; "
                f"only {_percent(self.coverage)} of the parameters took part, and the measure also "
                f"sees {_some(self.untouched)}, of which nothing is known"
            )
        return f"NOT invariant: spread {self.spread:.2g} while the function stayed"

    def __str__(self) -> str:
        low, high = min(self.values, key=_nan_last), max(self.values, key=_nan_last)
        return (
            f"{self.verdict}\n"
            f"  values       {low:.6g} … {high:.6g}, first {self.values[0]:.6g}, "
            f"{len(self.values)} networks\n"
            f"  outputs      moved by at most {self.deviation:.1e} of their rms\n"
            f"  weight norm  spread {_spread(self.weight_norms):.2g} on the same networks (control)"
            f"\n  took part    {self.units} units, {_percent(self.coverage)} of the parameters"
            f"{f'; not {_some(self.untouched)}' if self.untouched else ''}"
        )


def _spread(values: Sequence[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    width, mean = max(values) - min(values), abs(math.fsum(values) / len(values))
    return width / mean if mean else math.inf if width else 0.0


def _percent(part: float) -> str:
    # Never rounded up to all, or down to nothing.
    percent = min(100 * part, 99.9) if part < 1 else 100.0
    return f"{percent:.3g} %" if percent >= 0.1 or percent == 0 else "below 0.1 %"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value
