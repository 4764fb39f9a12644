"""The table of ``flatmin measure``, from its record alone: whole, or line by line as it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flatmin.analysis.measuring import MEASURES
from flatmin.record.blocks import written

# Columns are as wide before the first number is known as after the last.
_NAME, _NUMBER, _COST = max(map(len, MEASURES)), 10, 27

_LOSSES = {
    "mse_loss": "mean squared error",
    "binary_cross_entropy_with_logits": "binary cross-entropy of labels",
    "token_cross_entropy": "cross-entropy of tokens",
}


def measure_table(record: Mapping[str, Any]) -> str:
    """Write what was measured, for a terminal.

    Args:
        record: As in ``measure.json``.

    Returns:
        Lines of text: what was measured, a row for each measure, and what to be wary of.
    """
    names = dict.fromkeys(row["measure"] for row in record["rows"])
    lines = [line_of(record, name) for name in names]
    return "\n".join([heading(record), *lines, remarks(record)])


def heading(record: Mapping[str, Any]) -> str:
    """What is measured, and the names of the columns: known at once."""
    data = record["data"]
    loss = _LOSSES.get(record["loss_function"], "loss")
    where = f"{data['source']}{', ' + data['part'] if 'part' in data else ''}"
    first = "the first " if data.get("more") else ""
    names = [ball["scale"] for ball in record["balls"]]
    columns = ["measure", names[0], "± error", "cost", "spread"]
    columns += [part for name in names[1:] for part in (name, "spread")]
    line = _aligned(columns, record)
    return "\n".join(
        [
            f"{record['title']}: {record['network']['parameters']:,} parameters",
            f"{where}: {first}{data['examples']:,} examples, {loss} {written(record['loss'])}",
            "; ".join(f"{b['scale']}: rho = {b['rho']:g}, p = {b['p']}" for b in record["balls"]),
            *([f"in {record['threads']}"] if "threads" in record else []),
            "",
            line,
            "-" * len(line),
        ]
    )


def line_of(record: Mapping[str, Any], name: str) -> str:
    """The row of a measure."""
    found = {row["scale"]: row for row in record["rows"] if row["measure"] == name}
    first, *others = (found[ball["scale"]] for ball in record["balls"])
    cells = [name, written(first["value"]), written(first["standard_error"], 2)]
    cells += [_cost(first), written(first["spread"], 1)]
    for row in others:
        cells += [written(row["value"]), written(row["spread"], 1)]
    return _aligned(cells, record)


def remarks(record: Mapping[str, Any]) -> str:
    """What is known when all rows are: each sentence once, with the measures that it concerns."""
    certificate = record["certificate"]
    if certificate["copies"]:
        moved = [row["outputs_moved"] for row in record["rows"] if row["outputs_moved"] is not None]
        sentences = [
            f"spread: (max − min) / |mean| over {certificate['copies']} "
            f"scaling{'s' * (certificate['copies'] > 1)} of "
            f"{certificate['units']} units; the outputs moved by "
            f"{written(max(moved), 1) if moved else 'an unknown part'} of their rms."
        ]
    else:
        sentences = [f"no spread: {certificate['reason']}."]
    if certificate.get("mixings"):
        moved = [row for row in record["rows"] if row["mixed_spread"] is not None]
        spreads = ", ".join(
            f"{row['measure']} {written(row['mixed_spread'], 1)}"
            for row in moved
            if row["scale"] == record["ball"]["scale"]
        )
        sentences.append(
            f"matrices that mix units ({certificate['mixings']}) keep the function as well; "
            f"spread under one of them, {record['ball']['scale']}: {spreads or 'not known'}."
        )
    concerned: dict[str, list[str]] = {}
    for row in record["rows"]:
        noted = list(row["warnings"])
        if not (row["verdict"] or "invariant").removeprefix("NOT ").startswith("invariant"):
            noted.append(row["verdict"])
        for sentence in noted:
            concerned.setdefault(sentence, []).append(f"{row['measure']}, {row['scale']}")
    for sentence, places in concerned.items():
        sentences.append(f"note: {sentence} ({'; '.join(places)})")
    return "\n".join(["", *sentences])


def _cost(row: Mapping[str, Any]) -> str:
    kinds = (("gradients", "gradient"), ("forwards", "forward"), ("hvps", "Hessian product"))
    parts = [f"{row[key]} {noun}{'' if row[key] == 1 else 's'}" for key, noun in kinds if row[key]]
    return ", ".join(parts)


def _aligned(cells: Sequence[str], record: Mapping[str, Any]) -> str:
    widths = [_NAME, max(_NUMBER, len(record["balls"][0]["scale"])), 7, _COST, 6]
    for ball in record["balls"][1:]:
        widths += [max(_NUMBER, len(ball["scale"])), 6]
    return "  ".join(c.ljust(width) for c, width in zip(cells, widths, strict=True)).rstrip()
