"""A forward may read its parameters in ways that no trace shows; nothing false is offered then."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatmin.symmetry import (
    Group,
    Scalings,
    Stop,
    certify,
    find_flips,
    find_permutations,
    find_scalings,
    verify,
)
from flatmin.symmetry.confirm import confirmed
from flatmin.symmetry.slots import Slot


class Net(nn.Module):
    """Two layers, and a second output that is made from their parameters."""

    def __init__(self, read: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.read = nn.Linear(5, 6), nn.Linear(6, 2), read
        self.kept = [self.a.weight]

    def forward(self, x: Tensor) -> Any:
        h = F.relu(self.a(x))
        return self.b(h), self.read(self, x)


# Each way of reading a parameter (or what hangs on it) a second time.
READS: dict[str, Callable[[Any, Tensor], Any]] = {
    "all parameters": lambda net, x: sum(p.square().sum() for p in net.parameters()),
    "by name": lambda net, x: dict(net.named_parameters())["a.weight"].abs().sum(),
    "state dict": lambda net, x: net.state_dict()["a.weight"].abs().sum(),
    "private table": lambda net, x: net.a._parameters["weight"].abs().sum(),
    "attribute": lambda net, x: net.a.weight.abs().sum(),
    "transposed view": lambda net, x: x @ net.a.weight.T,
    "detached": lambda net, x: next(net.a.parameters()).detach().abs().sum(),
    "in a list": lambda net, x: F.linear(x, net.kept[0]),
    "in a list, transposed": lambda net, x: x @ net.kept[0].T,
    "item": lambda net, x: x.sum() * next(net.a.parameters()).abs().sum().item(),
    "vector": lambda net, x: nn.utils.parameters_to_vector(net.a.parameters()).norm(),
    "largest": lambda net, x: [{"norm": max(p.abs().max() for p in net.a.parameters())}],
}


@pytest.mark.parametrize("name", READS)
def test_parameters_that_are_read_twice_are_not_offered(name: str) -> None:
    x = torch.randn(4, 5)
    found = find_scalings(Net(READS[name]), x)
    assert found.groups == (), str(found)
    assert any("a" in stop.producers for stop in found.stopped)
    # The negative: without the second reading the same units are offered.
    assert [g.producers for g in find_scalings(Net(lambda net, x: x), x).groups] == [("a",)]


@pytest.mark.parametrize(
    "read",
    [
        lambda net, x: x.sum() * float(next(net.a.parameters()).detach().numpy().sum()),
        lambda net, x: float(next(net.a.parameters()).detach().abs().sum()),
        lambda net, x: net.a.weight.data.abs().sum() * x.sum(),
    ],
)
def test_parameters_that_leave_the_graph_are_one_clear_error(read: Any) -> None:
    with pytest.raises(ValueError, match=r"torch.export cannot trace Net.*opaque"):
        find_scalings(Net(read), torch.randn(4, 5))


def test_what_only_looks_at_shapes_reads_nothing() -> None:
    def shapes(net: Any, x: Tensor) -> Any:
        first = next(net.a.parameters())
        return x.new_zeros(first.shape).to(first.device, first.dtype) + first.size(0)

    found = find_scalings(Net(shapes), torch.randn(4, 5))
    assert [g.producers for g in found.groups] == [("a",)]


class Normed(nn.Module):
    """Statistics that another place reads too."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.n(self.a(x)))) * self.read(self.n)


@pytest.mark.parametrize(
    "read",
    [
        lambda n: 1 / n.running_var.mean().sqrt(),
        lambda n: n.running_mean.sum(),
        lambda n: dict(n.named_buffers())["running_var"].sum(),
        lambda n: n.running_var[0],
    ],
)
def test_buffers_that_are_read_elsewhere(read: Callable[[Any], Any]) -> None:
    x = torch.randn(8, 5)
    model = Normed(read)
    model.n.running_mean.normal_()
    found = find_scalings(model.eval(), x)
    assert [g.producers for g in found.groups] == [("n",)], str(found)
    assert any(stop.producers == ("a",) for stop in found.stopped)
    plain = find_scalings(Normed(lambda n: 1.0).eval(), x)
    assert [g.producers for g in plain.groups] == [("a",), ("n",)]


