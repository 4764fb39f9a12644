"""An ensemble's members train as if each were alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.optim import Optimizer

from flatmin import ASAM, SAM, Ball, Elementwise, Filterwise
from flatmin.ensemble import Ensemble, _recorded, ensemble_outputs, stack_networks
from flatmin.models import ReportMLP
from slowly import slow_but

EPOCHS, POINTS, BATCH = 5, 80, 32
Wrap = Callable[[Optimizer], Optimizer]

# A ball, and the optimizer of one network that climbs in it.
KINDS: dict[str, tuple[Ball | None, Wrap]] = {
    "base": (None, lambda base: base),
    "SAM": (Ball(0.5), lambda base: SAM(base, rho=0.5)),
    "SAM of another radius": (Ball(0.05), lambda base: SAM(base, rho=0.05)),
    "ASAM": (Ball(0.5, scale=Elementwise(0.01, biases=False)), ASAM),
    "ASAM with biases": (
        Ball(0.5, scale=Elementwise(0.0, biases=True)),
        lambda base: ASAM(base, eta=0.0, biases=True),
    ),
    "SAM, p = 3": (Ball(0.5, p=3.0), lambda base: SAM(base, rho=0.5, p=3.0)),
}
BASES: dict[str, Callable[..., Optimizer]] = {
    "Adam": partial(torch.optim.Adam, lr=1e-2),
    "fused Adam": partial(torch.optim.Adam, lr=1e-2, fused=True),
    "SGD": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3),
}


def cosine(base: Optimizer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(base, EPOCHS)


def networks(count: int) -> list[nn.Module]:
    nets = []
    for seed in range(count):
        torch.manual_seed(seed)
        nets.append(ReportMLP().double())
    return nets


def data(members: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(members, POINTS, 2, dtype=torch.float64) * 3
    return inputs, (inputs.norm(dim=-1) > 3).long()


def orders(members: int, epochs: int = EPOCHS) -> list[Tensor]:
    return [torch.rand(members, POINTS).argsort(dim=1) for _ in range(epochs)]


def alone(
    net: nn.Module, wrap: Wrap, base: Any, x: Tensor, y: Tensor, order: list[Tensor]
) -> tuple[dict[str, Tensor], float]:
    """Train one network by the ordinary loop; weights and mean loss of the last epoch."""
    optimizer = wrap(base(net.named_parameters()))
    schedule = cosine(optimizer)
    for numbers in order:
        losses = []
        for batch in numbers.split(BATCH):

            def closure(batch: Tensor = batch) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(net(x[batch]), y[batch])
                loss.backward()
                return loss

            losses.append(optimizer.step(closure).item())
        schedule.step()
    return dict(net.named_parameters()), sum(losses) / len(losses)


def build(balls: list[Ball | None], **options: Any) -> Ensemble:
    options = {"base": BASES["Adam"], "schedule": cosine, **options}
    nets = networks(len(balls))
    return Ensemble(nets[0], stack_networks(nets), balls, **options)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_member_equals_the_network_trained_alone(base: Any) -> None:
    """Every kind at once, each kind twice, mixed up, in stacks of at most one or two members."""
    kinds = [*KINDS.values(), *reversed(KINDS.values())]
    members = len(kinds)
    x, y = data(members)
    order = orders(members)
    expected = [
        alone(net, wrap, base, x[m], y[m], [numbers[m] for numbers in order])
        for m, (net, (_, wrap)) in enumerate(zip(networks(members), kinds, strict=True))
    ]
    for together in (1, 512):
        ensemble = build([ball for ball, _ in kinds], base=base, together=together)
        for numbers in order:
            losses = ensemble.train_epoch(x, y, numbers, BATCH)
        for m, (weights, loss) in enumerate(expected):
            for name, value in ensemble.params.items():
                torch.testing.assert_close(value[m], weights[name].detach(), rtol=0, atol=1e-9)
            assert losses[m].item() == pytest.approx(loss, abs=1e-9)
    assert ensemble.epoch == EPOCHS and ensemble.diverged == {}


@pytest.mark.parametrize("kind", slow_but(KINDS, "ASAM"))
def test_what_is_frozen_stays_as_if_alone(kind: str) -> None:
    ball, wrap = KINDS[kind]
    x, y = data(2)
    order = orders(2)
    nets = networks(2)
    for net in nets:
        next(net.parameters()).requires_grad_(False)
    ensemble = Ensemble(
        nets[0], stack_networks(nets), [ball] * 2, base=BASES["SGD"], schedule=cosine
    )
    for numbers in order:
        ensemble.train_epoch(x, y, numbers, BATCH)
    for m, net in enumerate(nets):
        before = next(net.parameters()).clone()
        weights, _ = alone(net, wrap, BASES["SGD"], x[m], y[m], [numbers[m] for numbers in order])
        for name, value in ensemble.params.items():
            torch.testing.assert_close(value[m], weights[name].detach(), rtol=0, atol=1e-9)
        assert torch.equal(next(iter(ensemble.params.values()))[m], before)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (partial(torch.optim.Adafactor, lr=1e-2), "base must treat every number by itself"),
        (partial(torch.optim.LBFGS, lr=1e-2), "base must step without a closure, which LBFGS"),
    ],
)
def test_a_base_that_mixes_members_is_refused(base: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build([None, None], base=base)


def test_a_wholly_frozen_network_is_refused() -> None:
    frozen = networks(1)[0].requires_grad_(False)
    with pytest.raises(ValueError, match="all of it is frozen"):
        Ensemble(frozen, stack_networks([frozen]), [None], base=BASES["SGD"])


@pytest.mark.slow
def test_kinds_differ() -> None:
    """The comparison above would notice a member that climbs in another's ball."""
    x, y = data(1)
    order = orders(1)
    balls = [ball for ball, _ in KINDS.values()]
    ends = []
    for ball in balls:
        ensemble = build([ball])
        for numbers in order:
            ensemble.train_epoch(x, y, numbers, BATCH)
        ends.append(torch.cat([p.flatten() for p in ensemble.params.values()]))
    for i, one in enumerate(ends):
        for other in ends[:i]:
            assert (one - other).abs().max() > 1e-4


