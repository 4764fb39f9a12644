"""What stands above a figure: network, data, ball."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flatmin.record.style import verbatim


def about(record: Mapping[str, Any], *, ball: bool = True) -> str:
    """Network and data, and in a second line the ball.

    Args:
        record: That of a look.
        ball: Whether there is one in the figure.

    Returns:
        Text that can stand in a figure.
    """
    subject = verbatim(f"{record['title']}; {record['data']['source']}")
    text = f"{subject}, {record['data']['examples']} examples"
    return f"{text}\n{of_ball(record['ball'])}" if ball else text


def of_ball(ball: Mapping[str, Any]) -> str:
    """A ball in a few signs."""
    order = "∞" if ball["p"] == "inf" else ball["p"]
    return f"{ball['scale']}, rho = {ball['rho']:g}, p = {order}"
