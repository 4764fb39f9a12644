"""SAM and ASAM: one optimizer in two neighbourhoods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from flatmin.ball import Ball
from flatmin.optim._in_ball import InBall
from flatmin.optim._perturbed import Perturbed
from flatmin.optim.radius import FollowingLR
from flatmin.optim.when import When
from flatmin.scale import Elementwise, Identity, Scale


class SAM(InBall):
    r"""Sharpness-aware minimization around any torch optimizer.

    Steps with the gradient taken at the worst point, to first order, of a ball around the weights:

    .. math:: w \leftarrow \text{base}\bigl(w, \nabla L(w + \epsilon)\bigr), \quad
        \epsilon = \rho \, \nabla L(w) / \|\nabla L(w)\|_2 \quad (p = 2)

    Args:
        base: Any torch optimizer that needs no closure, already built. It is shared, not copied:
            its groups, state and hooks are this optimizer's. Several in a list share one ball.
        rho: Radius of the ball, in parameter units, or a ``FollowingLR``. A group may set its own
            as ``sam_rho``; one with ``sam_rho = 0`` takes no part in the perturbation or its norm.
        scale: The scale of the ball, such as ``Layerwise()``; ``ASAM`` has its own.
        p: Order of the norm, from 1 to infinity.
        model: The network (the outermost wrapper of it: DDP, compiled). If given, the second pass
            leaves its buffers (BatchNorm statistics) alone and sees the dropout masks of the first.
        fused: Whether to fuse the arithmetic on a CPU with ``torch.compile``: faster steps on large
            networks after a compilation at the first one. GPUs keep torch's own operations on lists
            of tensors, which are the faster ones there.
        when: In which steps to perturb, such as ``Every(5)``; None for all.

    Raises:
        TypeError: If ``base`` is no torch optimizer instance, nor several, ``model`` no module,
            or ``scale`` no scale.
        ValueError: If ``rho`` is negative or not finite, or ``p`` is below one.

    Example:
        The loss x² has gradient 2 at x = 1; at distance 0.5 uphill it has gradient 3.

        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = SAM(torch.optim.SGD([x], lr=0.1), rho=0.5)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item(), round(x.item(), 6)
        (1.0, 0.7)

    Source:
        Foret et al. 2021, arXiv:2010.01412, algorithm 1.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR = 0.05,
        *,
        scale: Scale = Identity(),  # noqa: B008  a frozen value
        p: float = 2.0,
        model: nn.Module | None = None,
        fused: bool = False,
        when: When | None = None,
    ) -> None:
        super().__init__(base, rho, scale=scale, p=p, model=model, fused=fused, when=when)


class ASAM(Perturbed):
    r"""Adaptive sharpness-aware minimization around any torch optimizer.

    SAM in a ball that is measured relative to the size of each weight:

    .. math:: \epsilon = \rho \, T_w^2 \nabla L(w) / \|T_w \nabla L(w)\|_2, \quad
        T_w = \operatorname{diag}(|w_i| + \eta) \quad (p = 2)

    The defaults are the published ones for *training*: biases are not scaled (T = 1 there) and eta
    is 0.01. They do not make the neighbourhood invariant under rescaling; for *measuring*, use
    ``Elementwise()``, which scales biases too and has eta = 0.

    Args:
        base: Any torch optimizer that needs no closure, already built; with ``biases=False`` from
            ``model.named_parameters()``, or give ``model``, so that biases can be told by name.
        rho: Radius of the ball, dimensionless. A group may set its own as ``sam_rho``.
        eta: Added to ``|w|``, in parameter units. A group may set its own as ``sam_eta``.
        biases: Whether parameters named ``bias`` are scaled too.
        p: Order of the norm, from 1 to infinity.
        model: As for ``SAM``.
        fused: As for ``SAM``.
        when: As for ``SAM``.

    Raises:
        TypeError: If ``base`` is no torch optimizer instance, nor several, or ``model`` no module.
        ValueError: If ``rho`` or ``eta`` is negative or not finite, ``p`` is below one, or the
            parameters have no names and ``biases=False`` needs them.

    Example:
        At x = 2 the ball of radius 0.5 reaches to 2 + 0.5 · 2 = 3, where x² has gradient 6.

        >>> import torch
        >>> x = torch.nn.Parameter(torch.full((1,), 2.0))
        >>> optimizer = ASAM(torch.optim.SGD([("x", x)], lr=0.1), rho=0.5, eta=0.0)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     loss = x.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> optimizer.step(closure).item(), round(x.item(), 6)
        (4.0, 1.4)

    Source:
        Kwon et al. 2021, arXiv:2102.11600, algorithm 1.
    """

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        rho: float | FollowingLR = 0.5,
        eta: float = 0.01,
        *,
        biases: bool = False,
        p: float = 2.0,
        model: nn.Module | None = None,
        fused: bool = False,
        when: When | None = None,
    ) -> None:
        self.p = p
        self.biases = biases
        super().__init__(base, model=model, fused=fused, when=when, sam_rho=rho, sam_eta=eta)

    def _ball(self, group: dict[str, Any]) -> Ball:
        return Ball(self._rho(group), self.p, Elementwise(group["sam_eta"], self.biases))

    def _complete_groups(self) -> None:
        super()._complete_groups()
        if not self.biases and any(None in self._names(group) for group in self.param_groups):
            raise ValueError(
                "ASAM leaves biases unscaled (biases=False) and tells them by name, but the base "
                "optimizer's parameters have no names; build it from model.named_parameters(), "
                "give model=, or set biases=True."
            )
