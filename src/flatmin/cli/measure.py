"""``flatmin measure``: sharpness of a network, and whether rescaling could fool the measures."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flatmin import cli
from flatmin.analysis.landscape import landscape_of
from flatmin.analysis.landscape_figure import landscape_figure
from flatmin.analysis.looking import Plan, looked
from flatmin.analysis.measuring import MEASURES, Effort
from flatmin.analysis.own_targets import remark
from flatmin.analysis.results import write_results
from flatmin.analysis.several_figure import several_figure
from flatmin.analysis.several_table import several_table
from flatmin.analysis.sources import load_batches, load_network, title_of
from flatmin.analysis.subject import Subject, digest, fit, made_in
from flatmin.analysis.table import remarks
from flatmin.analysis.telling import Printed, say
from flatmin.analysis.threads import Threads, fastest, running_in
from flatmin.ball import Ball
from flatmin.record.files import require_writable
from flatmin.record.options import check_device
from flatmin.record.pictures import png
from flatmin.record.provenance import provenance
from flatmin.record.style import house_style
from flatmin.scale import Elementwise, Filterwise, Identity, Layerwise, Scale

SCALES = ("elementwise", "identity", "filterwise", "layerwise")
PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = "measures: " + "; ".join(f"{name} ({text})" for name, text in MEASURES.items())
    add = parser.add_argument
    add(
        "network",
        nargs="+",
        help="a checkpoint of `flatmin train` or its folder, or module:callable; several are "
        "measured side by side",
    )
    add(
        "--weights",
        type=Path,
        action="append",
        metavar="FILE",
        help="state dict, or a checkpoint with one, for what the callable returns; given several "
        "times, several networks",
    )
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
    add("--threads", type=_count, metavar="N", help="of a CPU (one or all, whichever is faster)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    add("--out", type=Path, default=Path("results"), help="folder of measure.json, .png (results)")


def main(arguments: argparse.Namespace) -> int:
    """Measure, say at once what is known, and write only when all is."""
    balls = _balls(arguments)
    check_device(arguments.device)
    effort = Effort(steps=arguments.steps, samples=arguments.samples, seed=arguments.seed)
    plan = Plan(
        balls=balls,
        measures=tuple(arguments.measure),
        effort=effort,
        scalings=arguments.scalings,
    )
    if arguments.grid == 1:
        raise ValueError("grid must be at least 2, or 0 for no landscape, got 1.")
    cli.require(arguments, "data", ("dataset",), "the folder of images")
    require_writable(arguments.out)
    subjects = [_subject(arguments, *named) for named in _named(arguments)]
    _require_same_data(subjects)
    _tell_apart([about for _, about in subjects])
    chosen = _threads(arguments, subjects[0][0])
    config = _config(arguments)
    origin = provenance({"device": arguments.device, "seeds": arguments.seed})
    records = []
    with running_in(chosen.number):
        for subject, about in subjects:
            record = looked(subject, plan, **about, listener=Printed(), threads=str(chosen))
            say(remarks(record) + "\n")
            if arguments.grid:
                record["landscape"] = landscape_of(subject, balls[0], arguments.grid, effort.seed)
            records.append(record | {"config": config, "provenance": origin})
    picture = _picture(records) if arguments.grid else None
    said = write_results(arguments.out, records, picture)
    if len(records) > 1:
        print(several_table(records) + "\n")
    if said:
        _say(said)
    out: Path = arguments.out
    print(out / "measure.json", *([out / "measure.png"] if picture else []), sep=", ")
    return 0


def _named(arguments: argparse.Namespace) -> list[tuple[str, Path | None]]:
    """Each network with the file of its weights: several of one function, or one of each."""
    networks, weights = arguments.network, arguments.weights or [None] * len(arguments.network)
    if len(networks) == 1:
        return [(networks[0], file) for file in weights]
    if len(networks) != len(weights):
        raise ValueError(
            f"--weights goes with one function, or once with each of several networks, got "
            f"{len(weights)} for {len(networks)} networks."
        )
    return list(zip(networks, weights, strict=True))


def _subject(
    arguments: argparse.Namespace, network: str, weights: Path | None
) -> tuple[Subject, dict[str, Any]]:
    """A network with its data, and what the record says of both."""
    model, facts = load_network(network, weights, arguments.seed)
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
    if said := remark(subject.loss, (targets for _, targets in subject.batches)):
        _say(said)
    return subject, {"title": title_of(network, facts), "network": facts, "data": data}


def _tell_apart(abouts: list[dict[str, Any]]) -> None:
    """Networks of the same name also get that of their file."""
    titles = [about["title"] for about in abouts]
    for about in abouts:
        if titles.count(about["title"]) > 1:
            about["title"] += f" ({about['network']['source']})"


def _require_same_data(subjects: list[tuple[Subject, dict[str, Any]]]) -> None:
    (first, about), *others = subjects
    for subject, other in others:
        if digest(subject.batches) != digest(first.batches):
            raise ValueError(
                f"networks are compared on the same data, and {about['title']} and "
                f"{other['title']} take or were trained on others; name data for both with --data."
            )


def _threads(arguments: argparse.Namespace, subject: Subject) -> Threads:
    """As many as asked for; else one or all, whichever takes a gradient faster."""
    if arguments.threads is not None:
        return Threads(arguments.threads)
    if torch.device(arguments.device).type != "cpu":
        return Threads(torch.get_num_threads())
    with made_in(subject.dtype):
        objective = replace(subject, batches=subject.batches[:1]).objective()
        return fastest(lambda: objective.value_and_grad(objective.params))


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as plain values."""
    plain = {
        name: [str(part) for part in value] if isinstance(value, list) else value
        for name, value in vars(arguments).items()
    }
    plain["out"] = str(arguments.out)
    plain["p"] = f"{arguments.p:g}"  # JSON has no infinity
    return plain


def _picture(records: list[dict[str, Any]]) -> bytes:
    with house_style():
        single = len(records) == 1
        return png(landscape_figure(records[0]) if single else several_figure(records))


def _balls(arguments: argparse.Namespace) -> tuple[Ball, ...]:
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
    return (ball,) if arguments.scale == "identity" else (ball, control)


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
