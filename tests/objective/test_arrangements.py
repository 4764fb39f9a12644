"""Inputs and outputs of any arrangement, and batches whose shapes differ."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from flatmin import Ball, EmpiricalLoss, FunctionObjective
from flatmin.sharpness import m_sharpness, one_step_sharpness

Batches = list[tuple[Any, Tensor]]
BALL = Ball(0.1)


class Text(nn.Module):
    """A bag of words with options."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.double()

    def forward(
        self,
        ids: Any,
        mask: Tensor | None = None,
        twice: bool = False,
        factor: Tensor | None = None,
    ) -> Tensor:
        if isinstance(ids, dict | UserDict):
            ids = ids["ids"]
        ids = ids[0] if isinstance(ids, list | tuple) else ids
        codes = self.embed(ids)
        codes = codes if mask is None else codes * mask.unsqueeze(-1)
        out: Tensor = self.last(codes.mean(1)) * (2.0 if twice else 1.0)
        return out if factor is None else out * factor


def words(count: int, length: int) -> tuple[Tensor, Tensor]:
    """Sentences of one length, and their classes."""
    return torch.randint(20, (count, length)), torch.randint(3, (count,))


def by_hand(
    model: nn.Module, groups: list[list[tuple[dict[str, Any], Tensor]]]
) -> tuple[float, float]:
    """Mean loss, and m-sharpness over these groups, from functions written out."""
    w = {name: p.detach() for name, p in model.named_parameters()}

    def total(params: dict[str, Tensor], parts: list[tuple[dict[str, Any], Tensor]]) -> Tensor:
        return torch.stack(
            [
                F.cross_entropy(functional_call(model, params, (), kwargs), y, reduction="sum")
                for kwargs, y in parts
            ]
        ).sum()

    count = sum(len(y) for parts in groups for _, y in parts)
    rise = 0.0
    for parts in groups:
        size = sum(len(y) for _, y in parts)
        mean = FunctionObjective(lambda v, parts=parts, size=size: total(v, parts) / size)
        rise += size * one_step_sharpness(mean, w, BALL).value / count
    return sum(total(w, parts).item() for parts in groups) / count, rise


def found(model: nn.Module, batches: Batches, m: int, loss: Any = F.cross_entropy) -> Any:
    """The same from the package."""
    objective = EmpiricalLoss(model, loss, batches)
    value = objective.value(objective.params).item()
    return pytest.approx(
        (value, m_sharpness(objective, objective.params, BALL, m=m).value), rel=1e-12
    )


def test_batches_of_unequal_shape() -> None:
    """A micro-batch that lies across two is the mean over the examples of both."""
    model, (short, a), (long, b) = Text(), words(6, 5), words(6, 9)
    groups = [
        [({"ids": short[:4]}, a[:4])],
        [({"ids": short[4:]}, a[4:]), ({"ids": long[:2]}, b[:2])],
        [({"ids": long[2:]}, b[2:])],
    ]
    assert by_hand(model, groups) == found(model, [(short, a), (long, b)], 4)
    parts = list(EmpiricalLoss(model, F.cross_entropy, [(short, a), (long, b)]).micro(4))
    assert [[len(y) for _, y in part.batches] for part in parts] == [[4], [2, 2], [4]]


class Named(NamedTuple):
    """Inputs as a loader may give them."""

    ids: Tensor
    mask: Tensor | None = None


ARRANGEMENTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "alone": lambda ids, mask: ids,
    "none": lambda ids, mask: (ids, None),
    "list": lambda ids, mask: [ids, mask],
    "flags": lambda ids, mask: (ids, mask, False),
    "mapping": lambda ids, mask: {"ids": ids, "mask": None, "twice": False},
    "user's mapping": lambda ids, mask: UserDict(ids=ids, mask=mask),
    "ordered": lambda ids, mask: OrderedDict(ids=ids, factor=torch.ones((), dtype=torch.float64)),
    "dict in a tuple": lambda ids, mask: ({"ids": ids}, mask),
    "list in a tuple": lambda ids, mask: ([ids], None),
    "list in a mapping": lambda ids, mask: {"ids": [ids, None]},
    "named": lambda ids, mask: Named(ids),
}


