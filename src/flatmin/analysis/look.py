"""A network looked at from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from flatmin._given import check_network
from flatmin.analysis.looking import Listener, Plan, looked
from flatmin.analysis.measuring import MEASURES, Effort
from flatmin.analysis.own_batches import own_batches
from flatmin.analysis.own_draws import drawing
from flatmin.analysis.own_targets import Loss
from flatmin.analysis.seen import Look
from flatmin.analysis.subject import fit, made_in
from flatmin.analysis.telling import Printed
from flatmin.analysis.twin import as_written, require_followed, twin_of
from flatmin.ball import Ball
from flatmin.objective._batches import Examples
from flatmin.objective._checks import check_model
from flatmin.objective._weights import Weight
from flatmin.record.provenance import provenance
from flatmin.scale import Elementwise
from flatmin.train.named import one_line

INVARIANT = Ball(0.5, scale=Elementwise())
CONTROL = Ball(0.05)


def look(
    model: nn.Module,
    data: Any,
    *,
    loss: Loss | None = None,
    weight: Weight | None = None,
    ball: Ball = INVARIANT,
    control: Ball | None = CONTROL,
    measures: Sequence[str] | str = tuple(MEASURES),
    steps: int = 10,
    samples: int = 10,
    scalings: int = 3,
    examples: int = 256,
    batch_size: int = 256,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    seed: int = 0,
    title: str | None = None,
    verbose: bool = False,
) -> Look:
    """Measure a network on data: what ``flatmin measure`` does, from Python.

    A copy of the network is measured, in eval mode: parameters, mode, type and place of the network
    itself stay as they are, and so do the random states, that of a loader's generator among them.

    Args:
        model: The network; not wrapped for parallel training. Of a compiled one the network that
            was compiled is measured.
        data: One pair of inputs and targets, a ``DataLoader``, a data set of torch or of flatmin,
            or batches; the first dimension is the example. Inputs are a tensor, a tuple of
            positional or a mapping of keyword arguments.
        loss: Mean loss of a batch, from outputs and targets. None takes what the targets mean:
            cross-entropy for integers, the mean squared error for floating point. It must not
            reach the network itself, as a penalty does.
        weight: What ``loss`` divides by, from the targets of a batch: with class weights
            ``lambda targets: weights[targets].sum()``. The number of examples by default.
        ball: The neighbourhood: its first row of numbers, the plots, and what networks are
            compared in. ``ball.rho`` is in parameter units for ``Identity``, else one.
        control: A second ball for the same measures, SAM's by default; None for none, and none
            where ``ball`` has its scale.
        measures: One or more names out of ``flatmin.analysis.MEASURES``; all by default.
        steps: Trial points of a climb.
        samples: Random points of an average, random vectors of a trace.
        scalings: Rescaled copies that are measured too, for the spread; 0 for none.
        examples: The first so many of the data are measured on.
        batch_size: Examples at a time.
        dtype: The floating type to measure in; float64 unless the network insists on another.
        device: Where to measure; None for where the network is.
        seed: Of all random choices, a shuffled loader's among them.
        title: What the network is called; None for the name of its class.
        verbose: Whether to print what is known when it is known, as the command does.

    Returns:
        Numbers, errors and what rescaling does to them; prints as a table.

    Raises:
        TypeError: If network or data are something else.
        ValueError: If they do not fit together, or the loss is not finite, or is computed from the
            network itself.

    Example:
        The loss (w − 1)² is 1 at w = 2; ρ = 0.5 of ``|w|`` takes w to 3, where it is 4.

        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 2.0)
        >>> found = look(model, (torch.ones(1, 1), torch.ones(1, 1)), measures=["one-step"])
        >>> found.loss, found.numbers
        (1.0, {'one-step': 3.0})
    """
    if isinstance(model, Mapping):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; build the network, and "
            "fill it by load_state_dict."
        )
    check_network(model)
    model = as_written(model)
    check_model(model)
    for name, given in (("ball", ball), ("control", control)):
        if not isinstance(given, Ball) and (name == "ball" or given is not None):
            raise TypeError(
                f"{name} must be a flatmin.Ball, such as Ball(0.05) or Ball(0.5, "
                f"scale=Elementwise()), got {type(given).__name__}."
            )
    if weight is not None and loss is None:
        raise ValueError("weight is what a loss of your own divides by; give loss as well.")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating type, such as torch.float64, got {dtype}.")
    measures = (measures,) if isinstance(measures, str) else tuple(measures)
    balls = (ball,) if control is None or control.scale == ball.scale else (ball, control)
    effort = Effort(steps=steps, samples=samples, seed=seed)
    plan = Plan(balls=balls, measures=measures, effort=effort, scalings=scalings)
    batches, more = _taken(data, examples, batch_size, seed)
    place = torch.device(device) if device is not None else _place_of(model)
    subject = fit(twin_of(model), batches, place, dtype, loss, weight)
    with made_in(dtype):
        require_followed(subject.objective(), model)
    name = type(model).__name__
    count = sum(len(targets) for _, targets in batches)
    record = looked(
        subject,
        plan,
        title=title or name,
        network={"source": name, "weights": None},
        data={"source": "the data given", "examples": count, "more": more},
        listener=Printed() if verbose else Listener(),
    )
    record["config"] = {
        "steps": steps,
        "samples": samples,
        "scalings": scalings,
        "seed": seed,
        "precision": str(dtype).removeprefix("torch."),
    }
    origin = provenance({"device": str(place), "seeds": seed})
    record["provenance"] = origin | {"command": "flatmin.analysis.look"}
    return Look(record, subject, ball)


def _taken(data: Any, examples: int, batch_size: int, seed: int) -> tuple[list[Examples], bool]:
    """The first examples, and whether there were more."""
    for name, count in (("examples", examples), ("batch_size", batch_size)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")
    try:
        with drawing(data, seed):
            kept = own_batches(data, examples + 1, batch_size)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "data must be one pair of inputs and a tensor of targets, a DataLoader, a data set of "
            f"torch or flatmin, or batches, got {type(data).__name__} ({one_line(error)})."
        ) from error
    batches = own_batches(kept, examples, batch_size)
    return batches, sum(len(targets) for _, targets in kept) > examples


def _place_of(model: nn.Module) -> torch.device:
    return next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
