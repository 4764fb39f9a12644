"""The toy network.

Claim: The network of the toy experiments has the structure of the report's table II.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flatmin.models import ReportMLP
from flatmin.record.item import Table, Verdict
from flatmin.record.style import COLORS, INK, subplots
from flatmin.symmetry import find_scalings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORTED = [
    ["input layer", "nn.Linear(2, 10)"],
    ["hidden layer", "nn.Linear(10, 10)"],
    ["activation function", "nn.ReLU()"],
    ["hidden layer", "nn.Linear(10, 10)"],
    ["activation function", "nn.ReLU()"],
    ["hidden layer", "nn.Linear(10, 10)"],
    ["activation function", "nn.ReLU()"],
    ["output layer", "nn.Linear(10, 2)"],
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The network has no options but one."""

    hidden_biases: bool = True
    """Whether the hidden layers have biases, as where it is trained; figures 2 to 4 have none."""


FULL = Config()
QUICK = Config()


def run(config: Config, scratch: Path) -> dict[str, Any]:
    """Read the structure off the network itself."""
    net = ReportMLP(config.hidden_biases)
    layers: list[nn.Module] = [net.first, *net.hidden, net.last]
    rows: list[dict[str, Any]] = []
    for place, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            ends = {0: "input layer", len(layers) - 1: "output layer"}
            kind = ends.get(place, "hidden layer")
            name = f"nn.Linear({layer.in_features}, {layer.out_features})"
        else:
            kind, name = "activation function", f"nn.{type(layer).__name__}()"
        rows.append(
            {
                "type": kind,
                "name": name,
                "weights": sum(p.numel() for n, p in layer.named_parameters() if n == "weight"),
                "biases": sum(p.numel() for n, p in layer.named_parameters() if n == "bias"),
            }
        )
    groups = find_scalings(net, torch.zeros(1, 2)).groups
    return {
        "rows": rows,
        "parameters": sum(p.numel() for p in net.parameters()),
        "scalable_units": [group.size for group in groups],
    }


def draw(record: dict[str, Any]) -> Figure:
    """The layers from left to right, with what they hold."""
    rows = record["numbers"]["rows"]
    figure, axes = subplots(width=10, height=2.2)
    ax = axes[0, 0]
    ax.set_axis_off()
    ax.set(xlim=(-0.65, len(rows) - 0.35), ylim=(-1.25, 0.85))
    for place, row in enumerate(rows):
        linear = row["type"] != "activation function"
        color = COLORS["Adam"] if linear else COLORS["SAM"]
        text = row["name"].removeprefix("nn.").removesuffix("()").replace("Linear", "Linear\n")
        ax.text(
            place,
            0,
            text,
            ha="center",
            va="center",
            color="white",
            linespacing=1.4,
            bbox={"boxstyle": "round,pad=0.55", "facecolor": color, "edgecolor": "none"},
        )
        ax.text(place, 0.66, row["type"].replace(" function", ""), ha="center", color=INK)
        held = f"{row['weights']} weights" if linear else "–"
        held += f"\n{row['biases'] or 'no'} biases" if linear else ""
        ax.text(place, -0.56, held, ha="center", va="top", color=INK, linespacing=1.4)
        if place:
            arrow = {"arrowstyle": "-|>", "color": "#8C8C8C", "lw": 1}
            ax.annotate("", (place - 0.41, 0), (place - 0.59, 0), arrowprops=arrow)
    ax.set_title(f"{record['numbers']['parameters']} parameters")
    return figure


def answer(record: dict[str, Any]) -> str:
    """What the network is, and what of it may be rescaled."""
    numbers = record["numbers"]
    units = numbers["scalable_units"]
    return (
        f"The network has {len(numbers['rows'])} layers with {numbers['parameters']} parameters, "
        f"and {sum(units)} of its units, in {len(units)} groups, may be rescaled freely."
    )


def check(record: dict[str, Any]) -> list[Verdict]:
    """Row by row as in the report."""
    rows = record["numbers"]["rows"]
    same = [[row["type"], row["name"]] for row in rows] == REPORTED
    biased = [row["type"] for row in rows if row["biases"]]
    sizes = record["numbers"]["scalable_units"]
    return [
        Verdict(
            "The network has these eight layers in this order",
            "table II",
            f"{'the same' if same else 'other'} layers; {record['numbers']['parameters']} "
            f"parameters; biases in {len(biased)} of 5 linear layers, none of them first or last",
            same,
        ),
        Verdict(
            "Positive scalings act on each neuron of the hidden layers",
            "τ has one entry per neuron of the hidden layers",
            f"traced: {len(sizes)} groups of {sizes[0]} units may be scaled freely, those behind "
            "the first layer among them",
            sizes == [10, 10, 10, 10],
        ),
    ]


def tables(record: dict[str, Any]) -> list[Table]:
    """The report's table with the parameters added."""
    rows = [(i + 1, *row.values()) for i, row in enumerate(record["numbers"]["rows"])]
    return [Table("Table II, counted", ("order", "type", "name", "weights", "biases"), rows)]


def notes(record: dict[str, Any]) -> list[str]:
    """What the table does not show."""
    return [
        "Not in the table: the first and the last layer have no bias, and nothing follows the "
        "first layer before the second. Two linear maps in a row can exchange any invertible "
        "matrix, so this network has more symmetries than scalings; see fig4."
    ]
