"""Rounded weights: by hand, torch's own quantization, the limit of many bits, what it follows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import Counting, trained
from torch import Tensor, nn

from flatmin import EmpiricalLoss, FunctionObjective
from flatmin.sharpness import rounding_rise


def by_torch(weight: Tensor, bits: int) -> Tensor:
    """Of torch's kernel for quantization-aware training."""
    if weight.ndim < 2:
        return weight
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().flatten(1).amax(1) / top
    zero = torch.zeros(len(weight), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -top, top)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_equal_to_the_kernel_of_torch(bits: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    data = (torch.randn(8, 1, 4, 4), torch.randint(3, (8,)))
    loss = EmpiricalLoss(model, F.cross_entropy, [data])
    w = loss.params
    expected = loss.value({name: by_torch(t, bits) for name, t in w.items()}).item()
    found = rounding_rise(loss, w, bits=bits)
    assert found.worst_loss == pytest.approx(expected, rel=1e-6)  # float32, w / s rounded or not
    assert found.value == pytest.approx(expected - loss.value(w).item(), abs=1e-6)


def test_by_hand() -> None:
    """Rows of their own step; halves go to the even neighbor; vectors stay."""
    seen: list[dict[str, Tensor]] = []

    def total(w: dict[str, Tensor]) -> Tensor:
        seen.append({name: t.detach() for name, t in w.items()})
        return w["a"].sum() + w["b"].sum()

    w = {
        "a": torch.tensor([[7.0, 1.4, -1.6], [0.875, 0.0625, 0.1875], [0.0, 0.0, 0.0]]).double(),
        "b": torch.tensor([0.123, 7.0]).double(),
    }
    found = rounding_rise(FunctionObjective(total), w, bits=4)
    expected = torch.tensor([[7.0, 1.0, -2.0], [0.875, 0.0, 0.25], [0.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(seen[1]["a"], expected, atol=1e-15, rtol=0)
    assert torch.equal(seen[1]["b"], w["b"])
    assert found.value == pytest.approx(-0.8, abs=1e-7)  # 1.4 and 1.6 in float32
    assert found.warnings == ()


def test_many_bits_are_the_network_itself_and_fewer_cost_more() -> None:
    net = trained(0)
    rises = [rounding_rise(net.loss, net.loss.params, bits=bits).value for bits in (2, 4, 8, 20)]
    assert rises[0] > rises[1] > abs(rises[2]) > abs(rises[3])
    assert abs(rises[3]) < 1e-5


def test_what_it_follows() -> None:
    """A common factor of a row moves with it, one of a column does not."""
    torch.manual_seed(0)
    x = torch.randn(8, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    loss = EmpiricalLoss(model, F.cross_entropy, [(x, torch.arange(8) % 3)])
    w = loss.params
    tau = torch.tensor([1.0, 2.0, 0.25, 8.0, 0.5], dtype=torch.float64)
    rows = {**w, "0.weight": w["0.weight"] * tau[:, None], "0.bias": w["0.bias"] * tau}
    same = {**rows, "2.weight": w["2.weight"] / tau}
    assert loss.value(same).item() == loss.value(w).item()
    assert rounding_rise(loss, same).value != pytest.approx(rounding_rise(loss, w).value, rel=0.01)
    uniform = {**w, "0.weight": w["0.weight"] * 4, "0.bias": w["0.bias"] * 4}
    uniform["2.weight"] = w["2.weight"] / 4
    assert rounding_rise(loss, uniform).value == rounding_rise(loss, w).value


def test_cost_and_what_is_told() -> None:
    net = trained(0)
    counting = Counting(net.loss)
    found = rounding_rise(counting, net.loss.params)
    assert (
        (counting.forwards, counting.gradients, counting.hvps)
        == (found.forwards, 0, 0)
        == (2, 0, 0)
    )
    biases = {n: t for n, t in net.loss.params.items() if n.endswith("bias")}
    flat = rounding_rise(net.loss, biases)
    assert flat.value == 0.0 and "nothing was rounded" in flat.warnings[0]
    for bits in (1, 25, 4.0, True):
        with pytest.raises(ValueError, match="bits must be a whole number from 2 to 24"):
            rounding_rise(net.loss, net.loss.params, bits=bits)  # type: ignore[arg-type]
