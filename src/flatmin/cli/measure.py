"""``flatmin measure``: sharpness of a network, and whether rescaling could fool the measures."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import mse_loss

from flatmin import cli
from flatmin.analysis.landscape import landscape
from flatmin.analysis.landscape_figure import landscape_figure
from flatmin.analysis.measuring import MEASURES, Copies, Effort, measured_row, scale_name
from flatmin.analysis.own_targets import could_be_classes
from flatmin.analysis.sources import load_batches, load_network
from flatmin.analysis.subject import Subject, fit, made_in, scalings_of
from flatmin.analysis.table import measure_table
from flatmin.ball import Ball
from flatmin.record.files import require_writable, write_atomically
from flatmin.record.options import check_device
from flatmin.record.progress import progress
from flatmin.record.provenance import provenance
from flatmin.record.style import house_style
from flatmin.scale import Elementwise, Filterwise, Identity, Layerwise, Scale

SCALES = ("elementwise", "identity", "filterwise", "layerwise")
PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = "measures: " + "; ".join(f"{name} ({text})" for name, text in MEASURES.items())
    add = parser.add_argument
    add("network", help="a checkpoint of `flatmin train` or its folder, or module:callable")
    add("--weights", type=Path, metavar="FILE", help="state dict for what the callable returns")
    add("--data", metavar="DIR|CALLABLE", help="CIFAR, or module:callable; without it, digits")
    add("--dataset", choices=("cifar10", "cifar100"), help="what is in DIR (cifar10)")
    add("--part", choices=("train", "test"), help="which part of the images (train)")
    add("--examples", type=_count, default=256, metavar="N", help="examples to measure on (256)")
    add("--batch-size", type=_count, default=256, metavar="N", help="examples at a time (256)")
    add(
        "--measure",
        nargs="+",
        choices=tuple(MEASURES),
        default=list(MEASURES),
        metavar="NAME",
        help="which measures (all)",
    )
    add("--scale", choices=SCALES, default="elementwise", help="T (elementwise, T = |w| + eta)")
    add("--eta", type=float, default=0.0, help="for elementwise; exactly invariant is 0 (0)")
    add("--no-biases", action="store_true", help="elementwise, but T = 1 on biases, as published")
    add("--rho", type=float, default=0.5, help="radius of the ball (0.5)")
    add("--p", type=float, default=2.0, help="order of its norm, inf for a box (2)")
    add("--sam-rho", type=float, default=0.05, help="radius for SAM's T = 1, the control (0.05)")
    add("--steps", type=_count, default=10, metavar="N", help="trial points of a climb (10)")
    add("--samples", type=_count, default=10, metavar="N", help="random points or vectors (10)")
    add("--scalings", type=_natural, default=3, metavar="N", help="rescaled copies (3; 0: none)")
    add("--grid", type=_natural, default=21, metavar="N", help="landscape, N × N (21; 0: none)")
    add("--precision", choices=tuple(PRECISIONS), default="fp64", help="to measure in (fp64)")
    add("--seed", type=_natural, default=0, help="of all random choices (0)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    add("--out", type=Path, default=Path("results"), help="folder of measure.json, .png (results)")


def main(arguments: argparse.Namespace) -> int:
    """Measure, and write only when all is known."""
    balls = _balls(arguments)
    check_device(arguments.device)
    for name, wrong in (("samples", arguments.samples < 2), ("grid", arguments.grid == 1)):
        if wrong:
            raise ValueError(f"{name} must be at least 2, got {getattr(arguments, name)}.")
    cli.require(arguments, "data", ("dataset",), "the folder of images")
    require_writable(arguments.out)
    model, facts = load_network(arguments.network, arguments.weights, arguments.seed)
    fingerprint = facts.pop("fingerprint", None)
    batches, data = load_batches(
        arguments.data,
        dataset=arguments.dataset,
        part=arguments.part,
        examples=arguments.examples,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        fingerprint=fingerprint,
    )
    if data.get("seen_in_training") is False:
        _say("the network was not trained on these images; --data names others.")
    subject = fit(model, batches, torch.device(arguments.device), PRECISIONS[arguments.precision])
    if subject.loss is mse_loss and any(could_be_classes(t) for _, t in subject.batches):
        _say(
            "the targets are in floating point, so the loss is the mean squared error; if they "
            "name classes, return integers for cross-entropy."
        )
    with made_in(PRECISIONS[arguments.precision]):
        record = _record(arguments, subject, balls, facts, data)
    picture = None
    if record["landscape"]:
        buffer = io.BytesIO()
        with house_style():
            landscape_figure(record).savefig(buffer, format="png", metadata={"Software": None})
        picture = buffer.getvalue()
    out: Path = arguments.out
    if picture:
        write_atomically(out / "measure.png", picture)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "measure.json", text + "\n")
    if not picture:  # one of an earlier network would seem to be this one's
        (out / "measure.png").unlink(missing_ok=True)
    print(measure_table(record))
    print(f"\n{out / 'measure.json'}" + (f", {out / 'measure.png'}" if picture else ""))
    return 0


def _balls(arguments: argparse.Namespace) -> list[Ball]:
    """The ball to measure in, and SAM's as the control where it is another."""
    elementwise = Elementwise(arguments.eta, biases=not arguments.no_biases)
    scales: dict[str, Scale] = {
        "elementwise": elementwise,
        "identity": Identity(),
        "filterwise": Filterwise(),
        "layerwise": Layerwise(),
    }
    if arguments.scale != "elementwise" and (arguments.eta or arguments.no_biases):
        raise ValueError(f"--eta and --no-biases go with elementwise, got {arguments.scale}.")
    for name in ("rho", "sam_rho"):
        if not 0.0 < getattr(arguments, name) < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {getattr(arguments, name)}.")
    ball = Ball(arguments.rho, arguments.p, scales[arguments.scale])
    control = Ball(arguments.sam_rho, arguments.p)
    return [ball] if arguments.scale == "identity" else [ball, control]


