"""One training run, kept as a small file, so that no run is ever done twice."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import flatmin
from flatmin.compare.kept import kept
from flatmin.data import ImageSet
from flatmin.record.provenance import device_name
from flatmin.train import Diverged, TrainConfig, train
from flatmin.train.fingerprint import described

_EPOCHS_WORTH_SAVING = 10
# What a finished run holds; see `Runs.__call__`.
_KINDS: dict[str, Any] = dict.fromkeys(("epochs", "test", "train", "running", "validation"), list)
_KINDS |= {"seconds": float | int, "steps": int, "gradients": int}

Pair = tuple[ImageSet, ImageSet]


@dataclass(frozen=True)
class Runs:
    """Training runs on one pair of image sets.

    A finished run is a JSON file, named for all that it depends on; an unfinished one keeps a
    checkpoint. Items that need the same run share it, in whatever order they are computed.

    Attributes:
        data: Training and test set.
        folder: Where runs are kept.
        device: Where they are computed.
    """

    data: Pair
    folder: Path
    device: str

    def __call__(self, config: TrainConfig) -> dict[str, Any]:
        """Train, or take what is kept.

        Args:
            config: What to train.

        Returns:
            Accuracies in percent, one for each evaluated epoch in ``epochs``: ``test``, ``train``
            (without augmentation) and ``running`` (on the batches as trained on); ``validation``
            accuracy and loss of the last epoch; ``seconds``, the median of an epoch; ``steps`` and
            ``gradients`` in all; ``device`` by name, ``torch`` and ``commit``. Or ``diverged``, the
            reason.
        """
        path = self.folder / f"{self._key(config)}.json"
        return kept(path, lambda checkpoints: self._train(config, checkpoints), _is_whole)

    def _train(self, config: TrainConfig, checkpoints: Path) -> dict[str, Any]:
        long = config.epochs >= _EPOCHS_WORTH_SAVING
        try:
            history = train(
                config,
                self.data,
                out=checkpoints if long else None,
                resume=True,
                keep=1,
                device=self.device,
            ).history
        except Diverged as error:
            return {"diverged": str(error).partition(";")[0]}
        if not math.isfinite(history[-1].test_loss or 0.0):
            return {"diverged": "The loss was not finite at the end"}
        shown = [epoch for epoch in history if epoch.test_accuracy is not None]
        last = history[-1]
        return {
            "epochs": [epoch.epoch for epoch in shown],
            "test": [_percent(epoch.test_accuracy) for epoch in shown],
            "train": [_percent(epoch.train_accuracy) for epoch in shown],
            "running": [_percent(epoch.running_accuracy) for epoch in shown],
            "validation": [_percent(last.validation_accuracy), last.validation_loss],
            "seconds": round(statistics.median(epoch.seconds for epoch in history), 4),
            "steps": last.step,
            "gradients": last.gradients,
            "device": device_name(self.device),
            "torch": torch.__version__,
        }

    def _key(self, config: TrainConfig) -> str:
        parts = [
            described(config, self.data[0]),
            self._data_key,
            self.device,
            flatmin.__version__,
            torch.__version__,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def _data_key(self) -> list[str]:
        return [part.fingerprint() for part in self.data]


def _is_whole(numbers: Any) -> bool:
    """Whether these are the numbers of a finished run."""
    if not isinstance(numbers, dict) or not isinstance(numbers.get("commit"), str):
        return False
    if isinstance(numbers.get("diverged"), str):
        return True
    if not all(isinstance(numbers.get(name), kind) for name, kind in _KINDS.items()):
        return False
    return len({len(numbers[name]) for name in ("epochs", "test", "train", "running")}) == 1


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)
