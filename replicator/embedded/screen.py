"""What the demo shows while it runs: steps as lines, the three sites as a live table."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from replicator.embedded.lab import EmbeddedLab
from replicator.errors import TowlineError
from replicator.status import SiteStatus
from replicator.units import format_size

_REFRESH_SECONDS = 0.25


class Screen:
    """Prints steps with their time; keeps a table of the sites below them on a terminal."""

    def __init__(self, lab: EmbeddedLab, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._lab = lab
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._started = time.monotonic()
        self._refreshed = 0.0
        self._clients: dict[str, str] = {}

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def step(self, text: str) -> None:
        """Print one line."""
        self.console.print(f"[dim]{self.seconds:5.1f} s[/]  {text}", soft_wrap=True)

    def client(self, name: str, state: str) -> None:
        """Say what a client does now."""
        self._clients[name] = state

    def refresh(self) -> None:
        """Ask the sites and redraw, at most every quarter of a second; nothing off a terminal."""
        if not self.console.is_terminal or self.seconds - self._refreshed < _REFRESH_SECONDS:
            return
        self._refreshed = self.seconds
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table(caption="   ".join(f"{n}: {s}" for n, s in self._clients.items()))
        for heading in ("site", "state", "received", "restored", "behind", "journal"):
            justify = "left" if heading in ("site", "state") else "right"
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for name, site in self._lab.sites.items():
            try:
                table.add_row(*_row(site.status().own))
            except TowlineError:
                table.add_row(name, "[red]no process[/]" if not site.running else "starting")
        return table


def _row(own: SiteStatus) -> list[str]:
    received = own.received.position if own.received else 0
    restored = own.restored.position if own.restored else 0
    behind = f"{own.lag.records} records" if own.lag else ""
    journal = f"{100 * own.used_bytes // max(1, own.ring_bytes)} %"
    state = f"[green]{own.state}[/]" if own.state in ("serving", "following") else own.state
    return [own.site, state, format_size(received), format_size(restored), behind, journal]
