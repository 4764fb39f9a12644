"""The training loop."""

from __future__ import annotations

import platform
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from flatmin.data import ImageSet
from flatmin.train._conditions import own_defaults, own_randomness
from flatmin.train._own_network import check_network
from flatmin.train._values import fitted
from flatmin.train.config import TrainConfig
from flatmin.train.distributed import PARALLEL, join
from flatmin.train.evaluate import evaluate
from flatmin.train.fingerprint import fingerprint, plain
from flatmin.train.folder import Folder
from flatmin.train.history import Epoch
from flatmin.train.log import Log
from flatmin.train.networks import build_network
from flatmin.train.packing import unpack
from flatmin.train.parts import cut
from flatmin.train.state import State
from flatmin.train.stops import Stop, listening, told


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives.

    Attributes:
        history: One record for each epoch, from the first on, also after a resumption.
        model: The trained network, in training mode.
        checkpoint: The last checkpoint, if there is one.

    Example:
        >>> Trained(history=(), model=nn.Identity()).checkpoint is None
        True
    """

    history: tuple[Epoch, ...]
    model: nn.Module
    checkpoint: Path | None = None


def train(
    config: TrainConfig,
    data: tuple[ImageSet, ImageSet],
    *,
    out: Path | str | None = None,
    resume: bool = False,
    model: nn.Module | None = None,
    device: str = "cpu",
    parallel: str = "ddp",
    save_every: int | None = None,
    keep: int = 2,
    log_every: int = 20,
    tensorboard: bool = False,
    progress: str | None = None,
) -> Trained:
    """Train a network, so that it can be interrupted anywhere and continued with the same bits.

    Under torchrun all processes call this and train one network together. The random state of the
    caller (torch's, numpy's and Python's) is put back, and the default device and dtype that the
    caller may have set change nothing. Ctrl-C and SIGTERM finish the step and save.

    Args:
        config: What is trained and how.
        data: Training and test set. The test set is evaluated and never chosen by.
        out: Folder for checkpoints and ``log.jsonl``; made if missing. None writes nothing.
        resume: Whether to continue from the newest sound checkpoint in ``out``; a finished run
            comes back at once, and an empty folder begins a new one.
        model: The network to train, in place, for ``config.model == "own"``.
        device: ``cpu`` or ``cuda``.
        parallel: How several processes share the network: ``ddp`` or ``fsdp``.
        save_every: Steps between checkpoints; None for the end of each epoch.
        keep: Checkpoints that stay.
        log_every: Steps between records of the running loss; a loss that is not finite is noticed
            as often.
        tensorboard: Whether to write for TensorBoard too.
        progress: Name of a progress bar on stderr, where that is a terminal; None for none.

    Returns:
        History, network and last checkpoint.

    Raises:
        TypeError: If an argument is of another kind, or the network returns anything but logits.
        ValueError: If configuration, data and arguments do not fit together, or ``out`` holds
            another run, or this one and ``resume`` is false. Nothing is overwritten.
        CheckpointError: If none in ``out`` is sound, or the network has a state that no checkpoint
            holds: said before anything is trained.
        NotWritable: If ``out`` is full or cannot be written.
        Diverged: If the loss or a weight is not finite.
        OutOfMemory: If the device has not enough memory.
        Interrupted: After Ctrl-C or SIGTERM.

    Example:
        >>> from flatmin.data import load_digits
        >>> small = [part.subset(torch.arange(256)) for part in load_digits()]
        >>> config = TrainConfig(model="wrn-10-1", epochs=1, minimizer="asam", flip=False)
        >>> run = train(config, (small[0], small[1]))
        >>> run.history[0].step, run.history[0].gradients
        (2, 4)
    """
    _check(config, data, model)
    counts = {"save_every": save_every, "keep": keep, "log_every": log_every}
    for name, value in counts.items():
        if value is not None and fitted(name, value, int) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    for name, flag in (("resume", resume), ("tensorboard", tensorboard)):
        fitted(name, flag, bool)
    if parallel not in PARALLEL:
        raise ValueError(f"parallel must be one of {', '.join(PARALLEL)}, got {parallel!r}.")
    with (
        join(str(device)) as team,
        own_randomness(config.seed, team.device),
        own_defaults(config.dtype),
    ):
        parts = cut(config, data, team)
        network = model if model is not None else _fresh(config, data[0])
        check_network(network, config.dtype)
        folder = Folder(
            Path(out) if out is not None else None,
            lambda: fingerprint(config, data, network, team.size),
            team,
            keep,
        )
        saved = folder.find(resume)
        leads = team.rank == 0
        log = Log(
            folder.path if leads else None,
            tensorboard=tensorboard and leads,
            progress=progress if leads else None,
        )
        # Signals wait for the end of a step from here on; before, they end the process as ever.
        with closing(log), told(log, config, folder.describe), listening() as stop:
            state = State(config, parts.pop("batches"), network, team, parallel)
            folder.rehearse(state)
            if saved:
                unpack(state, saved)
            whole = log.open(saved["log"] if saved else None)
            if not (saved and whole):
                log.write(
                    "start",
                    config=plain(config),
                    data=[part.source for part in data],
                    device=str(team.device),
                    processes=team.size,
                    threads=torch.get_num_threads(),
                    versions={"python": platform.python_version(), "torch": torch.__version__},
                )
                for record in state.history:
                    log.epoch(record)
            if saved:
                log.write("resume", step=state.step, checkpoint=str(folder.last))
            history = _run(
                state,
                parts,
                folder,
                log,
                stop,
                save_every=save_every,
                log_every=log_every,
            )
    return Trained(tuple(history), network, folder.last)


def _run(
    state: State,
    parts: dict[str, ImageSet],
    folder: Folder,
    log: Log,
    stop: Stop,
    *,
    save_every: int | None,
    log_every: int,
) -> list[Epoch]:
    """Go on to the last epoch, and give the records of all."""
    config, team = state.config, state.team
    log.begin(state.step, state.images_done, state.images_in_all)
    while state.epoch < config.epochs:
        batches = state.rest_of_epoch()
        while count := state.advance(batches):
            log.count(count)
            if state.step % log_every == 0:
                log.step(state.step, loss=state.running_loss(), lr=state.lr)
            halt = team.any(stop.signal is not None)
            if halt or (_due(state, save_every) and not state.at_end_of_epoch):
                state.running_loss()
                folder.save(state, log.flush)
            if halt:
                raise stop.interruption(state.step)
        state.running_loss()
        last = state.epoch + 1 == config.epochs
        evaluations: dict[str, float] = {}
        if last or (state.epoch + 1) % config.evaluate_every == 0:
            team.align(state.network)
            for name, part in parts.items():
                loss, accuracy = evaluate(state.model, part, config=config, team=team)
                evaluations |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        log.epoch(state.close_epoch(evaluations))
        if last or _due(state, save_every):
            folder.save(state, log.flush)
    return state.history


def _check(config: TrainConfig, data: object, model: nn.Module | None) -> None:
    """Refuse what cannot be trained, or not on these data."""
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a TrainConfig, got {type(config).__name__}.")
    pair = data if isinstance(data, list | tuple) else [data]
    if len(pair) != 2 or not all(isinstance(part, ImageSet) for part in pair):
        kinds = ", ".join(type(part).__name__ for part in pair)
        raise TypeError(f"data must be two ImageSets, to train on and to test on, got {kinds}.")
    if not isinstance(model, nn.Module | None):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if (model is None) == (config.model == "own"):
        raise ValueError(
            f'model= and config.model="own" go together, but config.model is {config.model!r} and '
            f"model is {'None' if model is None else 'given'}."
        )


def _due(state: State, save_every: int | None) -> bool:
    """Whether a checkpoint is to be written after this step."""
    return state.step % (save_every or len(state.batches)) == 0


def _fresh(config: TrainConfig, train_set: ImageSet) -> nn.Module:
    """A new network, from the seed alone: whatever the precision, it starts in single."""
    with own_defaults(torch.float32):
        return build_network(
            config.model, classes=len(train_set.classes), channels=train_set.images.shape[1]
        )
