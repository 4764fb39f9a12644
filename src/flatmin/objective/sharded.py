"""The mean loss of a model whose weights are sharded over processes, as a function of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flatmin._types import Params
from flatmin.objective import _checks as checks
from flatmin.objective import _derivatives as derivatives
from flatmin.objective._batches import Examples, arguments
from flatmin.objective._conditions import devices_of, measuring
from flatmin.objective._evaluation import Evaluated, LossFunction, copied, device_of, on_copies
from flatmin.objective._mean import MeanCheck
from flatmin.objective._processes import Processes
from flatmin.objective._proof import pairs_refused
from flatmin.objective._shards import mesh_of, reshard, same_buffers, whole
from flatmin.objective._weights import Weight, count, weight_of

_Use = Callable[[Evaluated, float], None]


class ShardedLoss:
    r"""Mean loss over a fixed data set of a network that ``fully_shard`` (FSDP2) has sharded.

    .. math:: L(w) = \frac{1}{n} \sum_{i=1}^{n} \ell(f_w(x_i), y_i)

    Points and gradients are whole tensors, the same in every process, so that any measure takes
    them; the network computes with its shards. It has no products, for FSDP cannot be
    differentiated twice: measures of second order take ``FiniteDifferences(loss)``. Every process
    makes the same calls and gets the same result.

    While a batch is evaluated the shards hold the point; weights, gradients, buffers and the random
    state are then put back. What a process has to hold is a few whole copies of the weights, where
    ``params`` lie: measure at ``{name: t.cpu() ...}`` if a GPU cannot.

    Args:
        model: The network, sharded along one dimension of processes.
        loss_function: As for ``EmpiricalLoss``.
        batches: As for ``EmpiricalLoss``: this process's part, of as many batches as every other.
        weight: As for ``EmpiricalLoss``.

    Raises:
        TypeError: If the model is not sharded so.
        ValueError: If a process has another number of batches, or the loss is no mean over examples
            or another one the next time.

    Example:
        In a program started with ``torchrun``, after ``fully_shard(model)``:

        >>> def sharpest(model, batches):
        ...     loss = ShardedLoss(model, torch.nn.functional.cross_entropy, batches)
        ...     return top_eigenvalues(FiniteDifferences(loss), loss.params).value

    Source:
        Zhao et al. 2023, arXiv:2304.11277, on sharded training.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_function: LossFunction,
        batches: Iterable[Examples],
        *,
        weight: Weight = len,
    ) -> None:
        self._mesh = mesh_of(model)
        checks.check_loss_function(loss_function)
        checks.check_repeatable(batches)
        self.model, self.loss_function = model, loss_function
        self.batches, self.weight = batches, weight
        self._processes = Processes(self._mesh.get_group(), device_of(model))
        with measuring(devices_of(model)):
            self._count()
            self._prove()

    @property
    def params(self) -> dict[str, Tensor]:
        """The present parameters, gathered, by name, without those that are frozen."""
        reshard(self.model)
        named = self.model.named_parameters()
        return {name: whole(p.detach()) for name, p in named if p.requires_grad}

    def value(self, params: Params) -> Tensor:
        """Mean loss at ``params``, in float64, as of ``EmpiricalLoss``."""
        total = torch.zeros((), dtype=torch.float64, device=device_of(self.model))

        def add(at: Evaluated, share: float) -> None:
            total.add_(at.loss, alpha=share)

        with torch.no_grad():
            self._evaluate(params, add)
        return self._processes.reduce(total)

    def value_and_grad(self, params: Params) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss at ``params`` and its gradient, whole, as of ``EmpiricalLoss``."""
        derivatives.check(params)
        total = torch.zeros((), dtype=torch.float64, device=device_of(self.model))
        sums: dict[str, Tensor] = {}

        def add(at: Evaluated, share: float) -> None:
            total.add_(at.loss.detach(), alpha=share)
            self._differentiate(at.loss * share, sums)

        with torch.enable_grad():
            self._evaluate(params, add)
        grads = {
            name: whole(sums[name]).to(t) if name in sums else torch.zeros_like(t)
            for name, t in params.items()
        }
        return self._processes.reduce(total), grads

    def hvp(self, params: Params, vector: Params) -> dict[str, Tensor]:
        """Refuse: there are gradients only.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "a network that FSDP has sharded cannot be differentiated twice; "
            "FiniteDifferences(loss) takes differences of gradients instead."
        )

    def _evaluate(self, params: Params, use: _Use) -> None:
        device, seen = device_of(self.model), 0
        of_outputs = on_copies(self.loss_function)
        with measuring(devices_of(self.model)), self._standing(params):
            for given, aims in self.batches:
                seen += len(aims)
                inputs, targets = copied(given, device), aims.to(device)
                args, kwargs = arguments(inputs)
                with same_buffers(self.model):
                    outputs = self.model(*args, **kwargs)
                    loss = checks.checked_loss(of_outputs, outputs, targets)
                    share = weight_of(self.weight, targets) / self.total_weight
                    # Whoever asks the model again would wait for the other processes.
                    nobody: Any = None
                    given = inputs, outputs, targets, nobody, of_outputs, nobody
                    at = Evaluated(loss.double(), loss.dtype, *given)
                    use(at, share)
                reshard(self.model)
        checks.check_seen(self.num_examples, self._processes.total(seen))

    def _differentiate(self, loss: Tensor, sums: dict[str, Tensor]) -> None:
        """Add the gradients of a summand of the loss to those of others, in float64."""
        (loss * self._mesh.size()).backward()  # for gradients are averaged
        found = {name: p for name, p in self.model.named_parameters() if p.grad is not None}
        if not found:
            raise ValueError(
                "no gradient reached the shards; check that the loss depends on the parameters, "
                "and call model.set_requires_gradient_sync(True) if that was switched off."
            )
        for name, p in found.items():
            grad = p.grad.double()  # type: ignore[union-attr]
            sums[name] = sums[name] + grad if name in sums else grad
            p.grad = None

    @contextmanager
    def _standing(self, params: Params) -> Iterator[None]:
        """Let the shards hold a point."""
        from torch.distributed.tensor import distribute_tensor

        self._processes.check_same_point(params)
        reshard(self.model)
        named = dict(self.model.named_parameters())
        before = {name: (p.to_local().clone(), p.grad) for name, p in named.items()}  # type: ignore[attr-defined]
        try:
            with torch.no_grad():
                for name, given in params.items():
                    own: Any = checks.checked(named, name, given)
                    part = distribute_tensor(
                        given.detach().to(own), own.device_mesh, own.placements
                    )
                    own.to_local().copy_(part.to_local())
                for p in named.values():
                    p.grad = None
            yield
        finally:
            reshard(self.model)
            with torch.no_grad():
                for name, (shard, grad) in before.items():
                    named[name].to_local().copy_(shard)  # type: ignore[attr-defined]
                    named[name].grad = grad

    def _count(self) -> None:
        examples, weight = count(self.batches, self.weight)
        passes = sum(1 for _ in self.batches)
        size = self._mesh.size()
        fault = (
            f"every process needs as many batches as the others, for FSDP runs them together; got "
            f"{passes} of {self._processes.total(passes)} in {size} processes."
        )
        alike = self._processes.total(passes * passes) * size == self._processes.total(passes) ** 2
        self._processes.agree(None if alike and passes else fault)
        self.num_examples = self._processes.total(examples)
        total = torch.tensor(float(weight), dtype=torch.float64, device=device_of(self.model))
        self.total_weight = self._processes.reduce(total).item()

    def _prove(self) -> None:
        mean, here = MeanCheck(self.model, self.weight), self.params

        def losses(use: _Use) -> list[float]:
            found: list[float] = []

            def note(at: Evaluated, share: float) -> None:
                found.append(at.loss.item())
                use(at, share)

            self._evaluate(here, note)
            return found

        with torch.no_grad(), pairs_refused():
            first = losses(lambda at, share: mean.look(at))
        torch.rand(1, device=device_of(self.model))  # so that dropout shows
        with torch.enable_grad():
            second = losses(lambda at, share: self._differentiate(at.loss * share, {}))
        if self._processes.total(checks.changed(first, second) is not None):
            with torch.no_grad():
                third = losses(lambda at, share: None)
            self._processes.agree(checks.random_fault(first, third))
            self._processes.agree(checks.mode_fault(self.model, first, second))
        several = self._processes.total(len(first)) > 1
        self._processes.agree(mean.sums or (mean.mixes if several else None))
        if several:
            mean.warn(stacklevel=3)  # the line that makes the loss
