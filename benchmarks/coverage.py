"""Whether a comparison keeps its word: intervals, verdicts and the seeds that it asks for.

Metrics are drawn: the base has a normal metric by seed, and the arm is better by a difference that
is normal too, with a true mean of one (or of zero, where nothing helps) and a deviation of one.
What `flatmin compare` makes of it, over and over, is held to the truth.

    python benchmarks/coverage.py             # writes docs/results/coverage.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flatmin.compare.judge import differences
from flatmin.compare.power import deviation, seeds_for
from flatmin.compare.statistics import paired
from flatmin.record.provenance import provenance

OUT = Path(__file__).parents[1] / "docs" / "results" / "coverage"
SEEDS = (5, 10, 20, 30)
WORTH = 0.5


def simulate(seeds: int, true: float, repetitions: int, arms: int = 1) -> dict[str, Any]:
    """Compare made-up arms with a made-up base, many times.

    Args:
        seeds: Starts in each comparison.
        true: True paired difference of every arm.
        repetitions: Comparisons.
        arms: How many are compared with the base at once.

    Returns:
        ``covered``, the share of intervals that hold the true difference; ``helps``, that of
        comparisons in which some arm is said to help; ``no``, in which some is said not to; and
        ``seeds``, the median of the numbers of seeds that are asked for, for a difference of half a
        deviation.
    """
    source = np.random.default_rng([seeds, int(10 * true), arms])
    names = [f"arm {number}" for number in range(arms)]
    references = {name: {"epochs": "base"} for name in names}
    covered, helped, denied, asked = 0, 0, 0, []
    for _ in range(repetitions):
        base = source.normal(90.0, 3.0, seeds)
        values = {name: (base + source.normal(true, 1.0, seeds)).tolist() for name in names}
        values["base"] = base.tolist()
        rows = differences(values, references, larger=True, worth=WORTH)
        covered += sum(row["low"] <= true <= row["high"] for row in rows)
        verdicts = {row["verdict"] for row in rows}
        helped += "helps" in verdicts
        denied += "no" in verdicts
        spread = deviation(paired(values[names[0]], values["base"]))
        asked.append(seeds_for(WORTH, spread) or 0)
    return {
        "seeds": seeds,
        "true": true,
        "arms": arms,
        "covered": covered / repetitions / arms,
        "helps": helped / repetitions,
        "no": denied / repetitions,
        "asked_for": statistics.median(asked),
    }


def main() -> None:
    """Simulate all cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    cases = [(seeds, true, 1) for seeds in SEEDS for true in (0.0, 1.0)] + [(5, 0.0, 4)]
    begin = time.perf_counter()
    rows = [simulate(seeds, true, repetitions, arms) for seeds, true, arms in cases]
    origin = provenance({})
    record = {
        **{name: origin[name] for name in ("commit", "device", "date")},
        "repetitions": repetitions,
        "worth": WORTH,
        "needed": seeds_for(WORTH, 1.0),
        "rows": rows,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        print("  ".join(f"{name} {value:g}" for name, value in row.items()))
    print(f"needed {record['needed']}; {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
