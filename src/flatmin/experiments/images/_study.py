"""The study behind table 1 and figure 7: six optimizers on the same network, start and batches.

*As reported*: Adam without weight decay and at a constant learning rate; SAM and ASAM around SGD
with weight decay and cosine. *Controlled*: SGD and Adam, each alone, with SAM and with ASAM, all
with a cosine of their own; learning rate, weight decay and radius chosen on a held-out part of the
training set; and the base optimizers once more for twice the epochs, which is as many gradients as
SAM and ASAM evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flatmin.compare.optimizers import OPTIMIZERS, base_arm
from flatmin.compare.search import search
from flatmin.experiments.images._setting import Setting, SettingOptions

# What the report's code did; its "SAM" and "ASAM" are wrapped around SGD.
_SGD = {"optimizer": "sgd", "lr": 0.1, "schedule": "cosine-by-epoch"}
_SGD |= {"options": {"momentum": 0.9, "weight_decay": 5e-4}}
REPORTED: dict[str, dict[str, Any]] = {
    "Adam": {"optimizer": "adam", "lr": 1e-3, "schedule": "none"},
    "SAM": {**_SGD, "minimizer": "sam", "rho": 0.05},
    "ASAM": {**_SGD, "minimizer": "asam", "rho": 0.5, "eta": 0.0},
}


@dataclass(frozen=True, kw_only=True)
class StudyOptions(SettingOptions):
    """What is searched, beside the setting."""

    sgd_lrs: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Learning rates to choose from."""
    sgd_decays: tuple[float, ...] = (5e-4, 2e-3)
    """Weight decays to choose from."""
    adam_lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates to choose from."""
    adam_decays: tuple[float, ...] = (0.0, 0.05, 0.5)
    """Decoupled weight decays to choose from; at 0 it is plain Adam."""
    sam_rhos: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    """Radii of SAM to choose from."""
    asam_rhos: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Radii of ASAM to choose from."""


# On two cores: half a minute on digits, one and a half on CIFAR.
QUICK_STUDY: dict[str, Any] = {
    "seeds": 2,
    "model": "wrn-10-1",
    "epochs": 4,
    "precision": "fp32",
    "images": 1_000,
    "test_images": 500,
    "pixels": 16,
    "evaluate_train": 500,
    "validation": 200,
    "search_epochs": 2,
    "sgd_lrs": (0.03, 0.1),
    "sgd_decays": (5e-4,),
    "adam_lrs": (1e-3, 3e-3),
    "adam_decays": (0.05,),
    "sam_rhos": (0.05, 0.1),
    "asam_rhos": (0.5, 1.0),
}


class Study(Setting):
    """The report's optimizers in a setting."""

    options: StudyOptions

    def choose(self, names: Sequence[str] = tuple(OPTIMIZERS)) -> dict[str, Any]:
        """Choose learning rate and weight decay of each base, then each radius on top of them.

        Returns:
            ``chosen`` and ``search``, as :func:`search` gives them.
        """
        o = self.options
        grids = {
            "sgd": [base_arm("sgd", lr, d) for lr in o.sgd_lrs for d in o.sgd_decays],
            "adamw": [base_arm("adamw", lr, d) for lr in o.adam_lrs for d in o.adam_decays],
        }
        radii = {"sam": o.sam_rhos, "asam": o.asam_rhos}
        return search(names, grids, radii, self.validate)
