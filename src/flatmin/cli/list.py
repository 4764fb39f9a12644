"""``flatmin list``: the items of the report."""

import argparse
import shutil
import textwrap

from flatmin.experiments import discover


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(arguments: argparse.Namespace) -> int:
    """Print name, title and claim of every item."""
    items = discover()
    indent = 1 + max(map(len, items), default=0)
    width = max(shutil.get_terminal_size().columns, indent + 20)
    for item in items.values():
        print(f"{item.name:<{indent}}{item.title}")
        print(
            textwrap.fill(
                item.claim, width, initial_indent=" " * indent, subsequent_indent=" " * indent
            )
        )
    return 0
