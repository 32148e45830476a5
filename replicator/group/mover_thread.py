"""A thread that runs one mover's step again and again: the edge where time passes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from replicator.errors import TowlineError

log = logging.getLogger(__name__)


class MoverThread:
    """Calls ``step``, which returns the seconds to wait before the next call (0: at once).

    ``on_error`` gets what the step raises and returns the seconds to wait before the next try,
    or None to end the thread. An unexpected exception is our own mistake: it goes to ``on_error``
    too, with its traceback in the log.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        on_error: Callable[[Exception], float | None],
    ) -> None:
        self.name = name
        self._step = step
        self._on_error = on_error
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """End the current wait."""
        self._wake.set()

    def stop(self, timeout: float) -> bool:
        """Ask the thread to end and wait for it; False if it still hangs (in a kernel read)."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            pause = self._once()
            if pause is None:
                return
            if pause > 0:
                self._wake.wait(pause)
                self._wake.clear()

    def _once(self) -> float | None:
        try:
            return self._step()
        except TowlineError as error:
            return self._on_error(error)
        except Exception as error:
            log.exception("unexpected error thread=%s", self.name)
            return self._on_error(error)


def in_thread(work: Callable[[], None]) -> Callable[[], None]:
    """Begin ``work`` in a thread of its own; return what waits for its end.

    Without another thread (a limit of the machine) it is done here, before the return.
    """
    thread = threading.Thread(target=work, name="ahead", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        work()
        return lambda: None
    return thread.join
