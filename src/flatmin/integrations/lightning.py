"""SAM and its family in Lightning's Trainer, around the optimizer of any module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from flatmin.integrations._minimizer import check_minimizer
from flatmin.optim import SAM
from flatmin.optim._perturbed import Perturbed

_LOGS = ("log", "log_dict")


class SharpnessAware(Callback):
    """A callback that makes the optimizer of a module climb; the module stays as it is.

    The optimizer that ``configure_optimizers`` returns is wrapped when the fit begins. Its
    schedulers, clipping, checkpoints and resuming go on as before. What ``training_step`` logs, it
    logs in the first pass alone, at the weights. What it draws (dropout, augmentation) and counts
    (statistics of BatchNorm, metrics, lists of its own) is that of the first pass.

    Args:
        minimizer: Makes the wrapper from the base optimizer, with ``model=``: a class such as
            ``SAM``, or ``functools.partial(ASAM, rho=1.0)``.

    Raises:
        TypeError: If ``minimizer`` is an optimizer, and not what makes one.
        ValueError: When the fit begins, where Lightning evaluates its closure in a way that has no
            place for a second pass: ``accumulate_grad_batches`` above one, precision "16-mixed",
            manual optimization, several optimizers.

    Example:
        >>> from functools import partial
        >>> from lightning.pytorch import Trainer
        >>> from flatmin import ASAM
        >>> from flatmin.integrations.lightning import SharpnessAware
        >>> callback = SharpnessAware(partial(ASAM, rho=1.0))  # Trainer(callbacks=[callback])

    Source:
        Foret et al. 2021, arXiv:2010.01412, algorithm 1.
    """

    def __init__(self, minimizer: Callable[..., Perturbed] = SAM) -> None:
        check_minimizer(minimizer)
        self.minimizer = minimizer
        self._give_back: Callable[[], None] = _nothing

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the optimizer, before its state is loaded from a checkpoint."""
        _refuse(trainer, pl_module)
        (base,) = trainer.strategy.optimizers
        if isinstance(base, Perturbed):
            raise ValueError(
                f"the module's optimizer is already a {type(base).__name__}; leave out either it "
                "or the callback."
            )
        step = _Step(pl_module)
        optimizer = self.minimizer(base, model=step)
        trainer.strategy.optimizers = [optimizer]

        def training_step(*args: Any, **kwargs: Any) -> Any:
            with _quiet(pl_module, optimizer.in_second_pass):
                return step(*args, **kwargs)

        pl_module.training_step = training_step  # type: ignore[method-assign]
        self._give_back = step.give_back

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its own method back."""
        self._give_back()
        self._give_back = _nothing


class _Step(nn.Module):
    """A training step as a call of a model, whatever parts of the module it calls itself.

    So the second pass begins with the random numbers and the state of the first, for what is drawn
    in the step as well.
    """

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module
        self.plain = module.training_step
        self._own = vars(module).get("training_step")  # that of a compiled module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.plain(*args, **kwargs)

    def give_back(self) -> None:
        """Let the module have the step that it had."""
        if self._own is None:
            vars(self.module).pop("training_step", None)
        else:
            vars(self.module)["training_step"] = self._own


def _refuse(trainer: Trainer, module: LightningModule) -> None:
    """Refuse what has no place for a second pass, with what to do instead."""
    count = len(trainer.strategy.optimizers)
    if not module.automatic_optimization or count != 1:
        raise ValueError(
            f"the callback is for automatic optimization with one optimizer, and the module has "
            f"{count}, automatic_optimization={module.automatic_optimization}; wrap them in "
            "configure_optimizers and open `with optimizer.perturbed():` around the second pass."
        )
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"accumulate_grad_batches is {trainer.accumulate_grad_batches}, and Lightning's "
            "closure adds to earlier gradients, which a second call could not bring back; use "
            "manual optimization with `with optimizer.micro_batches():` for each part."
        )
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise ValueError(
            f"with precision {trainer.precision} and its scale of the loss Lightning evaluates its "
            'closure only once; choose "bf16-mixed", or use manual optimization.'
        )


@contextmanager
def _quiet(module: LightningModule, second: bool) -> Iterator[None]:
    """Log nothing inside, in the second pass."""
    if second:
        for name in _LOGS:
            vars(module)[name] = _nothing
    try:
        yield
    finally:
        if second:
            for name in _LOGS:
                vars(module).pop(name, None)


def _nothing(*_: Any, **__: Any) -> None:
    """What is logged at the perturbed point is nobody's loss."""
