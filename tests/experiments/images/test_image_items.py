"""The items that train on images: tiny configurations on digits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flatmin.compare import runs
from flatmin.compare.pairing import ends
from flatmin.compare.runs import Runs
from flatmin.compare.statistics import paired
from flatmin.experiments import discover
from flatmin.experiments.images import _data
from flatmin.experiments.images._comparison import gains, reported_ways
from flatmin.experiments.images._data import ImageOptions, load, with_wrong_labels
from flatmin.experiments.images._setting import kept_in
from flatmin.experiments.images._study import REPORTED, Study, StudyOptions
from flatmin.record.page import publish
from flatmin.record.store import forget, read_record, run_item

pytestmark = pytest.mark.slow  # trains, if briefly

TINY: dict[str, Any] = {
    "images": 66,
    "test_images": 20,
    "epochs": 2,
    "search_epochs": 1,
    "validation": 30,
    "evaluate_train": 20,
    "sgd_lrs": (0.1,),
    "adam_lrs": (1e-3,),
    "sam_rhos": (0.05,),
    "asam_rhos": (0.5,),
}
ITEMS: dict[str, dict[str, Any]] = {
    "table1": {"rounds": 1},
    "fig7": {},
    "ext_time": {},
    "ext_simple_model": {"bases": ("Adam",)},
    "ext_label_noise": {"noise": (0.0, 0.4)},
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_runs_draws_and_judges(name: str, out: Path) -> None:
    item = discover()[name]
    run_item(item, replace(item.load().QUICK, **TINY, **ITEMS[name]), "QUICK", out)
    record = read_record(item, out)
    assert record is not None
    verdicts = publish(item, record, out)
    judged = [v for v in verdicts if "on digits, which say nothing of CIFAR" not in v.measured]
    assert [v.claim[:20] for v in judged] == ["An epoch takes longe"] * 2 * (name == "table1")
    assert all(v.holds is None for v in verdicts if v not in judged)
    page = (out / f"{name}.md").read_text()
    assert "digits (scikit-learn)" in page
    assert "**Answer.**" in page
    assert (out / f"{name}.json").stat().st_size < 100_000


def test_figure_7_takes_the_runs_of_table_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {**TINY, "epochs": 1, "seeds": 1}
    items = discover()
    quick = items["table1"].load().QUICK
    run_item(items["table1"], replace(quick, **config, rounds=1), "QUICK", tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(runs, "train", refuse)
    run_item(items["fig7"], replace(items["fig7"].load().QUICK, **config), "QUICK", tmp_path)
    one, other = (read_record(items[name], tmp_path) for name in ("table1", "fig7"))
    assert one is not None and other is not None
    for key in ("chosen", "search", "equal_epochs"):
        assert one["numbers"][key] == other["numbers"][key]


def test_shared_runs_are_forgotten_by_the_items_that_share_them(tmp_path: Path) -> None:
    items = discover()
    kept = kept_in(tmp_path / ".scratch" / "table1-0")
    forget([items["fig1"]], tmp_path)
    assert kept.is_dir()
    for name in ITEMS:
        forget([items[name]], tmp_path)
        assert not kept.exists()
        kept.mkdir()


def study(scratch: Path, **changes: Any) -> Study:
    options = StudyOptions(model="wrn-10-1", precision="fp32", seeds=1, **{**TINY, **changes})
    scratch.mkdir(parents=True, exist_ok=True)
    return Study(options, scratch)


def test_the_first_half_of_a_long_adam_run_is_the_reports_run(tmp_path: Path) -> None:
    own = study(tmp_path / ".scratch" / "a")
    choices = REPORTED["Adam"]
    short, long = (own.runs(own.config(epochs, **choices)) for epochs in (1, 2))
    for key in ("test", "train", "running"):
        assert long[key][:1] == short[key]
    assert ends([long], 1)["last"] == ends([short], 1)["last"]
    assert [epochs for epochs, _ in reported_ways(REPORTED, 1).values()] == [2, 1, 1]


def test_choices_are_made_without_the_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"sgd_lrs": (1e-6, 0.1), "images": 300, "search_epochs": 2}
    names = ["SGD", "SGD + SAM"]
    choice = study(tmp_path / ".scratch" / "a", **changes).choose(names)
    train, test = _data._whole(None, None, 8)
    swapped = train, replace(test, labels=(test.labels + 1) % 10)
    monkeypatch.setattr(_data, "_whole", lambda *_: swapped)
    assert choice == study(tmp_path / ".scratch" / "a", **changes).choose(names)
    tried = [kept for kept in choice["search"] if kept["optimizer"] == "SGD"]
    lr = choice["chosen"]["SGD"]["lr"]
    decay = choice["chosen"]["SGD"]["options"]["weight_decay"]
    (chosen,) = [kept for kept in tried if (kept["lr"], kept["decay"]) == (lr, decay)]
    assert chosen["accuracy"] == max(kept["accuracy"] for kept in tried)
    assert choice["chosen"]["SGD + SAM"]["lr"] == lr


def test_a_run_that_diverges_is_said_and_left_out(tmp_path: Path) -> None:
    own = study(tmp_path / ".scratch" / "a")
    bad = own.runs(own.config(1, optimizer="sgd", lr=1e30))
    assert "not finite" in bad["diverged"]
    good = own.runs(own.config(1, optimizer="sgd", lr=0.1))
    columns = ends([bad, good], 1)
    assert columns["last"] == [None, good["test"][0]]
    assert paired(columns["last"], columns["last"]).n == 1


def test_an_interrupted_long_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_EPOCHS_WORTH_SAVING", 1)
    own = study(tmp_path / ".scratch" / "a", images=64)
    config = own.config(2, optimizer="sgd", lr=0.1)
    expected = own.runs(config)
    real = runs.train

    def stopped(*arguments: Any, **options: Any) -> Any:
        """Train to the first checkpoint, and no further."""
        from flatmin.train.folder import Folder

        save = Folder.save

        def once(self: Folder, *rest: Any) -> None:
            save(self, *rest)
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Folder, "save", once)
            return real(*arguments, **options)

    (tmp_path / "b").mkdir()
    again = Runs(own.data, tmp_path / "b", "cpu")
    monkeypatch.setattr(runs, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        again(config)
    assert [path.is_dir() for path in (tmp_path / "b").iterdir()] == [True]
    monkeypatch.setattr(runs, "train", real)
    found = again(config)
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    assert [path.suffix for path in (tmp_path / "b").iterdir()] == [".json"]


def test_other_data_are_another_run(tmp_path: Path) -> None:
    own = study(tmp_path / ".scratch" / "a")
    config = own.config(1, optimizer="sgd", lr=0.1)
    own.runs(config)
    noisy = (with_wrong_labels(own.data[0], 0.5), own.data[1])
    Runs(noisy, own.runs.folder, "cpu")(config)
    assert len(list(kept_in(tmp_path / ".scratch" / "a").glob("*.json"))) == 2


def test_wrong_labels_are_as_many_as_said_and_wrong() -> None:
    train, _ = load(ImageOptions(), "wrn-10-1")
    noisy = with_wrong_labels(train, 0.4)
    changed = noisy.labels != train.labels
    assert int(changed.sum()) == round(0.4 * len(train))
    assert "40% of labels wrong" in noisy.source
    assert torch.equal(noisy.labels, with_wrong_labels(train, 0.4).labels)
    assert with_wrong_labels(train, 0.0) is train
    # Evenly over the nine other classes.
    shifts = torch.bincount((noisy.labels - train.labels)[changed] % 10, minlength=10)
    assert shifts[0] == 0 and shifts[1:].min() > 0.6 * changed.sum() / 9
    with pytest.raises(ValueError, match=r"noise must lie in \[0, 1\), got 1.0"):
        with_wrong_labels(train, 1.0)


def test_smaller_images_are_means_of_squares() -> None:
    train, _ = load(ImageOptions(), "cnn")  # digits of 8 × 8, each pixel a square
    color = replace(train, source="made up")
    small = _data._smaller(color, 8)
    assert small.source == "made up, averaged to 8 × 8 pixels"
    assert torch.equal(small.images, train.images[:, :, ::4, ::4])
    with pytest.raises(ValueError, match="pixels must be 32, 16 or 8, got 7"):
        load(ImageOptions(pixels=7), "wrn-10-1")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("table1", {"evaluate_every": 3}, "divisor of the 50 epochs"),
        ("ext_time", {"multiples": (1, 3)}, "hold 1 and 2"),
        ("ext_label_noise", {"noise": (0.4, 0.0)}, "in increasing order"),
    ],
)
def test_options_that_do_not_fit(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(discover()[name].load().FULL, **changes)


def test_gains_are_against_the_base_of_equal_cost() -> None:
    equal = {"SGD": {"last": [1.0]}, "SGD + SAM": {"last": [3.0]}, "SGD + ASAM": {"last": [4.0]}}
    numbers = {"equal_epochs": equal, "equal_gradients": {"SGD": {"last": [2.5]}}}
    same, fair = (gains(numbers, key) for key in ("equal_epochs", "equal_gradients"))
    assert {name: value.value for name, value in same.items()} == {
        "SAM on SGD": 2,
        "ASAM on SGD": 3,
    }
    assert {name: value.value for name, value in fair.items()} == {
        "SAM on SGD": 0.5,
        "ASAM on SGD": 1.5,
    }


def test_records_have_no_paths_of_this_machine(out: Path) -> None:
    for path in out.glob("*.json"):
        assert str(out) not in json.dumps(json.loads(path.read_text())["numbers"])
