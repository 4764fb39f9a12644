"""Set flatmin up beside this file and run it; needs nothing but Python 3.11 or newer.

python3 run.py reproduce [options]   run every item at QUICK and assemble results/index.html;
                                     options are those of `flatmin run`, such as --data DIR
python3 run.py test [options]        the fast tests; --all adds the slow ones; options of pytest
python3 run.py check                 formatting, lint and types
python3 run.py docs [options]        the documentation as a site, docs/_build/html/index.html;
                                     options are those of `sphinx-build`
python3 run.py release               wheel and source archive in dist/, and the wheel tried with the
                                     lowest and the newest torch in environments of its own

The first start makes .venv with the versions of constraints.txt; later ones begin at once. What
only the site or a release needs is added at the first one.
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
EXTRAS = "experiments,dev"
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


def fingerprint() -> str:
    """Tell what an environment is made of, and where: it does not survive being moved."""
    sources = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join([*sources, str(ROOT).encode()])).hexdigest()


def install(extras: str) -> int:
    """Install this project in place with some extras, and return pip's exit code."""
    quiet = [] if sys.stdout.isatty() else ["-q"]
    what = ["--no-compile", "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[{extras}]"]
    code = call("python", "-m", "pip", "install", *quiet, *what)
    if code:
        say("the installation failed, for the reason above; the next start tries again.")
    return code


def prepare() -> int:
    """Make the environment, unless a finished one is there, and return an exit code."""
    wanted = fingerprint()
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
    code = install(EXTRAS)
    if not code:
        STAMP.write_text(wanted)
    return code


def add(extra: str) -> int:
    """Add an extra that one command alone needs, unless it is there, and return an exit code."""
    stamp, wanted = STAMP.with_name(f"installed-{extra}.txt"), fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return 0
    say(f"adding what `{extra}` needs to .venv.")
    code = install(f"{EXTRAS},{extra}")
    if not code:
        stamp.write_text(wanted)
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
    if (every or "slow" in rest) and (code := add("docs")):  # they build the site
        return code
    spread = [] if "--pdb" in rest else ["-n", "auto", "--dist", "loadgroup"]
    return call("python", "-m", "pytest", *spread, *every, *rest, folder=ROOT)


def check(options: list[str]) -> int:
    """Hold formatting, lint and types; a failure does not hide the next."""
    tools = (["ruff", "format", "--check"], ["ruff", "check"], ["mypy"])
    return max(call("python", "-m", *tool, *options, folder=ROOT) for tool in tools)


def docs(options: list[str]) -> int:
    """Build the site of the documentation; every warning is an error."""
    if code := add("docs"):
        return code
    site = Path("docs", "_build", "html")
    # All pages anew, or a second start would be silent about what the first one found.
    strict = ["-E", "-W", "--keep-going", "-q"]
    code = call("python", "-m", "sphinx", *strict, *options, "docs", str(site), folder=ROOT)
    if not code:
        say(f"to read it, open {ROOT / site / 'index.html'}")
    return code


def release(options: list[str]) -> int:
    """Build what is released, and try it where nothing else is."""
    return add("release") or call("python", str(ROOT / "release.py"), *options)


COMMANDS = {
    "reproduce": reproduce,
    "test": test,
    "check": check,
    "docs": docs,
    "release": release,
}


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