@pytest.mark.parametrize("arrange", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_inputs_of_any_arrangement(arrange: Callable[[Tensor, Tensor], Any]) -> None:
    model, batches = Text(), [words(5, 4), words(3, 4)]
    ids, y = (torch.cat(column) for column in zip(*batches, strict=True))
    expected = by_hand(model, [[({"ids": ids[s : s + 3]}, y[s : s + 3])] for s in (0, 3, 6)])
    arranged = [
        (arrange(part, torch.ones(*part.shape, dtype=torch.float64)), z) for part, z in batches
    ]
    assert expected == found(model, arranged, 3)


def test_flags_that_differ_are_not_mixed_up() -> None:
    model, (one, a), (two, b) = Text(), words(3, 4), words(3, 4)
    groups = [
        [({"ids": one[:2], "twice": True}, a[:2])],
        [({"ids": one[2:], "twice": True}, a[2:]), ({"ids": two[:1]}, b[:1])],
        [({"ids": two[1:]}, b[1:])],
    ]
    batches = [((one, None, True), a), ((two, None, False), b)]
    assert by_hand(model, groups) == found(model, batches, 2)


def test_an_input_without_a_row_for_each_example_cannot_be_cut() -> None:
    model, (ids, y) = Text(), words(6, 4)
    loss = EmpiricalLoss(model, F.cross_entropy, [((ids, torch.ones(1, 4).double()), y)])
    assert one_step_sharpness(loss, loss.params, BALL).value > 0.0
    assert m_sharpness(loss, loss.params, BALL, m=6).value > 0.0
    with pytest.raises(ValueError, match=r"got shape \(1, 4\) for 6 targets"):
        m_sharpness(loss, loss.params, BALL, m=4)


class Packed(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(4, 3).double()

    def forward(self, packed: PackedSequence) -> Tensor:
        last: Tensor = self.cells(packed)[1][0]
        return last


@pytest.mark.parametrize("alone", [True, False])
def test_packed_sequences_are_one_input(alone: bool) -> None:
    model, y = Packed(), torch.tensor([0, 1, 2, 0])
    steps = [torch.randn(length, 4, dtype=torch.float64) for length in (5, 2, 3, 4)]
    whole = pack_sequence(steps, enforce_sorted=False)
    batches: Batches = [(whole if alone else (whole,), y)]

    def group(start: int, stop: int) -> list[tuple[dict[str, Any], Tensor]]:
        return [({"packed": pack_sequence([t])}, y[i : i + 1]) for i, t in enumerate(steps)][
            start:stop
        ]

    assert by_hand(model, [group(0, 3), group(3, 4)]) == found(model, batches, 3)


@dataclass
class Answer:
    """What a model may return."""

    logits: Tensor
    note: str = ""


@dataclass(frozen=True)
class Cooled:
    """What computes when it is made."""

    logits: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", self.logits / 2.0)


@dataclass
class Filled:
    """Of which one field comes later, and one never."""

    logits: Tensor
    double: Tensor = field(init=False)
    rest: Tensor = field(init=False)


def filled(out: Tensor) -> Filled:
    answer = Filled(out)
    answer.double = out * 2.0
    return answer


class Mapped(OrderedDict[str, Tensor]):
    """Outputs that are a mapping with attributes, as those of transformers."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


class Returning(nn.Module):
    """Linear, in a wrapping."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x))


OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda out: (out, None), lambda outputs: outputs[0]),
    "list": (lambda out: [out, out * 2.0], lambda outputs: outputs[0]),
    "dict": (lambda out: {"logits": out}, lambda outputs: outputs["logits"]),
    "mapping": (lambda out: Mapped(logits=out), lambda outputs: outputs.logits),
    "dataclass": (Answer, lambda outputs: outputs.logits),
    "dataclass that computes": (Cooled, lambda outputs: outputs.logits * 2.0),
    "dataclass filled later": (filled, lambda outputs: outputs.double / 2.0),
}


@pytest.mark.parametrize(("wrap", "pick"), OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_of_any_arrangement(
    wrap: Callable[[Tensor], Any], pick: Callable[[Any], Tensor]
) -> None:
    """The loss function gets them as they are, in float64; one that cannot take them is told."""
    model, x, y = Returning(wrap), torch.randn(12, 4), torch.randint(3, (12,))
    loss = EmpiricalLoss(model, lambda o, t: F.cross_entropy(pick(o), t), [(x, y)])
    expected = F.cross_entropy(model.layer(x).double(), y).detach()
    torch.testing.assert_close(loss.value({}), expected, rtol=1e-14, atol=0)
    assert m_sharpness(loss, loss.params, BALL, m=5).value > 0.0
    kind = type(wrap(x)).__name__
    with pytest.raises(TypeError, match=f"take what the model returns, a {kind}"):
        EmpiricalLoss(model, F.cross_entropy, [(x, y)])


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda o, t: 1.0, ValueError, "a real scalar tensor, got float"),
        (lambda o, t: o.mean() * 1j, ValueError, "a real scalar tensor"),
        (lambda o, t: o.mean(0), ValueError, r"got shape \(3,\)"),
    ],
)
def test_what_is_no_loss_is_refused(loss: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EmpiricalLoss(nn.Linear(4, 3), loss, [(torch.randn(5, 4), torch.arange(5) % 3)])


def test_targets_need_a_dimension() -> None:
    with pytest.raises(TypeError, match="a tensor without dimensions"):
        EmpiricalLoss(nn.Linear(4, 3), F.cross_entropy, [(torch.randn(4), torch.tensor(1))])


def test_a_model_may_differentiate_by_its_inputs() -> None:
    """As one that solves a differential equation does; with and without gradients around it."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.form = nn.Bilinear(4, 4, 1, bias=False).double()

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                height = self.form(x, x).sum()
                slope: Tensor = torch.autograd.grad(height, x, create_graph=True)[0]
            return slope

    model, x = Slope(), torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    form = model.form.weight.detach()[0]
    loss = EmpiricalLoss(model, F.mse_loss, [(x, torch.zeros(6, 4))])
    expected = (x.detach() @ (form + form.T)).square().mean()
    torch.testing.assert_close(loss.value(loss.params), expected, rtol=1e-13, atol=0)
    assert loss.value_and_grad(loss.params)[0] == loss.value(loss.params)
    assert x.grad is None
