"""The recipes in examples/ train the model of the plain loop; frameworks to the last bit."""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMEWORKS = {
    "with_fabric": "lightning",
    "with_lightning": "lightning",
    "with_accelerate": "accelerate",
    "with_transformers": "transformers",
}
PROCESSES = {"ddp", "fsdp"}  # in test_processes.py


@pytest.fixture(autouse=True)
def _at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The folder of the recipes on the path, an empty one to work in, and offline."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


def recipe(name: str) -> ModuleType:
    return importlib.import_module(name)


def vector(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture
def plain() -> Tensor:
    return vector(recipe("plain").train())


def test_the_plain_loop_is_not_the_base_optimizer(
    plain: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a recipe that never perturbs would pass below."""
    monkeypatch.setattr(recipe("plain"), "RHO", 0.0)
    assert (vector(recipe("plain").train()) - plain).abs().max() > 1e-3


def test_closure(plain: Tensor) -> None:
    assert torch.equal(vector(recipe("closure").train()), plain)


def test_accumulation(plain: Tensor) -> None:
    """In another order of summation, so up to rounding; a perturbation each is something else."""
    module = recipe("accumulation")
    torch.testing.assert_close(vector(module.train()), plain, rtol=1e-4, atol=1e-5)
    assert (vector(module.train_m_sharpness()) - plain).abs().max() > 1e-3


def test_amp(plain: Tensor) -> None:
    """In float32 the loop is the plain one; in float16 it ends within a few roundings of it."""
    module = recipe("amp")
    if torch.cuda.is_available():
        pytest.skip("the recipe runs on the GPU here, which sums in another order")
    assert torch.equal(vector(module.train(half=False)), plain)
    half = (vector(module.train()) - plain).norm()
    start = vector(recipe("task").network())
    assert 0 < half < 0.02 * (plain - start).norm()
    assert (vector(module.train(half=False, clip=0.1)) - plain).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_frameworks(name: str, plain: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    library = FRAMEWORKS[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f'{library} is not installed; pip install "flatmin[integrations]"')
    caplog.set_level(logging.ERROR)
    assert torch.equal(vector(recipe(name).train()), plain)


@pytest.fixture
def in_parts() -> Tensor:
    return vector(recipe("accumulation").train_m_sharpness())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
def test_lightning_in_parts(in_parts: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("lightning", reason='pip install "flatmin[integrations]"')
    caplog.set_level(logging.ERROR)
    assert torch.equal(vector(recipe("with_lightning").train_in_parts()), in_parts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
def test_transformers_in_parts(in_parts: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("transformers", reason='pip install "flatmin[integrations]"')
    caplog.set_level(logging.ERROR)
    assert torch.equal(vector(recipe("with_transformers").train(parts=2)), in_parts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
def test_lightning_refuses_to_drop_parts(caplog: pytest.LogCaptureFixture) -> None:
    """Its own accumulation hands over a closure that adds to what is there."""
    pytest.importorskip("lightning", reason='pip install "flatmin[integrations]"')
    caplog.set_level(logging.ERROR)
    module, task = recipe("with_lightning"), recipe("task")
    data = torch.utils.data.DataLoader(task.batches(), batch_size=None)
    with pytest.raises(RuntimeError, match=r"the closure added to gradients"):
        module.fit(module.Classifier(), data, accumulate_grad_batches=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
def test_lightning_logs_the_loss_at_the_weights(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pytest.importorskip("lightning", reason='pip install "flatmin[integrations]"')
    from lightning.pytorch.loggers import CSVLogger

    caplog.set_level(logging.ERROR)
    module, task = recipe("with_lightning"), recipe("task")
    seen: list[float] = []

    class Watched(module.Classifier):
        def training_step(self, batch: tuple[Tensor, Tensor], i: int) -> Tensor:
            loss = super().training_step(batch, i)
            seen.append(loss.item())
            return loss

    data = torch.utils.data.DataLoader(task.batches(), batch_size=None)
    module.fit(Watched(), data, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    (table,) = tmp_path.rglob("metrics.csv")
    logged = [float(row["loss"]) for row in csv.DictReader(table.open()) if row["loss"]]
    assert logged == pytest.approx(seen[::2], rel=1e-5)  # the logger writes float32
    assert len(logged) == 12 and logged != pytest.approx(seen[1::2], rel=1e-3)


@pytest.mark.parametrize("name", ["plain", "closure", "amp", "accumulation"])
def test_as_a_script(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith("loss 0.")


def test_every_recipe_is_tested() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    mine = {"task", "plain", "closure", "accumulation", "amp"}
    assert names == mine | set(FRAMEWORKS) | PROCESSES
    assert not {name for name in names if name in sys.stdlib_module_names}
