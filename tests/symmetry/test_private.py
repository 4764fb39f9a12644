"""Copies of networks as torch's own tools leave them, and what may not be copied."""

import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from foreign_networks import tanh_mlp
from torch import Tensor, nn
from torch.nn.utils import prune

from flatmin.symmetry import (
    canonicalize,
    certify,
    find_flips,
    find_permutations,
    find_scalings,
    rescale,
    verify,
)
from flatmin.symmetry.private import load, private_copy
from slowly import slow_but


def net() -> nn.Module:
    """Four layers, of which the first two are changed below."""
    return nn.Sequential(
        *(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU()),
        *(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2)),
    ).double()


def pruned(model: nn.Module) -> nn.Module:
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.random_structured(model[2], "weight", 0.5, dim=0)
    return model


def old_weight_norm(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model[0])
    return model


def old_spectral_norm(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.spectral_norm(model[0])
    return model


def new_weight_norm(model: nn.Module) -> nn.Module:
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def cached(model: nn.Module) -> nn.Module:
    model.cache = {"last": [model[0].weight * 2]}
    return model


TOOLS = [pruned, old_weight_norm, old_spectral_norm, new_weight_norm, cached]


@pytest.mark.parametrize("tool", slow_but(TOOLS, pruned, cached))
@pytest.mark.parametrize("find", [find_scalings, find_permutations, find_flips])
def test_what_is_found_on_changed_networks_keeps_the_function(
    tool: Callable[[nn.Module], nn.Module], find: Any
) -> None:
    x = torch.randn(6, 4).double()
    model = tool(net())
    model(x)  # leaves computed weights behind
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = find(model, x)
    assert found.groups or find is find_flips
    assert verify(model, found, found.sample(), x).deviation <= 1e-12
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("tool", slow_but(TOOLS, cached))
def test_rescaled_balanced_and_certified(tool: Callable[[nn.Module], nn.Module]) -> None:
    x = torch.randn(6, 4).double()
    model = tool(net())
    expected = model(x).detach()
    model.eval()
    found = find_scalings(model, x)
    assert found.groups
    result = certify(lambda twin: twin(x).square().mean().item(), model, x, num_scalings=3)
    assert result.unchanged
    assert result.values[0] == pytest.approx(expected.square().mean().item(), rel=1e-12)
    rescale(model, found, found.sample())
    canonicalize(model, found)
    torch.testing.assert_close(model(x).detach(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("tool", [pruned, old_weight_norm])
def test_computed_weight_of_a_copy_follows_its_parameters(
    tool: Callable[[nn.Module], nn.Module],
) -> None:
    model = tool(net())
    twin = private_copy(model)
    name = "0.weight_orig" if tool is pruned else "0.weight_g"
    load(twin, {name: 3 * dict(model.named_parameters())[name].detach()})
    torch.testing.assert_close(twin[0].weight, 3 * model[0].weight, rtol=1e-14, atol=0)
    (gradient,) = torch.autograd.grad(twin[0].weight.sum(), dict(twin.named_parameters())[name])
    assert gradient.abs().sum() > 0


@pytest.mark.slow
def test_old_weight_norm_keeps_the_attribute_that_its_user_sees() -> None:
    model, x = old_weight_norm(net()), torch.randn(6, 4).double()
    before = model[0].weight
    found = find_scalings(model, x)
    verify(model, found, found.sample(), x)
    certify(lambda twin: 1.0, model, x, num_scalings=2)
    assert model[0].weight is before


def test_shared_memory_and_objects_stay_shared_in_a_copy() -> None:
    model = cached(net())
    model.table = torch.arange(4.0)
    model.row = model.table[1:3]
    model.also = [model[0].weight]
    twin = private_copy(model)
    twin.table.zero_()
    assert twin.row.tolist() == [0, 0]
    assert model.row.tolist() == [1, 2]
    assert twin.also[0] is twin[0].weight
    assert twin.also[0] is not model[0].weight


def test_what_cannot_be_copied_is_one_sentence() -> None:
    model = net()
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"Sequential cannot be copied .*lock.* take from it"):
        find_scalings(model, torch.randn(6, 4).double())


class Encoder(nn.Module):
    """A layer that is left untraced, and a head that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, batch_first=True)
        self.hidden, self.head = nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.encoder(self.embed(x)).mean(1))))


def test_certificate_says_what_took_part() -> None:
    model, x = Encoder().double().eval(), torch.randn(7, 5, 6).double()
    found = find_scalings(model, x, opaque=["encoder"])
    result = certify(
        lambda twin: twin(x).square().mean().item(), model, x, scalings=found, num_scalings=3
    )
    moved = sum(p.numel() for p in (*model.hidden.parameters(), model.head.weight))
    whole = sum(p.numel() for p in model.parameters()) - 3  # the bias of the outputs
    assert result.coverage == pytest.approx(moved / whole, rel=1e-12)
    names = {name for name, _ in model.named_parameters()}
    assert set(result.untouched) == {n for n in names if n.startswith(("embed", "encoder"))}
    assert result.unchanged and not result.invariant
    assert result.verdict.startswith(
        "unchanged under the 4 units that may be rescaled here: spread"
    )
    assert "only 4.92 % of the parameters took part" in result.verdict
    assert result.sees_untouched
    assert "embed.weight" in str(result)
    changing = certify(
        lambda twin: twin.hidden.weight.norm(), model, x, scalings=found, num_scalings=3
    )
    assert changing.verdict.startswith("NOT invariant")


@pytest.mark.parametrize(("find", "whole"), [(find_permutations, True), (find_scalings, False)])
def test_bias_of_the_outputs_is_what_nothing_could_move(find: Any, whole: bool) -> None:
    model, x = tanh_mlp().double(), torch.randn(6, 4).double()
    result = certify(
        lambda twin: twin(x).square().mean(), model, x, scalings=find(model, x), num_scalings=1
    )
    assert (result.coverage == 1.0) == whole == (result.untouched == ()) == result.invariant
    assert "6.bias" not in result.untouched


@pytest.fixture(params=["meta", torch.float64, torch.float16])
def other_default(request: Any) -> Iterator[None]:
    """Another default device, or type, as a script may set it at its top."""
    is_device = isinstance(request.param, str)
    (torch.set_default_device if is_device else torch.set_default_dtype)(request.param)
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def findings() -> list[Any]:
    """What is found, drawn and certified on networks with BatchNorm and without."""
    with torch.device("cpu"):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        model = nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3), nn.Linear(3, 2)
        ).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=generator)
    model.eval()
    result: list[Any] = []
    for find in (find_scalings, find_permutations, find_flips):
        found = find(model, x)
        drawn = found.sample(torch.Generator("cpu").manual_seed(1))
        result += [str(found), [each.tolist() for each in drawn]]
        assert all(each.device.type == "cpu" for each in found.sample())
        certificate = certify(
            lambda net: net[0].weight.norm().item(), model, x, scalings=found, num_scalings=2
        )
        result.append(certificate)
    result.append([f.tolist() for f in canonicalize(model, find_scalings(model, x)).factors])
    return result


@pytest.fixture(scope="module")
def usual() -> list[Any]:
    """The same where nobody set a default."""
    return findings()


@pytest.mark.slow
def test_defaults_of_the_caller_change_nothing(usual: list[Any], other_default: None) -> None:
    assert findings() == usual
