"""The benchmarks run, and the instruments behind them show what is known beforehand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from flatmin.data import Batches
from flatmin.symmetry import find_scalings
from slowly import slow_but

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = 1 << 18
LARGE = 1 << 24


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def load(name: str) -> ModuleType:
    pytest.importorskip("pytorch_optimizer")  # a peer that is measured beside
    return __import__(name)


def written(module: ModuleType, out: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """What a benchmark writes when run with options."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *options])
    module.main()
    return checked(out)


def checked(out: Path) -> Any:
    record = json.loads(out.with_suffix(".json").read_text())
    assert "docs" not in out.parts and record["torch"] == torch.__version__
    for value in leaves(record):
        assert not isinstance(value, float) or math.isfinite(value)
    return record


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def toy() -> Any:
    return [(f"{i}.weight", torch.nn.Parameter(torch.randn(8, 4 + i))) for i in range(3)]


@pytest.mark.slow
def test_step_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step_cost = load("step_cost")
    for title in step_cost.SETS:
        monkeypatch.setitem(step_cost.SETS, title, toy)

    def here(title: str, names: Any, threads: int) -> dict[str, int]:
        return {name: step_cost.fresh_pages(title, name, threads) for name in names}

    monkeypatch.setattr(step_cost, "count_pages", here)
    out = tmp_path / "step_cost"
    options = ("--repeats", "1", "--threads", "1", "--out", str(out))
    record = written(step_cost, out, monkeypatch, *options)
    assert {"copy", "SAM", "ASAM, fused"} <= set(record["sets"]["many small"]["copies"])
    assert set(record["sets"]["many small"]["fresh_pages"].values()) == {0}
    assert (tmp_path / "step_cost.png").exists()


def test_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, out = load("family"), tmp_path / "family"
    monkeypatch.setattr(family, "OUT", out)
    monkeypatch.setattr(family, "many_small", toy)
    options = ("--small", "--repeats", "1", "--threads", "1")
    found = written(family, out, monkeypatch, *options)["sets"]["many small"]
    assert found["ratio_to_sam"]["SAM"] == 1.0
    kept = found["kept_between_steps_in_parameters"]
    assert {name for name, share in kept.items() if share} == {"FriendlySAM", "AsyncSAM"}
    assert kept["FriendlySAM"] == kept["AsyncSAM"] == 1.0


def test_training_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training_step, out = load("training_step"), tmp_path / "training_step"
    options = ("--networks", "perceptron", "--repeats", "2", "--threads", "1", "--out", str(out))
    record = written(training_step, out, monkeypatch, *options)
    numbers = record["networks"]["perceptron"]
    assert numbers["numbers"] == 370 and numbers["ratios"]["two gradients"] == 1.0
    assert set(numbers["parts"]) == set(training_step.OPTIONS)
    assert all(value > 0 for value in leaves(numbers["parts"]))
    assert out.with_suffix(".png").exists()


def test_the_transformer_of_the_benchmark_is_causal() -> None:
    torch.manual_seed(0)
    model = load("training_step").Transformer().eval()
    tokens = torch.randint(256, (2, 64))
    changed = tokens.clone()
    changed[:, 40:] = 0
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[..., :40], after[..., :40])
    assert not torch.allclose(before[..., 40:], after[..., 40:])


def test_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "operations"
    options = ("--tensors", "5", "20", "--skip-wrn", "--out", str(out))
    record = written(load("operations"), out, monkeypatch, *options)
    few, many = record["sets"]["5 of 64×64"], record["sets"]["20 of 64×64"]
    assert few["SAM"] == many["SAM"] and few["ASAM"] == many["ASAM"]
    assert many["SAM, published loop"] > 3 * few["SAM, published loop"]


@pytest.mark.slow
def test_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch, out = __import__("epoch"), tmp_path / "epoch"
    few = ("--models", "cnn", "--images", "256", "--repeats", "1", "--threads", "1")
    options = (*few, "--out", str(out))
    runs = written(epoch, out, monkeypatch, *options)["runs"]
    assert set(runs) == {"cnn, adam", "cnn, sgd"}
    for run in runs.values():
        ratio = run["ratio"]
        assert ratio["asam / none"] == pytest.approx(ratio["asam / sam"] * ratio["sam / none"])
    assert out.with_suffix(".png").exists()


