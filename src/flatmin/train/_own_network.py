"""What a network of the user's must be, and which switches of it belong to a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def check_network(network: nn.Module, dtype: torch.dtype) -> None:
    """Refuse, before anything is trained, what could not be trained or resumed.

    Args:
        network: As it was handed over.
        dtype: The floating type that it will be cast to.

    Raises:
        ValueError: If a parameter has no shape yet or is complex of another precision, or a module
            gives extra state that it does not take back.
    """
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if is_lazy(tensor):
            raise ValueError(
                f"{name} has no shape yet: run the network on one image before it is trained."
            )
        if tensor.is_complex() and tensor.dtype != dtype.to_complex():
            raise ValueError(
                f"{name} is {tensor.dtype}, and the weights are {dtype}: cast it to "
                f"{dtype.to_complex()}, or choose another precision."
            )
    for name, module in network.named_modules():
        kind = type(module)
        gives = kind.get_extra_state is not nn.Module.get_extra_state
        takes = kind.set_extra_state is not nn.Module.set_extra_state
        if gives and not takes:
            raise ValueError(
                f"{name or 'The network'} ({kind.__name__}) has get_extra_state and no "
                "set_extra_state, so a run could not be resumed; write both, or neither."
            )


def prepare(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Bring a network to device and type, and into training mode.

    Of one that is in training mode, the parts that are not stay as they are: frozen statistics are
    frozen. Complex tensors stay complex.
    """
    network.to(device)
    network.double() if dtype is torch.float64 else network.float()
    if not network.training:
        network.train()


def switches(network: nn.Module) -> dict[str, Any]:
    """Names of the parameters that are frozen, and of the modules that are not in training mode."""
    return {
        "frozen": [name for name, p in network.named_parameters() if not p.requires_grad],
        "evaluating": [name for name, module in network.named_modules() if not module.training],
    }


def set_switches(network: nn.Module, saved: dict[str, Any]) -> None:
    """Go back to what ``switches`` gave."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad != (name not in saved["frozen"]):
            parameter.requires_grad_(name not in saved["frozen"])
    for name, module in network.named_modules():
        module.training = name not in saved["evaluating"]
