"""The table of several networks, from their records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flatmin.record.blocks import written


def several_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Write several networks side by side, for a terminal.

    Args:
        records: Of networks measured in the same ball, on the same data.

    Returns:
        Lines of text.
    """
    data, ball = records[0]["data"], records[0]["ball"]
    rows = cells(records)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    where = f"{data['source']}{', ' + data['part'] if 'part' in data else ''}"
    legend = [
        f"{sign}: {record['title']}" for sign, record in zip(rows[0][1:], records, strict=True)
    ]
    return "\n".join(
        [
            f"side by side, {ball['scale']}, rho = {ball['rho']:g}, p = {ball['p']}",
            f"{where}: {data['examples']:,} examples",
            *legend,
            "",
            lines[0],
            "-" * max(map(len, lines)),
            *lines[1:],
            "",
            *_remarks(records),
        ]
    )


def cells(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The same as cells: a header, a row for the loss and one for each measure."""
    header = ["measure", *(chr(ord("A") + k % 26) for k in range(len(records)))]
    found = [header, ["loss", *(written(record["loss"]) for record in records)]]
    scale = records[0]["ball"]["scale"]
    columns = [[row for row in record["rows"] if row["scale"] == scale] for record in records]
    for rows in zip(*columns, strict=True):
        found.append([rows[0]["measure"], *map(_value, rows)])
    return found


def _value(row: Mapping[str, Any]) -> str:
    if row["standard_error"] is None:
        return written(row["value"])
    return f"{written(row['value'])} ± {written(row['standard_error'], 2)}"


def _remarks(records: Sequence[Mapping[str, Any]]) -> list[str]:
    scale = records[0]["ball"]["scale"]
    spreads = [
        row["spread"]
        for record in records
        for row in record["rows"]
        if row["scale"] == scale and row["spread"] is not None
    ]
    if not spreads:
        return ["no spread is known: whether rescaling could turn the order round is open."]
    return [f"rescaled copies of these networks differ by {written(max(spreads), 1)} at most."]
