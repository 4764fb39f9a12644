"""Options are typed by the dataclass of the item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from flatmin.record.options import configure, option_names


@dataclass(frozen=True, kw_only=True)
class Config:
    seeds: int = 3
    rho: float = 0.5
    name: str = "a"
    data: str | None = None
    exact: bool = False
    sizes: tuple[float, ...] = (1.0,)
    pair: tuple[int, str] = (1, "b")
    kind: Literal["flat", "sharp"] = "flat"
    device: str = "cpu"
    limit: int | None = 5

    def __post_init__(self) -> None:
        if self.rho < 0:
            raise ValueError(f"rho must be at least 0, got {self.rho}.")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seeds", "7", 7),
        ("rho", "1e-3", 1e-3),
        ("name", "x=y", "x=y"),
        ("data", "some/folder", "some/folder"),
        ("data", "none", None),
        ("exact", "true", True),
        ("exact", "False", False),
        ("sizes", "1, 2.5,3", (1.0, 2.5, 3.0)),
        ("sizes", "4", (4.0,)),
        ("pair", "2,c", (2, "c")),
        ("kind", "sharp", "sharp"),
        ("limit", "9", 9),
        ("limit", "none", None),
        ("device", "cpu", "cpu"),
    ],
)
def test_texts_become_values(name: str, text: str, value: object) -> None:
    config = configure(Config(), {name: text})
    assert getattr(config, name) == value
    assert type(getattr(config, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("seeds", "1.5", "seeds must be an integer, got '1.5'."),
        ("seeds", "", "seeds must be an integer, got ''."),
        ("seeds", "0", "seeds must be at least 1, got 0."),
        ("rho", "much", "rho must be a number, got 'much'."),
        ("rho", "-1", "rho must be at least 0, got -1.0."),
        ("exact", "1", "exact must be true or false, got '1'."),
        ("sizes", "", "sizes must be (a number, …), comma-separated, got ''."),
        ("sizes", "1,x", "sizes must be (a number, …), comma-separated, got '1,x'."),
        ("pair", "1", "pair must be (an integer, a text), comma-separated, got '1'."),
        ("kind", "round", "kind must be one of flat, sharp, got 'round'."),
        ("limit", "some", "limit must be an integer or none, got 'some'."),
        ("device", "gpu7", "device must be one this machine has"),
        ("sede", "1", "there is no option 'sede'; valid are seeds=3, rho=0.5, name=a, data=none, "
         "exact=false, sizes=1.0, pair=1,b, kind=flat"),
    ],
)  # fmt: skip
def test_bad_texts_get_one_sentence(name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        configure(Config(), {name: text})
    assert str(caught.value).startswith(message)


def test_the_configuration_itself_stays() -> None:
    config = Config()
    assert configure(config, {"seeds": "9"}) != config == Config()
    assert option_names(config)[:2] == ["seeds", "rho"]
