"""Every number in README and docs that comes from a stored result is read from that result."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flatmin.compare.statistics import Mean, paired

ROOT = Path(__file__).parents[1]


@cache
def result(name: str) -> Any:
    return json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())


def gains(against: str) -> list[Mean]:
    numbers = result("table1")["numbers"]
    if against == "reported":
        last = {name: columns["last"] for name, columns in numbers[against].items()}
        return [paired(last[name], last["Adam"]) for name in ("SAM", "ASAM")]
    return [
        paired(numbers["equal_epochs"][f"{base} + {name}"]["last"], numbers[against][base]["last"])
        for base in ("SGD", "Adam")
        for name in ("SAM", "ASAM")
    ]


def lost() -> str:
    values = [-gain.value for gain in gains("equal_gradients")]
    assert all(gain.sign < 0 for gain in gains("equal_gradients"))
    assert not any(gain.sign for gain in gains("equal_epochs"))
    return f"lose {min(values):.1f} to {max(values):.1f} points to the base trained for as many"


def rise() -> str:
    measure = result("fig4")["numbers"]["measures"]["ASAM, eta 0.01 | no biases"]
    pairs = list(zip(measure["rise_ratio"], measure["below"], strict=True))
    kept = statistics.median(ratio for ratio, below in pairs if not below)
    crossing = sum(below > 0 for _, below in pairs)
    return (
        f"moves {kept:.0f}-fold in the median (b), because of eta (c); in {crossing} of "
        f"{len(pairs)} networks"
    )


def constant() -> str:
    measure = result("fig4")["numbers"]["measures"]["T = |w| on all | biases scaled too"]
    assert max(measure["rise_spread"]) < 1e-13
    return "constant to 1e-13"


def alone() -> str:
    """SGD over Adam, with the report's settings, at the best epoch as the report has it."""
    arms = result("ext_sgd")["numbers"]["arms"]
    gain = paired(arms["SGD"]["best"], arms["Adam"]["best"])
    assert gain.sign > 0
    return f"that SGD alone, which the report did not run, by {gain.value:.1f}"


def spreads() -> str:
    found = result("ext_invariance")
    spread = found["numbers"]["spreads"]["float64"]
    own = ("one step", "worst case", "average", "gradient norm", "trace", "top eigenvalue")
    assert max(max(v) for name, v in spread.items() if name.startswith(own)) < 1e-12
    return f"{found['config']['seeds']} trained networks, in float64"


def grows() -> str:
    """The median, to two digits."""
    ratio = statistics.median(result("ext_invariance")["numbers"]["ratios"]["SAM loss"])
    return f"changes by a factor of about {round(ratio, -1):.0f} in the median"


def copies(name: str, kind: str = "WRN-28-10") -> float:
    return float(result("step_cost")["sets"][kind]["copies"][name])


def more(kind: str) -> list[str]:
    return [
        f"{round(copies(f'{name}, p = ∞', kind) / copies(name, kind) - 1, 2) + 0.0:.0%}".replace(
            "%", " %"
        )
        for name in ("SAM", "ASAM")
    ]


def orders() -> str:
    (sam, asam), (few, fewer) = more("WRN-28-10"), more("many small")
    large = f"costs {sam} more for SAM and {asam} more for ASAM"
    return f"{large}, on many small tensors {few} and {fewer}"


def against(kind: str, *names: str) -> str:
    ratios = result("step_cost")["sets"][kind]["ratios"]
    return ", ".join(f"{ratios[name]:.2f}" for name in names)


def bare() -> str:
    """Torch's own operations: beside our step, and beside the fastest of the others."""
    found = result("step_cost")["sets"]["many small"]["copies"]
    share = found["four operations of torch"] / found["SAM"]
    return f"sum alone take {share:.0%} of our step".replace("%", " %")


def at_least() -> str:
    found = result("step_cost")["sets"]["many small"]["copies"]
    fastest = min(
        v for n, v in found.items() if n.startswith("SAM,") and ("loop" in n or "py" in n)
    )
    share = found["four operations of torch"] / fastest
    return f"with nothing around them are at {share:.2f} of the fastest for SAM"


def restoring(name: str) -> str:
    """Against the faster of those that give every bit back."""
    numbers = result("step_cost")["sets"]["WRN-28-10"]["copies"]
    others = [n for n in numbers if n.startswith(f"{name},") and ("pub" in n or "pytorch" in n)]
    return f"{numbers[name] / min(numbers[n] for n in others):.2f}"


