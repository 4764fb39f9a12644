"""The table of ``flatmin measure``, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flatmin.record.blocks import written


def measure_table(record: dict[str, Any]) -> str:
    """Write what was measured, for a terminal.

    Args:
        record: As in ``measure.json``.

    Returns:
        Lines of text: what was measured, a row for each measure, and what to be wary of.
    """
    balls, data = record["balls"], record["data"]
    names = [ball["scale"] for ball in balls]
    rows: dict[str, dict[str, Any]] = {}
    for row in record["rows"]:
        rows.setdefault(row["measure"], {})[row["scale"]] = row
    header = ["measure", names[0], "± error", "cost", "spread"]
    header += [part for name in names[1:] for part in (name, "spread")]
    lines = [header]
    for measure, found in rows.items():
        first = found[names[0]]
        cells = [measure, written(first["value"]), written(first["standard_error"], 2)]
        cells += [_cost(first), written(first["spread"], 1)]
        for name in names[1:]:
            cells += [written(found[name]["value"]), written(found[name]["spread"], 1)]
        lines.append(cells)
    loss = "mean squared error" if record["loss_function"] == "mse_loss" else "loss"
    where = f"{data['source']}{', ' + data['part'] if 'part' in data else ''}"
    return "\n".join(
        [
            f"{record['title']}: {record['network']['parameters']:,} parameters",
            f"{where}: {data['examples']:,} examples, {loss} {written(record['loss'])}",
            "; ".join(f"{b['scale']}: rho = {b['rho']:g}, p = {b['p']}" for b in balls),
            "",
            *_aligned(lines),
            "",
            *_remarks(record),
        ]
    )


def _cost(row: dict[str, Any]) -> str:
    kinds = (("gradients", "gradient"), ("forwards", "forward"), ("hvps", "Hessian product"))
    parts = [f"{row[key]} {noun}{'' if row[key] == 1 else 's'}" for key, noun in kinds if row[key]]
    return ", ".join(parts)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return [line.rstrip() for line in (lines[0], "-" * max(map(len, lines)), *lines[1:])]


def _remarks(record: dict[str, Any]) -> list[str]:
    """Each sentence once, with the measures that it concerns."""
    certificate = record["certificate"]
    if certificate["copies"]:
        moved = [row["outputs_moved"] for row in record["rows"] if row["outputs_moved"] is not None]
        remarks = [
            f"spread: (max − min) / |mean| over {certificate['copies']} "
            f"scaling{'s' * (certificate['copies'] > 1)} of "
            f"{certificate['units']} units; the outputs moved by "
            f"{written(max(moved), 1) if moved else 'an unknown part'} of their rms."
        ]
    else:
        remarks = [f"no spread: {certificate['reason']}."]
    concerned: dict[str, list[str]] = {}
    for row in record["rows"]:
        sentences = list(row["warnings"])
        if not (row["verdict"] or "invariant").removeprefix("NOT ").startswith("invariant"):
            sentences.append(row["verdict"])
        for sentence in sentences:
            concerned.setdefault(sentence, []).append(f"{row['measure']}, {row['scale']}")
    for sentence, places in concerned.items():
        remarks.append(f"note: {sentence} ({'; '.join(places)})")
    return remarks
