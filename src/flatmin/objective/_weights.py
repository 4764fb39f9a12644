"""How much a batch counts in the mean over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import Tensor

from flatmin.objective import _checks as checks
from flatmin.objective._batches import Examples

Weight = Callable[[Tensor], Tensor | float]
"""From the targets of some examples to the weight of all of them together."""


def weight_of(weight: Weight, targets: Tensor) -> float:
    """Give the weight of some examples; refuse what is none."""
    given = weight(targets)
    number = float(given)
    if not 0.0 <= number < math.inf:
        raise ValueError(
            f"weight must give a finite number of at least 0 for the targets of a batch, got "
            f"{number}; it is what the loss function divides by, such as "
            "(targets != -100).sum() where targets are ignored."
        )
    return number


def count(batches: Iterable[Examples], weight: Weight) -> tuple[int, float]:
    """Return the number of examples, and their whole weight."""
    examples, total = 0, 0.0
    for batch in batches:
        checks.check_batch(batch)
        examples += len(batch[1])
        total += weight_of(weight, batch[1])
    return examples, total
