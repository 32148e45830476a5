"""Tell a client that has one request at a time, for which hand-overs between threads cost most.

At depth 1 the thread that took the request has nothing else to do until the answer, so it may
commit by itself (HostService.submit_alone). If the client sends a read meanwhile, that waits behind
a flush; so it must first have had one request at a time for a while, and what it sent before the
answer ends that.
"""

from __future__ import annotations

STREAK = 16
"""Lone requests in a row before the next one is committed by the thread that took it."""


class LoneClient:
    """Counts requests that came while nothing else was unanswered; one thread calls it."""

    __slots__ = ("_streak",)

    def __init__(self) -> None:
        self._streak = 0

    def saw(self, *, lone: bool) -> bool:
        """Note what came; return whether to commit it in the thread that took it."""
        self._streak = self._streak + 1 if lone else 0
        return self._streak > STREAK

    def sent_early(self) -> None:
        """The client sent something before it had its answer."""
        self._streak = 0
