"""Figure 5 and the criterion: the forms of training, the comparisons, the sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flatmin.experiments import discover
from flatmin.experiments.toy import _study as study
from flatmin.experiments.toy._bands import widening
from flatmin.experiments.toy._conditions import Condition, View
from flatmin.experiments.toy._criterion import (
    NAMES,
    compare,
    crossing,
    half_width,
    regions,
    shares_in_words,
    summarize,
)
from flatmin.experiments.toy._fig5_words import smaller_gap
from flatmin.experiments.toy._section2 import SENTENCES, Sentence
from flatmin.experiments.toy._verdicts import judge, judged
from flatmin.models import ReportMLP
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item

SMALL: dict[str, dict[str, Any]] = {
    "fig5": {"seeds": 2, "variances": (15.0, 30.0), "epochs": 1, "points": 80},
    "ext_criterion": {"seeds": 2, "epochs": 1, "points": 80},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_item_runs_draws_and_judges(name: str, tmp_path: Path) -> None:
    item = discover()[name]
    config = replace(item.load().QUICK, **SMALL[name])
    run_item(item, config, "QUICK", tmp_path)
    record = read_record(item, tmp_path)
    assert record is not None
    assert all(v.claim and v.measured for v in publish(item, record, tmp_path))
    assert item.load().tables(record)
    assert (tmp_path / f"{name}.json").stat().st_size < 1_000_000


def test_an_epoch_as_reported_has_63_steps_and_109_points() -> None:
    order = study._orders([study.Way(None, as_reported=True)], [15.0], 1, 0, 2000)
    assert order.shape == (1, 2000)
    batches = order[0].split(study.BATCH)
    assert len(batches) == 63 and len(batches[-1]) == 16
    assert len(order.unique()) == 109
    assert torch.equal(batches[0][1:], batches[1][:-1])  # [i:i+32], then [i+1:i+33]


def test_controlled_ways_share_batches_and_start_and_reported_ones_do_not() -> None:
    reported = [study.Way(None, as_reported=True), study.Way(study.sam(0.5), as_reported=True)]
    controlled = [study.Way(None), study.Way(study.sam(0.5))]
    for ways, shared in ((reported, False), (controlled, True)):
        first, second = study._orders(ways, [15.0], 1, 3, 2000)
        assert torch.equal(first, second) == shared
        nets = [study._start(way, number, 15.0, 0) for number, way in enumerate(ways)]
        assert torch.equal(nets[0].first.weight, nets[1].first.weight) == shared
    first, _ = study._orders(controlled, [15.0], 1, 3, 2000)
    assert torch.equal(first.sort().values, torch.arange(2000))
    assert not torch.equal(first, study._orders(controlled, [15.0], 1, 4, 2000)[0])


def test_points_of_a_seed_do_not_depend_on_the_number_of_seeds() -> None:
    few, _ = study.labeled_points("train", (5.0, 15.0), 2, 80)
    many, _ = study.labeled_points("train", (5.0, 15.0), 3, 80)
    other, _ = study.labeled_points("validation", (5.0, 15.0), 2, 80)
    assert few.shape == (2, 2, 80, 2)
    assert torch.equal(few, many[:, :2])
    assert not torch.equal(few, other)


def run_small(scratch: Path, epochs: int = 3) -> study.Trained:
    ways = [study.Way(None), study.Way(study.asam(0.5))]
    return study.train(
        ways, (5.0,), seeds=2, epochs=epochs, points=64, scratch=scratch, description="small"
    )


def test_interrupted_training_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through = run_small(tmp_path / "through")
    monkeypatch.setattr(study, "EPOCHS_BETWEEN_SAVES", 1)
    real = study.Ensemble.train_epoch

    def interrupted(self: Any, *arguments: Any) -> Tensor:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(study.Ensemble, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_small(tmp_path / "stopped")
    monkeypatch.setattr(study.Ensemble, "train_epoch", real)
    continued = run_small(tmp_path / "stopped")
    for name, value in through.params.items():
        assert torch.equal(value, continued.params[name])


def test_scores_are_cross_entropy_and_error_rate() -> None:
    net = ReportMLP()
    x, y = torch.randn(50, 2) * 5, torch.randint(2, (50,))
    loss, error = study.scores({n: p.detach()[None] for n, p in net.named_parameters()}, x, y)
    assert loss.item() == pytest.approx(F.cross_entropy(net(x), y).item(), rel=1e-5)
    assert error.item() == pytest.approx((net(x).argmax(1) != y).float().mean().item())
    dead = {n: torch.zeros_like(p)[None] for n, p in net.named_parameters()}
    loss, error = study.scores(dead, x, y)  # equal outputs: as good as a coin, not always wrong
    assert error.item() == 0.5 and loss.item() == pytest.approx(0.6931472)


@pytest.mark.slow
def test_networks_of_a_seed_see_the_same_test_sets(tmp_path: Path) -> None:
    trained = run_small(tmp_path, epochs=1)
    equal = {name: p[:1].expand_as(p) for name, p in trained.params.items()}
    loss, error = study.test(equal, 40, "testing")
    assert loss.shape == error.shape == (2, 1, 2, 158)
    assert torch.equal(loss[0], loss[1])
    assert not torch.equal(loss[0, 0, 0], loss[0, 0, 1])


def made_up(shift: float = 0.0) -> dict[str, Tensor]:
    """Twenty seeds at training variances 1, 15, 30: best are Adam to 10, ASAM to 50, then SAM."""
    tested = study.TEST_VARIANCES
    noise = torch.randn(3, 20, 1) * 0.5  # shared: a paired comparison does not see it
    own = torch.randn(3, 3, 20, 158) * 1e-3
    line = {"Adam": (tested - 10) / 100, "ASAM": 0 * tested + shift, "SAM": (50 - tested) / 200}
    return {name: line[name] + noise + own[number] for number, name in enumerate(NAMES)}


def test_leads_too_short_to_mean_anything_are_undecided() -> None:
    tested = study.TEST_VARIANCES.tolist()
    best = torch.zeros(1, 158, dtype=torch.long)
    clear = torch.zeros(1, 158, dtype=torch.long)
    for lead in ("30 to 31.5", "60 to 62.5"):
        low, high = (tested.index(float(word)) for word in lead.split(" to "))
        clear[0, low : high + 1] = 1
    found = {"best": best.tolist(), "clear": clear.tolist()}
    assert regions(found, 0, tested) == "undecided 1–59.5, Adam 60–62.5, undecided 63–79.5"


def test_comparison_finds_the_best_and_where_it_is_undecided() -> None:
    found = compare(made_up())
    tested = study.TEST_VARIANCES.tolist()
    assert regions(found, 0, tested) == "Adam 1–10, ASAM 10.5–50, SAM 50.5–79.5"
    assert shares_in_words(found).startswith("Adam 11 %, SAM 3")
    for variance, name in ((5.0, "Adam"), (30.0, "ASAM"), (79.0, "SAM")):
        column = tested.index(variance)
        assert NAMES[found["best"][0][column]] == name and found["clear"][0][column] == 1
    assert found["clear"][0][tested.index(10.0)] == 0
    pair = found["pairs"]["ASAM − Adam"]
    assert pair["mean"][1][tested.index(30.0)] == pytest.approx(-0.2, abs=2e-3)
    assert pair["half_width"][1][tested.index(30.0)] < 2e-3  # paired: the noise of 0.5 is gone


def test_summary_of_one_seed_has_no_error() -> None:
    found = summarize(torch.ones(1, 1, 3))
    assert found["mean"] == [[1.0, 1.0, 1.0]]
    assert all(value != value for value in found["standard_error"][0])


TESTED, TRAINED = study.TEST_VARIANCES.tolist(), [1.0, 15.0, 30.0]


def of(name: str) -> Sentence:
    """The sentence whose claim begins so."""
    (found,) = (sentence for claim, _, sentence in SENTENCES if claim.startswith(name))
    return found


def test_sentences_hold_if_all_comparisons_do_and_fail_if_one_is_contrary() -> None:
    good, bad = compare(made_up()), compare(made_up(shift=1.0))  # bad: ASAM far above the others
    words, holds = judged(of("“There is a point where SAM"), View(good, TRAINED, TESTED))
    assert holds is True and words.startswith("all 6 comparisons")
    words, holds = judged(of("“ASAM generalizes better than SAM"), View(bad, TRAINED, TESTED))
    assert holds is False and "beyond the band 3" in words
    _, holds = judged(of("“For test datasets"), View(bad, [1.0], TESTED))
    assert holds is True  # the same numbers, the other way around
    both = judge(
        {
            "as reported": {"loss": good, "error rate": good},
            "controlled": {"loss": bad, "error rate": bad},
        },
        TRAINED,
        TESTED,
    )
    verdict = next(v for v in both if v.claim.startswith("“ASAM generalizes better than SAM"))
    assert verdict.controlled is not None and verdict.controlled[1] is False
    assert [v.own for v in both] == [False] * (len(both) // 2) + [True] * (len(both) // 2)
    _, holds = judged(of("“(σ² = 15)"), View(good, [1.0], TESTED))
    assert holds is None  # the training variance was left out


def test_curves_are_alike_if_their_order_turns_around_but_for_the_noisiest() -> None:
    found = compare(made_up())
    words, holds = judged(of("“The curves behave"), View(found, TRAINED, TESTED))
    assert holds is True and words.startswith("all 8 comparisons")  # of 1 and 15, not of 30


def test_adam_first_counts_every_training_variance() -> None:
    conditions = list(of("“If we increase")(View(compare(made_up()), TRAINED, TESTED)))
    assert {c.variance for c in conditions} == set(TRAINED)


def test_the_example_of_an_undecided_sentence_is_undecided() -> None:
    scores = made_up()
    scores["SAM"][2, :, -1] = scores["ASAM"][2, :, -1] + torch.randn(20)  # no difference, wide
    found = compare(scores)
    words, holds = judged(of("“For test datasets"), View(found, TRAINED, TESTED))
    assert holds is None and "undecided is SAM below ASAM at 30 → 79.5" in words


def test_one_contrary_cell_of_many_counts_only_beyond_the_band() -> None:
    def condition(value: float) -> Condition:
        return Condition("SAM", "Adam", 15.0, 40.0, value, 1.0, (2.0, 3.0))

    assert condition(-1.5).contrary() is False and condition(-2.5).contrary() is True
    assert condition(-2.5).contrary(2) is False and condition(-3.5).contrary(2) is True
    assert condition(-3.5).contrary(7) is True  # no more is known than two


@pytest.mark.slow
def test_bands_cover_all_cells_of_a_row_at_once() -> None:
    """Of null rows five in a hundred have a cell beyond the band; single intervals let many."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(200, 20, 60, generator=generator)
    cells = steps.cumsum(dim=2) + 5 * torch.randn(200, 20, 60, generator=generator)  # neighbors
    mean, half = cells.mean(dim=1), half_width(cells)
    wider = torch.tensor([row[0] for row in widening(cells)])
    beyond = (mean.abs() > half).any(dim=1).double().mean().item()
    beyond_band = (mean.abs() > half * wider[:, None]).any(dim=1).double().mean().item()
    assert beyond > 0.3
    assert 0.005 <= beyond_band <= 0.12  # three standard errors of 0.05 are 0.046
    factors = torch.tensor(widening(cells[:6]))
    assert (factors.diff(dim=1) >= 0).all() and (factors >= 1).all()


