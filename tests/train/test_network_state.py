"""Whatever a network keeps comes back when a run is resumed, or is refused before it begins."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import DATA, config, same_weights, small
from torch import Tensor, nn

from flatmin.train import CheckpointError, Diverged, train
from slowly import slow_but


class Keeping(nn.Module):
    """A network that counts its passes in some place, and whose outputs depend on the count."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.inner, self.place, self.count = small(), place, 0
        if place in ("transient", "expanded"):
            self.register_buffer("seen", torch.zeros(1), persistent=False)
        if place == "expanded":
            self.seen = torch.zeros(1).expand(3)
        if place in ("none at first", "transient, none at first"):
            self.register_buffer("seen", None, persistent=place == "none at first")
        if place == "growing":
            self.register_buffer("seen", torch.zeros(0))

    def forward(self, images: Tensor) -> Tensor:
        if self.place in ("dict", "tensor"):
            self.count += self.training
            seen = torch.tensor(float(self.count))
        elif self.place == "python":
            seen = torch.tensor(10 * random.random())
        elif self.place == "numpy":
            seen = torch.tensor(float(np.random.normal(5.0)))  # noqa: NPY002
        else:
            before = self.seen
            if self.training and self.place == "transient":
                self.seen += 1
            elif self.training and self.place == "growing":
                self.seen = torch.cat([before, torch.ones(1)])
            elif self.training:
                self.seen = torch.ones(1) if before is None else before + 1
            seen = self.seen.sum() if self.seen is not None else torch.zeros(())
        return self.inner(images) * (1 + 0.01 * seen.to(images.dtype))

    def get_extra_state(self) -> Any:
        nested = {"count": self.count, "list": [self.count, None], "pair": (torch.ones(2), "a")}
        return torch.tensor(self.count) if self.place == "tensor" else nested

    def set_extra_state(self, state: Any) -> None:
        self.count = int(state) if self.place == "tensor" else state["count"]
        if self.place != "tensor":
            assert state["list"] == [self.count, None]
            assert torch.equal(state["pair"][0], torch.ones(2))


PLACES = ["dict", "tensor", "python", "numpy", "transient", "expanded"]
PLACES += ["none at first", "transient, none at first", "growing"]


@pytest.mark.parametrize("place", slow_but(PLACES, "dict", "numpy", "growing"))
@pytest.mark.parametrize("step", slow_but([4, 6], 4))
def test_resumed_equals_uninterrupted(tmp_path: Path, place: str, step: int) -> None:
    whole = train(config(), DATA, model=Keeping(place))

    class Stop(Exception):
        pass

    def stop(count: int) -> None:
        if count == step + 1:
            raise Stop

    broken = Keeping(place)
    calls = [0]
    broken.inner.register_forward_pre_hook(
        lambda module, inputs: (calls.__setitem__(0, calls[0] + module.training), stop(calls[0]))[0]
    )
    with pytest.raises(Stop):
        train(config(), DATA, model=broken, out=tmp_path, save_every=2)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    rest = train(config(), DATA, model=Keeping(place), out=tmp_path, save_every=2, resume=True)
    pairs = zip(whole.model.parameters(), rest.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert whole.history[-1].test_loss == rest.history[-1].test_loss
    assert whole.model.count == rest.model.count


@pytest.mark.parametrize("source", [random.random, np.random.rand])
def test_randomness_of_python_and_numpy_is_seeded_inside_and_put_back(source: Any) -> None:
    place = "python" if source is random.random else "numpy"
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    expected = source()
    ends = []
    for seed in (7, 8):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        ends.append(train(config(epochs=1), DATA, model=Keeping(place)))
        if seed == 7:
            assert source() == expected
    assert same_weights(ends[0].model.inner, ends[1].model.inner)


class Odd(nn.Module):
    """Gives what no checkpoint holds, or nothing to take it back."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.inner, self.given = small(), given

    def forward(self, images: Tensor) -> Tensor:
        pytest.fail("trained")
        return self.inner(images)

    def get_extra_state(self) -> Any:
        return self.given


class Restored(Odd):
    """The same with both methods."""

    def set_extra_state(self, state: Any) -> None:
        self.given = state


@pytest.mark.parametrize("given", [np.float64(1.0), {"a": [object()]}, Path("x"), {1: np.ones(2)}])
def test_state_that_no_checkpoint_holds_is_refused_before_training(
    tmp_path: Path, given: Any
) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds a \w+ in state.network._extra_state"
    ) as caught:
        train(config(), DATA, model=Restored(given), out=tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_extra_state_that_cannot_be_put_back_is_refused() -> None:
    with pytest.raises(ValueError, match=r"get_extra_state and no set_extra_state"):
        train(config(), DATA, model=Odd({"n": 1}))


class Masked(nn.Module):
    """A mask of minus infinities, as attention has one."""

    def __init__(self, *, break_it: bool = False) -> None:
        super().__init__()
        self.inner, self.break_it = small(), break_it
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        if self.break_it:
            self.mean.fill_(float("nan"))
        return self.inner(images) * self.mask.exp()[0]


def test_mask_of_infinities_is_no_divergence(tmp_path: Path) -> None:
    train(config(epochs=1), DATA, model=Masked(), out=tmp_path)
    with pytest.raises(Diverged, match=r"weights \(mean\)"):
        train(config(epochs=1), DATA, model=Masked(break_it=True))


def test_parameter_that_changed_its_shape_is_one_sentence(tmp_path: Path) -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scale = small(), nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            if self.training:
                self.scale.data = torch.ones(len(self.scale) + 1)
                self.scale.grad = None
            return self.inner(images)

    train(config(epochs=1), DATA, model=Growing(), out=tmp_path)
    with pytest.raises(ValueError, match="cannot be put back into this network") as caught:
        train(config(epochs=1), DATA, model=Growing(), out=tmp_path, resume=True)
    assert "\n" not in str(caught.value)