def test_radius_zero_is_the_base_bitwise() -> None:
    x, y = (t.expand(2, *t.shape[1:]) for t in data(1))
    numbers = orders(1, 1)[0].expand(2, -1)
    nets = networks(1) * 2
    ensemble = Ensemble(nets[0], stack_networks(nets), [None, Ball(0.0)], BASES["Adam"])
    ensemble.train_epoch(x, y, numbers, BATCH)
    assert all(torch.equal(*value) for value in ensemble.params.values())


def test_example_may_come_more_than_once() -> None:
    x, y = data(1)
    numbers = torch.arange(8).repeat(8)[None]
    once, repeated = build([None]), build([None])
    once.train_epoch(x[:, :8].repeat(1, 8, 1), y[:, :8].repeat(1, 8), torch.arange(64)[None], BATCH)
    repeated.train_epoch(x, y, numbers, BATCH)
    for name, value in once.params.items():
        assert torch.equal(value, repeated.params[name])


def test_diverging_member_is_named_and_the_others_go_on_untouched() -> None:
    balls: list[Ball | None] = [Ball(0.5), None, Ball(0.5), Ball(0.5), None]
    x, y = data(5)
    sick = x.clone()
    sick[2] = torch.nan
    sick[4, 0] = torch.inf
    well, ill = build(balls), build(balls)
    for numbers in orders(5, 2):
        well.train_epoch(x, y, numbers, BATCH)
        losses = ill.train_epoch(sick, y, numbers, BATCH)
    assert ill.diverged == {2: 1, 4: 1} and well.diverged == {}
    assert losses.isfinite().tolist() == [True, True, False, True, False]
    for name, value in well.params.items():
        assert torch.equal(value[[0, 1, 3]], ill.params[name][[0, 1, 3]])


