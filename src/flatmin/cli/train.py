"""``flatmin train``: train one network, on one device or under torchrun."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from flatmin import cli
from flatmin._streams import seed_for
from flatmin.analysis.gauge import Gauge, batch_of, draw_run
from flatmin.analysis.measuring import MEASURES, Effort
from flatmin.data import (
    Augment,
    ImageSet,
    load_cifar10,
    load_cifar100,
    load_digits,
    load_image_folder,
)
from flatmin.record.options import configure, option_names
from flatmin.train import (
    CheckpointError,
    Diverged,
    Interrupted,
    NotWritable,
    OutOfMemory,
    TrainConfig,
    train,
)
from flatmin.train._summary import doubts, summary
from flatmin.train.distributed import PARALLEL
from flatmin.train.named import call, is_python, named

_CIFAR = {"cifar10": load_cifar10, "cifar100": load_cifar100}
# Settings of image sets that can be set beside the configuration's.
_CROPS = ("crop_padding", "flip")
CODES = """exit codes: 0 finished, 1 failed (memory, unsound checkpoint), 2 bad input, 3 the loss is
not finite, 4 --out cannot be written (full, read-only), 130 stopped by Ctrl-C and 143 by SIGTERM,
both after saving"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    names = ", ".join(option_names(TrainConfig()))
    parser.epilog = (
        f"fields of TrainConfig for --set: {names}; of images also {', '.join(_CROPS)}; {CODES}"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder of images, or module:callable, a function that returns training and test set; "
        "without it, digits",
    )
    parser.add_argument(
        "--network", metavar="module:callable", help="a function that returns a network of your own"
    )
    parser.add_argument(
        "--loss", metavar="module:callable", help="outputs and targets to a mean (cross-entropy)"
    )
    parser.add_argument(
        "--metric", metavar="module:callable", help="the same for what is reported (accuracy)"
    )
    parser.add_argument(
        "--dataset",
        choices=(*_CIFAR, "folder"),
        help="what is in DIR (cifar10); folder: images of your own, in train/<class>/ and "
        "test/<class>/",
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch CIFAR into DIR, if it is missing there"
    )
    parser.add_argument(
        "--set",
        metavar="name=value",
        nargs="+",
        action="extend",
        default=[],
        help="any field of flatmin.train.TrainConfig; options.name=value for the optimizer's own; "
        "crop_padding and flip of images",
    )
    parser.add_argument("--out", type=Path, help="folder for checkpoints and log (default: none)")
    parser.add_argument("--resume", action="store_true", help="continue what is in that folder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--parallel", choices=PARALLEL, default="ddp", help="how processes share the network"
    )
    parser.add_argument(
        "--save-every", type=int, metavar="N", help="steps between checkpoints (an epoch)"
    )
    parser.add_argument("--keep", type=int, metavar="K", help="checkpoints that stay (2)")
    parser.add_argument(
        "--measure-every",
        type=int,
        metavar="N",
        help="steps between measurings of sharpness on 256 examples, for log and along.png",
    )
    parser.add_argument("--measure", choices=tuple(MEASURES), help="which measure (critical)")
    parser.add_argument("--tensorboard", action="store_true", help="write for TensorBoard too")


def main(arguments: argparse.Namespace) -> int:
    """Train, and say how it ended."""
    kept = ("resume", "keep", "tensorboard")
    cli.require(arguments, "out", kept, "the folder for checkpoints and log")
    cli.require(arguments, "data", ("download", "dataset"), "the folder of images")
    cli.require(arguments, "measure_every", ("measure",), "the steps between two measurings")
    cli.require(arguments, "out", ("measure_every",), "the folder for log and plot")
    config, data = _prepare(arguments)
    network = call(arguments.network, config.seed) if arguments.network else None
    loss, metric = (named(text) if text else None for text in (arguments.loss, arguments.metric))
    try:
        gauge = _gauge(arguments, data, config, loss)
        run = train(
            config,
            data,
            model=network,
            loss=loss,
            metric=metric,
            out=arguments.out,
            resume=arguments.resume,
            device=arguments.device,
            parallel=arguments.parallel,
            save_every=arguments.save_every,
            keep=2 if arguments.keep is None else arguments.keep,
            tensorboard=arguments.tensorboard,
            progress=arguments.network or config.model,
            watch=gauge,
            watch_every=arguments.measure_every if gauge else None,
        )
    except TypeError as error:  # what a user's functions return is input, too
        raise ValueError(str(error)) from error
    except Interrupted as stop:
        _say(str(stop))
        return stop.code
    except (Diverged, OutOfMemory, CheckpointError) as error:
        _say(str(error), everywhere=isinstance(error, OutOfMemory))
        return 3 if isinstance(error, Diverged) else 4 if isinstance(error, NotWritable) else 1
    if _leads():
        if gauge is not None:
            draw_run(gauge, arguments.out)
        print(summary(run.history[-1], run.checkpoint))
        for sentence in doubts(run.history[-1]):
            _say(sentence)
    return 0


