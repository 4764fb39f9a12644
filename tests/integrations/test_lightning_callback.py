"""Lightning's Trainer with the callback, against the loop written out."""

from __future__ import annotations

import csv
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning", reason='pip install "flatmin[integrations]"')

import lightning.pytorch as lightning
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from flatmin import ASAM, SAM, Every
from flatmin.integrations.lightning import SharpnessAware

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the framework, about itself
]

STEPS, SIZE = 6, 4


@pytest.fixture(autouse=True)
def _calm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


class Module(lightning.LightningModule):
    """Somebody's module, which knows of no second pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        self.log_dict({"twice": 2 * loss})
        return loss

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        base = torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)
        schedule = CosineAnnealingLR(base, T_max=STEPS)
        return [base], [{"scheduler": schedule, "interval": "step"}]


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS * SIZE, 3, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


def fit(module: Any, *callbacks: Any, resume: Path | None = None, **changes: Any) -> Any:
    trainer = lightning.Trainer(
        **{
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "gradient_clip_val": 0.5,
            **changes,
        },
        callbacks=list(callbacks),
    )
    trainer.fit(module, DataLoader(data(), SIZE), ckpt_path=str(resume) if resume else None)
    return trainer


def by_hand(minimizer: Any) -> tuple[Module, list[float]]:
    """Each gradient is clipped, as Lightning clips inside its closure."""
    module = Module()
    base = torch.optim.SGD(module.parameters(), lr=0.2, momentum=0.9)
    optimizer, losses = minimizer(base, model=module), []
    schedule = CosineAnnealingLR(base, T_max=STEPS)

    def backward(x: Tensor, y: Tensor) -> float:
        loss = F.cross_entropy(module.net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        return loss.item()

    for x, y in DataLoader(data(), SIZE):
        optimizer.zero_grad()
        losses.append(backward(x, y))
        with optimizer.perturbed():
            backward(x, y)
        optimizer.step()
        schedule.step()
    return module, losses


def vector(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach()


class Noisy(Module):
    """Calls a part of itself, draws in its step, and keeps what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)
        )
        self.seen: list[float] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        outputs = self.net(batch[0] + torch.randn_like(batch[0]))
        loss = F.cross_entropy(outputs, batch[1])
        self.seen.append(loss.item())
        return loss


@pytest.mark.filterwarnings("error:model= was given")
def test_a_step_that_calls_a_part_of_its_module_sees_the_same_network_twice() -> None:
    module = Noisy()
    fit(module, SharpnessAware(partial(SAM, rho=0.2)), gradient_clip_val=None)

    expected = Noisy()
    base = torch.optim.SGD(expected.parameters(), lr=0.2, momentum=0.9)
    schedule = CosineAnnealingLR(base, T_max=STEPS)
    optimizer = SAM(base, rho=0.2)
    bn, losses = expected.net[1], []
    for x, y in DataLoader(data(), SIZE):
        drawn = torch.get_rng_state()
        optimizer.zero_grad()
        loss = F.cross_entropy(expected.net(x + torch.randn_like(x)), y)
        losses.append(loss.item())
        loss.backward()
        after, counted = torch.get_rng_state(), [b.clone() for b in bn.buffers()]
        with optimizer.perturbed():
            torch.set_rng_state(drawn)
            F.cross_entropy(expected.net(x + torch.randn_like(x)), y).backward()
        torch.set_rng_state(after)
        for buffer, value in zip(bn.buffers(), counted, strict=True):
            buffer.copy_(value)
        optimizer.step()
        schedule.step()
    assert torch.equal(vector(module), vector(expected))
    assert all(map(torch.equal, module.net[1].buffers(), bn.buffers()))
    assert bn.num_batches_tracked == STEPS
    assert module.seen == losses


@pytest.mark.parametrize(
    "minimizer", [partial(SAM, rho=0.2), partial(ASAM, rho=1.0)], ids=["sam", "asam"]
)
def test_the_trainer_is_the_loop_and_logs_the_first_pass(minimizer: Any, tmp_path: Path) -> None:
    module = Module()
    logger = CSVLogger(tmp_path)
    fit(module, SharpnessAware(minimizer), logger=logger, log_every_n_steps=1)
    expected, losses = by_hand(minimizer)
    assert torch.equal(vector(module), vector(expected))
    (table,) = tmp_path.rglob("metrics.csv")
    rows = [row for row in csv.DictReader(table.open()) if row["loss"]]
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses, rel=1e-5)
    assert [float(row["twice"]) for row in rows] == pytest.approx([2 * x for x in losses], rel=1e-5)
    plain = Module()
    fit(plain)
    assert (vector(plain) - vector(expected)).abs().max() > 1e-3
    assert "training_step" not in vars(module)  # its own again


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    minimizer = partial(ASAM, rho=1.0)
    whole = Module()
    fit(whole, SharpnessAware(minimizer), max_epochs=2)
    keep = lightning.callbacks.ModelCheckpoint(tmp_path, filename="half", save_top_k=-1)
    fit(Module(), SharpnessAware(minimizer), keep, enable_checkpointing=True)
    rest = Module()
    fit(rest, SharpnessAware(minimizer), max_epochs=2, resume=tmp_path / "half.ckpt")
    assert torch.equal(vector(rest), vector(whole))


def test_a_step_that_is_not_due_takes_one_pass() -> None:
    module, calls = Module(), []
    module.net.register_forward_hook(lambda *_: calls.append(1))
    fit(module, SharpnessAware(partial(SAM, when=Every(3))))
    assert len(calls) == STEPS + 2


class Manual(Module):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Already(Module):
    def configure_optimizers(self) -> Any:
        return SAM(torch.optim.SGD(self.parameters(), lr=0.2))


HALF = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))


@pytest.mark.parametrize(
    ("module", "changes", "words"),
    [
        (Module, {"accumulate_grad_batches": 2}, "with optimizer.micro_batches"),
        (Module, {"plugins": HALF}, "evaluates its closure only once"),
        (Manual, {"gradient_clip_val": None}, "automatic_optimization=False"),
        (Already, {}, "already a SAM"),
    ],
)
def test_what_has_no_place_for_a_second_pass_is_refused(
    module: type[Module], changes: dict[str, Any], words: str
) -> None:
    own = module()
    before = vector(own).clone()
    with pytest.raises(ValueError, match=words):
        fit(own, SharpnessAware(), **changes)
    assert torch.equal(vector(own), before)


def test_an_optimizer_in_place_of_what_makes_one_is_refused() -> None:
    with pytest.raises(TypeError, match="is a SAM object; leave its arguments to partial"):
        SharpnessAware(SAM(torch.optim.SGD(Module().parameters(), lr=0.1)))
