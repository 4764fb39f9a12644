"""The training loop."""

from __future__ import annotations

import platform
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from flatmin.data import DataSet
from flatmin.train._arguments import checked, fresh
from flatmin.train._conditions import own_defaults, own_randomness
from flatmin.train._own_network import check_network
from flatmin.train._values import fitted
from flatmin.train.config import TrainConfig
from flatmin.train.distributed import PARALLEL, join
from flatmin.train.evaluate import measured
from flatmin.train.fingerprint import fingerprint, plain
from flatmin.train.folder import Folder
from flatmin.train.goal import Measure
from flatmin.train.history import Epoch
from flatmin.train.log import Log
from flatmin.train.optimizers import OwnOptimizer
from flatmin.train.packing import unpack
from flatmin.train.parts import cut
from flatmin.train.state import State
from flatmin.train.stops import Stop, listening, told
from flatmin.train.watch import Watch, Watching


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
    data: tuple[DataSet | Dataset[Any], DataSet | Dataset[Any]],
    *,
    loss: Measure | None = None,
    metric: Measure | None = None,
    optimizer: OwnOptimizer | None = None,
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
    watch: Watch | None = None,
    watch_every: int | None = None,
) -> Trained:
    """Train a network, so that it can be interrupted anywhere and continued with the same bits.

    Under torchrun all processes call this and train one network together. The random state of the
    caller (torch's, numpy's and Python's) is put back, and the default device and dtype that the
    caller may have set change nothing. Ctrl-C and SIGTERM finish the step and save.

    Args:
        config: What is trained and how.
        data: Training and test set, each an ``ImageSet``, a ``TensorSet``, a map-style data set of
            torch, or a ``DataSet`` of your own. The test set is evaluated and never chosen by.
        loss: Outputs and targets of some examples to the mean of their losses; None for
            cross-entropy. What is no mean over examples is refused, for it would depend on how a
            batch is cut.
        metric: The same of what is reported, which then takes the place of the accuracy.
        optimizer: Parameters to an optimizer that takes the place of the configuration's
            ``optimizer`` and ``minimizer``; ``lr`` and ``schedule`` hold for it too.
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
        progress: Name of a progress bar on stderr, or of a line now and then where that is no
            terminal; None for none.
        watch: Called with the network, by one process alone; the numbers that it returns by name
            go to the log, and to TensorBoard. It must leave the network as it is; what it draws at
            random is put back, so that a run is the same to the bit with and without it.
        watch_every: Steps between its calls.

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
        >>> config = TrainConfig(model="wrn-10-1", epochs=1, minimizer="asam")
        >>> run = train(config, (small[0], small[1]))
        >>> run.history[0].step, run.history[0].gradients
        (2, 4)
    """
    config, pair, goal = checked(config, data, model, loss, metric)
    counts = {"save_every": save_every, "keep": keep, "log_every": log_every}
    for name, value in counts.items():
        if value is not None and fitted(name, value, int) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    watching = Watching.asked(watch, watch_every, parallel)
    for name, flag in (("resume", resume), ("tensorboard", tensorboard)):
        fitted(name, flag, bool)
    if parallel not in PARALLEL:
        raise ValueError(f"parallel must be one of {', '.join(PARALLEL)}, got {parallel!r}.")
    with (
        join(str(device)) as team,
        own_randomness(config.seed, team.device),
        own_defaults(config.dtype),
    ):
        parts = cut(config, pair, team)
        network = model if model is not None else fresh(config, pair[0])
        check_network(network, config.dtype)
        folder = Folder(
            Path(out) if out is not None else None,
            lambda: fingerprint(config, pair, network, goal, team.size, optimizer),
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
            state = State(config, parts.pop("batches"), network, goal, team, parallel, optimizer)
            folder.rehearse(state)
            if saved:
                unpack(state, saved)
            whole = log.open(saved["log"] if saved else None)
            if not (saved and whole):
                log.write(
                    "start",
                    config=plain(config),
                    settings=pair[0].settings(),
                    data=[part.source for part in pair],
                    **goal.describe(),
                    device=str(team.device),
                    processes=team.size,
                    threads=torch.get_num_threads(),
                    versions={"python": platform.python_version(), "torch": torch.__version__},
                )
                for record in state.history:
                    log.epoch(record)
            if saved:
                log.write("resume", step=state.step, checkpoint=str(folder.last))
            try:
                history = _run(
                    state,
                    parts,
                    folder,
                    log,
                    stop,
                    save_every=save_every,
                    log_every=log_every,
                    watching=watching,
                )
            except BaseException:
                state.leave()
                raise
    return Trained(tuple(history), network, folder.last)


def _run(
    state: State,
    parts: dict[str, DataSet],
    folder: Folder,
    log: Log,
    stop: Stop,
    *,
    save_every: int | None,
    log_every: int,
    watching: Watching | None,
) -> list[Epoch]:
    """Go on to the last epoch, and give the records of all."""
    config, team = state.config, state.team
    log.begin(state.step, state.examples_done, state.examples_in_all)
    while state.epoch < config.epochs:
        batches = state.rest_of_epoch()
        while count := state.advance(batches):
            log.count(count)
            if state.step % log_every == 0:
                log.step(state.step, loss=state.running_loss(), lr=state.lr)
            if watching is not None and team.rank == 0 and watching.due(state.step):
                log.watch(state.step, watching.found(state.network, team.device))
            halt = team.any(stop.signal is not None)
            if halt or (_due(state, save_every) and not state.at_end_of_epoch):
                state.running_loss()
                folder.save(state, log.flush)
            if halt:
                raise stop.interruption(state.step)
        state.running_loss()
        last = state.epoch + 1 == config.epochs
        evaluations: dict[str, float | None] = {}
        if last or (state.epoch + 1) % config.evaluate_every == 0:
            team.align(state.network)
            for name, part in parts.items():
                found = measured(state.model, part, state.goal, config, team)
                evaluations |= state.goal.record(name, *found)
        log.epoch(state.close_epoch(evaluations))
        if last or _due(state, save_every):
            folder.save(state, log.flush)
    return state.history


def _due(state: State, save_every: int | None) -> bool:
    """Whether a checkpoint is to be written after this step."""
    return state.step % (save_every or len(state.batches)) == 0
