"""Which parameters are perturbed: those of some kinds of modules alone."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMS: tuple[type[nn.Module], ...] = (
    _NormBase,  # BatchNorm and InstanceNorm, lazy and synchronized ones too
    nn.GroupNorm,
    nn.LayerNorm,
    *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
)
"""The normalization layers of torch that may have parameters."""


def only_norms(model: nn.Module, *also: type[nn.Module]) -> list[dict[str, Any]]:
    """Make the groups of SAM-ON: the normalization layers are perturbed, and the rest is not.

    Whatever they are called, and however deep they lie. The radius that is best is much larger than
    for all parameters: for ASAM on CIFAR-100 the paper has 10 in place of 1.

    Args:
        model: The network.
        *also: Types of normalization layers that are not torch's, such as an RMSNorm of your own.

    Returns:
        Groups of named parameters for a base optimizer, as ``perturb_only`` makes them.

    Raises:
        TypeError: If what is given is no type of modules.
        ValueError: If the model has no normalization layer with parameters.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        >>> [name for name, _ in only_norms(model)[0]["params"]]
        ['1.weight', '1.bias']

    Source:
        Müller et al. 2023, arXiv:2306.04226.
    """
    return perturb_only(model, *NORMS, *also)


def perturb_only(model: nn.Module, *kinds: type[nn.Module]) -> list[dict[str, Any]]:
    """Make two groups for a base optimizer: what is perturbed, and the rest.

    The rest has ``sam_rho = 0``: it trains, with the gradient of the perturbed point, and is
    outside the ball and its norm. A module counts by its type, whatever it is called.

    Args:
        model: The network.
        *kinds: Types of modules whose own parameters are perturbed.

    Returns:
        Groups of named parameters.

    Raises:
        TypeError: If a kind is no type of modules.
        ValueError: If no module of those kinds has a parameter.

    Example:
        >>> model = nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        >>> groups = perturb_only(model, nn.Linear)
        >>> [name for name, _ in groups[0]["params"]], groups[1]["sam_rho"]
        (['2.weight', '2.bias'], 0.0)

    Source:
        Müller et al. 2023, arXiv:2306.04226.
    """
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"kinds must be types of modules such as nn.Linear, got {kind!r}.")
    chosen = {
        id(p)
        for module in model.modules()
        if isinstance(module, kinds)
        for p in module.parameters(recurse=False)
    }
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    moved = [(name, p) for name, p in named if id(p) in chosen]
    rest = [(name, p) for name, p in named if id(p) not in chosen]
    if not moved:
        names = ", ".join(kind.__name__ for kind in kinds) or "no kind at all"
        raise ValueError(
            f"the model has no parameter that trains in a module of these kinds: {names}; name "
            "types of which it has some."
        )
    return [{"params": moved}, *([{"params": rest, "sam_rho": 0.0}] if rest else [])]