def most_pages() -> int:
    sets = result("step_cost")["sets"].values()
    own = [
        pages
        for numbers in sets
        for name, pages in numbers["fresh_pages"].items()
        if not any(word in name for word in ("loop", "pytorch", "four"))
    ]
    return max(own)


def beyond_sam() -> str:
    ratios = result("family")["sets"]["WRN-28-10"]["ratio_to_sam"]
    return ", ".join(f"{ratios[name]:.2f}" for name in ("GSAM", "FriendlySAM", "WSAM"))


def coupled() -> str:
    ratio = result("family")["sets"]["WRN-28-10"]["ratio_to_sam"]["coupled WSAM"]
    return f"with `decoupled=False` it is at {ratio:.2f} |"


def kept_mib(kind: str) -> str:
    kept = result("memory")["sets"][kind]["kept_bytes"]
    return f"{kept['SAM'] / 2**20:.1f}, {kept['ASAM'] / 2**20:.1f}"


def beyond(name: str) -> str:
    networks = result("training_step")["networks"]
    parts = [
        networks[kind]["ratios_from_outside"][name] - 1
        for kind in ("WRN-16-2", "transformer", "perceptron")
    ]
    percent = [f"{100 * part:.1f}" for part in parts[:2]] + [f"{100 * parts[2]:.0f}"]
    return f"| {name.replace('fused', '`fused=True`').replace('model=', '`model=`')} | " + (
        " | ".join(f"{value} %" for value in percent) + " |"
    )


def whole() -> str:
    ratios = result("training_step")["networks"]["perceptron"]["ratios"]
    sam, asam = (100 * (ratios[f"{name}, model="] - 1) for name in ("SAM", "ASAM"))
    return f"with `model=` {sam:.0f} % for SAM and {asam:.0f} % for ASAM"


def outside() -> str:
    network = result("training_step")["networks"]["WRN-16-2"]
    sam, asam = (network["ratios_from_outside"][name] for name in ("SAM", "ASAM"))
    both = [f"{network['ratios'][name]:.2f}" for name in ("SAM", "ASAM")]
    return (
        f"{sam:.3f}, {asam:.3f} from the time outside the gradients; whole steps {', '.join(both)}"
    )


def peaks(kind: str, *names: str) -> str:
    peak = result("memory")["sets"][kind]["peak"]
    return ", ".join(f"{peak[name]:.2f}" for name in names)


def operations(name: str, counts: str, shapes: str) -> str:
    sets = result("operations")["sets"]
    found = [sets[f"{count} of {shapes}"][name] for count in counts.split()]
    return f"| {name} | {' | '.join(map(str, found))} |".replace("foreach", ", foreach").replace(
        " ,", ","
    )


def on_a_gpu() -> Iterator[str]:
    """What was measured there, in the table and below it."""
    run = result("gpu/epoch")["runs"]["wrn-28-10, sgd"]
    (rate, sam, asam), ratio = run["images_per_s"].values(), run["ratio"]
    longer = f"{ratio['sam / none']:.2f}", f"{ratio['asam / none']:.2f}"
    yield f"| 2.03, 2.05 | {', '.join(longer)} |"
    yield (
        f"goes through {rate:,.0f} images a second, {50_000 / rate:.1f} s for CIFAR-10; SAM takes "
        f"{longer[0]} times as long and ASAM {longer[1]}"
    )
    climb = result("gpu/step_cost")["sets"]
    beyond, seconds = 128 / sam - 256 / rate, climb["WRN-28-10"]["seconds"]["SAM"]
    yield f"that is {1e3 * beyond:.0f} ms a step, of which the climb and the way back are"
    yield f"the climb and the way back are {1e3 * seconds:.1f} ms"
    large, small = (
        tuple(f"{numbers['ratios'][name]:.2f}" for name in ("SAM", "ASAM"))
        for numbers in climb.values()
    )
    yield f"| 0.9, 0.9 | {', '.join(large)} |"
    yield f"| 0.5, 0.6 | {', '.join(small)} |"
    yield f"at {' and '.join(large)} of the fastest of the others, on many small tensors at "
    fused, plain = (climb["WRN-28-10"]["copies"][name] for name in ("SAM, fused", "SAM"))
    yield f"{fused:.0f} copies for SAM, where torch's operations on lists take {plain:.0f}"
    epochs = 50 * (1 / rate + 1 / sam + 1 / asam) + 100 / rate
    yield f"SGD, SAM, ASAM and Adam is {50_000 * epochs / 60:.0f} minutes"


