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
from flatmin.experiments.toy._conditions import View
from flatmin.experiments.toy._criterion import (
    NAMES,
    compare,
    crossing,
    regions,
    shares_in_words,
    summarize,
)
from flatmin.experiments.toy._section2 import SENTENCES
from flatmin.experiments.toy._verdicts import judge, verdict
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


def test_sentences_are_judged() -> None:
    tested, trained = study.TEST_VARIANCES.tolist(), [1.0, 15.0, 30.0]
    good, bad = compare(made_up()), compare(made_up(shift=1.0))  # bad: ASAM far above the others
    verdicts = {
        holds: verdict("", "", {"as reported": View(good, trained, tested), "controlled": view}, s)
        for holds, view, s in (
            (True, View(good, trained, tested), SENTENCES[3][2]),
            (False, View(bad, trained, tested), SENTENCES[8][2]),
        )
    }
    assert all(v.holds is holds for holds, v in verdicts.items())
    everything = judge(
        {"as reported": {"loss": good}, "controlled": {"loss": bad}}, trained, tested
    )
    assert any("holds only as reported" in v.measured for v in everything)
    missing = judge({"as reported": {"loss": good}, "controlled": {"loss": good}}, [1.0], tested)
    assert any(v.holds is None for v in missing)


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
