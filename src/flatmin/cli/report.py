"""``flatmin report``: stored results become a page."""

import argparse
import sys
from pathlib import Path

from flatmin.experiments import ABOUT, TITLE, discover
from flatmin.record.files import require_writable
from flatmin.record.page import publish_index


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder of the results (results)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Assemble the pages from the records in a folder."""
    out: Path = arguments.out
    items = discover()
    if not any((out / f"{name}.json").exists() for name in items):
        raise ValueError(
            f"{out} holds no results; compute some with `flatmin run all --quick`, "
            "or name their folder with --out."
        )
    require_writable(out)
    problems = publish_index(items, out, title=TITLE, about=ABOUT)
    for problem in problems:
        print(f"flatmin: {problem}", file=sys.stderr)
    print(f"{out / 'index.html'}")
    return 1 if problems else 0
