"""Where a result comes from: the code, the command, the machine."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

import flatmin

PACKAGE = Path(flatmin.__file__).parent


def provenance(config: dict[str, Any]) -> dict[str, Any]:
    """Describe what is about to run; the seconds are for the caller to add."""
    commit, dirty = _checkout(PACKAGE)
    return {
        "commit": commit,
        "dirty": dirty,
        "command": shlex.join(["flatmin", *sys.argv[1:]]),
        "flatmin": flatmin.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": device_name(config.get("device", "cpu")),
        "threads": torch.get_num_threads(),
        "seeds": config.get("seeds"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _checkout(package: Path) -> tuple[str, bool | None]:
    """Commit of the code, and whether the package differs from it; unknown outside a checkout."""
    # A package installed below somebody's repository is not a part of it: ask for a tracked file.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return "unknown", None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    return (commit or "unknown"), (None if changes is None else bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):  # no git here, or one that hangs
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def device_name(device: str) -> str:
    """The make of a device, as a reader knows it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        models = [
            row
            for row in listing.read_text("utf-8", "replace").splitlines()
            if row.startswith("model name")
        ]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    return f"{device} on {cpu}" if device != "cpu" else f"CPU, {cpu}"
