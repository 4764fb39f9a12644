"""Kendall's τ over networks that come in draws, with intervals from resampling the draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatmin._streams import stream
from flatmin.compare.statistics import t_quantile

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Tau:
    r"""Kendall's τ-b, its half-width, and what resampling made of it.

    .. math:: \tau_b = \frac{\sum \operatorname{sign}(\Delta x)\operatorname{sign}(\Delta y)}
        {\sqrt{\#\{\Delta x \ne 0\}\,\#\{\Delta y \ne 0\}}}

    Attributes:
        values: For the draws as they are, and then for each resample of them, ``[1 + resamples]``.
        draws: Number of draws.

    Source:
        Kendall 1945, doi:10.1093/biomet/33.3.239.
    """

    values: Tensor
    draws: int

    @property
    def estimate(self) -> tuple[float, float]:
        """τ and the half-width of its 95 % interval: t times the bootstrap's standard error."""
        spread = self.values[1:].std() * (self.draws / (self.draws - 1)) ** 0.5
        return self.values[0].item(), (spread * t_quantile(self.draws - 1)).item()

    def given(self, x: Tau, y: Tau) -> Tau:
        """Partial τ of two, given a third that has τ ``x`` with the one and ``y`` with the other.

        Source:
            Kendall 1942, doi:10.1093/biomet/32.3-4.277.
        """
        rest = ((1 - x.values**2) * (1 - y.values**2)).clamp(min=0).sqrt()
        return Tau((self.values - x.values * y.values) / rest, self.draws)


class Signs:
    """Signs of the differences between networks, of which pairs are compared.

    Args:
        values: ``[strata, draws, networks]``: pairs are formed within a stratum, over all draws.
        kept: Networks that count; all, if not given.
    """

    def __init__(self, values: Tensor, kept: Tensor | None = None) -> None:
        self.draws = values.shape[1]
        self.strata = [_signs(v, None if kept is None else kept[s]) for s, v in enumerate(values)]

    def tau(self, other: Signs) -> Tau:
        """Kendall's τ of two scores of the same networks."""
        pairs = list(zip(self.strata, other.strata, strict=True))
        counts = [
            torch.stack([_by_draws(t, self.draws) for t in of_strata]).sum(dim=0)
            for of_strata in (
                [a * b for a, b in pairs],
                [a.abs() for a, _ in pairs],
                [b.abs() for _, b in pairs],
            )
        ]
        weights = resamples(self.draws)
        return _ratio(
            self.draws, *(torch.einsum("ri,ij,rj->r", weights, c, weights) for c in counts)
        )


def tau_along(x: Tensor, y: Tensor, counted: Tensor | None = None) -> Tau:
    """Kendall's τ over the pairs that differ in one thing only, and share the draw.

    Args:
        x: ``[draws, others, levels]``: pairs are formed along the last dimension.
        y: The same.
        counted: Which pairs count, ``[draws, others, levels, levels]``; all, if not given.
    """
    a, b = (torch.sign(v[..., :, None] - v[..., None, :]) for v in (x, y))
    if counted is not None:
        a, b = a * counted, b * counted
    weights = resamples(len(x))
    counts = (t.flatten(1).sum(dim=1, dtype=torch.float64) for t in (a * b, a.abs(), b.abs()))
    return _ratio(len(x), *(weights @ c for c in counts))


def resamples(draws: int) -> Tensor:
    """How often each draw is taken: once each, and then as chance has it, ``[1 + n, draws]``."""
    chosen = torch.randint(draws, (RESAMPLES, draws), generator=stream("bootstrap"))
    counts = torch.zeros(RESAMPLES, draws, dtype=torch.float64)
    counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64))
    return torch.cat((torch.ones(1, draws, dtype=torch.float64), counts))


def _ratio(draws: int, concordance: Tensor, first: Tensor, second: Tensor) -> Tau:
    return Tau(concordance / (first * second).sqrt(), draws)


def _signs(values: Tensor, kept: Tensor | None) -> Tensor:
    flat = values.flatten()
    found = torch.sign(flat[:, None] - flat[None, :]).to(torch.int8)
    if kept is not None:
        found *= (kept.flatten()[:, None] & kept.flatten()[None, :]).to(torch.int8)
    return found


def _by_draws(signs: Tensor, draws: int) -> Tensor:
    """Sums over the networks of each two draws, ``[draws, draws]``."""
    blocks = signs.reshape(draws, len(signs) // draws, draws, -1)
    return blocks.sum(dim=3, dtype=torch.int32).sum(dim=1).double()