def architectures() -> Iterator[str]:
    """What may be done to networks of others."""
    found = result("architectures")["summary"]
    count, units = found["architectures"], found["units_scaled"]
    assert found["with_scalings"] == count and found["within"] == count - len(found["beyond"])
    yield f"each of {len(result('architectures')['families'])} families of timm"
    yield f"So far {count} were examined"
    yield f"All have units that may be rescaled, {units:,} in all"
    ((name, moved),) = found["beyond"].items()
    yield f"1e-10 of their rms in {found['within']}; `{name}` casts its attention"
    yield f"stays within {moved:.0e}"
    yield " and ".join(f"`{name}`" for name in sorted(found["failed"]))
    yield f"In {len(found['without_a_law'])} of them"


def claims() -> Iterator[tuple[str, Callable[[], str]]]:
    """Document, and the words that must stand in it."""
    for words in on_a_gpu():
        yield "docs/speed.md", lambda words=words: words
    for words in architectures():
        yield "docs/symmetry.md", lambda words=words: words
    yield "docs/speed.md", bare
    yield "docs/speed.md", at_least
    yield "README.md", lost
    yield (
        "README.md",
        lambda: " and\n".join(f"{gain.value:.1f}" for gain in gains("reported")).join(
            ("by ", " (a)")
        ),
    )
    yield "README.md", alone
    yield "README.md", rise
    yield "README.md", constant
    yield "docs/measures.md", spreads
    yield "docs/measures.md", grows
    yield "docs/speed.md", orders
    yield "docs/speed.md", whole
    yield "docs/speed.md", outside
    yield "docs/speed.md", lambda: against("WRN-28-10", "SAM", "ASAM").join(("| 0.9, 0.9 | ", " |"))
    yield (
        "docs/speed.md",
        lambda: against("WRN-28-10", "SAM, fused", "ASAM, fused").join(("| 0.7, 0.5 | ", " |")),
    )
    yield (
        "docs/speed.md",
        lambda: against("many small", "SAM", "ASAM").join(("| 0.5, 0.6 | ", " |")),
    )
    yield (
        "docs/speed.md",
        lambda: f"we are at {copies('SAM, fused'):.1f} and {copies('ASAM, fused'):.1f}",
    )
    yield (
        "docs/speed.md",
        lambda: f"without a compiler: {copies('SAM'):.1f} and {copies('ASAM'):.1f} copies",
    )
    yield (
        "docs/speed.md",
        lambda: (
            f"pytorch-optimizer, takes {copies('SAM, pytorch-optimizer foreach'):.1f} and "
            f"{copies('ASAM, pytorch-optimizer foreach'):.1f}; the published loop takes "
            f"{copies('SAM, published loop'):.1f} and {copies('ASAM, published loop'):.1f}. The "
            f"shifting loop takes {copies('SAM, shifting loop'):.1f} and "
            f"{copies('ASAM, shifting loop'):.1f}"
        ),
    )
    yield "docs/speed.md", lambda: f"| 0.9, 0.9 | {restoring('SAM')}, {restoring('ASAM')} | met |"
    yield "docs/speed.md", lambda: f"| 64 and 1 a MiB | at most {most_pages()} | met |"
    yield "docs/speed.md", lambda: f"against SAM | 2 | {beyond_sam()} |"
    yield "docs/speed.md", coupled
    yield "docs/speed.md", lambda: f"| {kept_mib('WRN-28-10')}; {kept_mib('many small')} |"
    for kind, orders_of in itertools.product(("WRN-28-10", "many small"), ("", ", p = ∞")):
        names = [f"{name}{orders_of}" for name in ("SAM", "ASAM")]
        yield (
            "docs/speed.md",
            lambda kind=kind, names=names: peaks(kind, *names).join(
                (f"| {1 if kind == 'WRN-28-10' else 2} × parameters | ", " |")
            ),
        )
    for name in ("SAM", "ASAM"):
        for form in ("", ", fused", ", model="):
            yield "docs/speed.md", lambda name=f"{name}{form}": beyond(name)
        yield "docs/speed.md", lambda name=name: operations(name, "10 100 1000", "64×64")
        yield "docs/speed.md", lambda name=name: operations(name, "10 100 1000", "four shapes")
        for peer in ("published loop", "pytorch-optimizer", "pytorch-optimizer foreach"):
            yield (
                "docs/speed.md",
                lambda name=f"{name}, {peer}": operations(name, "10 100 1000", "64×64"),
            )


@pytest.mark.parametrize(("document", "words"), list(claims()))
def test_a_document_says_what_the_result_says(document: str, words: Callable[[], str]) -> None:
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    expected = " ".join(words().split())
    assert expected in text