@pytest.mark.parametrize("apart", [True, False])
def test_parameters_that_overlap_are_not_offered(apart: bool) -> None:
    memory = torch.randn(60)
    model = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)
    ).double()
    shift = 16 if apart else 8
    for number, layer in enumerate((0, 2, 4)):
        part = memory[number * shift : number * shift + 16]
        model[layer].weight = nn.Parameter(part.view(4, 4))
        model[layer].float()
    found = find_scalings(model, torch.randn(3, 4))
    assert len(found.groups) == (2 if apart else 0), str(found)


def test_attribute_that_is_a_view_of_a_parameter() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert len(find_scalings(model, torch.randn(5, 3)).groups) == 1
    model.first_row = model[0].weight.data[0]
    assert find_scalings(model, torch.randn(5, 3)).groups == ()


def test_parameter_of_one_number_under_many_names() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].bias = nn.Parameter(torch.ones(1).expand(4))
    assert find_scalings(model, torch.randn(5, 3)).groups == ()


@dataclass
class Output:
    """Neither a tensor, nor a sequence, nor a mapping."""

    logits: Tensor
    extra: Any


class Spy(nn.Module):
    """Knows the network that it is in; untraced, as what branches on its data must be."""

    def __init__(self) -> None:
        super().__init__()
        self.nets: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.nets[0].a.weight.square().sum() if x.sum() < math.inf else x.sum()


