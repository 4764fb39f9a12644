"""However the weights are cut, gathered or fused, the step is the one that the ball gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import OTHERS_SLOWLY, VARIANTS
from flatmin.ball import Ball
from flatmin.optim import SAM, _cut, _fused, _pieces
from flatmin.optim._workspace import Workspace
from flatmin.scale import Elementwise, Filterwise, Layerwise
from flatmin.spectral import Spectral

# Large and small, of one shape and of many, contiguous and not, weights and biases.
SHAPES = {
    "large.weight": (300, 1000),
    "tall.weight": (1000, 300),
    "large.bias": (140_000,),
    **{f"{i}.weight": (12, 12) for i in range(9)},
    **{f"{i}.bias": (12,) for i in range(9)},
    "odd.weight": (3, 5, 7),
    "scalar": (),
    "empty": (0, 4),
}

# A warning of torch about itself, raised on the way into its compiler.
warned = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")


def compiles(test: Any) -> Any:
    """Mark a test that calls a compiler."""
    return pytest.mark.slow(warned(test))


def parameters(dtype: torch.dtype = torch.float64) -> list[tuple[str, nn.Parameter]]:
    generator = torch.Generator().manual_seed(0)
    params = []
    for name, shape in SHAPES.items():
        data = torch.randn(shape, generator=generator, dtype=torch.float64)
        grad = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name == "tall.weight":
            data, grad = data.t().contiguous().t(), grad.t().contiguous().t()
        param = nn.Parameter(data.to(dtype))
        param.grad = grad.to(dtype)
        params.append((name, param))
    return params


def shifted(build: Callable[..., Any], named: list[tuple[str, nn.Parameter]]) -> list[Tensor]:
    """Shifts seen inside, after checking that everything comes back."""
    before = [p.detach().clone() for _, p in named]
    places = [p.data_ptr() for _, p in named]
    optimizer = build(torch.optim.SGD(named, lr=0.1))
    with optimizer.perturbed():
        shifts = [p.detach() - old for (_, p), old in zip(named, before, strict=True)]
    assert all(torch.equal(p, old) for (_, p), old in zip(named, before, strict=True))
    assert places == [p.data_ptr() for _, p in named]
    return shifts


def by_the_ball(variant: str, p: float, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    named = parameters(dtype)
    scale = {"scale": Elementwise(0.01, biases=False)} if variant == "ASAM" else {}
    ball = Ball(0.5 if variant == "ASAM" else 0.05, p, **scale)
    params = {name: w.detach() for name, w in named}
    shift = ball.shift(params, {name: w.grad for name, w in named if w.grad is not None})
    return list(shift.values())


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_pieces_together_make_the_shift_of_the_ball(variant: str, p: float) -> None:
    def build(base: Any) -> Any:
        return VARIANTS[variant](base, p=p)

    shifts = shifted(build, parameters())
    for got, want in zip(shifts, by_the_ball(variant, p), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)


def test_the_parameters_are_cut_in_every_way() -> None:
    """Otherwise the tests here would not test what they say."""
    pairs = [(name, w, w.grad) for name, w in parameters() if w.grad is not None]
    with torch.no_grad():
        pieces = list(_cut.cut(Ball(1.0, 2.0, Elementwise()), 1.0, pairs, Workspace()))
    stacks = [piece for piece in pieces if isinstance(piece, _pieces.Stack)]
    assert len(stacks) == 2  # weights and biases, never together
    flats = [
        w
        for piece in pieces
        for name, w in piece.weights.items()
        if name in ("large.weight", "tall.weight")
    ]
    assert len(flats) == 4 and all(w.ndim == 1 for w in flats)
    assert sum(w.numel() for piece in pieces for w in piece.weights.values()) == sum(
        w.numel() for _, w in parameters()
    )


@compiles
@pytest.mark.parametrize("p", [1.5, 2.0, math.inf])
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_fused_is_the_same_step(variant: str, p: float) -> None:
    def build(base: Any) -> Any:
        return VARIANTS[variant](base, p=p, fused=True)

    shifts = shifted(build, parameters())
    for got, want in zip(shifts, by_the_ball(variant, p), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-14)


@compiles
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fused_restores_every_type_bit_for_bit(dtype: torch.dtype) -> None:
    shifts = shifted(lambda base: VARIANTS["ASAM"](base, fused=True), parameters(dtype))
    # One rounding to the type of the weights, of size about one, is all that may lie between.
    resolution = 8 * torch.finfo(dtype).eps
    for got, want in zip(shifts, by_the_ball("ASAM", 2.0), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=resolution)


@compiles
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_around_the_fused_kernel_leaves_nothing_behind(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes before the kernel or after, the weights come back."""
    kernels = _fused._kernels

    def interrupted(*key: Any) -> Any:
        norm, shift = kernels(*key)

        def kernel(*arguments: Tensor) -> None:
            if when == "after":
                shift(*arguments)
            raise KeyboardInterrupt

        return norm, kernel

    monkeypatch.setattr(_fused, "_kernels", interrupted)
    named = parameters(torch.float32)
    before = [p.detach().clone() for _, p in named]
    optimizer = VARIANTS["SAM"](torch.optim.SGD(named, lr=0.1), fused=True)
    with pytest.raises(KeyboardInterrupt), optimizer.perturbed():
        pytest.fail("the body must not run")
    assert all(torch.equal(p, old) for (_, p), old in zip(named, before, strict=True))


