"""The folder of a run: which checkpoint to begin with, and where the next one goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flatmin.train.checkpoint import (
    CheckpointError,
    NotWritable,
    checkpoints,
    newest_checkpoint,
    rehearse_checkpoint,
    save_checkpoint,
)
from flatmin.train.distributed import Team
from flatmin.train.fingerprint import check_same
from flatmin.train.packing import pack, sound_weights
from flatmin.train.state import State


class Folder:
    """Where one run keeps its checkpoints, seen from all of its processes; None keeps nothing.

    Attributes:
        last: The newest sound checkpoint that is known.
    """

    def __init__(
        self, path: Path | None, own: Callable[[], dict[str, Any]], team: Team, keep: int
    ) -> None:
        self.path, self.team, self.keep = path, team, keep
        self.own = own() if path else {}
        self.last: Path | None = None

    def find(self, resume: bool) -> dict[str, Any] | None:
        """The state to go on from, or None to begin; nothing is written unless all is in order."""
        if self.path is None:
            return None
        folder = self.path

        def look() -> tuple[Path, dict[str, Any]] | None:
            if not resume and checkpoints(folder):
                raise ValueError(
                    f"{folder} holds the checkpoints of a run; resume it, or name another folder."
                )
            found = newest_checkpoint(folder)
            if found:
                try:
                    check_same(found[1].get("fingerprint"), self.own, found[0])
                except (KeyError, TypeError, AttributeError) as error:
                    raise CheckpointError(
                        f"{found[0]} does not describe its run ({type(error).__name__}: {error}); "
                        "it is not one that this program wrote: start in another folder."
                    ) from error
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                # A name that cannot be a folder's is bad input; a folder that may not be is none.
                wrong = isinstance(error, FileExistsError | NotADirectoryError)
                raise (ValueError if wrong else NotWritable)(
                    f"{folder} cannot be made ({error.strerror}); name a folder that can be "
                    "written."
                ) from error
            return found

        found = self.team.first(look)
        if found is None:
            return None
        self.last, saved = found
        return saved

    def rehearse(self, state: State) -> None:
        """Refuse a run that could not be saved, before anything is trained."""
        if self.path is None:
            return
        packed = {"fingerprint": self.own, **pack(state)}
        self.team.first(lambda: rehearse_checkpoint(packed))

    def save(self, state: State, flush_log: Callable[[], Any]) -> None:
        """Write a checkpoint; the log is put on the disk first, so that it never lags behind.

        Weights that are not finite are refused, also where nothing is written.
        """
        if self.path is None:
            sound_weights(state)
            return
        folder = self.path
        packed = {"fingerprint": self.own, **pack(state)}
        self.last = self.team.first(
            lambda: save_checkpoint(
                folder, state.step, {**packed, "log": flush_log()}, keep=self.keep
            )
        )

    def describe(self) -> str:
        """Where the last sound checkpoint is, as the end of a sentence."""
        if self.path is None:
            return "nothing was saved, since no folder was named"
        return f"the last sound checkpoint is {self.last}" if self.last else "none was saved yet"
