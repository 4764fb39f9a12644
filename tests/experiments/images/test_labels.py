"""Right labels and wrong ones: the task, what is judged, and the whole item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flatmin.compare.loading import load_task
from flatmin.experiments import discover
from flatmin.experiments.images import ext_labels
from flatmin.experiments.images._data import ImageOptions
from flatmin.experiments.images._labels import Labels
from flatmin.record.page import publish
from flatmin.record.store import read_record, run_item


def test_the_file_of_a_task_makes_it_again(tmp_path: Path) -> None:
    options = ImageOptions(images=200, test_images=50, augment=False)
    labels = Labels(options=options, network="wrn-10-1", precision="fp32", noise=0.4)
    file = tmp_path / "task.py"
    file.write_text(labels.file())
    task = load_task(file)
    (fit, held, test), (own, _) = task.parts(0), labels.data()
    right, _ = replace(labels, noise=0.0).data()
    assert (len(fit), len(held), len(test)) == (160, 40, 50)
    assert task.config == labels.config
    assert own.fingerprint() == task.whole(0)[0].fingerprint()
    assert int((own.labels != right.labels).sum()) == 80
    assert sum(p.numel() for p in task.model(0).parameters()) == sum(
        p.numel() for p in labels.model().parameters()
    )


def found(points: dict[str, float], fit: float) -> dict[str, Any]:
    """A comparison whose arms have so many percent, give or take a tenth."""
    arms = {
        arm: {"value": [value - 0.1, value, value + 0.1], "fit": fit, "epochs": 2, "at_edge": False}
        for arm, value in points.items()
    }
    rows = [
        {"arm": arm, "reference": reference, "at": at, "verdict": "helps", "value": 1.0}
        | {"low": 0.5, "high": 1.5, "p": 0.01, "detectable": 0.4}
        for arm in ("sam", "asam")
        for at, reference in (("epochs", "base"), ("gradients", "base × 2"))
    ]
    return {
        "arms": arms,
        "differences": rows,
        "task": {"unit": "points"},
        "config": {"worth": 0.5, "seeds": 3},
    }


def record(fit: float = 100.0, gain: float = 3.0) -> dict[str, Any]:
    clean = found({"base": 50.0, "base × 2": 51.0, "sam": 51.0, "asam": 52.0}, fit)
    noisy = found({"base": 20.0, "base × 2": 20.5, "sam": 21.0 + gain, "asam": 22.0 + gain}, fit)
    tasks = {"wrong-0": clean, "wrong-40": noisy}
    source = "CIFAR-10, 5,000 of 50,000 images"
    return {"numbers": {"tasks": tasks, "noise": [0.0, 0.4], "source": source}}


def test_the_positive_control_and_the_growth_are_judged() -> None:
    verdicts = {verdict.claim: verdict for verdict in ext_labels.check(record())}
    assert len(verdicts) == 8 + 1 + 4
    assert verdicts["SAM helps on 40% wrong labels (equal gradients)"].holds
    growth = "SAM's gain is greater on the harder set: 40% wrong labels against none (equal epochs)"
    assert verdicts[growth].holds and not verdicts[growth].own
    assert verdicts[growth].measured.startswith("+3.00")
    fits = next(verdict for claim, verdict in verdicts.items() if "fits its training" in claim)
    assert fits.holds and fits.own
    less = {v.claim: v for v in ext_labels.check(record(fit=90.0, gain=-3.0))}
    assert less[fits.claim].holds is False and less[growth].holds is False


def test_shares_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shares in increasing order, such as 0,0.4, got \(0.4"):
        ext_labels.Config(noise=(0.4, 0.0))


@pytest.mark.slow
def test_it_runs_and_is_published(tmp_path: Path) -> None:
    item = discover()["ext_labels"]
    tiny = replace(ext_labels.QUICK, images=60, test_images=20, epochs=1, seeds=2, workers=1)
    run_item(item, tiny, "QUICK", tmp_path)
    stored = read_record(item, tmp_path)
    assert stored is not None
    runs = list((tmp_path / "labels").glob("*/runs/*.json"))
    # Of four arms and two seeds at two shares, and what an epoch costs.
    assert len(runs) == 2 * (4 * 2 + 1)
    verdicts = publish(item, stored, tmp_path)
    assert len(verdicts) == 13
    page = (tmp_path / "ext_labels.md").read_text()
    assert "digits" in page and "What is learnt by heart" in page
    before = {path: path.stat().st_mtime_ns for path in runs}
    run_item(item, tiny, "QUICK", tmp_path)  # what is finished is not done again
    assert before == {path: path.stat().st_mtime_ns for path in runs}
