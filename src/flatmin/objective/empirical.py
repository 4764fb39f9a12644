"""The mean loss of a model over a data set, as a function of the parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from flatmin import _tree as tree
from flatmin._types import Params
from flatmin.objective import _derivatives as derivatives
from flatmin.objective._batches import Examples, apply, arguments, regroup
from flatmin.objective._conditions import devices_of, measuring

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class EmpiricalLoss:
    r"""Mean loss of a model over a fixed data set, as a function of its parameters.

    .. math:: L(w) = \frac{1}{n} \sum_{i=1}^{n} \ell(f_w(x_i), y_i)

    The model is called through ``torch.func.functional_call`` on copies of its buffers, in the mode
    (train or eval) it has at the time. Its parameters, buffers, gradients and modes, and the random
    state, are left as they were. Autocast and TF32 are off inside; the loss of a batch is computed
    in float64 from the model's outputs, and sums over batches are in float64.

    The mean is over examples, so that it does not depend on how they are batched. A model that
    mixes the examples of a batch (BatchNorm in training mode) is another function for other
    batches, though, and a loss function that weights its examples another mean.

    Args:
        model: The network. Never changed.
        loss_function: Takes outputs and targets of a batch, floating ones in float64, and gives
            their *mean* loss, like ``torch.nn.functional.cross_entropy``.
        batches: Batches of (inputs, targets), first dimension the example; inputs are one tensor,
            a tuple of positional arguments or a mapping of keyword arguments. Moved to the
            model's device. Iterated once per evaluation: a list, or an unshuffled loader; not a
            generator.
        group: The processes that share the data, each holding a part (maybe none) of it; every
            process then makes the same calls and gets the same result. None for one process, and
            ``torch.distributed.group.WORLD`` for all. Give the plain model, not one wrapped for
            parallel training.

    Raises:
        TypeError: If ``model`` is no module, or a batch is no pair of inputs and a tensor.
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
        batches: Iterable[Examples],
        *,
        group: ProcessGroup | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise TypeError(
                "model must be the plain network, got DistributedDataParallel; pass model.module, "
                "and the processes as group=."
            )
        if isinstance(batches, Iterator):
            raise TypeError(
                "batches can be iterated only once, but a measure evaluates the loss many times; "
                "pass list(batches), or a DataLoader with shuffle=False."
            )
        if isinstance(loss_function, nn.Module):
            # Class weights and the like must match the float64 outputs.
            loss_function = copy.deepcopy(loss_function).double()
        self.model = model
        self.loss_function = loss_function
        self.batches = batches
        self.group = group
        self.num_examples = 0
        with self._measuring():
            self._count()
            self._prove_deterministic()

    @property
    def params(self) -> dict[str, Tensor]:
        """The model's present parameters, detached, by name: the natural point ``w``.

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
        total = self._zero()
        with self._measuring(), torch.no_grad():
            self._check_agreement(params)
            for loss, share in self._losses(params):
                total += loss * share
        return self.reduce(total)

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss at ``params`` and its gradient.

        Args:
            params: As for ``value``.

        Returns:
            The loss in float64, and a gradient for each name in ``params``; zero where the loss
            does not depend on a parameter.
        """
        point = derivatives.leaves(params)
        loss_sum, grad_sum = self._zero(), _zeros(point)
        with self._measuring(), torch.enable_grad():
            self._check_agreement(params)
            for loss, share in self._losses(point):
                loss_sum += loss.detach() * share
                _accumulate(grad_sum, derivatives.gradient(loss, point), share)
        return self.reduce(loss_sum), self._reduced(grad_sum, params)

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Hessian of the mean loss at ``params`` times ``vector``.

        Args:
            params: As for ``value``.
            vector: A tensor for each name in ``params``.

        Returns:
            A tensor for each name in ``params``.
        """
        point = derivatives.leaves(params)
        total = _zeros(point)
        # The fused kernels of attention cannot be differentiated twice.
        with self._measuring(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self._check_agreement(params, vector)
            for loss, share in self._losses(point):
                _accumulate(total, derivatives.second(loss, point, vector), share)
        return self._reduced(total, params)

    def micro(self, m: int) -> Iterator[EmpiricalLoss]:
        """Split into objectives over ``m`` consecutive examples each; the last may have fewer.

        Args:
            m: Examples in each.

        Yields:
            Objectives of this process alone, over its own examples.

        Raises:
            ValueError: If ``m`` is below one.
        """
        if m < 1:
            raise ValueError(f"m must be at least 1 example, got {m}.")
        with self._measuring():  # a loader draws a random number when it starts
            batches = iter(self.batches)
        for inputs, targets in regroup(batches, m):
            part = copy.copy(self)
            part.batches, part.num_examples, part.group = [(inputs, targets)], len(targets), None
            yield part

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum over the processes of the group, in place.

        Args:
            tensor: One summand; the same shape in every process.

        Returns:
            The sum; the tensor itself where there is no group.
        """
        if self.group is not None:
            import torch.distributed as dist

            dist.all_reduce(tensor, group=self.group)
        return tensor

    def _losses(self, params: Params) -> Iterator[tuple[Tensor, float]]:
        # Mean loss of each batch in float64, and the batch's share of the examples.
        named = dict(self.model.named_parameters(remove_duplicate=False))
        unknown = [name for name in params if name not in named]
        if unknown:
            raise ValueError(
                f"the model has no parameter named {unknown[0]!r}; its names are those of "
                "model.named_parameters()."
            )
        device = self._zero().device
        seen = 0
        for inputs, targets in self.batches:
            seen += len(targets)
            args, kwargs = arguments(apply(lambda t: t.to(device), inputs))
            # Fresh copies: statistics that a forward pass updates must not reach the next one.
            buffers = {name: b.detach().clone() for name, b in self.model.named_buffers()}
            outputs = functional_call(self.model, {**buffers, **params}, args, kwargs)
            loss = self._loss(outputs, targets.to(device))
            yield loss, len(targets) / self.num_examples
        seen = int(self.reduce(torch.tensor(seen, device=device)))
        if seen != self.num_examples:
            raise ValueError(
                f"the data changed between passes: {self.num_examples} examples, then {seen}; "
                "pass a list of batches, or a loader that gives the same data each time."
            )

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        try:
            loss = self.loss_function(_widened(outputs), _widened(targets))
        except RuntimeError as error:
            error.add_note(
                "EmpiricalLoss hands outputs and floating targets to loss_function in float64; "
                "one that cannot take them may cast them back, as in outputs.float()."
            )
            raise
        if loss.ndim != 0:
            raise ValueError(
                f"loss_function must return the mean over the batch, a scalar, got shape "
                f"{tuple(loss.shape)}; use reduction='mean'."
            )
        return loss.double()

    def _count(self) -> None:
        count = 0
        for batch in self.batches:
            if not (
                isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor)
            ):
                raise TypeError(
                    "each batch must be a pair (inputs, targets) with a tensor of targets, "
                    f"got {type(batch).__name__}."
                )
            count += len(batch[1])
        self.num_examples = int(self.reduce(torch.tensor(count, device=self._zero().device)))
        if not self.num_examples:
            raise ValueError("batches must hold at least one example, got none.")

    def _prove_deterministic(self) -> None:
        with torch.no_grad():
            first = [loss.item() for loss, _ in self._losses({})]
            # Another random state, so that dropout is caught even if the caller has seeded.
            for device in {torch.device("cpu"), *devices_of(self.model)}:
                torch.rand(1, device=device)
            second = [loss.item() for loss, _ in self._losses({})]
        # NaN at w is for the measure to refuse; here only a change counts.
        pairs = zip_longest(first, second)
        changed = [(a, b) for a, b in pairs if a != b and (a == a or b == b)]
        if int(self.reduce(torch.tensor(len(changed), device=self._zero().device))):
            a, b = changed[0] if changed else ("one loss", "another")
            raise ValueError(
                f"the loss must be the same each time, got {a} and then {b} at the same "
                "parameters; switch off dropout (model.eval()), shuffling and augmentation."
            )

    def _check_agreement(self, *trees: Params) -> None:
        # Processes that drew different random numbers would silently average different points.
        if self.group is None:
            return
        import torch.distributed as dist

        mark = sum(
            (t.double().sum().to(self._zero()) for w in trees for t in w.values()), self._zero()
        )
        extremes = torch.stack([mark, -mark])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=self.group)
        if extremes[0] != -extremes[1] and not extremes.isnan().any():
            raise RuntimeError(
                "the processes of the group ask for the loss at different points; load the same "
                "parameters everywhere, and give each process a generator of the same seed."
            )

    def _zero(self) -> Tensor:
        first = next(self.model.parameters(), None)
        return torch.zeros((), dtype=torch.float64, device=None if first is None else first.device)

    def _reduced(self, total: dict[str, Tensor], params: Params) -> dict[str, Tensor]:
        return tree.tree_map(lambda t, like: self.reduce(t).to(like.dtype), total, params)

    def _measuring(self) -> AbstractContextManager[None]:
        return measuring(devices_of(self.model))


def _zeros(params: Params) -> dict[str, Tensor]:
    return {name: torch.zeros_like(t, dtype=torch.float64) for name, t in params.items()}


def _accumulate(total: dict[str, Tensor], part: Params, share: float) -> None:
    for name, t in part.items():
        total[name].add_(t.detach(), alpha=share)


def _widened(t: Tensor) -> Tensor:
    return t.double() if isinstance(t, Tensor) and t.is_floating_point() else t
