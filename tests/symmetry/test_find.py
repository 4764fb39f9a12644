"""What is offered keeps the function, what cannot be proven is not offered, and it says why."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from foreign_networks import NETWORKS, ResNet, build
from torch import Tensor, nn

from flatmin.models import ReportCNN, ReportMLP, WideResNet
from flatmin.symmetry import (
    Scalings,
    find_flips,
    find_permutations,
    find_scalings,
    verify,
)
from flatmin.symmetry.groups import Symmetries
from flatmin.symmetry.laws import Pointwise
from flatmin.symmetry.solution import RULES
from slowly import slow_but

FINDERS = {"scale": find_scalings, "permute": find_permutations, "flip": find_flips}


def strong(symmetries: Symmetries, generator: torch.Generator) -> list[Tensor]:
    """Elements far from the identity."""
    if isinstance(symmetries, Scalings):
        return list(symmetries.sample(generator, 0.2, 5.0))
    return [
        -torch.ones(g.size) if s.dtype.is_floating_point else torch.arange(g.size).roll(1)
        for g, s in zip(symmetries.groups, symmetries.sample(generator), strict=True)
    ]


WITH_MODES = ["functional", "resnet", "squeeze-excite", "nested"]  # dropout, BatchNorm


@pytest.mark.parametrize("kind", FINDERS)
@pytest.mark.parametrize(
    ("name", "train"),
    slow_but(
        [(n, False) for n in NETWORKS] + [(n, True) for n in WITH_MODES],
        *[(n, False) for n in ("functional", "residual mlp", "raw parameters", "sequence", "tanh")],
        ("functional", True),
    ),
)
def test_each_group_alone_keeps_the_function(
    name: str, kind: str, train: bool, generator: torch.Generator
) -> None:
    model, x = build(name)
    model.train(train)
    found = FINDERS[kind](model, x)
    if not train:
        assert len(found.groups) == NETWORKS[name][2][list(FINDERS).index(kind)], str(found)
    for group in found.groups:
        alone = replace(found, groups=(group,))
        elements = strong(alone, generator)
        result = verify(model, alone, elements, x)
        assert result.deviation <= 1e-13, (group, result.deviation)
        # The negative: moving the producers without their readers changes the outputs.
        for sign in (1, -1):
            slots = tuple(s for s in group.slots if s.power * sign > 0)
            if 0 < len(slots) < len(group.slots):
                half = replace(found, groups=(replace(group, slots=slots),))
                assert verify(model, half, elements, x).deviation > 1e-4, (group, slots)


@pytest.mark.slow
def test_finding_leaves_the_model_alone() -> None:
    model = ResNet().train()
    before = copy.deepcopy(model.state_dict())
    attributes, random = set(vars(model)), torch.get_rng_state()
    objects = [id(p) for p in model.parameters()]
    find_scalings(model, torch.randn(4, 3, 32, 32, generator=torch.Generator()))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert set(vars(model)) == attributes
    assert [id(p) for p in model.parameters()] == objects
    assert all(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_the_networks_of_the_report() -> None:
    mlp = find_scalings(ReportMLP(), torch.zeros(1, 2))
    # The first layer has no activation behind it: 4 × 10 units, as the report scales.
    assert [g.size for g in mlp.groups] == [10, 10, 10, 10]
    assert [stop.layer for stop in mlp.stopped] == ["output"]
    cnn = find_scalings(ReportCNN(), torch.zeros(1, 3, 32, 32))
    assert [g.size for g in cnn.groups] == [6, 16, 120, 84]
    wide = find_scalings(WideResNet(10, 1).eval(), torch.zeros(1, 3, 16, 16))
    # Three residual streams, three convolutions inside blocks, seven normalizations.
    assert len(wide.groups) == 13
    assert [stop.producers for stop in wide.stopped] == [("classifier",)]


def test_a_residual_stream_is_one_group() -> None:
    model, x = build("residual mlp")
    stream = find_scalings(model, x).groups[0]
    assert stream.producers == ("stem", "down.0", "down.1", "down.2")
    assert stream.consumers == ("up.0", "up.1", "up.2", "head")


def test_print_shows_groups_and_stops() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    assert str(find_scalings(model, torch.zeros(1, 2))) == (
        "Scalings: 1 group\n"
        "  0: 3 units of 0, read by 2\n"
        "stopped: 2\n"
        "  2: GELU does not commute with positive scaling (3)\n"
        "  4: these units are outputs of the model (output)"
    )


class Branch(nn.Module):
    """A hidden layer whose units go through ``middle`` before they are read."""

    def __init__(self, middle: Callable[..., Any], outputs: int = 4, hidden: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, hidden), nn.Linear(outputs, 2)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class SquareWhenLarge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square() if x.norm() > 1 else x


UNPROVEN: dict[str, Callable[..., Any]] = {
    "softmax": lambda h: torch.softmax(h, -1),
    "layer norm": nn.LayerNorm(4, elementwise_affine=False),
    "sigmoid": nn.Sigmoid(),
    "constant added": lambda h: h + 1.0,
    "tensor added": lambda h: h + torch.ones(4),
    "rounded quotient": lambda h: torch.div(h, 0.1, rounding_mode="floor"),
    "clamped": lambda h: h.clamp(-1, 1),
    "bits": lambda h: h.view(torch.int32).view(torch.float32),
    "whole numbers": lambda h: h.long().float(),
    "one-hot": lambda h: F.one_hot(h.argmax(-1), 4) * h.exp(),
    "looked up by the inputs": lambda h: h.gather(1, h.argsort(1).roll(1, 1)) + h.exp(),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_what_is_not_proven_is_not_offered(name: str) -> None:
    model = Branch(UNPROVEN[name])
    found = find_scalings(model, torch.randn(5, 3))
    assert found.groups == (), str(found)
    assert any("first" in stop.producers for stop in found.stopped)


# What is done with four units, and how many factors it leaves.
PROVEN: dict[str, tuple[Callable[..., Any], int]] = {
    "cut and joined": (lambda h: torch.cat([h[:, 2:], h[:, :2]], 1), 4),
    "product with itself": (lambda h: h * h.relu(), 4),
    "power": (lambda h: h**2, 4),
    "quotient": (lambda h: 1.0 / h, 4),
    "unit norm": (lambda h: h / h.norm(dim=-1, keepdim=True), 1),
    "mean of the values": (lambda h: h * h.mean(), 1),
    "sorted": (lambda h: h.sort(-1).values, 1),
    "mean over units": (lambda h: h.mean(-1, keepdim=True).expand(-1, 4), 1),
    "maximum over units": (lambda h: h.amax(-1, keepdim=True) + torch.zeros(4), 1),
    "pooled over units": (lambda h: F.avg_pool1d(h[:, None], 1)[:, 0], 1),
    "larger of two": (lambda h: torch.max(h, h.roll(1, -1)), 1),
    "two halves added": (lambda h: (h[:, :2] + h[:, 2:]).repeat(1, 2), 2),
}


@pytest.mark.parametrize("name", PROVEN)
def test_units_that_are_tied_share_a_factor(name: str) -> None:
    middle, count = PROVEN[name]
    model, x = Branch(middle).double(), torch.randn(5, 3).double()
    found = find_scalings(model, x)
    assert sum(group.size for group in found.groups) == count, str(found)
    elements = strong(found, torch.Generator().manual_seed(0))
    assert verify(model, found, elements, x).deviation <= 1e-13


def test_an_operation_whose_rule_fails_stops_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> None:
        raise KeyError("an argument that nobody has thought of")

    model, x = Branch(nn.ReLU()), torch.randn(5, 3)
    assert len(find_scalings(model, x).groups) == 1
    monkeypatch.setitem(RULES, Pointwise, failing)
    found = find_scalings(model, x)
    assert found.groups == () and "no rule for ReLU (relu) used this way" in str(found)


def test_a_module_used_twice_has_one_factor() -> None:
    class Twice(nn.Module):
        def __init__(self, bias: bool) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=bias), nn.Linear(4, 4)
            self.c = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(F.relu(self.b(F.relu(self.a(F.relu(self.a(x)))))))

    x = torch.randn(3, 4)
    # A bias would need τ in the first use and τ² in the second: only the units of b are free.
    assert [g.producers for g in find_scalings(Twice(bias=True), x).groups] == [("b",)]
    both = find_scalings(Twice(bias=False), x)
    assert [(g.producers, g.size) for g in both.groups] == [(("a",), 1), (("b",), 4)]
    assert {slot.name: slot.power for slot in both.groups[0].slots} == {
        "a.weight": 1,
        "b.weight": -2,
    }


def test_tied_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(3, 4)
    assert len(find_scalings(model, x).groups) == 2
    weight = model[0].weight
    # Two Parameters over one memory are two uses that only memory ties: refused.
    model[2].weight = nn.Parameter(weight.data)
    apart = find_scalings(model, x)
    assert apart.groups == ()
    assert "shares its memory with another (tied weights)" in str(apart)
    # One Parameter in two layers is one factor, squared behind the second.
    model[2].weight = weight
    (group,) = find_scalings(model, x).groups
    assert group.size == 1
    powers = {slot.name: slot.power for slot in group.slots}
    assert powers == {"0.weight": 1, "0.bias": 1, "2.bias": 2, "4.weight": -2}


@pytest.mark.slow
def test_changed_layers_are_read_for_what_they_do() -> None:
    def plain() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))

    x = torch.randn(3, 4)
    assert len(find_scalings(plain(), x).groups) == 1
    for layer in (0, 1):
        hooked = plain()
        hooked[layer].register_forward_hook(lambda module, inputs, output: output.exp())
        assert len(find_scalings(hooked, x).groups) == 0
        replaced = plain()
        replaced[layer].forward = lambda x: x.exp()  # type: ignore[method-assign]
        assert find_scalings(replaced, x).groups == ()
        squared = plain()
        squared[layer].register_forward_hook(lambda module, inputs, output: output.square())
        (group,) = find_scalings(squared, x).groups
        assert [slot.power for slot in group.slots] == [1, 1, -2]
    root = plain()
    root.register_forward_pre_hook(lambda module, inputs: (inputs[0].exp(),))
    assert len(find_scalings(root, x).groups) == 1
    normed = plain()
    nn.utils.parametrizations.weight_norm(normed[0])
    # Rows of the size and of the direction, one factor each.
    assert [group.size for group in find_scalings(normed, x).groups] == [4, 4]


def test_subclasses_are_read_for_what_they_compute() -> None:
    class Quiet(nn.Linear):
        """The same computation."""

    class Standardized(nn.Conv2d):
        """A computed weight."""

        def forward(self, input: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(input, weight, self.bias, self.stride, self.padding)

    same = nn.Sequential(Quiet(4, 4), nn.ReLU(), Quiet(4, 2))
    assert len(find_scalings(same, torch.randn(3, 4)).groups) == 1
    net = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(), Standardized(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 1)
    )
    # A mean over the columns ties what they read.
    assert [g.size for g in find_scalings(net, torch.randn(1, 1, 4, 4)).groups] == [1, 3]


def test_what_cannot_be_traced_is_one_clear_error_with_a_way_out() -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), SquareWhenLarge(), nn.Linear(4, 2)
    )
    x = torch.randn(5, 3)
    with pytest.raises(
        ValueError,
        match=r"cannot trace Sequential \(line \d+, in SquareWhenLarge.forward\).*opaque",
    ):
        find_scalings(model, x)
    found = find_scalings(model, x, opaque=["3"])
    assert [g.producers for g in found.groups] == [("0",)]
    assert "no rule for SquareWhenLarge" in str(found)
    with pytest.raises(ValueError, match=r"opaque names \['nine'\]"):
        find_scalings(model, x, opaque=["nine"])
    with pytest.raises(ValueError, match=r"does not run on the example.*\(5, 9\)"):
        find_scalings(model, torch.randn(5, 9), opaque=["3"])


@pytest.mark.slow
def test_batch_norm_in_train_mode_needs_a_vanishing_eps() -> None:
    def net(eps: float) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, eps=eps), nn.ReLU(), nn.Conv2d(3, 1, 3)
        )

    x = torch.randn(4, 1, 8, 8)
    assert [g.producers for g in find_scalings(net(1e-5), x).groups] == [("1",)]
    assert "eps=1e-05 makes a scaling inexact" in str(find_scalings(net(1e-5), x))
    labelled = find_scalings(net(1e-5).eval(), x).groups[0]
    assert (labelled.producers, labelled.note) == (("0",), "eval mode only: eps=1e-05")
    assert [g.note for g in find_scalings(net(1e-38), x).groups] == ["", ""]
    # Without running statistics those of the batch are used in either mode.
    bare = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    assert find_scalings(bare, torch.randn(4, 2)).groups == ()


def test_dropout_in_training_refuses_permutations_only() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    assert len(find_scalings(model, x).groups) == 1
    assert len(find_permutations(model, x).groups) == 0
    assert len(find_permutations(model.eval(), x).groups) == 1


def test_a_clip_is_odd_only_if_its_bounds_are_opposite() -> None:
    def net(low: float) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.Hardtanh(low, 1.0), nn.Linear(4, 2))

    assert len(find_flips(net(-1.0), torch.randn(5, 3)).groups) == 1
    assert len(find_flips(net(-0.5), torch.randn(5, 3)).groups) == 0
