"""What is known is printed when it is known."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from flatmin.analysis.looking import Listener
from flatmin.analysis.table import heading, line_of


class Printed(Listener):
    """Prints the table as it grows."""

    def begins(self, record: Mapping[str, Any]) -> None:
        """Print what is measured, and the loss."""
        say(heading(record))

    def row(self, record: Mapping[str, Any], name: str) -> None:
        """Print a row."""
        say(line_of(record, name))


def say(text: str) -> None:
    """Print at once, past a bar that may be open."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stdout):
            print(text, flush=True)
        return
    print(text, flush=True)