class Hidden(nn.Module):
    """Reads a parameter where even the tracer sees nothing: in a module that it does not enter."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.wrap = nn.Linear(5, 6), nn.Linear(6, 2), wrap
        self.spy = Spy()
        self.spy.nets.append(self)

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.b(F.relu(self.a(x))), self.spy(x))


WRAPS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple": lambda y, z: (y, z),
    "small beside large": lambda y, z: (1e6 * y, 1e-3 * z),
    "nested": lambda y, z: {"out": [y, {"deep": (z,)}]},
    "object": lambda y, z: Output(y, {"z": z}),
    "complex": lambda y, z: (y, torch.complex(torch.zeros(()).to(z), z)),
}


@pytest.mark.parametrize("name", WRAPS)
def test_what_a_trace_cannot_show_is_found_by_trying(name: str) -> None:
    x = torch.randn(4, 5)
    found = find_scalings(Hidden(WRAPS[name]), x, opaque=["spy"])
    assert found.groups == (), str(found)
    (stop,) = (stop for stop in found.stopped if stop.layer == "forward")
    assert stop.producers == ("a",)
    assert "the outputs move by" in stop.reason
    honest = Hidden(lambda y, z: y)
    assert len(find_scalings(honest, x, opaque=["spy"]).groups) == 1


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)
    ).double()


@pytest.mark.parametrize("find", [find_permutations, find_flips])
def test_only_the_false_group_is_dropped(find: Any) -> None:
    model, x = chain(), torch.randn(6, 3).double()
    found = find(model, x)
    assert len(found.groups) == 2
    first = found.groups[0]
    broken = Group(first.size, first.slots[:1], first.producers, first.consumers)  # no bias
    claim = type(found)((broken, found.groups[1]), found.stopped)
    kept = confirmed(claim, model, x)
    assert kept.groups == (found.groups[1],)
    assert kept.stopped[-1].producers == ("0",)


def test_false_claim_shows_on_an_example_of_zeros_and_behind_a_head_of_zeros() -> None:
    """Zeros hide everything: the trial with noise is what finds this."""
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    units = torch.arange(4)
    slots = (
        Slot("0.weight", units[:, None], 1),
        Slot("0.bias", units, 1),
        Slot("2.weight", units[None], -1),
    )
    claim = Scalings((Group(4, slots, ("0",), ("2",)),), (Stop("x", "y", ("z",)),))
    assert confirmed(claim, model, torch.zeros(1, 3).double()).groups == ()
    model[1] = nn.ReLU()
    assert confirmed(claim, model, torch.zeros(1, 3).double()) == claim


class Stubborn(nn.Module):
    """Computes in one type, whatever it is given."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.a, self.b, self.kind = nn.Linear(5, 6), nn.Linear(6, 2), kind

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(F.linear(x.to(self.kind), self.a.weight, self.a.bias))
        return F.linear(h, self.b.weight, self.b.bias) @ torch.ones(2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("find", [find_scalings, find_permutations])
def test_true_claims_stay_where_the_forward_insists_on_single_precision(find: Any) -> None:
    found = find(Stubborn(torch.float32), torch.randn(4, 5))
    assert len(found.groups) == 1, str(found)


@pytest.mark.slow
def test_nan_in_one_row_and_masks_of_infinities_are_no_change() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            return self.b(F.relu(self.a(x))) + torch.tensor([0.0, -math.inf])

    x = torch.randn(4, 5)
    x[0, 0] = math.nan
    assert len(find_scalings(Masked(), x).groups) == 1


def test_finding_and_verifying_leave_in_place_forwards_and_counters_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 5, max_norm=0.5)
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.b(F.relu(self.a(self.table(x))))

    model, x = Counting(), torch.arange(7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = find_scalings(model, x)
    assert [g.producers for g in found.groups] == [("a",)]
    verify(model, found, found.sample(), x)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_function_that_has_closed_over_the_network_is_refused() -> None:
    """Its copy would be a mixture: the outputs of the original whatever is done to the copy."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inner = nn.Sequential.forward
    x = torch.randn(5, 3)
    found = find_scalings(model, x)
    assert len(found.groups) == 1
    model.forward = lambda x: inner(model, x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"keeps a function \(forward\) .* make it a method"):
        find_scalings(model, x)
    with pytest.raises(ValueError, match=r"keeps a function \(forward\) .* make it a method"):
        certify(lambda net: 1.0, model, x, scalings=found)
    harmless = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    seen: list[Any] = []
    harmless[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert len(find_scalings(harmless, x).groups) == 1


class Positions(nn.Module):
    """Adds one row of a table to each position, as many as there are."""

    def __init__(self, odd: bool) -> None:
        super().__init__()
        self.words, self.table = nn.Embedding(9, 4), nn.Parameter(torch.randn(12, 4))
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        self.odd = odd

    def forward(self, ids: Tensor) -> Tensor:
        words = self.words(ids)
        return self.layers((words.tanh() if self.odd else words) + self.table[: ids.shape[1]])


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("find", [find_scalings, find_flips])
def test_rows_that_the_example_does_not_read_follow_the_others(find: Any, odd: bool) -> None:
    """Else a longer input, which reads them, would give other outputs."""
    torch.manual_seed(0)
    model = Positions(odd).double()
    found = find(model, torch.randint(9, (2, 5)))
    follows = any(slot.name == "table" for group in found.groups for slot in group.slots)
    assert follows == (not odd or find is find_flips)
    for length in (5, 12):
        elements = found.sample(torch.Generator().manual_seed(0))
        other = torch.randint(9, (2, length))
        assert verify(model, found, elements, other).deviation <= 1e-12


class Highway(nn.Module):
    """Units meet themselves again: t·b(h) + (1 − t)·h."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.g = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(5, 4)
        self.c = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, t = self.a(x).relu(), self.g(x).sigmoid()
        return self.c(t * self.b(h) + (1 - t) * h)


def test_units_that_are_tied_twice_are_found_once() -> None:
    """Tying what is one already made a circle, and the search never came back."""
    torch.manual_seed(0)
    model, x = Highway().double(), torch.randn(3, 5, dtype=torch.float64)
    found = find_permutations(model, x)
    assert [group.size for group in found.groups] == [4]
    elements = found.sample(torch.Generator().manual_seed(0))
    assert verify(model, found, elements, x).deviation <= 1e-12
