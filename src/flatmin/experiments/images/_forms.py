"""The forms of sharpness awareness whose cost is compared, and what is tried for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.quasirandom import SobolEngine

from flatmin._streams import seed_for

Range = tuple[float, float]
LR, DECAY = (0.02, 0.5), (1e-4, 1e-2)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to train, around SGD with momentum.

    Attributes:
        name: What the page calls it.
        words: What it does.
        fixed: What it sets of the configuration.
        radii: Range of radii to choose from; None for a form without one.
        multiple: How many times the epochs of the others it is trained for.
    """

    name: str
    words: str
    fixed: dict[str, Any]
    radii: Range | None = None
    multiple: float = 1.0

    def epochs(self, base: int) -> int:
        """Its epochs, where the others have ``base``."""
        return max(1, round(self.multiple * base))


_SAM, _ASAM = (0.05, 1.0), (0.5, 10.0)
_LONGER = tuple(
    Form(name=f"SGD × {n:g}", words=f"SGD for {n:g} times the epochs", fixed={}, multiple=n)
    for n in (1.2, 1.5, 2.0)
)
FORMS = (
    Form(name="SGD", words="no perturbation", fixed={}),
    *_LONGER,
    Form(name="SAM", words="every step", fixed={"minimizer": "sam"}, radii=_SAM),
    Form(name="ASAM", words="every step", fixed={"minimizer": "asam"}, radii=_ASAM),
    Form(
        name="SAM, last 30 %",
        words="SGD first, SAM in the last 30 % of the steps",
        fixed={"minimizer": "sam", "when": "last-0.3"},
        radii=_SAM,
    ),
    Form(
        name="ASAM, last 20 %",
        words="SGD first, ASAM in the last 20 % of the steps",
        fixed={"minimizer": "asam", "when": "last-0.2"},
        radii=_ASAM,
    ),
    Form(
        name="ASAM, every 5th",
        words="ASAM in every fifth step",
        fixed={"minimizer": "asam", "when": "every-5"},
        radii=_ASAM,
    ),
    Form(
        name="MSAM",
        words="along the momentum, one gradient a step",
        fixed={"minimizer": "msam"},
        radii=_SAM,
    ),
    Form(
        name="AsyncSAM",
        words="along the last step's gradient, one gradient a step",
        fixed={"minimizer": "asyncsam"},
        radii=_SAM,
    ),
    Form(
        name="SAM-ON",
        words="SAM on the parameters of normalization layers alone",
        fixed={"minimizer": "sam", "perturb": "norms"},
        radii=(0.05, 5.0),
    ),
)
LENGTHS = ("SGD", *(form.name for form in _LONGER))


def trials(form: Form, count: int) -> list[dict[str, Any]]:
    """What to train a form with in each trial of its search.

    Learning rate and weight decay are the same points for all forms; the radius is a third
    coordinate. All are spread evenly on a logarithmic scale.

    Args:
        form: The form.
        count: How many.

    Returns:
        Choices of a configuration.
    """
    seed = seed_for("trials of the forms")
    engine = SobolEngine(3, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    found = []
    for lr, decay, radius in engine.draw(count).tolist():
        choice = {
            "optimizer": "sgd",
            "lr": _between(LR, lr),
            "options": {"momentum": 0.9, "weight_decay": _between(DECAY, decay)},
            **form.fixed,
        }
        found.append({**choice, "rho": _between(form.radii, radius)} if form.radii else choice)
    return found


def _between(limits: Range, part: float) -> float:
    """A part of the way from one limit to the other, in three digits."""
    low, high = limits
    return float(f"{low * (high / low) ** part:.3g}")
