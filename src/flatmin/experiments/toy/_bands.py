"""Intervals that hold for a whole row of a map at once: the max-t bootstrap over seeds."""

from __future__ import annotations

import torch
from torch import Tensor

from flatmin._streams import stream
from flatmin.compare.statistics import t_quantile

LEVEL = 0.05
RESAMPLES = 4000


def widening(differences: Tensor) -> list[list[float]]:
    r"""How much wider than for one comparison the intervals of a row must be, to hold together.

    .. math:: \max_j |\bar d^*_j - \bar d_j| / s^*_j, \quad
        \text{its quantile at } 1 - \alpha / k, \text{ over } t_{n-1}

    over resamples of the seeds. Neighboring cells of a row share networks and move together, which
    this knows, and a count of cells does not.

    Args:
        differences: Paired, ``[rows, seeds, cells]``.

    Returns:
        For each row, the factor on the half-width of a single 95 % interval for k = 1, 2, … rows:
        with the k-th, an error in any of k rows has the chance of 5 % that one row has alone.

    Source:
        Romano and Wolf 2005, doi:10.1198/016214504000000539, section 4, in one step.
    """
    rows, seeds, _ = differences.shape
    if seeds < 2:
        return [[float("inf")] * rows] * rows
    chosen = torch.randint(seeds, (RESAMPLES, seeds), generator=stream("max-t"))
    weights = torch.zeros(RESAMPLES, seeds, dtype=torch.float64)
    weights.scatter_add_(1, chosen, torch.full_like(chosen, 1, dtype=torch.float64) / seeds)
    levels = 1 - LEVEL / torch.arange(1, rows + 1, dtype=torch.float64)
    found = []
    for d in (differences - differences.mean(dim=1, keepdim=True)).double():
        mean = weights @ d
        error = ((weights @ d.square() - mean.square()).clamp(min=0) / (seeds - 1)).sqrt()
        largest = torch.where(mean == 0, 0.0, mean.abs() / error).amax(dim=1)
        ordered = largest.sort().values  # with infinite ones, where a resample has no spread
        places = (levels * RESAMPLES).ceil().long().clamp(max=RESAMPLES) - 1
        found.append((ordered[places] / t_quantile(seeds - 1)).clamp(min=1.0).tolist())
    return found
