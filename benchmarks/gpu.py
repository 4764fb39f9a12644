"""What time on a GPU is spent on, first things first, in calls that may be cut off.

    python benchmarks/gpu.py --data DIR --minutes 9

Each step is a command of its own, printed before it runs, so that it can be run alone:

1. seconds of an epoch of WRN-28-10 with SGD, SAM and ASAM, side by side;
2. climb and restore alone, beside other libraries;
3. the optimizers' promises on that device;
4. the report's setting at its own size, for one seed: SGD, SAM, ASAM, then Adam;
5. the same for more seeds.

When the minutes are over, the step at hand is interrupted as by Ctrl-C, which keeps its finished
runs and its last checkpoint; the same command goes on from there, and leaves out what is finished.
Everything lies in ``--out`` the moment it is there, with the device and the versions. ``--tiny``
makes all of it as small as it can be, to try this file where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRACE = 60.0  # seconds in which a step that is interrupted may write what it has


def steps(options: argparse.Namespace) -> dict[str, list[str]]:
    """Names and commands, in order."""
    out, place = options.out, ["--device", options.device]
    tiny: bool = options.tiny
    network = ["wrn-10-1" if tiny else "wrn-28-10", "--precision", "bf16", "--bases", "sgd"]
    length = ["--images", "16" if tiny else "12800", "--repeats", "1" if tiny else "3"]
    sets = ["--sets", "many small", "--repeats", "1", "--no-pages"] if tiny else []
    epoch = [*place, "--models", *network, *length, "--out", f"{out}/epoch"]
    climb = [*place, *sets, "--out", f"{out}/step_cost"]
    data = ["--data", str(options.data)] if options.data else []
    study = ["-m", "flatmin", "run", "ext_sgd", *place, *data, "--out", str(out)]
    study += ["--quick"] if tiny else []
    suite = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    suite += [f"--junit-xml={out}/suite.xml", "tests/optim/test_on_a_device.py"]
    suite += ["-k", "SAM-SGD"] if tiny else []
    return {
        "epoch": ["benchmarks/epoch.py", *epoch],
        "climb and restore": ["benchmarks/step_cost.py", *climb],
        "promises": suite,
        "one seed": [*study, "--seeds", "1"],
        "more seeds": [*study, "--seeds", "2" if tiny else "5"],
    }


def run(command: list[str], seconds: float) -> int | None:
    """Run a command for so long; its exit code, or None if it was interrupted."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    child = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)
    try:
        return child.wait(timeout=seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10; without it, digits")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for this call")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "gpu")
    parser.add_argument("--tiny", action="store_true", help="to try it without a GPU")
    options = parser.parse_args()
    options.out = options.out.absolute()
    options.data = options.data and options.data.absolute()
    end = time.monotonic() + 60.0 * options.minutes
    failed = []
    for name, command in steps(options).items():
        done = options.out / f"{name.replace(' ', '_')}.done"
        if done.exists() and done.read_text() == shlex.join(command):
            continue
        if end - time.monotonic() <= 0.0:
            print(f"gpu.py: time is up before {name}; the same command goes on.", flush=True)
            return 3
        print(f"gpu.py: {name}: python {shlex.join(command)}", flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        code = run(command, end - time.monotonic())
        if code is None:
            print(f"gpu.py: interrupted in {name}; the same command goes on.", flush=True)
            return 3
        if code:
            failed.append(name)
            print(f"gpu.py: {name} ended with {code}; it is tried again next time.", flush=True)
        else:
            done.write_text(shlex.join(command))
    print(f"gpu.py: {f'failed: {failed}' if failed else 'all is done'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
