"""Whether sharpness predicts: the grid, the measures side by side, and the rankings."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from flatmin import Ball
from flatmin.ensemble import Ensemble, stack_networks
from flatmin.experiments import discover
from flatmin.experiments.toy import _beside as beside
from flatmin.experiments.toy import _flatness as flatness
from flatmin.experiments.toy import _kendall as kendall
from flatmin.experiments.toy import _scored as scored
from flatmin.experiments.toy._adamw import MemberwiseAdamW
from flatmin.experiments.toy._grid import KINDS, Config, train_part
from flatmin.experiments.toy._landscape import Landscape
from flatmin.models import ReportMLP
from flatmin.objective import EmpiricalLoss
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item
from flatmin.sharpness import (
    average_sharpness,
    gradient_norm,
    one_step_sharpness,
    top_eigenvalues,
    worst_case_sharpness,
)

SMALL = Config(
    draws=3,
    variances=(15.0,),
    epochs=(1, 2),
    batches=(16,),
    radii=(0.5,),
    rates=(1e-2,),
    points=32,
    test_points=40,
    steps=3,
    samples=2,
    products=4,
    scalings=5,
)
EFFORT = flatness.Effort(
    {flatness.IDENTITY: 0.1, flatness.PUBLISHED: 0.2, flatness.INVARIANT: 0.2}, 6, 4, 60
)


def land(members: int = 3, points: int = 20) -> Landscape:
    torch.manual_seed(0)
    params = stack_networks([ReportMLP().double() for _ in range(members)])
    inputs = torch.randn(members, points, 2, dtype=torch.float64) * 5
    return Landscape(ReportMLP(), params, inputs, torch.randint(2, (members, points)))


def alone(stack: Landscape, member: int) -> EmpiricalLoss:
    model = ReportMLP().double()
    model.load_state_dict({name: p[member] for name, p in stack.params.items()})
    return EmpiricalLoss(model, F.cross_entropy, [(stack.inputs[member], stack.targets[member])])


def dense_hessian(objective: EmpiricalLoss) -> tuple[Tensor, Tensor]:
    """The Hessian of one network, and its parameters, as one vector."""
    names, sizes = list(objective.params), [p.numel() for p in objective.params.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = dict(zip(names, flat.split(sizes), strict=True))
        own = {n: parts[n].reshape(p.shape) for n, p in objective.params.items()}
        (inputs, targets), *_ = objective.batches
        return F.cross_entropy(torch.func.functional_call(objective.model, own, (inputs,)), targets)

    flat = torch.cat([p.detach().flatten() for p in objective.params.values()])
    return torch.func.jacrev(torch.func.jacrev(loss))(flat), flat


@pytest.mark.slow
def test_measures_of_a_stack_are_those_of_its_networks_alone() -> None:
    stack = land()
    found = flatness.measure(stack, EFFORT)
    for member in range(stack.members):
        objective = alone(stack, member)
        hessian, flat = dense_hessian(objective)
        for name, scale in flatness.SCALES.items():
            radius = EFFORT.radius[name]
            ball, box = Ball(radius, scale=scale), Ball(radius / 10, math.inf, scale)
            factors = scale(objective.params)
            t = torch.cat(
                [factors.get(n, torch.ones_like(p)).flatten() for n, p in objective.params.items()]
            )
            scaled = t[:, None] * hessian * t
            wanted = {
                flatness.ONE_STEP: one_step_sharpness(objective, objective.params, ball).value,
                flatness.WORST: worst_case_sharpness(
                    objective, objective.params, ball, steps=EFFORT.steps
                ).value,
                flatness.BOX_STEP: one_step_sharpness(objective, objective.params, box).value,
                flatness.BOX: worst_case_sharpness(
                    objective, objective.params, box, steps=EFFORT.steps
                ).value,
                flatness.NORM: gradient_norm(objective, objective.params, scale=scale).value,
                flatness.TRACE: scaled.trace().item(),
                flatness.TOP: torch.linalg.eigvalsh(scaled)[-1].item(),
            }
            for measure, value in wanted.items():
                assert found[measure][name][member].item() == pytest.approx(
                    value, rel=1e-9, abs=1e-13
                ), (measure, name)
        assert top_eigenvalues(objective, objective.params).value == pytest.approx(
            found[flatness.TOP][flatness.INVARIANT][member].item(), rel=1e-6
        )
    assert len(flat) == 370


@pytest.mark.slow
def test_average_is_that_of_other_random_points() -> None:
    stack = land(2)
    base = stack.losses(stack.params)
    for scale in flatness.SCALES.values():
        radius = torch.full((2,), 10.0, dtype=torch.float64)
        found = flatness.average(stack, Ball(radius, scale=scale), base, samples=300)
        for member in range(2):
            objective = alone(stack, member)
            wanted = average_sharpness(
                objective, objective.params, Ball(10.0, scale=scale), samples=300
            )
            error = wanted.standard_error
            assert 4 * error < wanted.value  # so that it says something
            assert found[member].item() == pytest.approx(wanted.value, abs=5 * error)


@pytest.mark.slow
def test_a_copy_computes_the_same_and_only_invariant_measures_notice_nothing() -> None:
    stack = land()
    copies = scored.rescaled(stack.params, 20, torch.Generator().manual_seed(1))
    copy = Landscape(stack.model, copies, stack.inputs, stack.targets)
    assert torch.allclose(copy.losses(copies), stack.losses(stack.params), rtol=1e-12)
    before, after = flatness.measure(stack, EFFORT), flatness.measure(copy, EFFORT)
    for measure in flatness.MEASURES:
        for name in flatness.SCALES:
            moved = ((after[measure][name] - before[measure][name]) / before[measure][name]).abs()
            if name == flatness.INVARIANT:
                assert moved.max() < 1e-8, (measure, name)
            else:
                assert moved.max() > 0.1, (measure, name)


def test_each_member_steps_as_adamw_of_its_own() -> None:
    rates, decays = [1e-3, 1e-2], [0.3, 0.0]
    torch.manual_seed(0)
    nets = [ReportMLP().double() for _ in rates]
    inputs, targets = torch.randn(2, 40, 2).double(), torch.randint(2, (2, 40))
    order = torch.stack([torch.randperm(40), torch.randperm(40)])
    schedule = partial(CosineAnnealingLR, T_max=3)
    ensemble = Ensemble(
        ReportMLP(),
        stack_networks(nets),
        [Ball(0.5)] * 2,
        partial(MemberwiseAdamW, rates=torch.tensor(rates), decays=torch.tensor(decays)),
        schedule=schedule,
    )
    for _ in range(3):
        ensemble.train_epoch(inputs, targets, order, 16)
    for member, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        own = Ensemble(
            ReportMLP(),
            stack_networks(nets[member : member + 1]),
            [Ball(0.5)],
            partial(torch.optim.AdamW, lr=rate, weight_decay=decay),
            schedule=schedule,
        )
        for _ in range(3):
            own.train_epoch(*(t[member : member + 1] for t in (inputs, targets, order)), 16)
        for name, p in own.params.items():
            # The rates are stored in float32.
            torch.testing.assert_close(ensemble.params[name][member], p[0], rtol=1e-6, atol=1e-8)


def test_networks_of_a_draw_share_points_and_starts_and_test_points_are_others() -> None:
    first, second = (train_part(replace(SMALL, epochs=(0,)), kind, 0, 16) for kind in KINDS[:2])
    for one, other in zip((*first.train, *first.test), (*second.train, *second.test), strict=True):
        assert torch.equal(one, other)
    for name, p in first.params.items():
        assert torch.equal(p, second.params[name])  # no epoch: the starts
    assert torch.equal(first.train[0][0], first.train[0][3])  # the other weight decay
    assert not torch.equal(first.train[0][0], first.train[0][1])  # another draw
    assert not torch.isin(first.test[0], first.train[0]).any()


def test_tau_is_kendalls_tau_b_over_all_pairs() -> None:
    x, y = torch.randint(5, (2, 1, 4, 6)).double()
    found = kendall.Signs(x).tau(kendall.Signs(y))
    assert found.values[0].item() == pytest.approx(kendalltau(x.flatten(), y.flatten())[0])
    weights = kendall.resamples(4)
    assert weights.shape == (1 + kendall.RESAMPLES, 4) and (weights.sum(dim=1) == 4).all()
    # A resample is the τ-b of the networks of the draws it took, repeated as often.
    for number in (1, 2, 3):
        taken = torch.repeat_interleave(torch.arange(4), weights[number].long())
        repeated = kendalltau(x[0, taken].flatten(), y[0, taken].flatten())[0]
        assert found.values[number].item() == pytest.approx(repeated)


def test_pairs_are_formed_within_strata_and_without_what_does_not_count() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 9.0]], [[0.0, 5.0], [1.0, 2.0]]])
    kept = torch.tensor([[[True, True], [True, False]], [[True, True], [True, True]]])
    y = -x + torch.tensor([100.0, 0.0])[:, None, None]  # the strata lie the other way around
    assert kendall.Signs(x).tau(kendall.Signs(y)).values[0] == -1
    y[0, 1, 1] = 1000.0
    assert kendall.Signs(x).tau(kendall.Signs(y)).values[0] > -1
    assert kendall.Signs(x, kept).tau(kendall.Signs(y, kept)).values[0] == -1


def test_partial_tau_is_none_where_the_third_explains_all() -> None:
    z = torch.randn(1, 5, 40, generator=torch.Generator().manual_seed(0))
    x, y = (z + torch.randn(1, 5, 40, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    own = z + x
    signs = {name: kendall.Signs(t) for name, t in {"x": x, "y": y, "z": z, "own": own}.items()}
    plain = signs["x"].tau(signs["y"])
    partial_tau = plain.given(signs["x"].tau(signs["z"]), signs["y"].tau(signs["z"]))
    assert plain.estimate[0] > 0.25 and abs(partial_tau.estimate[0]) < 0.15
    a, b, c = 0.5, 0.6, 0.7
    by_hand = (a - b * c) / math.sqrt((1 - b**2) * (1 - c**2))
    made = [kendall.Tau(torch.tensor([v, v, v]), 5) for v in (a, b, c)]
    assert made[0].given(made[1], made[2]).values[0].item() == pytest.approx(by_hand, rel=1e-6)


def test_along_an_axis_only_pairs_of_one_cell_count() -> None:
    x = torch.tensor([[[1.0, 2.0], [20.0, 10.0]]]).expand(3, 2, 2)
    y = torch.tensor([[[5.0, 6.0], [2.0, 1.0]]]).expand(3, 2, 2)
    assert kendall.tau_along(x, y).values[0] == 1  # between the cells the order is the other


def test_at_equal_training_loss_only_such_pairs_count() -> None:
    train = torch.tensor([0.0, 0.005, 1.0, 1.005]).expand(3, 1, 4)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(3, 1, 4)
    y = torch.tensor([9.0, 8.0, 19.0, 18.0]).expand(3, 1, 4)  # opposite where equally trained
    near = (train[..., :, None] - train[..., None, :]).abs() <= beside.NEAR
    assert kendall.tau_along(x, y).values[0] > 0
    assert kendall.tau_along(x, y, near).values[0] == -1


def test_intervals_cover_and_shrink_with_the_draws() -> None:
    def half(draws: int) -> float:
        generator = torch.Generator().manual_seed(draws)
        shared = torch.randn(1, draws, 1, generator=generator)
        noise = torch.randn(2, 1, draws, 10, generator=generator)
        x, y = (kendall.Signs(shared + part) for part in noise)
        return x.tau(y).estimate[1]

    assert 1.5 < half(10) / half(60) < 5


@pytest.mark.slow
def test_item_runs_goes_on_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = discover()["ext_prediction"]
    run_item(item, SMALL, "QUICK", tmp_path / "through")

    real = scored.train_part
    parts: list[Any] = []

    def stopped(*arguments: Any) -> Any:
        parts.append(arguments[1:])
        if len(parts) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(scored, "train_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_item(item, SMALL, "QUICK", tmp_path / "stopped")
    run_item(item, SMALL, "QUICK", tmp_path / "stopped")
    assert len(parts) == 3 + 4  # of six parts two were kept
    records = [read_record(item, tmp_path / name) for name in ("through", "stopped")]
    assert records[0] is not None and records[1] is not None
    assert records[0]["numbers"] == records[1]["numbers"]
    verdicts = publish(item, records[0], tmp_path / "through")
    assert all(v.claim and v.measured for v in verdicts)
    assert (tmp_path / "through" / "ext_prediction.json").stat().st_size < 400_000


def test_names_of_the_record_are_all_measures_in_all_geometries() -> None:
    assert len(beside.NAMES) == 24 and len(set(beside.NAMES)) == 24


def made_up(ways: int = 2) -> dict[str, Tensor]:
    """Two optimizers, one rate: the second trains worse by 0.1, and is flatter where that is so."""
    shape = (1, 1, ways, 1, 4, 1, 3)
    loss = torch.arange(4.0).reshape(1, 1, 1, 1, 4, 1, 1) * 0.1 + torch.zeros(shape)
    loss[:, :, 1] += 0.1
    values = {scored.TRAIN: loss, scored.SHARE: torch.zeros(shape)}
    return values | dict.fromkeys(beside.NAMES, 1 - loss)  # flatter the less it has learnt


def test_flatter_at_the_same_training_loss_compares_equals() -> None:
    values = made_up()
    way, adam = ({n: t.select(2, k) for n, t in values.items()} for k in (1, 0))
    name = beside.NAMES[0]
    assert beside.flatter(way, adam, name).tolist() == [1.0] * 3
    matched, share = beside.matched(way, adam, name)
    assert share == 0.75  # three of four find an equal
    assert matched.tolist() == [0.5] * 3  # and are as flat as that
    way[scored.SHARE][..., 0] = 1.0  # one class everywhere: does not count
    found = beside.flatter(way, adam, name, alive=True)
    assert found[0].isnan() and found[1] == 1.0
