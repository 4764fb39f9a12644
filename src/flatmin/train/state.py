"""Everything that training changes, and the step that changes it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from flatmin.data import Batches, DataSet
from flatmin.objective._structure import map_tensors
from flatmin.optim._perturbed import Perturbed
from flatmin.train._own_network import prepare
from flatmin.train.config import TrainConfig
from flatmin.train.distributed import Team
from flatmin.train.evaluate import forward
from flatmin.train.goal import Goal
from flatmin.train.history import Epoch
from flatmin.train.optimizers import OwnOptimizer, build_optimizer, build_own, learning_rate
from flatmin.train.stops import Diverged


class State:
    """A training run between two steps.

    Args:
        config: What is trained and how.
        train_set: What it is trained on, on the team's device.
        network: The network; moved to the device and trained.
        goal: What is made small, and what is reported.
        team: The processes that train together.
        parallel: How they share the network, ``ddp`` or ``fsdp``.
        own: Makes the optimizer, where that is not the configuration's.

    Attributes:
        epoch: Epochs that are complete.
        batch: Batches of the current epoch that were trained on.
        step: Steps since the beginning.
        unbounded: Names of the buffers that were not finite at the start.
    """

    def __init__(
        self,
        config: TrainConfig,
        train_set: DataSet,
        network: nn.Module,
        goal: Goal,
        team: Team,
        parallel: str = "ddp",
        own: OwnOptimizer | None = None,
    ) -> None:
        self.config, self.team, self.goal = config, team, goal
        prepare(network, team.device, config.dtype)
        if config.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        self.unbounded = frozenset(
            name for name, value in network.named_buffers() if not value.isfinite().all()
        )
        self.shared = team.wrap(network, parallel)
        self.model = self.shared
        if config.compile:
            self.model = cast(nn.Module, torch.compile(self.shared))
        self.scaler = torch.amp.GradScaler(
            team.device.type, enabled=config.autocast is torch.float16
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.checked = False
        self.batches = Batches(
            train_set,
            config.batch_size,
            generator=self.generator,
            augment=True,
            drop_last=config.drop_last,
            dtype=config.dtype,
        )
        steps = len(self.batches)
        self.optimizer = (
            build_own(own, network)
            if own is not None
            else build_optimizer(config, network, self.model, steps=steps)
        )
        self.epoch = self.batch = self.step = self.gradients = 0
        self.history: list[Epoch] = []
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.batch, self.seen, self.seconds = 0, 0, 0.0
        self.order = self.generator.get_state()
        self.totals = torch.zeros(2, dtype=torch.float64, device=self.team.device)

    def leave(self) -> None:
        """The run ends before its last step."""
        if isinstance(self.optimizer, Perturbed):
            self.optimizer._expect_more()

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether no batch of the epoch is left."""
        return self.batch == len(self.batches)

    def rest_of_epoch(self) -> Iterator[Any]:
        """The batches of the current epoch that are still to come."""
        self.generator.set_state(self.order)
        return self.batches.epoch(start=self.batch)

    def advance(self, batches: Iterator[Any]) -> int | None:
        """Take one step on the next batch.

        Returns:
            The examples in it, over all processes; None at the end of the epoch.
        """
        begin = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return None
        lr = learning_rate(self.config, self.step, len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        inputs, targets = map_tensors(self.team.share, batch)
        count = len(batch[1])
        self.optimizer.zero_grad()
        wrapper = self.optimizer if isinstance(self.optimizer, Perturbed) else None
        with wrapper.perturbed() if wrapper and wrapper.one_pass else nullcontext():
            self.totals += self._gradient(inputs, targets, count)
        self.gradients += 1
        if wrapper and not wrapper.one_pass and wrapper.due:
            with wrapper.perturbed():
                self._gradient(inputs, targets, count)
            self.gradients += 1
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.batch += 1
        self.seen += count
        if self.at_end_of_epoch and self.team.device.type == "cuda":
            torch.cuda.synchronize(self.team.device)  # the clock must not run ahead of the work
        self.seconds += time.perf_counter() - begin
        return count

    def _gradient(self, inputs: Any, targets: Tensor, count: int) -> Tensor:
        """Add the gradient of the batch's mean loss; give summed loss and summed metric."""
        pieces = self.config.accumulation
        totals = torch.zeros_like(self.totals)
        for number in range(pieces):
            own, wanted = map_tensors(
                lambda t: t.tensor_split(pieces)[number],  # noqa: B023
                (inputs, targets),
            )
            with self.team.exchange(self.shared, number + 1 == pieces):
                outputs = forward(self.model, own, self.config)
                self.goal.check(outputs, wanted, means=not self.checked)
                loss = self.goal.loss_sum(outputs, wanted, self.config.label_smoothing)
                # The exchange takes the mean over processes; the sum is wanted.
                share = loss * (self.team.size / count)
                self.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                totals[0] += loss
                totals[1] += self.goal.metric_sum(outputs, wanted)
        self.checked = True
        return totals

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def examples_in_all(self) -> int:
        """Examples of all epochs."""
        return self.config.epochs * self._examples_per_epoch()

    @property
    def examples_done(self) -> int:
        """Examples trained on."""
        return self.epoch * self._examples_per_epoch() + self.seen

    def _examples_per_epoch(self) -> int:
        most = len(self.batches) * self.config.batch_size
        return min(most, len(self.batches.data))

    def running_loss(self) -> float:
        """Mean loss of this epoch's batches so far; ``Diverged`` if one was not finite."""
        loss = self.team.sum(self.totals)[0].item() / max(self.seen, 1)
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss was not finite by step {self.step} (epoch {self.epoch + 1}): try a "
                "smaller lr or rho, or some warmup"
            )
        return loss

    def close_epoch(self, evaluations: dict[str, float | None]) -> Epoch:
        """End the epoch and report it."""
        loss, metric = (self.team.sum(self.totals) / max(self.seen, 1)).tolist()
        self.epoch += 1
        record = Epoch(
            epoch=self.epoch,
            step=self.step,
            gradients=self.gradients,
            lr=self.lr,
            seconds=self.seconds,
            **self.goal.record("running", loss, metric),  # type: ignore[arg-type]
            **evaluations,  # type: ignore[arg-type]
        )
        self.history.append(record)
        self._begin_epoch()
        return record
