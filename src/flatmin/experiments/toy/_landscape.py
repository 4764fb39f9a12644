"""The training loss around many small networks at once: its values, slopes and curvatures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from flatmin._types import Params
from flatmin.ensemble._features_first import FeaturesFirst
from flatmin.scale import Scale


@dataclass(frozen=True)
class Landscape:
    """Mean cross-entropy of stacked networks, each on points of its own.

    Attributes:
        model: One network of the kind, with two outputs and ReLU; its parameters are not used.
        params: The points, ``[members, ...]``.
        inputs: What each is measured on, ``[members, n, 2]``.
        targets: Labels 0 and 1, ``[members, n]``.
    """

    model: nn.Module
    params: dict[str, Tensor]
    inputs: Tensor
    targets: Tensor

    @property
    def members(self) -> int:
        """Number of networks."""
        return len(self.inputs)

    def losses(self, params: Params) -> Tensor:
        """Loss of every member, ``[members]``, in nats."""
        with torch.no_grad(), FeaturesFirst():
            found: Tensor = vmap(self._loss)(dict(params), self.inputs, self.targets)
        return found

    def grads(self, params: Params) -> dict[str, Tensor]:
        """Gradient of every member's loss in its own parameters."""
        return {name: g.detach() for name, g in self._grads(params)[1].items()}

    @cached_property
    def curved(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parameters and the gradient there, with the graph that products are taken from."""
        return self._grads(self.params, create_graph=True)

    def product(self, vector: Params) -> dict[str, Tensor]:
        """``H v`` of every member, H the Hessian at ``params``."""
        leaves, grads = self.curved
        dot = torch.stack([(g * vector[name]).sum() for name, g in grads.items()]).sum()
        found = torch.autograd.grad(dot, list(leaves.values()), retain_graph=True)
        return dict(zip(leaves, found, strict=True))

    @cached_property
    def diagonal(self) -> dict[str, Tensor]:
        r"""Diagonal of the Hessian, exactly.

        Each single weight enters the margin m of a point linearly, however the others enter, so
        that the loss log(1 + exp(−m)) bends along it as σ(m) σ(−m) (∂m)² alone.
        """

        def margin(w: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
            logits = functional_call(self.model, w, (x,))
            return logits[1] - logits[0], logits[1] - logits[0]

        def of_member(w: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
            slopes, m = vmap(grad(margin, has_aux=True), in_dims=(None, 0))(w, x)
            bend = torch.sigmoid(m) * torch.sigmoid(-m)
            return {
                name: torch.tensordot(bend, s.square(), dims=1) / len(x)
                for name, s in slopes.items()
            }

        found: dict[str, Tensor] = vmap(of_member, chunk_size=32)(self.params, self.inputs)
        return found

    def trace(self, scale: Scale) -> Tensor:
        """Trace of ``T H T``, ``[members]``."""
        factors = scale(self.params, leading=1)
        parts = [
            (d * factors[name].square() if name in factors else d).flatten(1).sum(dim=1)
            for name, d in self.diagonal.items()
        ]
        return torch.stack(parts).sum(dim=0)

    def top_eigenvalue(self, scale: Scale, steps: int, generator: torch.Generator) -> Tensor:
        """Largest eigenvalue of ``T H T`` by Lanczos from one random vector, ``[members]``."""
        factors = scale(self.params, leading=1)
        shapes = {name: p.shape for name, p in self.params.items()}
        sizes = [p[0].numel() for p in self.params.values()]
        stretch = torch.cat(
            [
                factors.get(name, torch.ones_like(p)).expand_as(p).flatten(1)
                for name, p in self.params.items()
            ],
            dim=1,
        )

        def product(q: Tensor) -> Tensor:
            parts = torch.split(stretch * q, sizes, dim=1)
            vector = {n: t.reshape(s) for (n, s), t in zip(shapes.items(), parts, strict=True)}
            return stretch * torch.cat([t.flatten(1) for t in self.product(vector).values()], 1)

        start = torch.randn(sum(sizes), generator=generator, dtype=stretch.dtype)
        q = (start / start.norm()).expand_as(stretch)
        basis, matrix = q[:, None], stretch.new_zeros(self.members, steps, steps)
        for k in range(steps):
            v = product(q)
            matrix[:, k, k] = (v * q).sum(dim=1)
            for _ in range(2):  # once leaves rounding, twice does not
                v = v - torch.einsum("mk,mkd->md", torch.einsum("mkd,md->mk", basis, v), basis)
            length = v.norm(dim=1)
            q = torch.where(length > 0, 1 / length, 0.0)[:, None] * v
            if k + 1 < steps:
                matrix[:, k, k + 1] = matrix[:, k + 1, k] = length
                basis = torch.cat((basis, q[:, None]), dim=1)
        largest: Tensor = torch.linalg.eigvalsh(matrix)[:, -1]
        return largest

    def _loss(self, params: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(self.model, params, (inputs,)), targets)

    def _grads(
        self, params: Params, create_graph: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with FeaturesFirst():
            total = vmap(self._loss)(leaves, self.inputs, self.targets).sum()
        found = torch.autograd.grad(total, list(leaves.values()), create_graph=create_graph)
        return leaves, dict(zip(leaves, found, strict=True))
