"""The Trainer of transformers with a second pass, against the loop written out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

pytest.importorskip("transformers", reason='pip install "flatmin[integrations]"')

from transformers import Trainer, TrainerCallback, TrainingArguments

from flatmin import ASAM, SAM, Every
from flatmin.integrations.transformers import SharpnessAware, SharpTrainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the framework, about itself
]

STEPS, SIZE = 6, 4


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    with warnings.catch_warnings():
        yield


class Net(nn.Module):
    """Returns its loss, as the Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.last(self.first(inputs).relu()) - labels).square().mean()}


def examples() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS * SIZE, 3, generator=generator)
    return [{"inputs": row, "labels": row.sum(0, keepdim=True)} for row in x]


def settings(folder: Path, **changes: Any) -> TrainingArguments:
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": SIZE,
        "learning_rate": 0.05,
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
        "lr_scheduler_type": "linear",
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "train_sampling_strategy": "sequential",
        "seed": 3,
    }
    return TrainingArguments(**{**values, **changes})


def trained(folder: Path, minimizer: Any, **changes: Any) -> tuple[Net, SharpTrainer]:
    net = Net()
    trainer = SharpTrainer(
        net, settings(folder, **changes), train_dataset=examples(), minimizer=minimizer
    )
    trainer.train()
    return net, trainer


def by_hand(minimizer: Any, parts: int = 1) -> tuple[Net, list[float]]:
    """AdamW, weight decay on matrices, clipping, a linear schedule; each part climbs for itself."""
    net = Net()
    torch.manual_seed(3)
    matrices = [p for p in net.parameters() if p.dim() > 1]
    biases = [p for p in net.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": biases, "weight_decay": 0.0},
    ]
    base = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.999), eps=1e-8)
    optimizer = minimizer(base, model=net)
    schedule = LambdaLR(optimizer, lambda step: max(0.0, 1 - step / STEPS))
    rows, losses = examples(), []
    for step in range(STEPS):
        batch = rows[SIZE * step : SIZE * (step + 1)]
        size = SIZE // parts
        told = 0.0
        for part in range(parts):
            few = batch[size * part : size * (part + 1)]
            inputs = {name: torch.stack([row[name] for row in few]) for name in few[0]}
            with optimizer.micro_batches():
                loss = net(**inputs)["loss"]
                (loss / parts).backward()
                if optimizer.due:
                    with optimizer.perturbed():
                        (net(**inputs)["loss"] / parts).backward()
            told += loss.item() / parts
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(told)
    return net, losses


def vector(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "minimizer", [partial(SAM, rho=0.1), partial(ASAM, rho=1.0)], ids=["sam", "asam"]
)
def test_the_trainer_is_the_loop(minimizer: Any, parts: int, tmp_path: Path) -> None:
    changes = {
        "per_device_train_batch_size": SIZE // parts,
        "gradient_accumulation_steps": parts,
        "optim": "adamw_torch",
    }
    net, trainer = trained(tmp_path, minimizer, **changes)
    expected, losses = by_hand(minimizer, parts)
    torch.testing.assert_close(vector(net), vector(expected), rtol=1e-5, atol=1e-6)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=2e-4)  # the Trainer keeps four digits
    other, _ = by_hand(partial(SAM, rho=0.0), parts)
    assert (vector(other) - vector(expected)).abs().max() > 1e-3


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    minimizer = partial(ASAM, rho=1.0)
    changes = {"save_strategy": "steps", "save_steps": 3}
    whole, _ = trained(tmp_path / "a", minimizer, **changes)
    net = Net()
    again = SharpTrainer(
        net,
        settings(tmp_path / "a", **changes),
        train_dataset=examples(),
        minimizer=minimizer,
    )
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert torch.equal(vector(net), vector(whole))


def test_a_step_that_is_not_due_takes_one_pass(tmp_path: Path) -> None:
    calls = []
    net = Net()
    net.register_forward_hook(lambda *_: calls.append(1))
    SharpTrainer(
        net,
        settings(tmp_path),
        train_dataset=examples(),
        minimizer=partial(SAM, when=Every(3)),
    ).train()
    assert len(calls) == STEPS + 2


def test_the_mixin_goes_before_any_trainer(tmp_path: Path) -> None:
    seen = []

    class Own(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(1)
            return super().compute_loss(*args, **kwargs)

    class Sharp(SharpnessAware, Own):
        pass

    class Look(TrainerCallback):
        def on_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
            seen.append(2)

    Sharp(Net(), settings(tmp_path), train_dataset=examples(), callbacks=[Look()]).train()
    assert seen == [1, 1, 2] * STEPS


def test_an_optimizer_that_was_given_is_wrapped_once(tmp_path: Path) -> None:
    net = Net()
    base = torch.optim.SGD(net.parameters(), lr=0.1)
    for given in (base, SAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net)):
        trainer = SharpTrainer(
            net,
            settings(tmp_path),
            train_dataset=examples(),
            optimizers=(given, None),
            minimizer=partial(SAM, rho=0.2),
        )
        made = trainer.create_optimizer()
        assert isinstance(made, SAM)
        assert made.param_groups[0]["sam_rho"] == (0.2 if given is base else 0.05)
