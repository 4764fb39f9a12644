"""Every arm is searched with as many trials, and once more where its best setting lies."""

from __future__ import annotations

import pytest

from flatmin.compare.arms import ARMS, COSTS, base_for, chosen
from flatmin.compare.trials import EXTRA, Choice, Score, at_edge, best, further, grid, sides

TRIALS = (4, 6, 8, 9, 12)


def scored(settings: list[Choice], middle: tuple[float, float]) -> list[tuple[Choice, Score]]:
    """Scores that fall with the ratio to a middle."""
    return [
        (
            (lr, rho),
            (
                -max(lr / middle[0], middle[0] / lr)
                - (0.0 if rho is None else max(rho / middle[1], middle[1] / rho)),
            ),
        )
        for lr, rho in settings
        if lr is not None
    ]


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize("name", ["base", "sam", "asam", "averaged"])
@pytest.mark.parametrize("middle", [(1e-9, 1e-9), (0.1, 0.05), (1e9, 1e9), (0.1, 1e9)])
def test_each_arm_gets_the_same_number(name: str, trials: int, middle: tuple[float, float]) -> None:
    first = grid(ARMS[name], 0.1, trials)
    more = further(scored(first, middle))
    assert len(set(first)) == trials
    assert len({*first, *more}) == trials + EXTRA
    assert (0.1, ARMS[name].rho) in first  # what is given is among what is tried


def test_beyond_an_edge_and_between_neighbours() -> None:
    line = [(0.01, None), (0.1, None), (1.0, None)]
    high = further([(s, (float(n),)) for n, s in enumerate(line)])
    assert [lr for lr, _ in high] == pytest.approx([10**0.5, 10.0])
    low = further([(s, (-float(n),)) for n, s in enumerate(line)])
    assert [lr for lr, _ in low] == pytest.approx([0.01 / 10**0.5, 0.001])
    plane = grid(ARMS["sam"], 0.1, 9)
    found = further(scored(plane, (0.1, 1.0)))  # inside for lr, at the edge for rho
    assert found[0] == pytest.approx((0.1 * 10**0.25, 0.1)) or found[0] == pytest.approx(
        (0.1 / 10**0.25, 0.1)
    )
    assert found[1] == pytest.approx((0.1, 0.2))
    assert further([((0.1, 0.05), (1.0,))]) == []


def test_an_edge_is_told() -> None:
    inside = [((lr, None), (-abs(lr - 2.0),)) for lr in (1.0, 2.0, 3.0)]
    assert not at_edge(inside) and best(inside) == (2.0, None)
    assert at_edge(inside[1:]) and at_edge(inside[:2])
    # Below the smallest radius lies the base, which is an arm of its own.
    assert not at_edge([((1.0, rho), (-rho,)) for rho in (0.1, 0.2)])
    assert at_edge([((1.0, rho), (rho,)) for rho in (0.1, 0.2)])


def test_trials_that_cannot_be_crossed_are_refused() -> None:
    assert sides(12) == (4, 3)
    for wrong in (0, -4, 2, 3, 5, 7):
        with pytest.raises(ValueError, match="trials must be 1"):
            sides(wrong)


def test_arms_by_name() -> None:
    arms, costs = chosen(["sam", "gradients", "lion", "sam", "base"], {"lion": print})
    assert [arm.name for arm in arms] == ["sam", "lion"] and costs == ["gradients"]
    assert base_for(1.0) is ARMS["base"] and base_for(2.5).times == 2.5
    with pytest.raises(ValueError, match="there is no arm 'adam'"):
        chosen(["adam"], {})
    with pytest.raises(ValueError, match="flatmin's own"):
        chosen(["sam"], {"asam": print})
    for nothing in ([], ["base"], list(COSTS)):
        with pytest.raises(ValueError, match="must be an arm to compare"):
            chosen(nothing, {})
