"""Accelerate's accumulation and skorch's steps, as the page on frameworks has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin import SAM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the frameworks, about themselves
]

SIZE, RHO = 8, 0.2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 2))


def data() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))
    return inputs, (inputs.sum(1) > 0).long()


def by_hand(parts: int) -> tuple[nn.Module, list[float]]:
    net, losses = network(), []
    optimizer = SAM(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), rho=RHO, model=net)
    torch.manual_seed(2)
    for inputs, targets in zip(*(part.split(SIZE) for part in data()), strict=True):
        optimizer.zero_grad()
        with optimizer.micro_batches():
            for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
                loss = F.cross_entropy(net(x), y) / parts
                losses.append(loss.item())
                loss.backward()
                with optimizer.perturbed():
                    (F.cross_entropy(net(x), y) / parts).backward()
        optimizer.step()
    return net, losses


def vector(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


@pytest.mark.parametrize("parts", [1, 2])
def test_accumulate_of_accelerate_is_the_loop(parts: int) -> None:
    accelerate = pytest.importorskip("accelerate", reason='pip install "flatmin[integrations]"')
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=parts)
    net = network()
    sam = SAM(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), rho=RHO, model=net)
    batches = list(zip(*(part.split(SIZE // parts) for part in data()), strict=True))
    model, optimizer = accelerator.prepare(net, sam)
    torch.manual_seed(2)
    for x, y in batches:
        with accelerator.accumulate(model):
            with sam.micro_batches():
                accelerator.backward(F.cross_entropy(model(x), y))
                with sam.perturbed():
                    accelerator.backward(F.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(vector(net), vector(by_hand(parts)[0]))


def test_skorch_steps_with_a_closure_and_logs_the_first_loss() -> None:
    skorch = pytest.importorskip("skorch", reason='pip install "flatmin[integrations]"')

    class Sharp(skorch.NeuralNetClassifier):  # type: ignore[misc]
        def initialize_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            super().initialize_optimizer(*args, **kwargs)
            self.optimizer_ = SAM(self.optimizer_, rho=RHO, model=self.module_)
            return self

        def on_batch_begin(self, *args: Any, **kwargs: Any) -> None:
            super().on_batch_begin(*args, **kwargs)
            if len(self.history[-1]["batches"]) == 1:  # the loader has drawn
                torch.manual_seed(2)

    inputs, targets = data()
    sharp = Sharp(
        network(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.1,
        max_epochs=1,
        batch_size=SIZE,
        train_split=None,
        verbose=0,
    )
    sharp.fit(inputs, targets)
    net, losses = by_hand(1)
    assert torch.equal(vector(sharp.module_), vector(net))
    assert [row["train_loss"] for row in sharp.history[-1]["batches"]] == pytest.approx(losses)
