"""Any measure, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from flatmin._types import Params
from flatmin.objective import EmpiricalLoss, Objective

P = ParamSpec("P")
R = TypeVar("R")


def per_layer(
    measure: Callable[Concatenate[Objective, Params, P], R],
    objective: Objective,
    params: Params,
    *args: P.args,
    **kwargs: P.kwargs,
) -> dict[str, R]:
    r"""Measure one layer at a time, while the others stay where they are.

    .. math:: \{\, l \mapsto m(w_l \mapsto L(w_1, \dots, w_l, \dots),\; w_l) \,\}

    The layers' sharpnesses do not add up to the network's: the whole can move in directions that no
    single layer can. For another choice of parameters, such as the gains of all normalization
    layers, give that part of ``params`` to the measure itself; ``EmpiricalLoss`` holds the rest.

    Args:
        measure: A measure of this package, or any function of an objective and a point.
        objective: Mean loss over a fixed data set.
        params: The point ``w``, all layers of it; names up to the last dot are one layer.
        *args: For the measure, such as the ball.
        **kwargs: For the measure, such as ``samples=50``.

    Returns:
        Names of the layers, in the order of ``params``, to what the measure returns.

    Example:
        In ``a² + 3 b²``, a step of 1 from (1, 1) raises the first term by 3, the second by 9.

        >>> from flatmin import Ball, FunctionObjective
        >>> from flatmin.sharpness import one_step_sharpness
        >>> bowl = FunctionObjective(lambda w: w["a.x"].square() + 3 * w["b.x"].square())
        >>> w = {"a.x": torch.tensor(1.0), "b.x": torch.tensor(1.0)}
        >>> found = per_layer(one_step_sharpness, bowl, w, Ball(rho=1.0))
        >>> {layer: sharpness.value for layer, sharpness in found.items()}
        {'a': 3.0, 'b': 9.0}

    Source:
        Rangamani et al. 2019, arXiv:1902.02434, who normalize by layers.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in params.items():
        # A parameter of the network itself is a layer of its own.
        layers.setdefault(name.rpartition(".")[0] or name, {})[name] = tensor
    restricted = (
        _RestrictedMean(objective, params)
        if isinstance(objective, EmpiricalLoss)
        else _Restricted(objective, params)
    )
    return {layer: measure(restricted, part, *args, **kwargs) for layer, part in layers.items()}


@dataclass(frozen=True)
class _Restricted:
    """An objective of some parameters, the others held at a point."""

    objective: Objective
    rest: Params

    @property
    def dtype(self) -> torch.dtype | None:
        return getattr(self.objective, "dtype", None)

    def value(self, params: Params) -> Tensor:
        return self.objective.value({**self.rest, **params})

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        loss, grad = self.objective.value_and_grad({**self.rest, **params})
        return loss, {name: grad[name] for name in params}

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        still = {name: torch.zeros_like(t) for name, t in self.rest.items()}
        product = self.objective.hvp({**self.rest, **params}, {**still, **vector})
        return {name: product[name] for name in params}


@dataclass(frozen=True)
class _RestrictedMean(_Restricted):
    """A mean over examples besides, which can be cut."""

    objective: EmpiricalLoss

    @property
    def total_weight(self) -> float:
        return self.objective.total_weight

    def micro(self, m: int) -> Iterator[_RestrictedMean]:
        return (_RestrictedMean(part, self.rest) for part in self.objective.micro(m))

    def reduce(self, tensor: Tensor) -> Tensor:
        return self.objective.reduce(tensor)