def test_gradients_that_others_look_at_are_not_written_to() -> None:
    """As DDP's buckets do: what stands there would be overwritten by the second backward pass."""
    ball = Ball(0.05)
    weight = torch.randn(200_000)
    alone = torch.randn(200_000)
    assert _fused.suits(ball, weight, alone)
    part = torch.randn(400_000)[:200_000]
    assert not _fused.suits(ball, part, alone)
    bucket = torch.randn(400_000)
    assert not _fused.suits(ball, weight, bucket[:200_000])
    watched = torch.randn(200_000)
    view = watched.view(2, -1)
    assert not _fused.suits(ball, weight, watched)
    del view
    # A GPU has operations on lists of tensors, which are faster there.
    assert not _fused.suits(ball, weight.to("meta"), alone.to("meta"))


def test_overlapping_parameters_come_back() -> None:
    """Two parameters in one memory: each is put back to what it was, last first."""
    memory = torch.randn(6, dtype=torch.float64)
    left, right = nn.Parameter(memory[:4]), nn.Parameter(memory[2:])
    before = memory.clone()
    left.grad, right.grad = torch.ones_like(left), torch.ones_like(right)
    optimizer = VARIANTS["SAM"](torch.optim.SGD([left, right], lr=0.1))
    with optimizer.perturbed():
        assert not torch.equal(memory, before)
    assert torch.equal(memory, before)


# Scales that look at names, or at whole tensors


@dataclass(frozen=True)
class ByName:
    """Moves what has a word in its name, in proportion to its place in the alphabet."""

    word: str = "norm"

    def __call__(self, params: Any, *, leading: int = 0) -> dict[str, Tensor]:
        return {
            name: torch.full_like(w, float(ord(name[0])) if self.word in name else 0.0)
            for name, w in params.items()
        }


def named_shapes() -> list[tuple[str, nn.Parameter]]:
    """Small ones of one shape, which would be stacked, and large ones, which would be cut."""
    generator = torch.Generator().manual_seed(0)
    shapes = {f"{kind}{i}.weight": (12, 12) for i in range(6) for kind in ("lin", "norm")}
    shapes |= {"a.norm": (600, 500), "b.lin": (600, 500), "c.norm.bias": (12,)}
    named = []
    for name, shape in shapes.items():
        p = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        p.grad = torch.randn(shape, generator=generator, dtype=torch.float64)
        named.append((name, p))
    return named


# Two factors, in turns, so that tensors of one shape are of two kinds.
EACH = Spectral(tuple((name, 1.0 + n % 2) for n, (name, _) in enumerate(named_shapes())))
WHOLE = [ByName(), Filterwise(), Layerwise(), EACH]


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=[pytest.mark.slow, warned])])
@pytest.mark.parametrize("p", [1.5, 2.0, math.inf])
@pytest.mark.parametrize("scale", WHOLE, ids=lambda scale: type(scale).__name__)
def test_a_scale_sees_each_tensor_whole_by_its_own_name(scale: Any, p: float, fused: bool) -> None:
    class Scaled(SAM):
        def _ball(self, group: dict[str, Any]) -> Ball:
            return Ball(group["sam_rho"], self.p, scale)

    named = named_shapes()
    params = {name: w.detach().clone() for name, w in named}
    grads = {name: w.grad.clone() for name, w in named}
    optimizer = Scaled(torch.optim.SGD(named, lr=1.0), rho=0.5, p=p, fused=fused)
    with optimizer.perturbed():
        found = {name: w.detach() - params[name] for name, w in named}
    expected = Ball(0.5, p, scale).shift(params, grads)
    for name, shift in expected.items():
        torch.testing.assert_close(found[name], shift, rtol=1e-10, atol=1e-13)


def test_stacking_by_kind_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the scale had said that all parameters are alike."""
    monkeypatch.setattr(ByName, "alike", lambda self, name: True, raising=False)
    with pytest.raises(AssertionError):
        test_a_scale_sees_each_tensor_whole_by_its_own_name(ByName(), 2.0, False)


def test_two_models_with_the_same_names_in_one_group() -> None:
    """Each parameter moves; a scale by name is shown the name of the first as it is."""
    twice = [*named_shapes(), *named_shapes()]
    optimizer = SAM(torch.optim.SGD(twice, lr=1.0), rho=0.5)
    before = [p.detach().clone() for _, p in twice]
    with optimizer.perturbed():
        assert all((p != old).any() for (_, p), old in zip(twice, before, strict=True))


@pytest.mark.parametrize("fused", [False, pytest.param(True, marks=[pytest.mark.slow, warned])])
@pytest.mark.parametrize("size", [1e-25, 1e-30, 1e22])
@pytest.mark.parametrize("variant", OTHERS_SLOWLY)
def test_the_size_of_the_gradient_does_not_matter(variant: str, size: float, fused: bool) -> None:
    """Squares that vanish or overflow in float32 do not: the shift is that of a gradient of one."""
    shifts = []
    for factor in (1.0, size):
        named = [(name, nn.Parameter(p.detach().float())) for name, p in named_shapes()]
        for (_, p), (_, like) in zip(named, named_shapes(), strict=True):
            p.grad = (like.grad * factor).float()
        before = [p.detach().clone() for _, p in named]
        optimizer = VARIANTS[variant](torch.optim.SGD(named, lr=1.0), rho=0.5, fused=fused)
        with optimizer.perturbed():
            shifts.append([p.detach() - old for (_, p), old in zip(named, before, strict=True)])
        assert optimizer.report.shift_norm == 0.5
    for got, want in zip(*reversed(shifts), strict=True):
        torch.testing.assert_close(got, want, rtol=2e-3, atol=2e-6)  # float32, of weights near one
    assert any(shift.any() for shift in shifts[0])
