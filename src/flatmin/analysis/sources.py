"""Networks and data as a command line names them: checkpoints, folders, and ``module:callable``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from flatmin._streams import seed_for, stream
from flatmin.analysis.own_batches import own_batches
from flatmin.analysis.own_draws import drawing
from flatmin.analysis.twin import as_written
from flatmin.analysis.weights import fill, read_weights
from flatmin.data import Batches, ImageSet, load_cifar10, load_cifar100, load_digits
from flatmin.objective._batches import Examples
from flatmin.objective._checks import check_model
from flatmin.train import CheckpointError, load_checkpoint, newest_checkpoint
from flatmin.train.named import call, is_python, one_line
from flatmin.train.networks import build_network
from flatmin.train.parts import hold_out


def load_network(text: str, weights: Path | None, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Load what a checkpoint holds, or what a function returns.

    Args:
        text: A checkpoint of ``flatmin train``, its folder, or ``module:callable``.
        weights: State dict, or checkpoint, for the network that the function returns.
        seed: Of torch's random numbers, which the function may draw from.

    Returns:
        The network, without what ``torch.compile`` has put around it, and facts for the record; of
        a checkpoint, its fingerprint among them.

    Raises:
        ValueError: If nothing can be loaded from there, or nothing that can be measured.
    """
    if os.path.exists(text):
        if weights is not None:
            raise ValueError(f"--weights goes with module:callable, but {text} has its own.")
        return _from_checkpoint(Path(text))
    if not is_python(text):
        raise ValueError(
            f"there is no checkpoint {text}; name a file or folder of `flatmin train`, or a "
            "function that returns a network as module:callable."
        )
    model = call(text, seed)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{text} must return a torch.nn.Module, got {type(model).__name__}.")
    model = as_written(model)
    facts: dict[str, Any] = {"source": text, "weights": str(weights) if weights else None}
    if weights is not None:
        fill(model, read_weights(weights), f"{weights} does not fit {text}")
    try:
        if not any(map(is_lazy, model.parameters())):  # which take their shapes from the data
            check_model(model)
    except (TypeError, ValueError) as error:  # what a function returns is input, too
        raise ValueError(f"{text} returns what cannot be measured: {error}") from error
    return model, facts


def load_batches(
    text: str | None,
    *,
    dataset: str | None,
    part: str | None,
    examples: int,
    batch_size: int,
    seed: int,
    fingerprint: Mapping[str, Any] | None,
) -> tuple[list[Examples], dict[str, Any]]:
    """Load a number of examples, the same ones for the same seed.

    Args:
        text: Folder of CIFAR, or ``module:callable`` that returns batches or a data set; None for
            the digits.
        dataset: ``cifar10`` (also None) or ``cifar100``: what is in the folder.
        part: ``train`` (also None) or ``test``; of a checkpoint's own images, ``train`` are those
            it was trained on, without the held-out ones. Both are None for a function, whose
            batches are taken as they come.
        examples: How many, at most.
        batch_size: In each batch.
        seed: Chooses the images, and what a function's loader draws.
        fingerprint: That of the checkpoint, to know what it takes and whether it saw this data.

    Returns:
        The batches, in float32 on the CPU, and facts for the record.

    Raises:
        ValueError: If there is no such data.
    """
    if text is not None and is_python(text):
        for option, value in (("dataset", dataset), ("part", part)):
            if value is not None:
                raise ValueError(
                    f"--{option} is for folders of images, and {text} is a function, whose batches "
                    "are taken as they come; leave it out."
                )
        taken: Any = call(text, seed_for("a function's examples", seed))
        facts: dict[str, Any] = {"source": text}
        try:
            with drawing(taken, seed):
                batches = own_batches(taken, examples, batch_size)
        except Exception as error:  # what a stranger's function returns can fail in any way
            raise ValueError(
                f"{text} must return batches, pairs of inputs and a tensor of targets, got "
                f"{type(taken).__name__} ({one_line(error)})."
            ) from error
    else:
        part = part or "train"
        images = _images(text, dataset, fingerprint)[part == "test"]
        seen = None if fingerprint is None else images.fingerprint() in fingerprint.get("data", [])
        if fingerprint is not None and seen and part == "train":
            images, _ = hold_out(images, fingerprint["config"].get("validation", 0))
        order = torch.randperm(len(images), generator=stream("examples", seed))
        chosen = images.subset(order[:examples])
        batches = list(Batches(chosen, min(batch_size, len(chosen)), shuffle=False))
        facts = {"source": images.source, "part": part, "seen_in_training": seen}
    facts["examples"] = sum(len(targets) for _, targets in batches)
    if not facts["examples"]:
        raise ValueError(f"{text} gave no examples; at least one is needed.")
    return batches, facts


