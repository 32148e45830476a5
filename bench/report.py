"""The report of a bench: rows with a value, a reference, their ratio and the bar it should meet."""

from __future__ import annotations

import json
from pathlib import Path

Row = dict[str, object]


def merge_into_report(path: Path, section: str, rows: list[Row]) -> None:
    """Put ``rows`` under ``section`` of the JSON report at ``path``, keeping other sections."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = json.loads(path.read_text()) if path.exists() else {}
    report[section] = rows
    path.write_text(json.dumps(report, indent=2) + "\n")


def print_rows(rows: list[Row]) -> None:
    """Print ``rows`` as a table that can be scanned."""
    heads = ("WHAT", "TOWLINE", "REFERENCE", "RATIO", "BAR", "")
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "" if row.get("bar") is None else ("met" if row["met"] else "NOT MET")
    unit = row["unit"]
    return (
        str(row["what"]),
        f"{row['towline']} {unit}",
        f"{row['reference_value']} {unit} ({row['reference']})",
        str(row["ratio"]),
        str(row.get("bar") or "-"),
        verdict,
    )
