"""Set flatmin up beside this file and run it; needs nothing but Python 3.11 or newer.

python3 run.py reproduce [options]   run every item at QUICK and assemble results/index.html;
                                     options are those of `flatmin run`, such as --data DIR
python3 run.py test [options]        the fast tests; --all adds the slow ones; options of pytest
python3 run.py check                 formatting, lint and types

The first start makes .venv with the versions of constraints.txt; later ones begin at once.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PROGRAMS = ENVIRONMENT / ("Scripts" if sys.platform == "win32" else "bin")
STAMP = ENVIRONMENT / "installed.txt"
UNFINISHED = "unfinished"


def say(sentence: str) -> None:
    """Tell the user, apart from the output of what runs."""
    print(f"run.py: {sentence}", file=sys.stderr, flush=True)


def call(program: str, *arguments: str, folder: Path | None = None) -> int:
    """Run a program of the environment, in the user's folder or another; return its exit code."""
    process = subprocess.Popen([str(PROGRAMS / program), *arguments], cwd=folder)
    try:
        code = process.wait()
    finally:
        process.wait()  # after an interruption, which it got too: let it leave its files in order
    return code if code >= 0 else 128 - code  # killed by a signal: as a shell reports it


def prepare() -> int:
    """Make the environment, unless a finished one is there, and return an exit code."""
    sources = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    # The path is in it too: an environment does not survive being moved.
    wanted = hashlib.sha256(b"\0".join([*sources, str(ROOT).encode()])).hexdigest()
    stamp = STAMP.read_text() if STAMP.exists() else ""
    usable = shutil.which("python", path=PROGRAMS) is not None
    if stamp == wanted and usable:
        return 0
    if ENVIRONMENT.exists() and (stamp == UNFINISHED or not usable):
        say("removing a .venv that was never finished, or has lost its Python.")
        shutil.rmtree(ENVIRONMENT)
    say("installing into .venv. On Linux the ordinary torch brings CUDA, a download of about 3 GB.")
    if stamp or not ENVIRONMENT.exists():  # ours, not one that somebody made by hand
        ENVIRONMENT.mkdir(exist_ok=True)
        STAMP.write_text(UNFINISHED)
    if not (ENVIRONMENT / "pyvenv.cfg").exists():
        try:
            venv.create(ENVIRONMENT, with_pip=True)
        except subprocess.CalledProcessError:
            say("this Python cannot make environments; on Debian and Ubuntu, add python3-venv.")
            return 1
    quiet = [] if sys.stdout.isatty() else ["-q"]
    what = ["--no-compile", "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[experiments,dev]"]
    code = call("python", "-m", "pip", "install", *quiet, *what)
    if code:
        say("the installation failed, for the reason above; the next start tries again.")
    else:
        STAMP.write_text(wanted)
    return code


def reproduce(options: list[str]) -> int:
    """Run every item at QUICK; assemble the pages, also when an item failed."""
    code = call("flatmin", "run", "all", "--quick", *options)
    if code in (2, 130):  # bad input or an interruption: there is nothing new to assemble
        return code
    code = call("flatmin", "report") or code
    say(f"to see the results, open {Path('results', 'index.html').resolve()}")
    return code


def test(options: list[str]) -> int:
    """Run the tests, on all cores; a debugger needs to be alone."""
    every = ["-m", ""] if "--all" in options else []
    rest = [option for option in options if option != "--all"]
    spread = [] if "--pdb" in rest else ["-n", "auto", "--dist", "loadgroup"]
    return call("python", "-m", "pytest", *spread, *every, *rest, folder=ROOT)


def check(options: list[str]) -> int:
    """Hold formatting, lint and types; a failure does not hide the next."""
    tools = (["ruff", "format", "--check"], ["ruff", "check"], ["mypy"])
    return max(call("python", "-m", *tool, *options, folder=ROOT) for tool in tools)


COMMANDS = {"reproduce": reproduce, "test": test, "check": check}


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036  this file may meet an older one than flatmin
        say(f"flatmin needs Python 3.11 or newer, and this is {sys.version.split()[0]}.")
        return 2
    name, *options = arguments or [""]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in COMMANDS:
        problem = f"unknown command {name!r}" if name else "no command given"
        say(f"{problem}; the commands are {', '.join(COMMANDS)}.")
        return 2
    try:
        return prepare() or COMMANDS[name](options)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