def test_contenders_of_the_data_pipeline_see_the_same_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without randomness they agree: the flip never comes, the crop is the middle."""
    pytest.importorskip("PIL")
    pipeline = __import__("data_pipeline")
    image_set = pipeline.noise(3)
    monkeypatch.setattr(pipeline.random, "random", lambda: 1.0)
    monkeypatch.setattr(pipeline.random, "randint", lambda low, high: pipeline.PAD)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.ones(shape))
    monkeypatch.setattr(torch, "randint", lambda low, high, shape: torch.full(shape, pipeline.PAD))
    usual, lean = pipeline.Usual(image_set)[1], pipeline.Lean(image_set)[1]
    plain, _ = next(iter(Batches(image_set, 3, shuffle=False)))
    torch.testing.assert_close(usual[0], plain[1])
    torch.testing.assert_close(lean[0], plain[1])
    assert usual[1] == lean[1] == image_set.labels[1]


@pytest.mark.slow
def test_data_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    pipeline, out = __import__("data_pipeline"), tmp_path / "data_pipeline"
    monkeypatch.setattr(pipeline, "OUT", out)
    options = ("--images", "256", "--repeats", "1", "--threads", "1")
    record = written(pipeline, out, monkeypatch, *options)
    assert set(record["loading"]["images_per_s"]) == set(pipeline.NAMES)
    assert out.with_suffix(".png").exists()


def test_allocations_are_counted_to_the_byte() -> None:
    memory = load("memory")
    kept = []

    def peaks_at_three() -> None:
        one = torch.ones(SMALL)
        two = one.clone()
        del one
        two.add_(two * 2.0)
        three = two.double()  # counts for two
        del three
        kept.append(torch.zeros(5, dtype=torch.float64))

    curve = memory.allocations(peaks_at_three)
    assert max(curve) == 3 * 4 * SMALL
    assert curve[-1] == 40
    assert memory.allocations(lambda: None) == [0]


def test_resident_memory_rises_by_what_is_written() -> None:
    memory = load("memory")
    rise = memory.resident(lambda: torch.ones(LARGE).sum())
    if rise is None:
        pytest.skip("the system does not tell")
    assert rise == pytest.approx(4 * LARGE, rel=0.05)


@pytest.mark.parametrize("order", ["", ", p = ∞"])
@pytest.mark.parametrize("kind", slow_but(["SAM", "ASAM"], "ASAM"))
def test_a_step_keeps_scratch_alone_and_needs_the_weights_once(kind: str, order: str) -> None:
    memory = load("memory")
    peaks = {}
    for name in ("gradients alone", kind + order, f"{kind}, published loop"):
        named = [("weight", torch.nn.Parameter(torch.randn(8 * SMALL)))]
        action, kept = memory.a_step(name, named)
        action()
        curve = memory.allocations(action)
        assert curve[-1] == 0 and kept() <= 2 * 4 * SMALL
        peaks[name] = (max(curve) + kept()) / (4 * 8 * SMALL)
    assert peaks["gradients alone"] == 1.0
    # Scratch is a few pieces, not copies of all parameters as in a plain loop.
    assert 2.0 <= peaks[kind + order] < 2.5
    assert peaks[f"{kind}, published loop"] >= 3.0


@pytest.mark.slow
def test_memory(tmp_path: Path) -> None:
    load("memory")
    out = tmp_path / "memory"
    command = [sys.executable, BENCHMARKS / "memory.py", "--sets", "toy", "--out", out]
    subprocess.run([*command, "--threads", "1"], check=True, capture_output=True)
    numbers = checked(out)["sets"]["toy"]
    # SAM's weight lies in its first gradient meanwhile; the others copy it, and a small one is all
    # one piece, whose scratch is as large.
    peak, kept = numbers["peak"], numbers["kept_bytes"]
    room = {"SAM": 0, "SAM, p = ∞": 1, "ASAM": 2, "ASAM, p = ∞": 2}  # in sizes of the parameter
    for name, size in room.items():
        for mode in ("", ", fused"):
            assert peak[name + mode] == pytest.approx(1.0 + size, abs=1e-3)
            assert kept[name + mode] == size * (4 << 16)
    assert not any(kept[name] for name in kept if "loop" in name or "pytorch" in name)
    assert out.with_suffix(".png").exists()


@pytest.mark.slow
@pytest.mark.distributed
def test_what_a_gpu_is_asked_for_runs_here(tmp_path: Path) -> None:
    """The very file, on the CPU and tiny: cut off at once, cut off in a step, and to its end."""
    command = [
        sys.executable,
        BENCHMARKS / "gpu.py",
        "--device",
        "cpu",
        "--tiny",
        "--out",
        tmp_path,
    ]

    def call(minutes: str) -> tuple[int, str]:
        done = subprocess.run([*command, "--minutes", minutes], capture_output=True, text=True)
        return done.returncode, done.stdout

    assert call("0") == (3, "gpu.py: time is up before epoch; the same command goes on.\n")
    code, said = call("0.02")
    assert code == 3 and "interrupted in epoch" in said
    code, said = call("4")
    assert code == 0, said
    assert said.endswith("gpu.py: all is done\n")
    for name in ("epoch", "step_cost", "ext_sgd"):
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert "CPU" in record.get("provenance", record)["device"]
    runs = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*.json")]
    assert len(runs) == 8 and all(run["torch"] == torch.__version__ for run in runs)
    assert call("4") == (0, "gpu.py: all is done\n")
    out = tmp_path / "ext_sgd.md"
    assert "SGD" in out.read_text() and "| seeds | 2 |" in out.read_text()


def test_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a symmetry leaves the outputs, what is none is seen; a network takes its own size."""
    architectures = __import__("architectures")

    def build(_: str) -> nn.Module:
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)
        network = nn.Sequential(*layers, nn.Flatten(1), nn.Linear(2 * 36 * 36, 2))
        network.default_cfg = {"input_size": (3, 40, 40)}
        return network

    monkeypatch.setattr(architectures, "build", build)
    rows = {"right": architectures.examine("right", draws=3)}
    monkeypatch.setattr(
        architectures, "find_scalings", lambda *given: find_scalings(*given).weights_only()
    )
    rows["wrong"] = architectures.examine("wrong", draws=3)
    rows["none"] = {"failed": "ValueError: why"}
    right = rows["right"]
    # Before the BatchNorm, behind it, and of the second convolution.
    assert right["side"] == 40 and right["scalings_units"] == 4 + 4 + 2
    assert right["permutations_units"] == 4 + 2
    assert right["deviation"] < 1e-13 and right["last_bit"] < 1e-13
    assert rows["wrong"]["deviation"] > 1e-3
    found = architectures.summary(rows)
    assert (found["architectures"], found["with_scalings"], found["within"]) == (2, 2, 1)
    assert list(found["beyond"]) == ["wrong"] and list(found["failed"]) == ["none"]
