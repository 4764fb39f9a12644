"""What a wrapper can stand around, and with which model."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from torch.optim import Optimizer

from flatmin.optim._several import Several
from flatmin.optim._wrapper import Wrapper


def checked_base(base: object, wrapper: str) -> Optimizer:
    """Refuse what no wrapper can stand around; make one of several.

    Raises:
        TypeError: If it is no optimizer, is a wrapper itself, or cannot step without a closure.
    """
    if isinstance(base, list | tuple) and base:
        return Several([checked_base(one, wrapper) for one in base])
    if isinstance(base, Wrapper) or not isinstance(base, Optimizer):
        got = base.__name__ if isinstance(base, type) else type(base).__name__
        raise TypeError(
            f"base must be an instance of an ordinary torch optimizer, got {got}; write "
            f"{wrapper}(torch.optim.SGD(model.named_parameters(), lr=0.1))."
        )
    step = inspect.signature(type(base).step).parameters.get("closure")
    if step is not None and step.default is step.empty:
        raise TypeError(
            f"{type(base).__name__} needs a closure of its own to step, which would run at the "
            f"unperturbed weights; wrap an optimizer that steps with the gradients it is given."
        )
    return base


def check_model(model: object) -> None:
    """Refuse what is no module.

    Raises:
        TypeError: If it is something else than a module or None.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model must be a module whose calls can be watched, got one of torch.jit; give the "
            "module that it was made from to the loop and here, or leave model out."
        )