def _gauge(arguments: argparse.Namespace, data: Any, config: TrainConfig, loss: Any) -> Any:
    """What is measured along the run; nothing where nothing is asked, or `train` will refuse."""
    if arguments.measure_every is None or not isinstance(data, tuple | list) or not data:
        return None
    if arguments.measure_every < 1:
        raise ValueError(f"--measure-every must be at least 1, got {arguments.measure_every}.")
    name, effort = arguments.measure or "critical", Effort(seed=config.seed)
    return Gauge(batch=batch_of(data[0], config), loss=loss, measure=name, effort=effort)


def _prepare(arguments: argparse.Namespace) -> tuple[TrainConfig, Any]:
    texts, options = {}, {}
    for pair in arguments.set:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"--set takes name=value, got {pair!r}.")
        if name.startswith("options."):
            options[name.removeprefix("options.")] = _value(text)
        elif name == "options":
            raise ValueError("--set takes the optimizer's options one by one: options.name=value.")
        else:
            texts[name] = text
    crops = {name: texts.pop(name) for name in _CROPS if name in texts}
    config = _configured(_own(arguments.network, texts), texts, options)
    if arguments.data is not None and is_python(arguments.data):
        if arguments.download or arguments.dataset or crops:
            raise ValueError(
                "--dataset, --download, crop_padding and flip are for folders of images, and "
                f"{arguments.data} is a function, whose data are taken as they are; leave them out."
            )
        return config, call(arguments.data, seed_for("a function's examples", config.seed))
    train_set, test_set = _images(arguments, config)
    usual = train_set.augment or Augment(0, flip=False)
    return config, (replace(train_set, augment=configure(usual, crops)), test_set)


def _own(network: str | None, texts: dict[str, str]) -> TrainConfig:
    """What the configuration starts from, with a network of the user's or without."""
    if network is None:
        return TrainConfig()
    if texts.setdefault("model", "own") != "own":
        raise ValueError(
            f"--network is a network of your own, and model={texts['model']} another; leave one "
            "of them out."
        )
    return TrainConfig(model="own")


def _images(arguments: argparse.Namespace, config: TrainConfig) -> tuple[ImageSet, ImageSet]:
    if arguments.data is None:
        size, channels = (32, 3) if config.model == "cnn" else (8, 1)
        return load_digits(size=size, channels=channels)
    if arguments.dataset != "folder":
        load = _CIFAR[arguments.dataset or "cifar10"]
        return load(arguments.data, download=arguments.download)
    if arguments.download:
        raise ValueError("--download is for CIFAR; leave it out, or name another --dataset.")
    return load_image_folder(arguments.data)


def _configured(base: TrainConfig, texts: dict[str, str], options: dict[str, Any]) -> TrainConfig:
    """The names of optimizer and minimizer come first: their options are checked against them."""
    if "optimizer" in texts:
        base = configure(base, {"optimizer": texts["optimizer"]})
    if options:
        try:
            base = replace(base, options=options)
        except TypeError as error:  # an option of another kind
            raise ValueError(str(error)) from error
    changed: TrainConfig = configure(base, texts)
    return changed


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    try:
        return words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _leads() -> bool:
    """Whether this is the process that speaks for those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _say(sentence: str, *, everywhere: bool = False) -> None:
    if everywhere or _leads():
        print(f"flatmin: {sentence}", file=sys.stderr, flush=True)
