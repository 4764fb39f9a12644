"""A comparison that is killed at random moments and continued is the one that was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_tasks import TABLE, written


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="lives are forks, and there is no fork here")
def test_twenty_kills(tmp_path: Path) -> None:
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(written(tmp_path, TABLE)), "20"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert " kills in " in done.stdout
