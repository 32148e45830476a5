"""The thread on which calls to a leg run: a hang there stalls nothing else (F47)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class ThreadedCall:
    """One call (movers.sync_link.LegCall)."""

    def __init__(self, what: Callable[[], None]) -> None:
        self._what = what
        self._ended = threading.Event()
        self._begin = threading.Lock()
        self._given_up = False
        self._error: Exception | None = None

    def run(self) -> None:
        """Carry it out, on the leg's thread, unless nobody waits for it any more."""
        with self._begin:
            if self._given_up:
                return
        try:
            self._what()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it from result
            self._error = error
        self._ended.set()

    def done(self, seconds: float) -> bool:
        """Wait so long at most; a call that has not ended by then is given up."""
        if self._ended.wait(seconds):
            return True
        with self._begin:
            self._given_up = True
        return self._ended.is_set()

    def result(self) -> None:
        """Raise what the call raised."""
        if self._error is not None:
            raise self._error


class LegThread:
    """Runs calls one after the other (movers.sync_link.LegCaller)."""

    def __init__(self, site: str) -> None:
        self._calls: SimpleQueue[ThreadedCall | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"leg {site}", daemon=True)
        self._thread.start()

    def __call__(self, what: Callable[[], None]) -> ThreadedCall:
        call = ThreadedCall(what)
        self._calls.put(call)
        return call

    def stop(self, timeout: float) -> bool:
        """End the thread after what is queued; False if it still hangs in the kernel."""
        self._calls.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
