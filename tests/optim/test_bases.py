"""Bases that are wrappers themselves, or can do more than torch's; and those that cannot be."""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import VARIANTS, same
from flatmin import SAM

X = torch.linspace(-1, 1, 12).view(4, 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def loss_of(model: nn.Module) -> Tensor:
    return (model(X) - 1.0).square().mean()


def train(optimizer: Any, model: nn.Module, steps: int = 4) -> dict[str, Any]:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        if hasattr(optimizer, "perturbed"):
            with optimizer.perturbed():
                loss_of(model).backward()
        optimizer.step()
    return model.state_dict()


class Delegating(torch.optim.Optimizer):
    """A wrapper as people write them: it never calls torch's constructor."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.steps = 0

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        return self.optimizer.state

    @property
    def defaults(self) -> Any:
        return self.optimizer.defaults

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of frameworks that accumulate: not in the middle of a batch."""

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()


def test_a_base_that_delegates() -> None:
    """It is stepped, its hooks fire once, and gradients are cleared whatever it thinks of that."""
    model, twin = network(), network()
    base = Delegating(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    optimizer = SAM(base, rho=0.1)
    fired: list[str] = []
    optimizer.register_step_post_hook(lambda *_: fired.append("post"))
    base.optimizer.register_step_pre_hook(lambda *_: fired.append("pre"))
    plain = SAM(torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9), rho=0.1)
    for _ in range(3):
        for one, net in ((optimizer, model), (plain, twin)):
            net.zero_grad()
            loss_of(net).backward()
            with one.perturbed():
                loss_of(net).backward()
            one.step()
    assert same(model.state_dict(), twin.state_dict())
    assert base.steps == 3 and fired == ["pre", "post"] * 3
    assert same(optimizer.state_dict(), plain.state_dict())


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("name", ["Lookahead", "OrthoGrad"])
def test_a_wrapper_of_pytorch_optimizer(name: str) -> None:
    """With rho = 0 it is itself."""
    library = pytest.importorskip("pytorch_optimizer", reason="compares with pytorch-optimizer")
    wrapper = getattr(library, name)
    models = network(), network()
    results = [
        train(
            make(wrapper(torch.optim.SGD(model.parameters(), lr=0.1))),
            model,
        )
        for make, model in zip((lambda o: o, lambda o: SAM(o, rho=0.0)), models, strict=True)
    ]
    assert same(*results) and not same(results[0], network().state_dict())


@pytest.mark.oracle
def test_accelerates_optimizer_on_either_side() -> None:
    accelerate = pytest.importorskip("accelerate", reason="compares with accelerate")
    wrapped = importlib.import_module("accelerate.optimizer").AcceleratedOptimizer
    accelerate.Accelerator(cpu=True)
    model, twin, plain = network(), network(), network()

    def sgd(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=0.1)

    inside = train(SAM(wrapped(sgd(model)), rho=0.1), model)
    sam = SAM(sgd(twin), rho=0.1)
    outside = wrapped(sam)
    for _ in range(4):
        outside.zero_grad()
        loss_of(twin).backward()
        with sam.perturbed():
            loss_of(twin).backward()
        outside.step()
    expected = train(SAM(sgd(plain), rho=0.1), plain)
    assert same(inside, expected) and same(twin.state_dict(), expected)


class Modal(torch.optim.SGD):
    """With methods of its own, as schedule-free and sharded optimizers have."""

    mode = "none"

    def train(self) -> None:
        self.mode = "train"

    def eval(self) -> None:
        self.mode = "eval"

    def consolidate_state_dict(self, to: int = 0) -> int:
        return to


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_base_can_do_beyond_torch_is_reached(variant: str) -> None:
    base = Modal(network().named_parameters(), lr=0.1)
    optimizer = VARIANTS[variant](base)
    optimizer.train()
    assert base.mode == "train"
    optimizer.eval()
    assert base.mode == optimizer.mode == "eval"
    assert optimizer.consolidate_state_dict(3) == 3
    with pytest.raises(AttributeError, match=rf"neither {variant} nor Modal has 'nothing'"):
        optimizer.nothing()
    assert not hasattr(
        VARIANTS[variant](torch.optim.SGD([X.clone()], lr=0.1), **unnamed(variant)), "eval"
    )


def unnamed(variant: str) -> dict[str, Any]:
    return {"biases": True} if variant == "ASAM" else {}


@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("overflow", [False, True])
def test_a_fused_base_under_a_scaler(base: Any, overflow: bool) -> None:
    """It could unscale by itself; handed the scale by a scaler that trusts it, it never would."""
    results = []
    for scale in (1.0, 2.0**12):
        model = network()
        optimizer = SAM(base(model.parameters(), lr=0.1, fused=True), rho=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for step in range(3):
            optimizer.zero_grad()
            scaler.scale(loss_of(model)).backward()
            with optimizer.perturbed():
                scaler.scale(loss_of(model)).backward()
            if overflow and step == 1:
                model.bias.grad[0] = math.inf
            scaler.step(optimizer)
            scaler.update()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert scaler.get_scale() == (scale / 2 if overflow else scale)
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


class SecondOrder(torch.optim.SGD):
    """As AdaHessian: it differentiates the gradients that it is given."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                torch.autograd.grad(p.grad.sum(), p, retain_graph=True)
        return super().step(closure)


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_base_that_differentiates_again_is_refused(variant: str) -> None:
    model = network()
    optimizer = VARIANTS[variant](SecondOrder(model.named_parameters(), lr=0.1))
    loss_of(model).backward(create_graph=True)
    refused = pytest.raises(RuntimeError, match=r"carry a graph .* cannot be wrapped")
    with refused, optimizer.perturbed():
        loss_of(model).backward(create_graph=True)
    assert same(model.state_dict(), network().state_dict())
    optimizer.zero_grad()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_penalty_on_the_gradient_carries_no_graph(variant: str) -> None:
    model = network()
    optimizer = VARIANTS[variant](torch.optim.SGD(model.named_parameters(), lr=0.1))

    def backward() -> None:
        grads = torch.autograd.grad(loss_of(model), list(model.parameters()), create_graph=True)
        (loss_of(model) + sum(g.square().sum() for g in grads)).backward()

    backward()
    with optimizer.perturbed():
        backward()
    optimizer.step()
    assert not same(model.state_dict(), network().state_dict())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_a_compiled_function_may_build_its_optimizer() -> None:
    model, twin = network(), network()

    @torch.compile(backend="eager")
    def start(net: nn.Module) -> Any:
        return SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.1)

    expected = train(SAM(torch.optim.SGD(twin.parameters(), lr=0.1), rho=0.1), twin)
    assert same(train(start(model), model), expected)


def test_the_state_of_a_bare_base_comes_in_before_the_wrapper() -> None:
    """Flattened checkpoints of torch.distributed ask for every setting of a group."""
    from torch.distributed.checkpoint import state_dict as dcp

    options = dcp.StateDictOptions(flatten_optimizer_state_dict=True)
    model, fresh = network(), network()
    base = torch.optim.Adam(model.parameters(), lr=0.1)
    train(base, model, 3)
    record = copy.deepcopy(dcp.get_optimizer_state_dict(model, base, options=options))
    other = torch.optim.Adam(fresh.parameters(), lr=0.1)
    dcp.set_optimizer_state_dict(fresh, other, record, options=options)
    fresh.load_state_dict(model.state_dict())
    resumed = train(SAM(other, rho=0.1), fresh)
    assert same(resumed, train(SAM(base, rho=0.1), model))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_distributed_checkpoint_of_the_wrapper(variant: str) -> None:
    """To see what the state is it steps with zeros, which is no step without a block."""
    from torch.distributed.checkpoint import state_dict as dcp

    options = dcp.StateDictOptions(flatten_optimizer_state_dict=True)
    ends = []
    for resumed in (False, True):
        model = network()
        optimizer = VARIANTS[variant](torch.optim.Adam(model.named_parameters(), lr=0.1))
        train(optimizer, model, 2)
        if resumed:
            record = copy.deepcopy(dcp.get_optimizer_state_dict(model, optimizer, options=options))
            fresh = network()
            fresh.load_state_dict(model.state_dict())
            model, optimizer = (
                fresh,
                VARIANTS[variant](torch.optim.Adam(fresh.named_parameters(), lr=0.1)),
            )
            dcp.set_optimizer_state_dict(model, optimizer, record, options=options)
        ends.append(train(optimizer, model, 2))
    assert same(*ends)
