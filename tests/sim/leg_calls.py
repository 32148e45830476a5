"""Calls to a leg without threads: each runs at once, or when it is waited for, or after that."""

from __future__ import annotations

import random
from collections.abc import Callable


class InlineCall:
    """One call (LegCall)."""

    def __init__(self, calls: InlineCalls, what: Callable[[], None]) -> None:
        self._calls = calls
        self._what = what
        self._error: Exception | None = None
        self.ended = False

    def run(self) -> None:
        """Carry it out; an error is kept for ``result``."""
        self.ended = True
        try:
            self._what()
        except Exception as error:  # noqa: BLE001 - kept for result, as a thread does
            self._error = error

    def done(self, seconds: float) -> bool:
        """Wait: everything before it runs, then itself; or it hangs and ends when nobody waits."""
        del seconds
        if not self.ended and self._calls.hangs():
            return False
        self._calls.drain()
        return True

    def result(self) -> None:
        """Raise what it raised."""
        if self._error is not None:
            raise self._error


class InlineCalls:
    """The leg's thread: one call after the other (LegCaller)."""

    def __init__(self, rng: random.Random, hang_share: Callable[[], float]) -> None:
        self._rng = rng
        self._hang_share = hang_share
        self._waiting: list[InlineCall] = []
        self.busy = False
        self.hung = 0

    def __call__(self, what: Callable[[], None]) -> InlineCall:
        call = InlineCall(self, what)
        self._waiting.append(call)
        if self._rng.random() < 0.5:
            self.drain()
        return call

    def hangs(self) -> bool:
        """Draw whether the call that is waited for hangs (it ends before the next one)."""
        hangs = self._rng.random() < self._hang_share()
        self.hung += hangs
        return hangs

    def drain(self) -> None:
        """Run everything that waits, in order."""
        assert not self.busy, "two threads on one leg"
        self.busy = True
        try:
            while self._waiting:
                self._waiting.pop(0).run()
        finally:
            self.busy = False
