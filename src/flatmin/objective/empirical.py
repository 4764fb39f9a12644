"""The mean loss of a model over a data set, as a function of the parameters."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flatmin import _tree as tree
from flatmin._given import check_count
from flatmin._types import Params
from flatmin.objective import _batches
from flatmin.objective import _checks as checks
from flatmin.objective import _derivatives as derivatives
from flatmin.objective._batches import Examples
from flatmin.objective._conditions import devices_of, measuring
from flatmin.objective._evaluation import Evaluated, LossFunction, device_of, evaluate
from flatmin.objective._kept import kept_fault
from flatmin.objective._processes import Processes
from flatmin.objective._proof import prove
from flatmin.objective._ties import tie_fault
from flatmin.objective._weights import Weight, count, weight_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class EmpiricalLoss:
    r"""Mean loss of a model over a fixed data set, as a function of its parameters.

    .. math:: L(w) = \frac{1}{n} \sum_{i=1}^{n} \ell(f_w(x_i), y_i)

    While a batch is evaluated, up to the end of the backward pass, the model's tensors are replaced
    by copies, in the mode (train or eval) it has at the time: parameters by those asked for, and
    buffers and tensors in plain attributes by fresh ones for each batch. The model, its gradients
    and the random state are left as they were. Autocast and TF32, compiled code and torch's fast
    path of attention are off inside; the loss of a batch is computed in float64 from the model's
    outputs, and sums over batches are in float64.

    The mean is over examples, so that it does not depend on how they are batched. A model that
    mixes the examples of a batch (BatchNorm in training mode) is another function for other
    batches, though; and a loss function that does (class weights, ignored targets) needs the
    ``weight`` of a batch, or all examples in one.

    Args:
        model: The network. Never changed.
        loss_function: Takes outputs and targets of a batch, floating ones in float64, and gives
            their *mean* loss, like ``torch.nn.functional.cross_entropy``. A tuple, mapping or
            dataclass that the model returns is handed on as it is.
        batches: Batches of (inputs, targets), first dimension the example; inputs are one tensor or
            packed sequence, a tuple of positional arguments or a mapping of keyword arguments,
            which may also be None, flags, lists or mappings. Moved to the model's device. Iterated
            once per evaluation: a list, or an unshuffled loader; not a generator.
        weight: What the loss function divides by, from the targets of a batch: with ignored targets
            ``lambda targets: (targets != -100).sum()``, with class weights
            ``lambda targets: weights[targets].sum()``. The number of examples by default.
        group: The processes that share the data, each holding a part (maybe none) of it; every
            process then makes the same calls and gets the same result. None for one process, and
            ``torch.distributed.group.WORLD`` for all. Give the plain model, not one wrapped for
            parallel training.

    Attributes:
        dtype: The coarsest floating type among outputs and losses, as the model and the loss
            function return them; a measure says where its rounding shows.

    Raises:
        TypeError: If ``model`` is no plain module, a batch is no pair of inputs and a tensor, or
            ``loss_function`` cannot take the outputs.
        ValueError: If there is no data; if the loss is no scalar or no mean over examples; if two
            evaluations at the same point differ, for then shuffling, augmentation, dropout or
            changing data make every measure meaningless; if the loss is another one where gradients
            are wanted; if it reaches parameters past the model, or in a tensor that shares their
            memory; if the model keeps what it has computed from them before; or if a forward pass
            changes them.

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
        loss_function: LossFunction,
        batches: Iterable[Examples],
        *,
        weight: Weight = len,
        group: ProcessGroup | None = None,
    ) -> None:
        checks.check_model(model)
        checks.check_loss_function(loss_function)
        checks.check_repeatable(batches)
        self.model = model
        self.loss_function = loss_function
        self.batches = batches
        self.weight = weight
        self.group = group
        self.num_examples, self.total_weight = 0, 0.0
        self._mixes: str | None = None
        self.dtype: torch.dtype | None = None
        with self._measuring():
            self._count()
            self._prove()

    @property
    def params(self) -> dict[str, Tensor]:
        """The model's present parameters, detached, by name; the natural point ``w``.

        Returns:
            Names to tensors that share the model's memory, without those that are frozen
            (``requires_grad=False``).
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

        def add(at: Evaluated, share: float) -> None:
            total.add_(at.loss, alpha=share)

        with self._measuring(), torch.no_grad():
            total = self._zero()
            self._processes().check_same_point(params)
            self._evaluate(params, add)
        return self.reduce(total)

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss at ``params`` and its gradient.

        Args:
            params: As for ``value``.

        Returns:
            The loss in float64, and a gradient for each name in ``params``; zero where the loss
            does not depend on a parameter.
        """
        derivatives.check(params)

        def add(at: Evaluated, share: float) -> None:
            loss_sum.add_(at.loss.detach(), alpha=share)
            derivatives.accumulate(grad_sum, derivatives.gradient(at.loss, at.point), share)

        with self._measuring(), torch.enable_grad():
            loss_sum, grad_sum = self._zero(), derivatives.zeros(params)
            self._processes().check_same_point(params)
            self._evaluate(params, add)
        return self.reduce(loss_sum), self._reduced(grad_sum, params)

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian of the mean loss at ``params`` times ``vector``.

        Args:
            params: As for ``value``.
            vector: A tensor for each name in ``params``.

        Returns:
            A tensor for each name in ``params``.
        """
        # The fused kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            return self._summed(
                params, lambda at: derivatives.second(at.loss, at.point, vector), vector
            )

    def micro(self, m: int) -> Iterator[EmpiricalLoss]:
        """Split into objectives over ``m`` consecutive examples each; the last may have fewer.

        Args:
            m: Examples in each.

        Yields:
            Objectives of this process alone, over its own examples.

        Raises:
            TypeError: If ``m`` is no whole number.
            ValueError: If ``m`` is below one, the loss function is no mean over examples, or a
                batch cannot be cut.
        """
        check_count("m", m, 1)
        if self._mixes:
            raise ValueError(self._mixes)
        with self._measuring():  # a loader draws a random number when it starts
            batches = iter(self.batches)
        for pieces in _batches.group(batches, m):
            part = copy.copy(self)
            part.batches, part.group = pieces, None
            part.num_examples, part.total_weight = count(pieces, self.weight)
            yield part

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum over the processes of the group, in place.

        Args:
            tensor: One summand; the same shape in every process.

        Returns:
            The sum; the tensor itself where there is no group.
        """
        return self._processes().reduce(tensor)

    def _summed(
        self, params: Params, part: Callable[[Evaluated], Params], vector: Params
    ) -> dict[str, Tensor]:
        """Mean over the examples of what each batch gives for each parameter, at one point."""
        derivatives.check(params)

        def add(at: Evaluated, share: float) -> None:
            derivatives.accumulate(total, part(at), share)

        with self._measuring(), torch.enable_grad():
            total = derivatives.zeros(params)
            self._processes().check_same_point(params, vector)
            self._evaluate(params, add)
        return self._reduced(total, params)

    def _evaluate(self, params: Params, use: Callable[[Evaluated, float], None]) -> None:
        """Hand each batch to ``use``, and its share of the whole weight."""

        def weigh(at: Evaluated) -> None:
            share = weight_of(self.weight, at.targets) / self.total_weight
            if share:  # without any, its loss may be 0 / 0
                use(at, share)

        seen = evaluate(self.model, self.loss_function, self.batches, params, weigh)
        checks.check_seen(self.num_examples, self._processes().total(seen))

    def _count(self) -> None:
        examples, weight = count(self.batches, self.weight)
        self.num_examples = self._processes().total(examples)
        self.total_weight = self.reduce(self._zero() + weight).item()
        if not self.total_weight:
            raise ValueError("batches must hold at least one example that counts, got none.")

    def _prove(self) -> None:
        def run(use: Callable[[Evaluated], None]) -> None:
            self._evaluate(self.params, lambda at, share: use(at))

        with torch.no_grad():
            found = prove(self.model, run, self._processes(), self.weight)
            self._mixes, self.dtype = found
            for fault in (tie_fault, kept_fault):
                self._processes().agree(fault(self.model, self.params, self._first_loss))

    def _first_loss(self, params: Params) -> float:
        """Of the first batch alone; zero where there is none."""
        losses = [0.0]
        first = itertools.islice(self.batches, 1)
        evaluate(
            self.model, self.loss_function, first, params, lambda at: losses.append(at.loss.item())
        )
        return losses[-1]

    def _processes(self) -> Processes:
        return Processes(self.group, device_of(self.model))

    def _zero(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=device_of(self.model))

    def _reduced(self, total: dict[str, Tensor], params: Params) -> dict[str, Tensor]:
        return derivatives.narrowed(tree.tree_map(self.reduce, total), params)

    def _measuring(self) -> AbstractContextManager[None]:
        return measuring(devices_of(self.model))
