"""Arithmetic on named tensors.

A tree is a mapping of names to tensors. Every function returns a new tree and leaves its arguments
alone. Coefficients are numbers, scalar tensors, or tensors of shape ``[members]`` for trees whose
tensors all carry that leading dimension: then each member has its own coefficient and its own norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from flatmin import _room as room
from flatmin._types import Params

Coefficient = float | Tensor

# Orders of norms that need no care with the size of powers.
_PLAIN = (1.0, 2.0, math.inf)


def leading(coefficient: Coefficient) -> int:
    """Count the leading dimensions that a coefficient belongs to: 0 for a number."""
    return coefficient.ndim if isinstance(coefficient, Tensor) else 0


def expand(coefficient: Coefficient, like: Tensor) -> Coefficient:
    """Shape ``[members]`` so that it multiplies ``[members, ...]``."""
    if not isinstance(coefficient, Tensor) or coefficient.ndim == 0:
        return coefficient
    return coefficient.reshape(coefficient.shape + (1,) * (like.ndim - coefficient.ndim))


def tree_map(function: Callable[..., Tensor], tree: Params, *others: Params) -> dict[str, Tensor]:
    """Apply a function name by name."""
    return {
        name: function(tensor, *(other[name] for other in others)) for name, tensor in tree.items()
    }


def scale(tree: Params, factor: Coefficient) -> dict[str, Tensor]:
    """Multiply by one coefficient."""
    if leading(factor):
        return tree_map(lambda t: t * expand(factor, t), tree)
    tensors = _list(tree)
    found = room.each(torch.mul, tensors, [factor] * len(tensors))
    return _as_tree(tree, torch._foreach_mul(tensors, factor) if found is None else found)


def divide(tree: Params, divisor: Tensor) -> dict[str, Tensor]:
    """Divide by one scalar tensor, or by one per member."""
    if leading(divisor):
        return tree_map(lambda t: t / expand(divisor, t), tree)
    tensors = _list(tree)
    found = room.each(torch.div, tensors, [divisor] * len(tensors))
    return _as_tree(tree, torch._foreach_div(tensors, divisor) if found is None else found)


def add(tree: Params, other: Params, alpha: Coefficient = 1.0) -> dict[str, Tensor]:
    """``tree + alpha · other``, over the names of ``tree``; a name that ``other`` lacks stays."""
    names = [name for name in tree if name in other]
    some, more = [tree[name] for name in names], [other[name] for name in names]
    if not leading(alpha):
        step = room.each(torch.mul, more, [alpha] * len(more))
        found = step if step is None else room.each(torch.add, some, step)
        if found is not None:
            return {**tree, **dict(zip(names, found, strict=True))}
    return {
        name: tensor + expand(alpha, tensor) * other[name] if name in other else tensor
        for name, tensor in tree.items()
    }


def multiply(tree: Params, other: Params) -> dict[str, Tensor]:
    """Multiply element by element."""
    return _as_tree(tree, torch._foreach_mul(_list(tree), [other[name] for name in tree]))


def signs(tree: Params) -> dict[str, Tensor]:
    """Signs of all elements; of complex ones, the numbers of size one in their direction."""
    tensors = _list(tree)
    if any(t.is_complex() for t in tensors):
        return tree_map(torch.sgn, tree)
    found = room.each(torch.sign, tensors)
    return _as_tree(tree, torch._foreach_sign(tensors) if found is None else found)


def dot(tree: Params, other: Params) -> Tensor:
    """Inner product over all tensors, in at least double the precision of a plain float32 sum."""
    terms = [(t.double() * other[name].double()).sum() for name, t in tree.items()]
    return torch.stack(terms).sum()


def clip(t: Tensor, bound: Coefficient) -> Tensor:
    """Bring each number to the size of a bound, if it is larger; of complex ones the modulus."""
    most = torch.as_tensor(expand(bound, t), dtype=t.real.dtype, device=t.device)
    if t.is_complex():
        return torch.where(t.abs() > most, t.sgn() * most, t)
    return torch.clamp(t, -most, most)


def or_one(divisor: Tensor) -> Tensor:
    """Ones where nothing can be divided by."""
    usable = (divisor > 0) & divisor.isfinite()
    return torch.where(usable, divisor, torch.ones_like(divisor))


def norm(tree: Params, order: float, leading: int = 0) -> Tensor:
    """Norm of all numbers together: scalar, or one per member where ``leading`` is 1.

    The norm of several tensors is the norm of their norms, for every order in [1, ∞]. Where squares
    may vanish or overflow, ``careful_norm`` is for those who can wait for the result.
    """
    tensors = [t for t in tree.values() if t.numel()]
    if not tensors:
        # In the type of what is empty, for the default type and device are the caller's.
        return next((t.real.new_zeros(()) for t in tree.values()), torch.zeros((), device="cpu"))
    if leading or order not in _PLAIN:
        return combine([_norm(_flat(t, leading), order) for t in tensors], order)
    return combine(torch._foreach_norm(tensors, order), order)


def careful_norm(tree: Params, order: float, leading: int = 0) -> Tensor:
    """The same, also where squares vanish or overflow; it looks at the result to know.

    Where nothing was lost that is what ``norm`` gives, to the last bit.
    """
    plain = norm(tree, order, leading)
    if order != 2.0 or not (lost := lost_squares(plain)).any():
        return plain
    parts = [_relative_norm(_flat(t, leading), order) for t in tree.values() if t.numel()]
    return torch.where(lost, combine(parts, order, careful=True), plain) if parts else plain


def lost_squares(norm: Tensor) -> Tensor:
    """Whether squares may have vanished, or did overflow, on the way to a Euclidean norm."""
    info = torch.finfo(torch.promote_types(norm.dtype, torch.float32))  # where half ones are summed
    return (norm < math.sqrt(info.tiny) / info.eps) | norm.isinf()


def combine(norms: Iterable[Tensor], order: float, *, careful: bool = False) -> Tensor:
    """Norm of a whole from the norms of its parts."""
    parts = list(norms)
    if len(parts) == 1:
        return parts[0]
    home = parts[0].device
    if any(part.device != home for part in parts):
        parts = [part.to(home) for part in parts]
    stack = torch.stack(parts)
    return _relative_norm(stack, order, 0) if careful else _norm(stack, order, 0)


def times(factors: Params, vector: Params, *, spend: bool = False) -> dict[str, Tensor]:
    """Multiply by a diagonal, one where a name is missing; ``spend`` overwrites the factors."""
    names = [name for name in vector if name in factors]
    if not names:
        return dict(vector)
    left, right = [factors[name] for name in names], [vector[name] for name in names]
    if spend and all(
        f.shape == v.shape and f.dtype == v.dtype for f, v in zip(left, right, strict=True)
    ):
        torch._foreach_mul_(left, right)
        products = left
    elif (found := room.each(torch.mul, left, right)) is not None:
        products = found
    else:
        products = list(torch._foreach_mul(left, right))
    return {**vector, **dict(zip(names, products, strict=True))}


def _flat(t: Tensor, leading: int) -> Tensor:
    return t.unsqueeze(-1).flatten(leading)  # a scalar is one number


def _norm(t: Tensor, order: float, dim: int = -1) -> Tensor:
    """Norm over one dimension."""
    if order not in _PLAIN:
        return _relative_norm(t, order, dim)
    norm: Tensor = torch.linalg.vector_norm(t, order, dim=dim)
    return norm


def _relative_norm(t: Tensor, order: float, dim: int = -1) -> Tensor:
    """The same, relative to the largest number, so that no power vanishes or overflows."""
    largest = t.abs().amax(dim=dim, keepdim=True)
    usable = (largest > 0) & largest.isfinite()
    norm: Tensor = torch.linalg.vector_norm(t / or_one(largest), order, dim=dim)
    return torch.where(usable.squeeze(dim), norm * largest.squeeze(dim), norm)


def _list(tree: Params) -> list[Tensor]:
    return list(tree.values())


def _as_tree(like: Params, tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    return dict(zip(like, tensors, strict=True))
