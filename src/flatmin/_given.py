"""What public functions are handed: the wrong thing, or the right one in the wrong place."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def check_network(model: object) -> None:
    """Refuse what is no network.

    Raises:
        TypeError: If it is something else than a module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; the network comes "
            "first, as in find_scalings(model, example) and rescale(model, scalings, factors)."
        )


def check_named(params: object) -> None:
    """Refuse what is no mapping of names to tensors.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(params, nn.Module):
        raise TypeError(
            f"params must map names to tensors, got the network {type(params).__name__}; write "
            "{name: p.detach() for name, p in model.named_parameters()}."
        )
    if not isinstance(params, Mapping) or not all(isinstance(t, Tensor) for t in params.values()):
        raise TypeError(f"params must map names to tensors, got {type(params).__name__}.")


def check_objective(objective: object) -> None:
    """Refuse what is no objective.

    Raises:
        TypeError: If it has neither a value nor a derivative at a point.
    """
    if not any(hasattr(objective, name) for name in ("value", "value_and_grad", "hvp")):
        raise TypeError(
            f"objective must be a loss over data, got {type(objective).__name__}; make one by "
            "EmpiricalLoss(model, loss, batches), or by FunctionObjective(function)."
        )
