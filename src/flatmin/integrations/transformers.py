"""SAM and its family in the Trainer of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer

from flatmin.integrations._minimizer import check_minimizer
from flatmin.optim import SAM
from flatmin.optim._perturbed import Perturbed


class SharpnessAware:
    """A mixin for ``Trainer`` and its subclasses: the optimizer of its arguments, made to climb.

    What the Trainer builds from ``learning_rate``, ``weight_decay`` and ``optim``, or is given, is
    wrapped. Each step has a second pass at the perturbed point; schedulers, clipping, mixed
    precision, checkpoints and resuming are the Trainer's own. What is logged is the loss at the
    weights.

    With ``gradient_accumulation_steps`` each part climbs by its own gradient (m-sharpness), since
    the Trainer lets go of a part before the next one comes. In a step that is not ``due``, and for
    a variant of one pass, there is one pass.

    Args:
        *args: As for the Trainer.
        minimizer: Makes the wrapper from the base optimizer, with ``model=``: a class such as
            ``SAM``, or ``functools.partial(ASAM, rho=1.0)``.
        **kwargs: As for the Trainer.

    Raises:
        TypeError: If ``minimizer`` is an optimizer, and not what makes one.
        ValueError: With DeepSpeed, whose ZeRO hides the gradients; use FSDP2 through Accelerate.

    Example:
        For a Trainer of somebody else: ``class Sharp(SharpnessAware, SFTTrainer): pass``. For the
        plain one it is there, as :class:`SharpTrainer`.

        >>> from functools import partial
        >>> from flatmin import ASAM
        >>> from flatmin.integrations.transformers import SharpTrainer
        >>> make = partial(SharpTrainer, minimizer=partial(ASAM, rho=1.0))  # then as a Trainer
        >>> make.func.__mro__[1:3]
        (<class 'flatmin.integrations.transformers.SharpnessAware'>, \
<class 'transformers.trainer.Trainer'>)

    Source:
        Foret et al. 2021, arXiv:2010.01412, section 4.1, for the parts.
    """

    def __init__(
        self, *args: Any, minimizer: Callable[..., Perturbed] = SAM, **kwargs: Any
    ) -> None:
        check_minimizer(minimizer)
        self.minimizer = minimizer
        super().__init__(*args, **kwargs)
        if getattr(self, "is_deepspeed_enabled", False):
            raise ValueError(
                "DeepSpeed keeps the gradients to itself, and a climb along them is impossible; "
                "leave deepspeed out, and shard with FSDP2."
            )

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Optimizer:
        """Wrap what the Trainer has built, or was given."""
        base: Optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if not isinstance(base, Perturbed):
            base = self.minimizer(base, model=self.model)  # type: ignore[attr-defined]
        self.optimizer = base
        return base

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run both passes of a part; return the loss of the first."""
        optimizer, one_pass = _bare(self.optimizer), super().training_step  # type: ignore[misc]
        if optimizer.one_pass:
            with optimizer.perturbed():
                return one_pass(*args, **kwargs)
        if not optimizer.due:
            return one_pass(*args, **kwargs)
        with optimizer.micro_batches():
            loss: Tensor = one_pass(*args, **kwargs)
            with optimizer.perturbed():
                one_pass(*args, **kwargs)
        return loss


class SharpTrainer(SharpnessAware, Trainer):  # type: ignore[misc]
    """The Trainer of transformers with a second pass: see :class:`SharpnessAware`."""


def _bare(optimizer: Any) -> Perturbed:
    """What Accelerate has wrapped."""
    while not isinstance(optimizer, Perturbed):
        optimizer = optimizer.optimizer
    return optimizer
