from typing import Any

import pytest
import torch

from flatmin.data import load_digits
from flatmin.data.image_set import channel_statistics

datasets = pytest.importorskip("sklearn.datasets")


def test_is_all_of_scikit_learns_digits() -> None:
    train, test = load_digits()
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = torch.cat((train.images, test.images)).flatten(1)
    rows = torch.cat((images, torch.cat((train.labels, test.labels))[:, None]), dim=1)
    scaled = torch.from_numpy(pixels).mul(255 / 16).round().long()
    expected = torch.cat((scaled, torch.from_numpy(labels)[:, None]), dim=1)
    # The same images with the same labels, as many times each.
    for ours, theirs in zip(
        rows.unique(dim=0, return_counts=True),
        expected.unique(dim=0, return_counts=True),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert images.max() == 255
    assert train.source == test.source == "digits (scikit-learn)"


def test_split_is_stratified_and_fixed_by_the_seed() -> None:
    train, test = load_digits()
    share = test.labels.bincount() / (test.labels.bincount() + train.labels.bincount())
    assert (share - 0.2).abs().max() < 0.01
    assert train.fingerprint() == load_digits()[0].fingerprint()
    assert train.fingerprint() != load_digits(seed=1)[0].fingerprint()


def test_both_sets_carry_the_constants_of_training() -> None:
    train, test = load_digits()
    assert (train.mean, train.std) == channel_statistics(train.images)
    assert (test.mean, test.std) == (train.mean, train.std)


def test_enlarging_repeats_pixels_and_channels() -> None:
    small, large = load_digits()[1], load_digits(size=32, channels=3)[1]
    assert large.images.shape == (360, 3, 32, 32)
    assert torch.equal(large.images[:, 1, ::4, 3::4], small.images[:, 0])
    assert torch.equal(large.images[:, 0], large.images[:, 2])
    assert large.mean == pytest.approx(small.mean * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 12}, "multiple of 8"),
        ({"size": 0}, "multiple of 8"),
        ({"channels": 0}, "channels"),
        ({"test_fraction": 1.0}, "test_fraction"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_digits(**arguments)
