"""Optimizers by name, and the course of the learning rate."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from flatmin import optim
from flatmin.optim import only_norms
from flatmin.train._recipe import Recipe
from flatmin.train._rules import rule
from flatmin.train._values import fitted

OwnOptimizer = Callable[[list[nn.Parameter]], Optimizer]
"""Parameters to an optimizer; the learning rate of a run is set from outside."""


def fitted_options(config: Recipe) -> dict[str, Any]:
    """The optimizer's options as plain values of the kinds that it declares.

    Raises:
        TypeError: If an option is of another kind.
        ValueError: If the optimizer or an option is unknown, or a number not finite.

    Example:
        >>> from flatmin.train import TrainConfig
        >>> fitted_options(TrainConfig(optimizer="adam", options={"betas": [0.8, 0.9]}))
        {'betas': (0.8, 0.9)}
    """
    kind = _named(torch.optim, "optimizer", config.optimizer)
    _check_arguments("optimizer", config.optimizer, kind, config.options)
    declared = typing.get_type_hints(kind.__init__)
    options = {
        name: fitted(f"options.{name}", value, declared.get(name, Any))
        for name, value in config.options.items()
    }
    if options.get("differentiable"):
        raise ValueError(
            "options.differentiable must be False: a step that is part of a graph cannot change "
            "the weights in their place."
        )
    return options


def build_optimizer(
    config: Recipe, network: nn.Module, model: nn.Module | None = None, *, steps: int = 1
) -> Optimizer:
    """Build the optimizer of a configuration, with the minimizer around it.

    Args:
        config: Names the classes and their arguments.
        network: What is trained.
        model: Its outermost wrapper (DDP, compiled), if it has one.
        steps: Steps in an epoch.

    Returns:
        A bare torch optimizer for ``minimizer="none"``, else a wrapper that knows the model.

    Raises:
        ValueError: If a class or argument is unknown, or its value out of range.

    Example:
        >>> from flatmin.train import TrainConfig
        >>> config = TrainConfig(optimizer="sgd", options={"momentum": 0.9}, minimizer="sam")
        >>> optimizer = build_optimizer(config, nn.Linear(1, 1))
        >>> type(optimizer).__name__, optimizer.param_groups[0]["momentum"]
        ('SAM', 0.9)
    """
    base = _build_base(config, network)
    chosen = {"rho": config.rho, "eta": config.eta, "biases": config.biases, "p": config.p}
    arguments: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if config.perturb != "all":
        arguments["perturb"] = config.perturb
    if when := rule(config.when, of=config.epochs * steps, seed=config.seed):
        arguments["when"] = when
    if config.minimizer == "none":
        if arguments:
            raise ValueError(
                f"{', '.join(arguments)} belong to a minimizer, and it is none; choose sam or "
                "asam, or leave them out."
            )
        return base
    arguments.pop("perturb", None)
    wrapper = _named(optim, "minimizer", config.minimizer, "none")
    _check_arguments("minimizer", config.minimizer, wrapper, arguments)
    wrapped: Optimizer = wrapper(base, model=model or network, **arguments)
    return wrapped


def build_own(make: OwnOptimizer, network: nn.Module) -> Optimizer:
    """Let a function of the user's make the optimizer.

    Raises:
        TypeError: If it makes anything else.
    """
    made: object = make(list(network.parameters()))
    if not isinstance(made, Optimizer):
        raise TypeError(f"optimizer must make a torch.optim.Optimizer, got {type(made).__name__}.")
    return made


def learning_rate(config: Recipe, step: int, steps_per_epoch: int) -> float:
    r"""Learning rate of a step: a function of the step alone, so there is no state to save.

    .. math:: \eta_t = \eta \cdot \tfrac12 \bigl(1 + \cos(\pi (t - w) / (T - w))\bigr)

    after ``w`` steps of linear warm-up, of ``T`` in all.

    Args:
        config: Gives the peak, the schedule and the warm-up.
        step: Steps that were taken before.
        steps_per_epoch: Steps in an epoch.

    Returns:
        The learning rate.

    Example:
        >>> from flatmin.train import TrainConfig
        >>> config = TrainConfig(lr=1.0, epochs=4, warmup=2.0)
        >>> [round(learning_rate(config, step, 1), 3) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]

    Source:
        Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5; Goyal et al. 2017, arXiv:1706.02677,
        section 2.2, for the warm-up.
    """
    warm = round(config.warmup * steps_per_epoch)
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "none":
        return config.lr
    if config.schedule == "cosine-by-epoch":
        step = max(step // steps_per_epoch * steps_per_epoch, warm)
    part = (step - warm) / (config.epochs * steps_per_epoch - warm)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * part))


def _build_base(config: Recipe, network: nn.Module) -> Optimizer:
    kind = _named(torch.optim, "optimizer", config.optimizer)
    options = fitted_options(config)
    params: list[Any] = list(network.named_parameters())
    if config.perturb == "norms":
        params = only_norms(network)
    elif config.perturb != "all":
        raise ValueError(f"perturb must be one of all, norms, got {config.perturb!r}.")
    try:
        base: Optimizer = kind(params, lr=config.lr, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"The optimizer {config.optimizer} cannot be used here: {reason}."
        ) from error
    return base


def _named(module: object, role: str, name: str, *others: str) -> type[Any]:
    """Find a class of optimizers in a module, in whatever case its name is written."""
    known = {
        key.lower(): value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Optimizer)
        and not inspect.isabstract(value)
        # LBFGS evaluates the loss as it likes, and SparseAdam takes sparse gradients alone.
        and value not in (Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam)
    }
    if name.lower() not in known:
        choices = ", ".join([*others, *sorted(known)])
        raise ValueError(f"{role} must be one of {choices}, got {name!r}.")
    return known[name.lower()]


def _check_arguments(role: str, name: str, kind: type, arguments: Mapping[str, Any]) -> None:
    known = [key for key in inspect.signature(kind).parameters if key not in ("params", "base")]
    for argument in arguments:
        if argument == "lr":
            raise ValueError("options must not hold lr; use the field lr.")
        if argument not in known:
            remedy = (
                f"it takes {', '.join(key for key in known if key != 'lr')}."
                if role == "optimizer"
                else "leave it out or choose another minimizer."
            )
            raise ValueError(f"The {role} {name} has no {argument}; {remedy}")
