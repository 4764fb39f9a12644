"""Random numbers of the density that a norm asks for."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def coordinates(out: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """Numbers of density ∝ exp(−|x|^p), in ``out`` or elsewhere; uniform in |x| ≤ 1 for p = ∞."""
    if out.is_complex():
        return _sample_plane(out, p, generator)
    if p == math.inf:
        return out.uniform_(-1.0, 1.0, generator=generator)
    if p == 2.0:
        return out.normal_(0.0, math.sqrt(0.5), generator=generator)
    sign = torch.empty_like(out).uniform_(-1.0, 1.0, generator=generator).sign()
    if p == 1.0:
        return out.exponential_(generator=generator) * sign
    # |x|^p is gamma(1/p); gamma(a) is gamma(a + 1) · U^{1/a}, which stays accurate for small a.
    uniform = torch.empty_like(out).uniform_(generator=generator)
    shape = torch.full_like(out, 1.0 + 1.0 / p)
    gamma = torch._standard_gamma(shape, generator=generator)
    return gamma.pow(1.0 / p) * uniform * sign


def _sample_plane(like: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """The same for complex numbers, whose size is their modulus: the density is one of the plane.

    The phase is uniform, and |x|^p is gamma(2/p).
    """
    size = torch.empty_like(like.real, memory_format=torch.contiguous_format)
    angle = torch.empty_like(size).uniform_(0.0, 2.0 * math.pi, generator=generator)
    size = size.uniform_(generator=generator).sqrt()
    if p != math.inf:
        shape = torch.full_like(size, 1.0 + 2.0 / p)
        size = size * torch._standard_gamma(shape, generator=generator).pow(1.0 / p)
    return torch.polar(size, angle)
