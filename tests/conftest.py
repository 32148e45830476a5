"""What every test run has: its counts printed at the end."""

from __future__ import annotations

import pytest

from tests import tally


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted (crash points, seeds, kills, broken variants, fault rows)."""
    if not tally.COUNTS:
        return
    terminalreporter.section("counts")
    for what, how_many in sorted(tally.COUNTS.items()):
        terminalreporter.write_line(f"{what}: {how_many:,}")
