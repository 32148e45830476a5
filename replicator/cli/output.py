"""Printing: plain tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from replicator.status import Lag
from replicator.units import format_duration, format_size

NOTHING = "-"


def print_json(value: object) -> None:
    """Print any value that msgspec encodes, indented."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their titles, each column as wide as its widest cell."""
    lines = [list(titles), *[[cell or NOTHING for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def format_count(number: int, noun: str) -> str:
    """Return ``1 record``, ``2 records``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_lag(lag: Lag) -> str:
    """Return a lag in records, bytes and time; ``none`` if there is none."""
    if not lag.bytes:
        return "none"
    records = format_count(lag.records, "record")
    return f"{records}, {format_size(lag.bytes)}, {format_duration(lag.seconds)}"


def print_note(text: str) -> None:
    """Print a remark where it does not disturb what a program reads."""
    print(f"replicatorctl: {text}", file=sys.stderr)


def format_time(at_ns: int) -> str:
    """Return a time of a site's clock as UTC text."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
