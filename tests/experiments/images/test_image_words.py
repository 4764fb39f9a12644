"""What a page says about how far its search can be trusted."""

from __future__ import annotations

from typing import Any

import pytest

from flatmin.experiments.images._words import limits


def record(lr: float, rho: float) -> dict[str, Any]:
    """A search over three learning rates and three radii, and what was chosen."""
    base = {"lr": lr, "options": {"weight_decay": 5e-4}}
    search = [{"optimizer": "SGD", "lr": v, "decay": 5e-4, "rho": None} for v in (0.1, 0.3, 1.0)]
    search += [
        {"optimizer": "SGD + SAM", "lr": lr, "decay": 5e-4, "rho": v} for v in (0.05, 0.1, 0.2)
    ]
    numbers = {
        "source": "CIFAR-10",
        "test_source": "CIFAR-10",
        "parameters": 10,
        "commits": ["0"],
        "search": search,
        "chosen": {"SGD": base, "SGD + SAM": {**base, "rho": rho}},
    }
    return {"numbers": numbers, "config": {"model": "cnn", "epochs": 1, "seeds": 3}}


@pytest.mark.parametrize(
    ("lr", "rho", "edge", "least"),
    [
        (0.3, 0.1, None, None),
        (0.1, 0.1, "SGD", None),
        (0.3, 0.2, "SGD + SAM", None),
        (1.0, 0.05, "SGD", "SGD + SAM"),
    ],
)
def test_choices_at_an_end_of_the_search_are_named(
    lr: float, rho: float, edge: str | None, least: str | None
) -> None:
    said = limits(record(lr, rho))[1:]
    expected = [f"edge of the search** lie choices for {edge}:"] if edge else []
    expected += [f"smallest radius** of the search was the best for {least}:"] if least else []
    assert len(said) == len(expected)
    for sentence, words in zip(said, expected, strict=True):
        assert words in sentence
