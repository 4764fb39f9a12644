"""Six optimizers that belong together: SGD and Adam, each alone, with SAM and with ASAM."""

from __future__ import annotations

from typing import Any

# Name → base optimizer, minimizer.
OPTIMIZERS = {
    "SGD": ("sgd", "none"),
    "SGD + SAM": ("sgd", "sam"),
    "SGD + ASAM": ("sgd", "asam"),
    "Adam": ("adamw", "none"),
    "Adam + SAM": ("adamw", "sam"),
    "Adam + ASAM": ("adamw", "asam"),
}

BASES = ("SGD", "Adam")
MINIMIZERS = ("SAM", "ASAM")


def base_arm(optimizer: str, lr: float, decay: float) -> dict[str, Any]:
    """What to train a base optimizer with."""
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    return {"optimizer": optimizer, "lr": lr, "options": {**options, "weight_decay": decay}}


def flat(choice: dict[str, Any]) -> dict[str, Any]:
    """What was searched for, out of what to train with."""
    decay = choice["options"]["weight_decay"]
    return {"lr": choice["lr"], "decay": decay, "rho": choice.get("rho")}
