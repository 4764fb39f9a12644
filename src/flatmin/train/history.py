"""What a training run reports of its epochs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of training.

    All are means over examples: cross-entropy in nats, or the loss that was given; accuracies, as
    parts of one, where targets are classes; the metric, where one was given, which then takes the
    place of the accuracy. What was not evaluated is None.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Steps taken since the beginning.
        gradients: Gradients of a whole batch evaluated since the beginning: one a step for a bare
            optimizer and for MSAM and AsyncSAM, two for SAM and ASAM where they perturb.
        lr: Learning rate of the last step.
        running_loss: Training loss on the batches as they were trained on (augmented, smoothed,
            with the weights of the moment; for MSAM and AsyncSAM the perturbed ones).
        running_accuracy: Accuracy on the same.
        running_metric: Metric on the same.
        train_loss: Loss on training examples without augmentation, after the epoch.
        train_accuracy: Accuracy on the same.
        train_metric: Metric on the same.
        validation_loss: Loss on the held-out part of the training set.
        validation_accuracy: Accuracy on the same.
        validation_metric: Metric on the same.
        test_loss: Loss on the test set.
        test_accuracy: Accuracy on the same.
        test_metric: Metric on the same.
        seconds: Time spent in training steps, without evaluation and saving.

    Example:
        >>> Epoch(
        ...     epoch=1, step=3, gradients=6, lr=0.1, running_loss=2.0, running_accuracy=0.25,
        ...     train_accuracy=0.75, test_accuracy=0.5, seconds=1.0,
        ... ).gap
        0.25
    """

    epoch: int
    step: int
    gradients: int
    lr: float
    running_loss: float
    running_accuracy: float | None = None
    seconds: float
    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    running_metric: float | None = None
    train_metric: float | None = None
    validation_metric: float | None = None
    test_metric: float | None = None

    @property
    def gap(self) -> float | None:
        """Training minus test accuracy, both without augmentation."""
        if self.train_accuracy is None or self.test_accuracy is None:
            return None
        return self.train_accuracy - self.test_accuracy
