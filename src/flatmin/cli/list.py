"""``flatmin list``: the items of the report."""

import argparse

from flatmin.experiments._harness import discover


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(arguments: argparse.Namespace) -> int:
    """Print name, title and claim of every item."""
    for item in discover().values():
        print(f"{item.name:<8}{item.title}\n        {item.claim}")
    return 0
