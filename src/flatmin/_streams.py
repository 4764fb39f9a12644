"""A stream of random numbers for each purpose.

Two generators of one seed give the same numbers. Where two purposes share them, what is drawn for
one is not random to the other: wrong labels on exactly the images that are held out, a random
direction along the weights. So a seed is made of the purpose and of what the user chose.
"""

import hashlib

import torch


def seed_for(*name: object) -> int:
    """A seed that belongs to a purpose.

    Args:
        *name: The purpose, and whatever tells its draws apart: numbers and texts.

    Returns:
        An integer in [0, 2⁵⁶).

    Example:
        >>> seed_for("starts", 0) == seed_for("starts", 0)
        True
        >>> len({seed_for("starts", 0), seed_for("starts", 1), seed_for("orders", 0)})
        3
    """
    return int.from_bytes(hashlib.sha256(repr(name).encode()).digest()[:7], "big")


def stream(*name: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator that belongs to a purpose; it leaves the global random state alone.

    Args:
        *name: As for :func:`seed_for`.
        device: Where it draws.

    Returns:
        The generator.

    Example:
        >>> first = torch.rand(3, generator=stream("starts", 0))
        >>> torch.equal(first, torch.rand(3, generator=stream("starts", 0)))
        True
        >>> torch.equal(first, torch.rand(3, generator=stream("orders", 0)))
        False
    """
    return torch.Generator(device).manual_seed(seed_for(*name))
