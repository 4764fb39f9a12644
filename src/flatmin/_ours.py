"""Whose an error is."""

from __future__ import annotations

from types import TracebackType


def is_ours(error: BaseException) -> bool:
    """Whether flatmin itself raised an error: then it is a sentence for the user, and no bug.

    Args:
        error: An error that was raised.

    Returns:
        False for what comes out of torch or numpy: there the traceback is what helps.
    """
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if isinstance(error, UnicodeError):  # raised below us, at the line of ours that is to blame
        return False
    if trace is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] == "flatmin"  # a user's task is loaded as flatmin_task…
