"""Objectives: the loss as a function of the parameters alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flatmin import _tree as tree
from flatmin._types import Batch, Params


class Objective(Protocol):
    """What a measure needs: the loss at any point, with its derivatives.

    Implementations give the same loss for the same point, every time.
    """

    def value(self, params: Params) -> Tensor:
        """Loss at a point, a scalar."""

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss at a point and its gradient there."""

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian at a point times a vector."""


@dataclass(frozen=True, slots=True)
class FunctionObjective:
    """A function of named tensors as an objective.

    Args:
        function: Takes the parameters and returns a scalar; differentiable twice by autograd.

    Example:
        >>> parabola = FunctionObjective(lambda w: 2 * w["x"].square().sum())
        >>> loss, grad = parabola.value_and_grad({"x": torch.ones(1)})
        >>> loss.item(), grad["x"].item(), parabola.hvp(grad, {"x": torch.ones(1)})["x"].item()
        (2.0, 4.0, 4.0)
    """

    function: Callable[[Params], Tensor]

    def value(self, params: Params) -> Tensor:
        """Loss at ``params``."""
        with torch.no_grad():
            return self.function(params)

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss at ``params`` and its gradient."""
        point = _leaves(params)
        with torch.enable_grad():
            loss = self.function(point)
        return loss.detach(), _gradient(loss, point)

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian at ``params`` times ``vector``."""
        point = _leaves(params)
        with torch.enable_grad():
            return _second(self.function(point), point, vector)


class EmpiricalLoss:
    r"""Mean loss of a model over a fixed data set, as a function of its parameters.

    .. math:: L(w) = \frac{1}{n} \sum_{i=1}^{n} \ell(f_w(x_i), y_i)

    The model is called through ``torch.func.functional_call`` on copies of its buffers, in the mode
    (train or eval) it has at the time. Its parameters, buffers, gradients and modes, and the random
    state, are left as they were. Autocast and TF32 are off inside.

    The mean is over examples, so that it does not depend on how they are batched. A model that
    mixes the examples of a batch (BatchNorm in training mode) is another function for other
    batches, though.

    Args:
        model: The network. Never changed.
        loss_function: Takes outputs and targets of a batch and gives their *mean* loss, like
            ``torch.nn.functional.cross_entropy``.
        batches: Batches of (inputs, targets), first dimension the example. Iterated once per
            evaluation: a list, or an unshuffled loader; not a generator.

    Raises:
        TypeError: If ``model`` is no module, or a batch is no pair of tensors.
        ValueError: If there is no data, the loss is no scalar, or two evaluations at the same point
            differ: then shuffling, augmentation, dropout or changing data make every measure
            meaningless.

    Example:
        One example, prediction w·3, target 6: the loss at w = 1 is (3 − 6)².

        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> data = [(torch.tensor([[3.0]]), torch.tensor([[6.0]]))]
        >>> objective = EmpiricalLoss(model, torch.nn.functional.mse_loss, data)
        >>> loss, grad = objective.value_and_grad({"weight": torch.ones(1, 1)})
        >>> loss.item(), grad["weight"].item()
        (9.0, -18.0)
    """

    def __init__(
        self,
        model: nn.Module,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        batches: Iterable[Batch],
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
        if iter(batches) is batches:
            raise TypeError(
                "batches can be iterated only once, but a measure evaluates the loss many times; "
                "pass list(batches), or a DataLoader with shuffle=False."
            )
        self.model = model
        self.loss_function = loss_function
        self.batches = batches
        self.num_examples = 0
        self._prove_deterministic()

    @property
    def params(self) -> dict[str, Tensor]:
        """The model's present parameters, detached, by name: the natural point ``w``.

        Returns:
            Names to tensors that share the model's memory.
        """
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    def value(self, params: Params) -> Tensor:
        """Mean loss at ``params``, in float64.

        Args:
            params: Names to tensors; parameters of the model that are not named keep their own
                values.

        Returns:
            A scalar tensor, in units of the loss.
        """
        with self._measuring(), torch.no_grad():
            return self._sum(loss.double() * share for loss, share in self._losses(params))

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss at ``params`` and its gradient.

        Args:
            params: As for ``value``.

        Returns:
            The loss in float64, and a gradient for each name in ``params``; zero where the loss
            does not depend on a parameter.
        """
        point = _leaves(params)
        total = tree.scale(point, 0.0)
        losses = []
        with self._measuring(), torch.enable_grad():
            for loss, share in self._losses(point):
                losses.append(loss.detach().double() * share)
                total = tree.add(total, _gradient(loss, point), alpha=share)
        return self._sum(losses), _detached(total)

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian of the mean loss at ``params`` times ``vector``.

        Args:
            params: As for ``value``.
            vector: A tensor for each name in ``params``.

        Returns:
            A tensor for each name in ``params``.
        """
        point = _leaves(params)
        total = tree.scale(point, 0.0)
        with self._measuring(), torch.enable_grad():
            for loss, share in self._losses(point):
                total = tree.add(total, _second(loss, point, vector), alpha=share)
        return _detached(total)

    def _losses(self, params: Params) -> Iterator[tuple[Tensor, float]]:
        # Mean loss of each batch, and the batch's share of the examples.
        named = dict(self.model.named_parameters(remove_duplicate=False))
        unknown = [name for name in params if name not in named]
        if unknown:
            raise ValueError(
                f"the model has no parameter named {unknown[0]!r}; its names are those of "
                "model.named_parameters()."
            )
        seen = 0
        for inputs, targets in self.batches:
            size = len(targets)
            seen += size
            # Fresh copies: statistics that a forward pass updates must not reach the next one.
            buffers = {name: b.detach().clone() for name, b in self.model.named_buffers()}
            outputs = functional_call(self.model, {**buffers, **params}, (inputs,))
            loss = self.loss_function(outputs, targets)
            if loss.ndim != 0:
                raise ValueError(
                    f"loss_function must return the mean over the batch, a scalar, got shape "
                    f"{tuple(loss.shape)}; use reduction='mean'."
                )
            yield loss, size / self.num_examples
        if seen != self.num_examples:
            raise ValueError(
                f"the data changed between passes: {self.num_examples} examples, then {seen}; "
                "pass a list of batches, or a loader that gives the same data each time."
            )

    def _prove_deterministic(self) -> None:
        for batch in self.batches:
            if not (isinstance(batch, tuple | list) and len(batch) == 2):
                raise TypeError(
                    f"each batch must be a pair (inputs, targets), got {type(batch).__name__}."
                )
            self.num_examples += len(batch[1])
        if not self.num_examples:
            raise ValueError("batches must hold at least one example, got none.")
        # Different random states, so that dropout is caught even if the caller has seeded.
        first = self.value({}).item()
        with torch.random.fork_rng(devices=[]):
            torch.rand(1)
            second = self.value({}).item()
        # NaN at w is for the measure to refuse; here only a change counts.
        if first != second and not (math.isnan(first) and math.isnan(second)):
            raise ValueError(
                f"the loss must be the same each time, got {first} and then {second} at the same "
                "parameters; switch off dropout (model.eval()), shuffling and augmentation."
            )

    @staticmethod
    def _sum(losses: Iterable[Tensor]) -> Tensor:
        return torch.stack(list(losses)).sum()

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Full precision and the caller's random state untouched."""
        devices = {p.device for p in self.model.parameters() if p.device.type == "cuda"}
        kind = next(iter(devices)).type if devices else "cpu"
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            with (
                torch.random.fork_rng(devices=[d.index for d in devices]),
                torch.autocast(kind, enabled=False),
            ):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def _leaves(params: Params) -> dict[str, Tensor]:
    return {name: t.detach().requires_grad_() for name, t in params.items()}


def _detached(params: Params) -> dict[str, Tensor]:
    return {name: t.detach() for name, t in params.items()}


def _gradient(loss: Tensor, point: Params, create_graph: bool = False) -> dict[str, Tensor]:
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on the parameters: it has no gradient; check that the "
            "objective does not detach them."
        )
    grads = torch.autograd.grad(
        loss, list(point.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(point, grads, strict=True))


def _second(loss: Tensor, point: Mapping[str, Tensor], vector: Params) -> dict[str, Tensor]:
    """Double backward: the gradient of ⟨gradient, vector⟩."""
    first = _gradient(loss, point, create_graph=True)
    product = sum((first[name] * vector[name]).sum() for name in point)
    if not isinstance(product, Tensor) or not product.requires_grad:
        return tree.scale(_detached(point), 0.0)
    grads = torch.autograd.grad(product, list(point.values()), materialize_grads=True)
    return dict(zip(point, grads, strict=True))
