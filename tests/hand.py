"""Optimizers written out by hand in plain tensors, as the formula tests compare with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def matrix() -> Tensor:
    """A positive definite matrix: the Hessian of the loss ½ wᵀAw."""
    source = torch.Generator().manual_seed(4)
    a = torch.randn(7, 7, generator=source, dtype=torch.float64)
    return a @ a.t() / 7


def steepest(v: Tensor, p: float) -> Tensor:
    """The unit vector in the p-norm with the largest product with v, by its textbook form."""
    if p == 1.0:
        peaks = (v.abs() == v.abs().max()).double()
        return v.sign() * peaks / peaks.sum()
    if math.isinf(p):
        return v.sign()
    q = p / (p - 1)
    return v.sign() * v.abs() ** (q - 1) / (v.abs() ** q).sum() ** ((q - 1) / q)


def sgd(w: Tensor, g: Tensor, state: dict[str, Any]) -> Tensor:
    state["m"] = g if "m" not in state else 0.9 * state["m"] + g
    return w - 0.05 * state["m"]


def adam(w: Tensor, g: Tensor, state: dict[str, Any]) -> Tensor:
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
    m, v = state["m"] / (1 - 0.9**t), state["v"] / (1 - 0.999**t)
    return w - 0.05 * m / (v.sqrt() + 1e-8)


def adamw(w: Tensor, g: Tensor, state: dict[str, Any]) -> Tensor:
    return adam((1 - 0.05 * 0.1) * w, g, state)


HAND: dict[str, Any] = {
    "SGD": (sgd, lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9)),
    "Adam": (adam, lambda params: torch.optim.Adam(params, lr=0.05)),
    "AdamW": (adamw, lambda params: torch.optim.AdamW(params, lr=0.05, weight_decay=0.1)),
}
