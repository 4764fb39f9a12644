"""The geometry in which Adam descends, as a scale to measure with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from flatmin._given import check_network
from flatmin._types import Params


class AdamScale:
    r"""The scale of Adam's own preconditioner, as its state has it now.

    .. math:: T = P^{-1/2}, \quad P = \operatorname{diag}\left( \sqrt{\hat v} + \epsilon \right),
        \quad \hat v = v / (1 - \beta_2^t)

    ``top_eigenvalues(loss, w, scale=AdamScale(optimizer, model))`` is the preconditioned
    sharpness, of :math:`P^{-1/2} H P^{-1/2}`. Training with Adam is at its edge of stability where
    that is :math:`(2 + 2 \beta_1) / ((1 - \beta_1)\, \alpha)`, 38/α for the usual β₁. The factor
    :math:`1 - \beta_1^t` of the first steps is left out. T is a copy: it does not follow the
    training, nor a rescaling of the network, and no measure with it is invariant.

    Args:
        optimizer: ``torch.optim.Adam`` or ``AdamW``, with ``amsgrad`` or without, or a minimizer of
            flatmin around one.
        model: The network that it trains; gives the names.

    Raises:
        TypeError: If the optimizer is another one, or ``model`` is no network.
        ValueError: If the optimizer has not taken a step with any parameter of the model; if a
            parameter is asked for that it has taken none with, or that has another shape; or if P
            is zero somewhere.

    Example:
        After one step v̂ is the square of the gradient, here 4² = 16, so T = 1/2.

        >>> import torch
        >>> model = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.Adam(model.parameters(), eps=0.0)
        >>> model(torch.full((1, 1), 4.0)).sum().backward()
        >>> optimizer.step()
        >>> scale = AdamScale(optimizer, model)
        >>> round(scale({"weight": torch.ones(1, 1)})["weight"].item(), 6)
        0.5

    Source:
        Cohen et al. 2022, arXiv:2207.14484; Kingma and Ba 2015, arXiv:1412.6980.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        check_network(model)
        adam = optimizer
        while not isinstance(adam, Adam | AdamW) and isinstance(
            getattr(adam, "base", None), Optimizer
        ):
            adam = adam.base  # type: ignore[attr-defined]
        if not isinstance(adam, Adam | AdamW):
            raise TypeError(
                "AdamScale needs torch.optim.Adam or AdamW, whose state it reads, got "
                f"{type(adam).__name__}."
            )
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._factors = {
            names[parameter]: _factor(adam.state[parameter], group, names[parameter])
            for group in adam.param_groups
            for parameter in group["params"]
            if parameter in names and "exp_avg_sq" in adam.state.get(parameter, {})
        }
        if not self._factors:
            raise ValueError(
                "the optimizer has taken no step with a parameter of this model, so it has no "
                "preconditioner yet; take a step, or load its state dict."
            )

    def __call__(self, params: Params, *, leading: int = 0) -> dict[str, Tensor]:
        """Give T for each of the parameters."""
        found = {}
        for name, t in params.items():
            if name not in self._factors:
                raise ValueError(
                    f"the optimizer has no state for {name!r}, so its scale there is not known; "
                    "take a step with a gradient for it, or leave it out of params."
                )
            if self._factors[name].shape != t.shape:
                raise ValueError(
                    f"the optimizer's state for {name!r} has the shape "
                    f"{tuple(self._factors[name].shape)}, the parameter {tuple(t.shape)}."
                )
            found[name] = self._factors[name].to(t, copy=True)
        return found


def _factor(state: dict[str, Tensor], group: dict[str, object], name: str) -> Tensor:
    """T of a parameter, in float64: half precision would lose small squares."""
    decay = float(group["betas"][1])  # type: ignore[index]
    moment = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].detach().double()
    size = (moment / (1.0 - decay ** float(state["step"]))).sqrt() + float(group["eps"])  # type: ignore[arg-type]
    if not bool(((size > 0) & size.isfinite()).all()):
        raise ValueError(
            f"Adam's preconditioner must be positive and finite, and that of {name!r} is not, as "
            "with gradients of zero and eps=0; leave that parameter frozen, or set eps."
        )
    factor: Tensor = size.rsqrt()
    return factor
