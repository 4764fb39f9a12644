"""The command line: ``flatmin VERB``; each verb is a module of this package."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

import flatmin
from flatmin._ours import is_ours as is_ours
from flatmin.data import DownloadError

# Verbs are frozen: one may be added, with a module of the same name, and none changed or removed.
VERBS = {
    "list": "the items of the report, with their claims",
    "run": "compute some items, or all of them",
    "report": "assemble the stored results into index.html and index.md",
    "train": "train one network, on one device or under torchrun",
    "compare": "find out whether sharpness awareness helps a model of yours",
    "measure": "measure the sharpness of a network, and whether rescaling could fool it",
}


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class Verb(Protocol):
    """What the module of a verb defines."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Describe the arguments."""

    def main(self, arguments: argparse.Namespace) -> int:
        """Do it, and return the exit code; a ``ValueError`` of flatmin's own means bad input."""


class _Parser(argparse.ArgumentParser):
    """Answers bad input with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`.\n")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        words: The arguments; by default those of the process.

    Returns:
        The exit code: 2 for bad input, 130 after an interruption, 1 if something else failed.

    Raises:
        ValueError: Not for bad input, which is answered by a sentence: this is a bug.
        ImportError: Likewise.
        OSError: Likewise, unless a disk is full or a folder must not be written.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show must stop nothing
            stream.reconfigure(errors="backslashreplace")
    name, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name == "--version":
        print(f"flatmin {flatmin.__version__}")
        return 0
    if name not in VERBS:
        _say(f"there is no verb {name!r}; the verbs are {', '.join(VERBS)}.")
        return 2
    try:
        return module_of(name).main(parser_of(name).parse_args(rest))
    except KeyboardInterrupt:
        _say("interrupted.")
        return 130
    except BrokenPipeError:  # `flatmin list | head`
        sys.stderr.close()
        return 1
    except DownloadError as error:
        _say(str(error))
        return 1
    except OSError as error:
        if not (sentence := trouble_of_disk(error)):
            raise
        _say(sentence)
        return 1
    except (ValueError, ImportError) as error:
        if is_ours(error):
            _say(str(error))
            return 2
        raise


def module_of(name: str) -> Verb:
    """The module of a verb.

    Args:
        name: One of ``VERBS``.
    """
    return cast("Verb", importlib.import_module(f"flatmin.cli.{name}"))


def parser_of(name: str) -> argparse.ArgumentParser:
    """What reads the arguments of a verb, and describes them.

    Args:
        name: One of ``VERBS``.
    """
    parser = _Parser(f"flatmin {name}", description=VERBS[name], allow_abbrev=False)
    module_of(name).add_arguments(parser)
    return parser


def trouble_of_disk(error: BaseException) -> str:
    """A full disk, or a folder that must not be written, in one sentence.

    Args:
        error: An error that was raised.

    Returns:
        The sentence; empty for any other error.
    """
    if not isinstance(error, OSError) or error.errno not in _DISK:
        return ""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; make room, or name another folder with --out."


def require(arguments: argparse.Namespace, other: str, options: Sequence[str], why: str) -> None:
    """Refuse options that would be ignored without another one.

    Args:
        arguments: What was given.
        other: Name of the option that they need.
        options: Their names.
        why: What the other option says.

    Raises:
        ValueError: If one of them was given without it.
    """
    if getattr(arguments, other) is None:
        for name in options:
            if getattr(arguments, name) not in (None, False):
                words = (f"--{each.replace('_', '-')}" for each in (name, other))
                raise ValueError(f"{' needs '.join(words)}, {why}.")


def _say(sentence: str) -> None:
    print(f"flatmin: {sentence}", file=sys.stderr, flush=True)


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {text}" for name, text in VERBS.items())
    return f"usage: flatmin VERB …\n\n{verbs}\n\n`flatmin VERB --help` says more."