@pytest.mark.slow
def test_interrupted_and_continued_equals_going_through(tmp_path: Any) -> None:
    balls: list[Ball | None] = [ball for ball, _ in KINDS.values()]
    x, y = data(len(balls))
    order = orders(len(balls))
    through = build(balls)
    for numbers in order[:2]:
        through.train_epoch(x, y, numbers, BATCH)
    torch.save(through.state_dict(), tmp_path / "ensemble.pt")
    continued = build(balls)
    continued.load_state_dict(torch.load(tmp_path / "ensemble.pt"))
    for numbers in order[2:]:
        losses = [e.train_epoch(x, y, numbers, BATCH) for e in (through, continued)]
        assert torch.equal(*losses)
    assert continued.epoch == EPOCHS
    for name, value in through.params.items():
        assert torch.equal(value, continued.params[name])


def test_bits_do_not_depend_on_threads() -> None:
    balls: list[Ball | None] = [ball for ball, _ in KINDS.values()]
    x, y = data(len(balls))
    numbers = orders(len(balls), 1)[0]
    ends = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ensemble = build(balls)
            ensemble.train_epoch(x, y, numbers, BATCH)
            assert torch.get_num_threads() == threads
            ends.append(ensemble.params)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_outputs_are_those_of_each_network() -> None:
    nets = networks(3)
    params = stack_networks(nets)
    x, _ = data(3)
    own = ensemble_outputs(nets[0], params, x)
    shared = ensemble_outputs(nets[0], params, x[0], shared=True)
    for m, net in enumerate(nets):
        torch.testing.assert_close(own[m], net(x[m]).detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(shared[m], net(x[0]).detach(), rtol=0, atol=1e-12)
    ensemble = Ensemble(nets[0], params, [None] * 3, BASES["SGD"])
    assert torch.equal(ensemble.outputs(x), own)
    assert not own.requires_grad


def test_any_model_and_loss() -> None:
    """Layers, inputs and losses beyond the toy: convolution, kwargs, regression."""

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 2)
        ).double()

    x, y = torch.randn(2, 8, 2, 6).double(), torch.randn(2, 8, 2).double()
    loss_function = partial(F.smooth_l1_loss, beta=0.5)
    nets = [make(0), make(1)]
    start = stack_networks(nets)
    ensemble = Ensemble(nets[0], start, [Ball(0.1)] * 2, BASES["SGD"], loss_function=loss_function)
    ensemble.train_epoch(x, y, torch.arange(8).expand(2, 8), 8)
    for m, net in enumerate(nets):
        optimizer = SAM(BASES["SGD"](net.named_parameters()), rho=0.1)

        def closure(m: int = m, net: nn.Module = net, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = loss_function(net(x[m]), y[m])
            loss.backward()
            return loss

        optimizer.step(closure)
        for name, value in net.named_parameters():
            torch.testing.assert_close(ensemble.params[name][m], value.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("options", [{"reduction": "sum"}, {"label_smoothing": 0.1}])
def test_cross_entropy_with_options(options: dict[str, Any]) -> None:
    nets = networks(1)
    x, y = data(1)
    loss_function = partial(F.cross_entropy, **options)
    expected = loss_function(nets[0](x[0]), y[0]).item()
    ensemble = Ensemble(
        nets[0], stack_networks(nets), [None], BASES["SGD"], loss_function=loss_function
    )
    losses = ensemble.train_epoch(x, y, torch.arange(POINTS)[None], POINTS)
    assert losses.item() == pytest.approx(expected, rel=1e-12)


def test_kinds_of_balls_are_told_apart() -> None:
    """Filterwise, and ASAM of one eta per member, in one ensemble."""
    x, y = (t.expand(4, *t.shape[1:]) for t in data(1))
    nets = networks(1) * 4
    balls = [Ball(0.5, scale=s) for s in (Filterwise(), Elementwise(0.1), Elementwise(0.2))]
    ensemble = Ensemble(nets[0], stack_networks(nets), [*balls, None], BASES["SGD"])
    ensemble.train_epoch(x, y, torch.arange(POINTS).expand(4, -1), POINTS)
    weights = ensemble.params["hidden.0.weight"]
    assert all((weights[i] - weights[j]).abs().max() > 1e-6 for i in range(4) for j in range(i))


def test_refuses_what_cannot_be_an_ensemble() -> None:
    net, params = ReportMLP(), stack_networks([ReportMLP() for _ in range(3)])
    sgd = BASES["SGD"]
    with pytest.raises(ValueError, match="network 1 differs from network 0 in bias"):
        stack_networks([nn.Linear(2, 3), nn.Linear(2, 4)])
    with pytest.raises(ValueError, match=r"in hidden\.0\.bias: None against \(10,\)"):
        stack_networks([ReportMLP(), ReportMLP(hidden_biases=False)])
    with pytest.raises(ValueError, match="at least one network"):
        stack_networks([])
    with pytest.raises(ValueError, match="each of the 3 members, got 2"):
        Ensemble(net, params, [Ball(0.5)] * 2, sgd)
    with pytest.raises(ValueError, match=r"balls\[1\] must be the ball of one member"):
        Ensemble(net, params, [None, Ball(torch.ones(3)), None], sgd)
    with pytest.raises(TypeError, match=r"balls\[2\] must be a Ball"):
        Ensemble(net, params, [None, None, 0.5], sgd)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"differ in hidden\.0\.bias"):
        Ensemble(ReportMLP(hidden_biases=False), params, [None] * 3, sgd)
    with pytest.raises(ValueError, match=r"agree in their first dimension.*\[2, 3\]"):
        Ensemble(net, {**params, "last.weight": torch.zeros(2, 2, 10)}, [None] * 3, sgd)
    with pytest.raises(ValueError, match=r"last\.weight must have shape \(3, 2, 10\)"):
        Ensemble(net, {**params, "last.weight": torch.zeros(3, 10, 2)}, [None] * 3, sgd)
    with pytest.raises(ValueError, match="running statistics"):
        norm = nn.BatchNorm1d(2)
        Ensemble(norm, stack_networks([norm]), [None], sgd)
    with pytest.raises(ValueError, match="together must be at least 1"):
        Ensemble(net, params, [None] * 3, sgd, together=0)


def test_refuses_data_of_another_number_of_members() -> None:
    ensemble = build([None] * 3)
    x, y = data(3)
    numbers = orders(3, 1)[0]
    with pytest.raises(ValueError, match=r"inputs must have shape \[3 members"):
        ensemble.train_epoch(x[:2], y, numbers, BATCH)
    with pytest.raises(ValueError, match=r"order must have shape \[3 members"):
        ensemble.train_epoch(x, y, numbers[0], BATCH)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        ensemble.train_epoch(x, y, numbers, 0)
    with pytest.raises(ValueError, match="other members"):
        ensemble.load_state_dict(build([None] * 2).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["base", "SAM", "ASAM"])
def test_replay_is_the_same_bit_for_bit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(3)
    ends = []
    for calls in (10**9, 2):  # never replayed; replayed from the third batch of a shape on
        monkeypatch.setattr(_recorded, "_CALLS_BEFORE_RECORDING", calls)
        ensemble = build([KINDS[kind][0]] * 3)
        torch.manual_seed(1)
        for numbers in orders(3):
            ensemble.train_epoch(x, y, numbers, BATCH)
        ends.append(ensemble.params)
        (stack,) = ensemble._stacks
        assert len(stack.direction._recordings) == (2 if calls == 2 else 0)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_network_with_a_computed_weight_is_a_kind_as_any_other() -> None:
    """Pruning leaves a tensor of a graph on the network, which a plain copy refuses."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    torch.nn.utils.prune.l1_unstructured(model[0], "weight", 2)
    params = stack_networks([model])
    inputs = torch.randn(1, 4, 2, dtype=torch.float64)
    ensemble = Ensemble(
        model, params, [None], lambda params: torch.optim.SGD(params, 0.1), loss_function=F.mse_loss
    )
    targets = torch.zeros(1, 4, 1, dtype=torch.float64)
    base = torch.optim.SGD(model.parameters(), 0.1)
    F.mse_loss(model(inputs[0]), targets[0]).backward()
    ensemble.train_epoch(inputs, targets, torch.arange(4)[None], batch_size=4)
    base.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ensemble.params[name][0], parameter, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        ensemble_outputs(model, ensemble.params, inputs)[0], model(inputs[0])
    )
