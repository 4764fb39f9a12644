"""Copies of what a forward may write: few operations, and the same numbers back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flatmin.models import WideResNet
from flatmin.optim._copies import Copies
from flatmin.optim._state import State


def tensors() -> list[Tensor]:
    """Of every kind that a buffer may be."""
    with torch.inference_mode():
        inference = torch.ones(3)
    return [
        torch.randn(3),
        torch.tensor(5),  # alone of its kind
        torch.randn(2, 3),
        torch.randn(()),
        torch.zeros(0),
        torch.randn(4, 5).t(),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.zeros(1, 3).expand(2, 3),
        torch.randn(3).to_sparse(),
        torch.tensor([True, False]),
        torch.randn(3, dtype=torch.complex64),
        torch.randn(3).bfloat16(),
        torch.ones(3).to(torch.float8_e4m3fn),
        inference,
    ]


def test_everything_holds_again_what_it_held() -> None:
    kept = tensors()
    before = [t.clone() for t in kept]
    places = [0 if t.is_sparse else t.data_ptr() for t in kept]
    copies = Copies(kept)
    for t in kept:
        if t.dtype is torch.bool:
            t.logical_not_()
        elif t.dtype is torch.float8_e4m3fn:
            t.zero_()
        elif t.layout is torch.strided and 0 not in t.stride():
            with torch.inference_mode(t.is_inference()):
                t.add_(1)
    assert not torch.equal(kept[1], before[1])  # which is no view of what it was copied from
    copies.put_back()
    for t, old in zip(kept, before, strict=True):
        if t.dtype is torch.float8_e4m3fn:
            t, old = t.float(), old.float()
        assert torch.equal(t.to_dense(), old.to_dense())
    assert places == [0 if t.is_sparse else t.data_ptr() for t in kept]


def test_one_that_has_another_shape_gets_memory_of_its_own() -> None:
    one, other = torch.randn(3), torch.randn(4)
    before = one.clone(), other.clone()
    copies = Copies([one, other])
    one.data = torch.zeros(7)
    other.zero_()
    copies.put_back()
    assert torch.equal(one, before[0]) and torch.equal(other, before[1])
    assert one.untyped_storage().nbytes() == 4 * 3


def test_put_back_twice_is_put_back_once() -> None:
    kept = torch.randn(3)
    before = kept.clone()
    copies = Copies([kept])
    for _ in range(2):
        kept.add_(1.0)
        copies.put_back()
        assert torch.equal(kept, before)


@pytest.mark.parametrize("depth", [10, 28])
def test_the_operations_do_not_grow_with_the_depth(depth: int) -> None:
    """A copy and a way back for each kind of buffer: numbers, and counts of batches."""
    model = WideResNet(depth, 1)
    with torch.profiler.profile() as seen:
        state = State(model)
        state.put_back()
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts["aten::cat"] == 2
    assert counts["aten::_foreach_copy_"] == 2
    assert "aten::clone" not in counts


def test_modules_that_are_used_twice_are_seen_once() -> None:
    norm = nn.BatchNorm1d(3)
    state = State(nn.Sequential(norm, nn.Sequential(norm, norm)))
    (kind, *_), _ = state._copies._kinds, None
    assert len(kind[0]) == 2  # mean and variance
