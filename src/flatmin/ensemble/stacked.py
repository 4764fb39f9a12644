"""Parameters of equal networks, stacked along a first dimension, and the networks' outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from flatmin._types import Params
from flatmin.ensemble._features_first import FeaturesFirst
from flatmin.symmetry.private import private_copy


def stack_networks(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Stack the parameters of equal networks along a new first dimension.

    Args:
        networks: Networks with the same names and shapes of parameters. Read, never written.

    Returns:
        Copies of the parameters, each of shape ``[members, ...]``.

    Raises:
        ValueError: If there is no network, or one has other parameters than the first.

    Example:
        >>> params = stack_networks([nn.Linear(2, 1) for _ in range(3)])
        >>> {name: tuple(value.shape) for name, value in params.items()}
        {'weight': (3, 1, 2), 'bias': (3, 1)}
    """
    if not networks:
        raise ValueError("networks must hold at least one network, got none.")
    states = [dict(network.named_parameters()) for network in networks]
    shapes = [{name: tuple(p.shape) for name, p in state.items()} for state in states]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            names = sorted(
                name
                for name in shape.keys() | shapes[0].keys()
                if shape.get(name) != shapes[0].get(name)
            )
            raise ValueError(
                f"The networks of an ensemble must have equal parameters, but network {number} "
                f"differs from network 0 in {names[0]}: {shape.get(names[0])} against "
                f"{shapes[0].get(names[0])}; build them all with the same arguments."
            )
    return {name: torch.stack([s[name].detach() for s in states]) for name in states[0]}


def ensemble_outputs(
    model: nn.Module, params: Params, inputs: Tensor, *, shared: bool = False
) -> Tensor:
    """Outputs of every member of an ensemble.

    Args:
        model: One network of the kind; its own parameters are not used.
        params: Stacked parameters, each ``[members, ...]``.
        inputs: Inputs of each member, ``[members, n, ...]``; or, where ``shared``, ``[n, ...]``.
        shared: Whether all members see the same inputs.

    Returns:
        Outputs of shape ``[members, n, ...]``, without a gradient.

    Example:
        >>> params = {"weight": torch.tensor([[[1.0]], [[2.0]]])}
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> ensemble_outputs(layer, params, torch.tensor([[3.0]]), shared=True).flatten().tolist()
        [3.0, 6.0]
    """
    own = private_copy(model)  # a functional call is not for two threads at once

    def forward(w: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(own, w, (x,))
        return outputs

    with torch.no_grad(), FeaturesFirst():
        members: Tensor = vmap(forward, in_dims=(0, None if shared else 0))(dict(params), inputs)
    return members
