"""The neighbourhood of a point.

Optimizers climb to the edge of a ball and measures search inside it. Both use the ball defined
here, so that they cannot drift apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flatmin import _room as room
from flatmin import _tree as tree
from flatmin._draw import coordinates
from flatmin._given import make_plain, shown
from flatmin._types import Params
from flatmin.scale import Identity, Scale, check_radius


@dataclass(frozen=True, slots=True)
class Ball:
    r"""The neighbourhood of a point.

    .. math:: B(w) = \{\, w + T_w u : \|u\|_p \le \rho \,\}

    All methods are pure. They take the point and vectors as mappings of names to tensors, treat
    them as one long vector with one norm, and leave them alone.

    Args:
        rho: Radius: in parameter units for ``Identity``, dimensionless for the other scales. A
            tensor of shape ``[members]`` makes a ball for stacked networks: every parameter then
            carries a leading dimension ``members``, and each member has its own radius and norm.
        p: Order of the norm, from 1 to infinity (``math.inf``).
        scale: The map ``T_w``.

    Raises:
        ValueError: If ``rho`` is negative or not finite, or ``p`` is below one.

    Example:
        Along the gradient (3, 4) the Euclidean ball of radius 5 reaches out to (3, 4), and the
        largest first-order rise of the loss is 5 · 5.

        >>> ball = Ball(rho=5.0)
        >>> w, grad = {"x": torch.zeros(2)}, {"x": torch.tensor([3.0, 4.0])}
        >>> ball.shift(w, grad)["x"].tolist(), ball.support(w, grad).item()
        ([3.0, 4.0], 25.0)

    Source:
        Foret et al. 2021, arXiv:2010.01412, eq. 2; Kwon et al. 2021, arXiv:2102.11600, eq. 5.
    """

    rho: float | Tensor
    p: float = 2.0
    scale: Scale = field(default_factory=Identity)

    def __post_init__(self) -> None:
        make_plain(self)
        check_radius("rho", self.rho)
        if isinstance(self.p, bool) or not isinstance(self.p, int | float):
            raise TypeError(f"p must be a number, got {shown(self.p)}.")
        if not self.p >= 1.0:
            raise ValueError(
                f"p must be in [1, inf], the orders that are norms, got {self.p}; "
                "use 2 for the Euclidean ball or math.inf for the box."
            )

    @property
    def dual_order(self) -> float:
        """The order q with 1/p + 1/q = 1."""
        if self.p == 1.0:
            return math.inf
        return 1.0 if self.p == math.inf else self.p / (self.p - 1.0)

    def stretch(self, params: Params, u: Params) -> dict[str, Tensor]:
        """Give ``T_w u``: from the coordinates in which the ball is round to parameter units.

        Args:
            params: The point ``w``.
            u: A vector over some of its names.

        Returns:
            A new vector over the names of ``u``.
        """
        return tree.times(self._factors(params, u), u, spend=True)

    def support(self, params: Params, grad: Params) -> Tensor:
        r"""Largest first-order rise in the ball.

        .. math:: \max_{\epsilon \in B(w) - w} \langle g, \epsilon \rangle = \rho\,\|T_w g\|_q

        Args:
            params: The point ``w``.
            grad: The gradient ``g`` there, over some of its names.

        Returns:
            A scalar in units of the loss, or one per member.
        """
        v = self.stretch(params, grad)
        return tree.careful_norm(v, self.dual_order, tree.leading(self.rho)) * self.rho

    def plain_support(self, params: Params, grad: Params) -> Tensor:
        """What ``support`` gives, but where squares vanish or overflow: that takes a look at it.

        Args:
            params: The point ``w``, or a piece of it.
            grad: The gradient there.

        Returns:
            A scalar in units of the loss, or one per member.
        """
        v = self.stretch(params, grad)
        return tree.norm(v, self.dual_order, tree.leading(self.rho)) * self.rho

    def shift(self, params: Params, grad: Params) -> dict[str, Tensor]:
        r"""The point of the ball, as a shift from ``w``, at which that rise is attained.

        .. math:: \epsilon = T_w u, \quad
            u_i = \rho \, \operatorname{sign}(v_i)\, (|v_i| / \|v\|_q)^{q-1}, \quad v = T_w g

        For p = 2 that is :math:`\rho\, T_w^2 g / \|T_w g\|_2`. For p = 1 the largest ``|v_i|``
        takes all, and equals share. A zero gradient has no direction and gives a zero shift.

        Args:
            params: The point ``w``.
            grad: The gradient ``g`` there, over some of its names.

        Returns:
            The shift, in parameter units, over the names of ``grad``.
        """
        return self.shift_of(params, grad, self.support(params, grad))

    def shift_of(self, params: Params, grad: Params, support: Tensor) -> dict[str, Tensor]:
        """The shift, for callers that know the support: that of ``support`` or ``plain_support``.

        Returns:
            The shift, in parameter units, over the names of ``grad``.
        """
        ties = self.ties(params, grad, support) if self.p == 1.0 else None
        return tree.scale(self.direction(params, grad, support), self.length(support, ties))

    def direction(self, params: Params, grad: Params, support: Tensor) -> dict[str, Tensor]:
        """The shift but for its length, which ``length`` gives.

        The two parts of ``shift`` for callers that hold the point in pieces: a direction needs the
        piece alone (and, unless p is 2 or ∞, the support of the whole), a length the whole alone.

        Args:
            params: The point ``w``, or a piece of it.
            grad: The gradient there.
            support: What ``support`` gives for the whole.

        Returns:
            A new vector over the names of ``grad``.
        """
        factors = self._factors(params, grad)
        v = tree.times(factors, grad)
        if self.p == math.inf:
            v = tree.signs(v)
        elif self.p == 1.0:
            v = tree.tree_map(lambda t: self._peaks(t, support), v)
        elif self.p != 2.0:
            # Relative to the norm: a large power of a small number would vanish.
            v = tree.divide(v, tree.or_one(support / self.rho))
            v = tree.tree_map(lambda t: t.sgn() * t.abs().pow(self.dual_order - 1.0), v)
        return tree.times(factors, v, spend=True)

    def length(self, support: Tensor, ties: Tensor | None = None) -> Tensor:
        """The factor that makes the shift of a direction; zero where the support is.

        Args:
            support: What ``support`` gives for the whole point.
            ties: For p = 1, what ``ties`` gives for the whole point.

        Returns:
            A tensor of the shape of ``support``.
        """
        rho = torch.as_tensor(self.rho, dtype=support.dtype, device=support.device)
        if self.p == math.inf:
            return rho
        if self.p == 1.0:
            return rho / (torch.ones_like(support) if ties is None else ties.clamp(min=1))
        moves = support > torch.finfo(support.dtype).tiny
        if self.p == 2.0:
            return torch.where(moves, rho * rho / support, 0.0)
        return torch.where(moves, rho, 0.0)

    def ties(self, params: Params, grad: Params, support: Tensor) -> Tensor:
        """Count the coordinates that share the largest ``|v_i|``; needed for p = 1.

        Args:
            params: The point ``w``, or a piece of it.
            grad: The gradient there.
            support: What ``support`` gives for the whole point.

        Returns:
            The count over what is given; zero where the maximum lies elsewhere.
        """
        peaks = [self._peaks(t, support).abs() for t in self.stretch(params, grad).values()]
        return torch.stack([t.reshape(*support.shape, -1).sum(dim=-1) for t in peaks]).sum(dim=0)

    def project(self, u: Params) -> dict[str, Tensor]:
        """Bring ``u`` into the ball of radius rho, in the coordinates where T is one.

        The nearest point for p = 2 and p = ∞; for other orders ``u`` is shortened.

        Args:
            u: The vector.

        Returns:
            A vector of p-norm at most rho.
        """
        if self.p == math.inf:
            return tree.tree_map(lambda t: tree.clip(t, self.rho), u)
        length = tree.careful_norm(u, self.p, tree.leading(self.rho))
        ratio = self.rho / torch.where(length > 0, length, torch.ones_like(length))
        return tree.scale(u, torch.where(length > self.rho, ratio, torch.ones_like(length)))

    def sample(self, params: Params, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        r"""A shift drawn uniformly from the ball.

        With x_i of density ∝ exp(−\|x\|^p) and y exponential, x / (Σ\|x_i\|^p + y)^{1/p} is uniform
        in the unit ball; of complex numbers the modulus counts. Under one generator state a network
        and its rescaled copy get corresponding shifts.

        Args:
            params: The point ``w``.
            generator: Source of randomness, on the device of ``params``.

        Returns:
            The shift ``T_w u``, in parameter units.

        Source:
            Barthe, Guédon, Mendelson and Naor 2005, doi:10.1214/009117904000000874, theorem 1.
        """
        leading = tree.leading(self.rho)
        drawn = zip(params, room.like(list(params.values())), strict=True)
        x = {name: coordinates(t, self.p, generator) for name, t in drawn}
        if self.p != math.inf:
            length = tree.norm(x, self.p, leading)
            y = torch.empty_like(length).exponential_(generator=generator)
            x = tree.scale(x, (length**self.p + y) ** (-1.0 / self.p))
        return tree.scale(self.stretch(params, x), self.rho)

    def _factors(self, params: Params, names: Params) -> dict[str, Tensor]:
        point = params if len(params) == len(names) else {name: params[name] for name in names}
        return self.scale(point, leading=tree.leading(self.rho))

    def _peaks(self, t: Tensor, support: Tensor) -> Tensor:
        """Signs of the coordinates that attain the maximum, zero elsewhere."""
        largest = tree.expand(support, t) / tree.expand(self.rho, t)
        return t.sgn() * (t.abs() >= largest * (1.0 - 4.0 * torch.finfo(t.dtype).eps))
