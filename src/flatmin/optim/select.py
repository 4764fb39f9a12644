"""Which parameters are perturbed: those of some kinds of modules alone."""

from __future__ import annotations

from typing import Any

from torch import nn


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
        ValueError: If no module of those kinds has a parameter.

    Example:
        Normalization layers alone, as in SAM-ON.

        >>> model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        >>> groups = perturb_only(model, nn.LayerNorm)
        >>> [name for name, _ in groups[0]["params"]], groups[1]["sam_rho"]
        (['1.weight', '1.bias'], 0.0)

    Source:
        Müller et al. 2023, arXiv:2306.04226.
    """
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