def title_of(network: str, facts: Mapping[str, Any]) -> str:
    """What a network is called that :func:`load_network` gave with these facts."""
    if "training" not in facts:
        return network + (f" with {facts['weights']}" if facts["weights"] else "")
    minimizer = facts["training"]["minimizer"]
    way = facts["training"]["optimizer"] + (f" + {minimizer}" if minimizer != "none" else "")
    return f"{facts['training']['model']}, {way}, step {facts['step']:,}"


def _from_checkpoint(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    state = _read_checkpoint(path)
    fingerprint = state.get("fingerprint")
    if not isinstance(fingerprint, dict) or "network" not in state:
        raise ValueError(f"{path} is no checkpoint of `flatmin train`: it names no network.")
    config = fingerprint["config"]
    if config["model"] == "own":
        raise ValueError(
            f"{path} holds a network of your own: name the function that returns it, as in "
            f"`flatmin measure module:callable --weights {path}`."
        )
    shape = {"channels": _channels(fingerprint)}
    if config["model"].startswith("mlp"):  # its checkpoint knows the product alone
        shape = {"channels": _width(fingerprint), "pixels": 1}
    model = build_network(config["model"], classes=len(fingerprint["classes"]), **shape)
    fill(model, state["network"], f"{path} does not fit its own network")
    facts = {
        "source": str(path),
        "step": state.get("place", {}).get("step"),
        "training": config,
        "fingerprint": fingerprint,
    }
    return model, facts


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        if not path.is_dir():
            return load_checkpoint(path)
        found = newest_checkpoint(path)
    except CheckpointError as error:
        raise ValueError(_bare(path) or str(error)) from error
    if found is None:
        raise ValueError(f"there is no checkpoint in {path}.")
    return found[1]


def _bare(path: Path) -> str | None:
    """What to do with a file that holds weights alone, if it does."""
    try:
        read_weights(path)
    except ValueError:
        return None
    return (
        f"{path} holds weights and does not say of which network: name the function that returns "
        f"it, as in `flatmin measure module:callable --weights {path}`."
    )


def _images(
    text: str | None, dataset: str | None, fingerprint: Mapping[str, Any] | None
) -> tuple[ImageSet, ImageSet]:
    if text is not None:
        return (load_cifar100 if dataset == "cifar100" else load_cifar10)(text)
    if fingerprint is None:
        return load_digits()
    size = 32 if fingerprint["config"]["model"] == "cnn" else 8
    return load_digits(size=size, channels=_channels(fingerprint))


def _channels(fingerprint: Mapping[str, Any]) -> int:
    """Channels of the images that a checkpoint's network takes: those of its first convolution.

    Digits, which a perceptron may have been trained on, have 64 pixels.
    """
    if fingerprint["config"]["model"].startswith("mlp"):
        return max(1, _width(fingerprint) // 64)
    return next((shape[1] for shape in fingerprint["network"].values() if len(shape) == 4), 3)


def _width(fingerprint: Mapping[str, Any]) -> int:
    """Numbers that the first linear layer of a checkpoint's network takes."""
    return int(next(s[1] for s in fingerprint["network"].values() if len(s) == 2))
