"""What cannot be right is refused, with the remedy."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import nn

from cases import VARIANTS, build
from flatmin import ASAM, GSAM, MSAM, SAM, SSAM, WSAM, AsyncSAM, FriendlySAM

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def prepared(variant: str) -> tuple[nn.Module, Any]:
    model = nn.Linear(3, 1)
    optimizer = build(variant, "SGD", model)
    model(torch.ones(2, 3)).sum().backward()
    return model, optimizer


@every_variant
@pytest.mark.parametrize(
    ("misuse", "remedy"),
    [
        (lambda o: o.step(), "leave the block first"),
        (lambda o: o.state_dict(), "leave the block first"),
        (lambda o: o.load_state_dict({}), "leave the block first"),
        (lambda o: o.perturbed().__enter__(), "leave the first block before the next"),
    ],
)
def test_inside_perturbed(variant: str, misuse: Any, remedy: str) -> None:
    _, optimizer = prepared(variant)
    with pytest.raises(RuntimeError, match=remedy), optimizer.perturbed():
        misuse(optimizer)
    optimizer.state_dict()
    optimizer.step()


@every_variant
def test_a_base_that_needs_a_closure_itself(variant: str) -> None:
    model = nn.Linear(3, 1)
    with pytest.raises(TypeError, match=r"LBFGS needs a closure .*; wrap an optimizer that"):
        VARIANTS[variant](torch.optim.LBFGS(model.parameters()), model=model)


@every_variant
@pytest.mark.parametrize(
    ("base", "remedy"),
    [
        (torch.optim.SGD, r"instance .* got SGD; write \w+\(torch.optim.SGD\(model.named_param"),
        ([], "instance .* got list"),
        (lambda: SAM(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)), "got SAM"),
    ],
)
def test_a_base_that_is_none(variant: str, base: Any, remedy: str) -> None:
    thing = base() if callable(base) and not isinstance(base, type) else base
    with pytest.raises(TypeError, match=remedy):
        VARIANTS[variant](thing)


@every_variant
def test_a_model_that_is_none(variant: str) -> None:
    base = torch.optim.SGD(nn.Linear(1, 1).named_parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got list"):
        VARIANTS[variant](base, model=[])


@every_variant
@pytest.mark.parametrize("rho", [-1.0, math.nan, math.inf])
def test_a_bad_radius(variant: str, rho: float) -> None:
    model = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="rho must be finite and at least 0"):
        build(variant, "SGD", model, rho=rho)
    optimizer = build(variant, "SGD", model)
    with pytest.raises(ValueError, match="rho must be finite and at least 0"):
        optimizer.add_param_group(
            {"params": list(nn.Linear(1, 1).named_parameters()), "sam_rho": rho}
        )
    assert len(optimizer.param_groups) == 1
    optimizer.param_groups[0]["sam_rho"] = rho
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(ValueError, match="rho must be"), optimizer.perturbed():
        pass
    optimizer.param_groups[0]["sam_rho"] = 0.05
    with optimizer.perturbed():
        pass


@every_variant
@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, math.nan])
def test_a_bad_order(variant: str, p: float) -> None:
    with pytest.raises(ValueError, match=r"p must be in \[1, inf\]"):
        build(variant, "SGD", nn.Linear(3, 1), p=p)


def test_unnamed_parameters_where_names_are_needed() -> None:
    model = nn.Linear(3, 1)
    with pytest.raises(ValueError, match=r"build it from model.named_parameters\(\), give model="):
        ASAM(torch.optim.SGD(model.parameters(), lr=0.1))
    ASAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    ASAM(torch.optim.SGD(model.parameters(), lr=0.1), biases=True)
    SAM(torch.optim.SGD(model.parameters(), lr=0.1))
    optimizer = ASAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    with pytest.raises(ValueError, match="have no names"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("first_step", r"write `with optimizer\.perturbed\(\):` around the second .* pass\.$"),
        (
            "second_step",
            r"`optimizer\.step\(\)` behind the block `with optimizer\.perturbed\(\):`\.$",
        ),
        ("base_optimizer", r"called base; a scheduler takes the wrapper itself\.$"),
    ],
)
def test_loops_written_for_sam_py_are_told_what_to_write(name: str, words: str) -> None:
    optimizer = SAM(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
    with pytest.raises(AttributeError, match=words):
        getattr(optimizer, name)


def test_the_class_of_a_base_as_for_sam_py_is_answered_with_the_line_to_write() -> None:
    params = [torch.nn.Parameter(torch.ones(1))]
    line = r"write ASAM\(SGD\(model.named_parameters\(\), lr=...\), rho=...\)"
    for call in (
        lambda: ASAM(params, torch.optim.SGD, rho=0.1, lr=0.1),  # type: ignore[misc, call-arg]
        lambda: ASAM(params, base_optimizer=torch.optim.SGD, rho=0.1),  # type: ignore[call-arg]
        lambda: ASAM(params, torch.optim.SGD),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=line):
            call()


@pytest.mark.parametrize("variant", [SAM, ASAM, GSAM, FriendlySAM, WSAM, SSAM, MSAM, AsyncSAM])
def test_a_constructor_shows_what_it_takes(variant: Any) -> None:
    """Also to Sphinx, and to whoever else asks ``__new__`` before ``__init__``."""
    shown = variant.__signature__.parameters
    assert inspect.signature(variant) == variant.__signature__
    assert list(shown) == list(inspect.signature(variant.__init__).parameters)[1:]
    assert list(shown)[:2] == ["base", "rho"] and "model" in shown


def test_it_says_what_it_is_around() -> None:
    x = torch.nn.Parameter(torch.ones(1))
    assert repr(SAM(torch.optim.AdamW([x]))).startswith("SAM around AdamW (\nParameter Group 0\n")
    both = SAM([torch.optim.AdamW([x]), torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1)])
    assert repr(both).startswith("SAM around Several (")
