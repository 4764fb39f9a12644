"""What an optimizer and its learning rate are made from, as a part of ``TrainConfig``.

The configuration checks itself by building its optimizer, so the optimizers cannot know its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Recipe(Protocol):
    """Fields of ``TrainConfig``, which explains them."""

    @property
    def optimizer(self) -> str:
        """Name of a class of ``torch.optim``."""

    @property
    def lr(self) -> float:
        """Its peak learning rate."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Its other arguments."""

    @property
    def minimizer(self) -> str:
        """Name of the wrapper around it, or ``none``."""

    @property
    def rho(self) -> float | None:
        """Radius of the ball."""

    @property
    def eta(self) -> float | None:
        """Added to ``|w|``."""

    @property
    def biases(self) -> bool | None:
        """Whether biases are scaled."""

    @property
    def p(self) -> float | None:
        """Order of the norm."""

    @property
    def when(self) -> str:
        """In which steps the minimizer perturbs."""

    @property
    def perturb(self) -> str:
        """Which parameters it perturbs."""

    @property
    def seed(self) -> int:
        """Chooses what is drawn."""

    @property
    def schedule(self) -> str:
        """Course of the learning rate."""

    @property
    def warmup(self) -> float:
        """Epochs in which it first rises."""

    @property
    def epochs(self) -> int:
        """Epochs in all."""
