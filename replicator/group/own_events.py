"""Journal an event of the group and wait until it is durable: for commands at the primary."""

from __future__ import annotations

import threading

from replicator.codec.batch import Point
from replicator.errors import Refused
from replicator.group.site import SiteRuntime
from replicator.model import ControlRecord, Pair

DURABLE_SECONDS = 8.0
"""Less than a control client waits (daemon/control.py)."""


def journal_event(runtime: SiteRuntime, kind: int, payload: bytes, what: str) -> Point:
    """Commit one event and return the point at which its batch ends: durable on return.

    ``what`` names it in refusals. Raises Refused away from a serving primary, or when the journal
    takes it no sooner than in 8 s; it may then still come.
    """
    runner = runtime.runner
    if runner is None or runtime.state != "serving":
        raise Refused(
            f"{what}: only a serving primary journals it; group {runtime.group.name} at site "
            f"{runtime.part.name} is {runtime.state}, the topology's primary is "
            f"{runtime.group.primary.name}"
        )
    done = threading.Event()
    ends: list[Point] = []

    def durable(end: Pair) -> None:
        assert end == runtime.journal.head.pair
        ends.append(runtime.journal.head)
        done.set()

    runner.submit_control([ControlRecord(kind, payload, on_durable=durable)])
    if not done.wait(DURABLE_SECONDS):
        raise Refused(
            f"{what}: not durable within {DURABLE_SECONDS:g} s, and may still come: look at "
            "replicatorctl status, the journal may be full"
        )
    return ends[0]