def _record(
    arguments: argparse.Namespace,
    subject: Subject,
    balls: list[Ball],
    facts: dict[str, Any],
    data: dict[str, Any],
) -> dict[str, Any]:
    """Everything that is measured, with where it comes from, as plain values."""
    config = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
    }
    config["p"] = f"{arguments.p:g}"  # JSON has no infinity
    origin = provenance({"device": arguments.device, "seeds": arguments.seed})
    objective = subject.objective()
    loss = objective.value(objective.params).item()
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss must be finite, got {loss} on {data['source']}; a diverged network has no "
            "sharpness."
        )
    scalings, reason = scalings_of(subject) if arguments.scalings else (None, "not asked for")
    copies = Copies(scalings, arguments.scalings, arguments.seed)
    effort = Effort(steps=arguments.steps, samples=arguments.samples, seed=arguments.seed)
    jobs = [(name, ball) for name in dict.fromkeys(arguments.measure) for ball in balls]
    rows = [
        {"scale": scale_name(ball.scale), **measured_row(name, subject, ball, effort, copies)}
        for name, ball in progress(jobs, "flatmin measure")
    ]
    parameters = sum(t.numel() for t in objective.params.values())
    return {
        "title": _title(arguments.network, facts),
        "network": {**facts, "parameters": parameters},
        "data": data,
        "loss": loss,
        "loss_function": getattr(subject.loss, "__name__", ""),
        "balls": [_described(ball) for ball in balls],
        "ball": _described(balls[0]),
        "certificate": {
            "copies": arguments.scalings if copies.any else 0,
            "units": sum(group.size for group in scalings.groups) if scalings else 0,
            "reason": reason,
        },
        "rows": rows,
        "landscape": landscape(objective, balls[0], grid=arguments.grid, seed=arguments.seed)
        if arguments.grid
        else None,
        "config": config,
        "provenance": origin,
    }


def _described(ball: Ball) -> dict[str, Any]:
    return {"scale": scale_name(ball.scale), "rho": ball.rho, "p": f"{ball.p:g}"}


def _title(network: str, facts: dict[str, Any]) -> str:
    if "training" not in facts:
        return network + (f" with {facts['weights']}" if facts["weights"] else "")
    minimizer = facts["training"]["minimizer"]
    way = facts["training"]["optimizer"] + (f" + {minimizer}" if minimizer != "none" else "")
    return f"{facts['training']['model']}, {way}, step {facts['step']:,}"


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {number}")
    return number


def _say(sentence: str) -> None:
    print(f"flatmin: {sentence}", file=sys.stderr, flush=True)
