"""Crops and flips as they were set before: in the configuration, for one release more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import KINDS, config, image_set, same_weights, small

from flatmin.data import Augment
from flatmin.train import train

BARE, TEST = image_set(60, 0), image_set(20, 1)


@pytest.mark.parametrize(
    ("given", "augment"),
    [
        ({"flip": False}, Augment(4, flip=False)),  # the other one as it was by default
        ({"crop_padding": 1}, Augment(1)),
        ({"crop_padding": 0, "flip": False}, Augment(0, flip=False)),
    ],
)
def test_the_old_way_gives_the_bits_of_the_new_one(given: dict[str, Any], augment: Augment) -> None:
    new, plain = small(), small()
    train(config(), (replace(BARE, augment=augment), TEST), model=new)
    train(config(), (BARE, TEST), model=plain)
    for images in (BARE, replace(BARE, augment=Augment())):
        old = small()
        with pytest.warns(DeprecationWarning, match=r"augment=Augment\(crop_padding="):
            train(config(**given), (images, TEST), model=old)
        assert same_weights(old, new)
    assert same_weights(new, plain) is (augment == Augment(0, flip=False))


def test_a_run_begun_the_old_way_goes_on_in_the_new_one(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        train(config(flip=True), (BARE, TEST), model=small(), out=tmp_path)
    data = replace(BARE, augment=Augment()), TEST
    run = train(config(), data, model=small(), out=tmp_path, resume=True)
    assert len(run.history) == 2
    with pytest.raises(ValueError, match="crop_padding was 4 and is 0, flip was True and is False"):
        train(config(), (BARE, TEST), model=small(), out=tmp_path, resume=True)


def test_neither_of_two_settings_is_ignored() -> None:
    own = replace(BARE, augment=Augment(1, flip=False))
    with pytest.raises(ValueError, match="crops and flips of its own"):
        train(config(flip=True), (own, TEST), model=small())
    table = KINDS["table"]
    with pytest.raises(ValueError, match="flip of the configuration are for images"):
        train(config(flip=True), table.data, model=table.network())
    with pytest.raises(ValueError, match="crop_padding must be at least 0, got -1"):
        config(crop_padding=-1)
