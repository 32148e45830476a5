"""Counts that a test run prints at its end, and how much a run is asked to try."""

from __future__ import annotations

import os
from collections import Counter

COUNTS: Counter[str] = Counter()


def count(what: str, how_many: int = 1) -> None:
    """Add to a count, such as ``crash points`` or ``F19``; conftest prints them all."""
    COUNTS[what] += how_many


def wanted(name: str, default: int) -> int:
    """Return the number in environment variable ``name``, such as TOWLINE_CRASH_POINTS."""
    text = os.environ.get(name, "")
    return int(text) if text else default
