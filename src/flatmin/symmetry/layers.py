"""What layers with weights do to units: read them, make new ones."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from flatmin.symmetry.slots import Slot
from flatmin.symmetry.walk import Rule, Walk, Wire

# Added to any variance above 1e-22, this changes no bit; torch 2.13 refuses zero when training.
VANISHING_EPS = torch.finfo(torch.float32).tiny


def argument(node: fx.Node, index: int, name: str, default: object = None) -> Any:
    """Return an argument of a call, given by position or by name."""
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)


def linear(walk: Walk, node: fx.Node) -> Wire | None:
    """``nn.Linear`` and ``F.linear``: y = x Wᵀ + b over the last axis."""
    x, weight, bias = _operands(walk, node)
    last = len(walk.shape(node)) - 1
    _read(walk, node, x, weight, Slot("", 1, -1), axis=last)
    return _make(walk, node, weight, bias, rows=0, dim=last)


def matmul(walk: Walk, node: fx.Node) -> Wire | None:
    """``x @ W`` with a matrix of parameters; any other product is unknown."""
    x, weight = walk.wire(argument(node, 0, "input")), walk.tensor(argument(node, 1, "other"))
    if weight is None or weight.ndim != 2:
        return unknown(walk, node)
    last = len(walk.shape(node)) - 1
    _read(walk, node, x, weight, Slot("", 0, -1), axis=last)
    return _make(walk, node, weight, None, rows=1, dim=last)


def convolution(spatial: int, *, transposed: bool = False) -> Rule:
    """``nn.ConvNd`` and ``F.convNd``, grouped or not; channels stand before the spatial axes."""

    def rule(walk: Walk, node: fx.Node) -> Wire | None:
        x, weight, bias = _operands(walk, node)
        module = walk.module(node)
        groups: Any = argument(node, 6, "groups", 1) if module is None else module.groups
        channels = len(walk.shape(node)) - spatial - 1
        if groups == 1:
            _read(walk, node, x, weight, Slot("", int(not transposed), -1), axis=channels)
            return _make(walk, node, weight, bias, rows=int(transposed), dim=channels)
        if transposed:
            return unknown(walk, node)
        if walk.kind != "permute":
            _read(walk, node, x, weight, Slot("", 1, -1, groups=groups), axis=channels)
            return _make(walk, node, weight, bias, rows=0, dim=channels)
        return _permuted_groups(walk, node, channels)

    return rule


def _permuted_groups(walk: Walk, node: fx.Node, channels: int) -> Wire | None:
    # A depthwise filter moves along with its channel. Groups of several channels do not.
    x, weight, bias = _operands(walk, node)
    if x is None:
        return None
    if weight is None or weight.shape[1] != 1 or x.dim != channels:
        walk.stop(x, node, "a grouped convolution ties its units to their place")
        return None
    block = x.block * (weight.shape[0] // walk.width(x))
    walk.attach(x, node, weight, Slot("", 0, 1, block))
    walk.attach(x, node, bias, Slot("", 0, 1, block))
    return Wire(x.units, x.dim, block)


def embedding(walk: Walk, node: fx.Node) -> Wire | None:
    """``nn.Embedding``: the units are the columns of the table."""
    module = walk.module(node)
    if not isinstance(module, nn.Embedding) or module.max_norm is not None:
        return unknown(walk, node)
    return _make(walk, node, module.weight, None, rows=1, dim=len(walk.shape(node)) - 1)


def batch_norm(walk: Walk, node: fx.Node) -> Wire | None:
    """BatchNorm undoes a scale of its input, and makes new units with its gain and bias.

    With running statistics the mean moves by τ and ``var + eps`` by τ². With those of the batch,
    ``eps`` cannot move, so only a vanishing ``eps`` is exact.
    """
    x, module = walk.wire(argument(node, 0, "input")), walk.module(node)
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return unknown(walk, node)
    mean, var, gain, bias = module.running_mean, module.running_var, module.weight, module.bias
    if x is not None and x.dim != 1:
        walk.stop(x, node, "normalizes along another axis")
        return None
    if walk.kind == "permute":
        for tensor, power in ((mean, 1), (var, 2), (gain, 1), (bias, 1)):
            if x is not None:
                walk.attach(x, node, tensor, Slot("", 0, power, x.block))
        return x
    if x is not None:
        batch_statistics = module.training or mean is None
        if walk.kind == "flip":
            if gain is None:
                walk.stop(x, node, "a sign passes through to units without a gain")
            walk.attach(x, node, gain, Slot("", 0, -1, x.block))
        elif batch_statistics and module.eps > VANISHING_EPS:
            walk.stop(
                x,
                node,
                f"with statistics of the batch, eps={module.eps:g} makes a scaling inexact; "
                f"use eval(), or an eps of at most {VANISHING_EPS:.2g}",
            )
        walk.attach(x, node, mean, Slot("", 0, 1, x.block))
        if var is not None:
            eps = float(torch.tensor(module.eps, dtype=var.dtype, device="cpu"))
            walk.attach(x, node, var, Slot("", 0, 2, x.block, offset=eps))
        inexact_in_training = walk.kind == "scale" and module.eps > VANISHING_EPS
        note = f"eval mode only: eps={module.eps:g}" if inexact_in_training else ""
        walk.read_by(x, node, note)
    return _make(walk, node, gain, bias, rows=0, dim=1)


def normalization(walk: Walk, node: fx.Node) -> Wire | None:
    """LayerNorm, RMSNorm, GroupNorm: tie all units they read, and make new ones with their gain."""
    x, module = walk.wire(argument(node, 0, "input")), walk.module(node)
    gain, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    by_channel = isinstance(module, nn.GroupNorm)
    last = len(walk.shape(node)) - 1
    if walk.kind == "permute" and not by_channel and x is not None:
        if x.dim != last or (gain is not None and gain.ndim != 1):
            return unknown(walk, node)
        walk.attach(x, node, gain, Slot("", 0, 1, x.block))
        walk.attach(x, node, bias, Slot("", 0, 1, x.block))
        return x
    if x is not None:
        walk.stop(x, node, f"{type(module).__name__} mixes the units it normalizes")
    if walk.kind == "permute" or gain is None or gain.ndim != 1:
        return None
    return _make(walk, node, gain, bias, rows=0, dim=1 if by_channel else last)


def unknown(walk: Walk, node: fx.Node) -> Wire | None:
    """Stop everything that enters a layer about which nothing is proven."""
    module = walk.module(node)
    kind = type(module).__name__ if module is not None else getattr(node.target, "__name__", "")
    for source in node.all_input_nodes:
        wire = walk.wire(source)
        if wire is not None:
            walk.stop(wire, node, f"no rule for {kind or node.target} used this way")
    return None


def _operands(walk: Walk, node: fx.Node) -> tuple[Wire | None, Tensor | None, Tensor | None]:
    x, module = walk.wire(argument(node, 0, "input")), walk.module(node)
    if module is not None:
        return x, module.weight, module.bias  # type: ignore[return-value]
    weight, bias = argument(node, 1, "weight"), argument(node, 2, "bias")
    if any(isinstance(a, fx.Node) and walk.tensor(a) is None for a in (weight, bias)):
        unknown(walk, node)
        return None, None, None
    return x, walk.tensor(weight), walk.tensor(bias)


def _read(
    walk: Walk, node: fx.Node, x: Wire | None, weight: Tensor | None, slot: Slot, axis: int
) -> None:
    if x is None:
        return
    if x.dim != axis or weight is None:
        walk.stop(x, node, "reads along another axis, or with a computed weight")
        return
    walk.attach(x, node, weight, Slot("", slot.dim, -1, x.block, slot.groups))
    walk.read_by(x, node)


def _make(
    walk: Walk, node: fx.Node, weight: Tensor | None, bias: Tensor | None, rows: int, dim: int
) -> Wire | None:
    if weight is None:
        return None
    wire = walk.start(node, weight.shape[rows], dim)
    walk.attach(wire, node, weight, Slot("", rows, 1))
    walk.attach(wire, node, bias, Slot("", 0, 1))
    return wire
