"""One run of a comparison as a value, which any worker can be sent."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import flatmin
from flatmin.compare.arms import Arm

# No seed that is counted: nobody is chosen for luck that is then counted.
SEARCH_SEED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run: what it depends on, and where it is kept.

    Attributes:
        task: Path of the task's file.
        digest: SHA-256 of its text, which a worker must find there.
        subject: Text that is another one for other data or another start.
        data: Text for the data alone, which a worker must find too; empty where each seed has its
            own.
        arms: What is trained; more than one are timed side by side.
        lr: Peak learning rate; None for the task's own.
        rho: Radius; None where the arm has none.
        epochs: Length of the run.
        seed: Of start and batches.
        final: Whether it is counted: then the test part is read, and the network measured.
        device: Where to compute.
        folder: Where runs are kept.
    """

    task: str
    digest: str
    subject: str
    data: str
    arms: tuple[Arm, ...]
    lr: float | None
    rho: float | None
    epochs: int
    seed: int
    final: bool
    device: str
    folder: str

    @property
    def arm(self) -> Arm:
        """What is trained."""
        return self.arms[0]

    @property
    def key(self) -> str:
        """A name for all that the numbers depend on; two arms that do the same share their runs."""
        what = dataclasses.asdict(self)
        for name in ("task", "folder"):
            del what[name]
        for arm in what["arms"]:  # of a single arm the setting counts, not how it came about
            for name in ("name", "times", "rho") if len(self.arms) == 1 and not arm["own"] else ():
                del arm[name]
        versions = [flatmin.__version__, torch.__version__]
        text = json.dumps([what, versions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def file(self) -> Path:
        """Where the finished run is kept."""
        return Path(self.folder) / f"{self.key}.json"

    @property
    def words(self) -> str:
        """What it is, for a message."""
        if len(self.arms) > 1:
            return "the seconds of the arms"
        return f"{self.arm.name}, {self.epochs} epochs, seed {self.seed}"

    def written(self) -> str:
        """The job as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def read(text: dict[str, Any]) -> Job:
        """The job that :meth:`written` wrote."""
        return Job(**{**text, "arms": tuple(Arm(**arm) for arm in text["arms"])})
