"""Factors through normalizations: what a scale does not change, and gains that make units."""

import math

import torch
from torch import Tensor, fx

from flatmin.symmetry.factors import FactorWalk
from flatmin.symmetry.laws import BatchNorm, Normalize
from flatmin.symmetry.numbering import FIXED
from flatmin.symmetry.walk import Given

# Added to any variance above 1e-22, this changes no bit; torch 2.13 refuses zero when training.
VANISHING_EPS = torch.finfo(torch.float32).tiny


def batch_norm(walk: FactorWalk, law: BatchNorm, node: fx.Node, given: Given) -> Tensor | None:
    """BatchNorm undoes a scale of its input, and makes new units with its gain and bias.

    With running statistics the mean moves by τ and ``var + eps`` by τ². With those of the batch,
    ``eps`` cannot move, so only a vanishing ``eps`` is exact.
    """
    x = walk.units(given["input"])
    axes = [axis for axis in range(x.ndim) if axis != 1]
    read = walk.tied(x, axes, node).flatten().clamp_min(FIXED)
    mean, var, eps = given.get("running_mean"), given.get("running_var"), given["eps"]
    gain = given.get("weight")
    of_batch = given.get("training", False) or mean is None
    signs = walk.system.modulus == 2
    exact = signs or eps <= VANISHING_EPS
    if of_batch and not exact:
        walk.stop(
            read,
            node,
            f"with statistics of the batch, eps={eps:g} makes a scaling inexact; "
            f"use eval(), or an eps of at most {VANISHING_EPS:.2g}",
        )
    walk.consume(read, node, gain, "" if exact else f"eval mode only: eps={eps:g}")
    walk.follow_statistics(mean, [(1, read)])
    if var is not None:
        kept = torch.tensor(eps, dtype=walk.traced.values[var].dtype, device="cpu")
        walk.follow_statistics(var, [(2, read)], float(kept))
    made = read if signs else torch.full_like(read, FIXED)
    if gain is not None and walk.is_free(gain):
        made = walk.fresh(len(read), node, gain)
        walk.forms[str(walk.name(gain))] = [(1, made), (-1, read)] if signs else [(1, made)]
    elif gain is not None:
        made = walk.combined([(1, walk.units(gain)), (1, made)], node)
    made = walk.follow(given.get("bias"), made, node)
    return made.view(-1, *[1] * (x.ndim - 2))


def normalize(walk: FactorWalk, law: Normalize, node: fx.Node, given: Given) -> Tensor:
    """What is normalized together keeps its scale; a gain makes new units."""
    x = walk.units(given["input"])
    eps = given.get("eps")
    eps = torch.finfo(walk.traced.values[node].dtype).eps if eps is None else eps
    if eps > VANISHING_EPS or walk.system.modulus:
        walk.refuse(given["input"], node, f"{walk.label(node)} mixes the units it normalizes")
    elif law.channels:
        return walk.refused(node, f"{walk.label(node)} mixes the units it normalizes")  # type: ignore[no-any-return]
    else:
        last = len(given["normalized_shape"])
        walk.consume(walk.tied(x, range(x.ndim - last, x.ndim), node), node)
    gain, bias = given.get("weight"), given.get("bias")
    shape = [-1, *[1] * (x.ndim - 2)] if law.channels else None
    made = torch.tensor(FIXED, device="cpu")
    if gain is not None:
        if walk.is_free(gain):
            size = walk.shape(gain)
            made = walk.fresh(math.prod(size), node, gain).view(size)
            walk.forms[str(walk.name(gain))] = [(1, made)]
        else:
            made = walk.units(gain)
    if bias is not None:
        made = walk.follow(bias, made.expand(walk.shape(bias)), node)
    return made.view(shape) if shape is not None and made.ndim else made
