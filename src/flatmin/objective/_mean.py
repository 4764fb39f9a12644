"""Whether a loss function is a mean over examples, however they are batched.

It is asked again about parts of the outputs that are known. Where these cannot be cut (a loss that
the model has computed by itself, the state of a recurrent layer, time before examples, an object of
one's own) the model is asked too, about parts of the inputs.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.objective._evaluation import Evaluated
from flatmin.objective._structure import map_tensors, tensors
from flatmin.objective._weights import Weight, weight_of

# What a loss function that works in float32 may differ by, relative to the loss.
_ROUNDING = 1e-5

_Block = tuple[Any, Tensor]
"""Outputs (or inputs) and targets of some examples."""

_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class MeanCheck:
    """Looks at batch after batch, and at what lies across the border of two.

    Args:
        model: The network, to know whether it mixes examples by itself.
        weight: From targets to how much their examples count together.

    Attributes:
        sums: A sentence, where the loss function gives a sum.
        mixes: A sentence, where it is another function for other batches.
        unsure: Whether a batch of several examples was looked at, and no answer was got about any.
    """

    def __init__(self, model: nn.Module, weight: Weight) -> None:
        self.weight = weight
        self.sums: str | None = None
        self.mixes: str | None = None
        self._by_itself = any(isinstance(m, _MIXING) and m.training for m in model.modules())
        kinds = {t.dtype for t in model.parameters() if t.is_floating_point()}
        self._eps = max((torch.finfo(kind).eps for kind in kinds), default=0.0)
        self._last: _Block | None = None
        self._largest, self._answered = 0, False

    @property
    def unsure(self) -> bool:
        return self._largest > 1 and not self._answered

    def warn(self, stacklevel: int) -> None:
        """Say that the check was in vain, unless a weight says what the loss divides by."""
        if self.unsure and self.weight is len:
            warnings.warn(
                "whether loss_function is a mean over examples could not be checked, for the "
                "outputs do not have the example first, or it takes no part of a batch; over "
                "several batches the numbers are wrong if it divides by anything else, such as the "
                "targets that are not ignored: give all examples in one batch, or say what it "
                "divides by, as in weight=lambda targets: (targets != -100).sum(), or "
                "weight=lambda targets: len(targets).",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )

    def look(self, at: Evaluated) -> None:
        """Ask about the halves of a batch, and about its first with the last of the one before."""
        count = len(at.targets)
        self._largest = max(self._largest, count)
        whole, self._loss, self._rounding = (at.outputs, at.targets), at.loss_function, _ROUNDING
        if not _has_first(whole[0], count) and not self._by_itself:
            whole, self._loss = (at.inputs, at.targets), at.loss_of
            self._rounding = max(_ROUNDING, 10.0 * self._eps)  # the model computes it anew
        if not count or not _has_first(whole[0], count):
            self._last = None
            return
        parts = [_cut(whole, 0, count // 2), _cut(whole, count // 2, count)]
        blocks = [block for block in parts if len(block[1])]
        if self._last is None and self.sums is None:
            self._ask_twice(blocks[-1])
        for block in blocks:
            if self._last is not None and self.mixes is None and _joinable(self._last, block):
                self._ask_both(self._last, block)
            self._last = block

    def _ask_twice(self, block: _Block) -> None:
        once, twice = self._of(block), self._of(_join(block, block))
        if once is None or twice is None or not math.isfinite(twice):
            return
        if once != 0.0 and self._close(twice, 2.0 * once):
            self.sums = (
                f"loss_function must be a mean over examples, but over {len(block[1])} it gives "
                f"{once:.6g}, and over the same ones twice {twice:.6g}; divide a sum by "
                "len(targets)."
            )

    def _ask_both(self, first: _Block, second: _Block) -> None:
        m, n = len(first[1]), len(second[1])
        a, b, whole = self._of(first), self._of(second), self._of(_join(first, second))
        if a is None or b is None or whole is None:
            return
        self._answered = True
        if not math.isfinite(whole):
            return  # NaN at w is for the measure to refuse
        v, w = weight_of(self.weight, first[1]), weight_of(self.weight, second[1])
        if not v or not w:
            return
        together = (v * a + w * b) / (v + w)
        if not self._close(whole, together, abs(a), abs(b)):
            self.mixes = (
                f"loss_function must be a mean over examples, whatever the batch, but over {m + n} "
                f"it gives {whole:.6g}, and over {m} and {n} of them {together:.6g} in the mean; "
                "with weights or ignored targets, say what it divides by, as in "
                "weight=lambda targets: (targets != -100).sum(), or divide its sum "
                "(reduction='sum') by len(targets)."
            )

    def _of(self, block: _Block) -> float | None:
        # A loss that takes no other number of examples says nothing about them.
        try:
            with warnings.catch_warnings(action="ignore"):  # about parts that nobody gave
                return float(self._loss(*block))
        except Exception:  # a stranger's function can fail in any way
            return None

    def _close(self, a: float, b: float, *scales: float) -> bool:
        return abs(a - b) <= self._rounding * max(abs(a), abs(b), *scales)


def _has_first(value: Any, count: int) -> bool:
    """Whether the first dimension of every tensor is the example."""
    sizes = [len(t) if t.ndim else 0 for t in tensors(value)]
    return bool(sizes) and sizes == [count] * len(sizes)


def _joinable(first: _Block, second: _Block) -> bool:
    ones, others = [*tensors(first[0]), first[1]], [*tensors(second[0]), second[1]]
    return len(ones) == len(others) and all(
        a.shape[1:] == b.shape[1:] and a.dtype == b.dtype for a, b in zip(ones, others, strict=True)
    )


def _cut(block: _Block, start: int, stop: int) -> _Block:
    return map_tensors(lambda t: t[start:stop], block[0]), block[1][start:stop]


def _join(first: _Block, second: _Block) -> _Block:
    others = tensors(second[0])
    outputs = map_tensors(lambda t: torch.cat([t, next(others)]), first[0])
    return outputs, torch.cat([first[1], second[1]])