def test_one_cell_needs_no_band_but_its_interval() -> None:
    normal = torch.randn(3, 20, 1, generator=torch.Generator().manual_seed(1))
    for row in widening(normal):
        assert 1 <= row[0] < 1.25  # the bootstrap of a mean over 20 seeds is near t


@pytest.mark.slow
def test_networks_that_predict_one_class_are_found() -> None:
    params = {n: p[None, None].detach() for n, p in ReportMLP().named_parameters()}
    both = {n: torch.stack([p, p], dim=2) for n, p in params.items()}
    both["last.weight"][:, :, 1] = 0  # equal outputs everywhere
    found = study.one_class(both, 80)
    assert found.shape == (1, 1, 2) and found[0, 0].tolist()[1] is True
    errors = study.test(both, 80, "testing")[1]
    assert (errors[0, 0, 1] == errors[0, 0, 1, 0]).all()
    assert found[0, 0, 0].item() == bool((errors[0, 0, 0] == 0.5).all())


def test_a_gap_is_smaller_only_beyond_its_interval() -> None:
    clear = smaller_gap({"15": [1.0, 1.1, 0.9], "30": [0.1, 0.1, 0.2]})
    assert clear[1] is True
    assert smaller_gap({"15": [0.1, 0.1, 0.2], "30": [1.0, 1.1, 0.9]})[1] is False
    assert smaller_gap({"15": [1.0, -1.0, 0.2], "30": [0.0, 0.0, 0.0]})[1] is None
    assert smaller_gap({"15": [1.0]})[1] is None


def test_crossing_is_where_a_curve_stays_below() -> None:
    curves = {"A": {"mean": [[1.0, 0.0, 1.0, 0.0]]}, "B": {"mean": [[0.5] * 4]}}
    assert crossing(curves, ("A", "B"), 0, [1.0, 2.0, 3.0, 4.0]) == "4"
    assert crossing(curves, ("B", "A"), 0, [1.0, 2.0, 3.0, 4.0]) == "never"
    low = {"A": {"mean": [[0.0] * 4]}, "B": curves["B"]}
    assert crossing(low, ("A", "B"), 0, [1.0, 2.0, 3.0, 4.0]) == "everywhere"


def test_rho_must_be_a_radius(tmp_path: Path) -> None:
    module: Any = discover()["ext_criterion"].load()
    with pytest.raises(ValueError, match="rho must be one of radii"):
        module.run(replace(module.QUICK, rho=0.3), tmp_path)
