"""Move a site's journal to a device of another size while its group goes on."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from replicator.errors import JournalFailed, Refused, UsageError
from replicator.group.journal_place import take_name
from replicator.group.site import SiteRuntime
from replicator.journal.move import move_journal
from replicator.seams.filedevice import DirectDevice
from replicator.status import JournalMoved

log = logging.getLogger(__name__)


class JournalMove:
    """The command ``journal-move``; one at a time."""

    def __init__(self, runtime: SiteRuntime, path: str) -> None:
        """``path`` is where the topology has the journal."""
        self._runtime = runtime
        self._path = Path(path)
        self._lock = threading.Lock()

    def move(self, arguments: Mapping[str, object]) -> JournalMoved:
        """Move to the device or file ``to``; in place of a file it gets the old one's name.

        Durable on return. Raises what ``move_journal`` raises, with the old journal in force.
        """
        to = arguments.get("to")
        if not isinstance(to, str):
            raise UsageError("expected the device to move to")
        runtime = self._runtime
        if runtime.state not in ("serving", "following"):
            raise Refused(
                f"site {runtime.part.name} is {runtime.state}: its journal is moved while it "
                "serves or follows"
            )
        if runtime.journal.body.writer is not None:
            raise Refused(
                f"the journal of {runtime.part.name} is written by {runtime.journal.body.writer} "
                "over a sync link: make it a pull link first"
            )
        if not self._lock.acquire(blocking=False):
            raise Refused("a move is under way")
        try:
            return self._move(Path(to))
        finally:
            self._lock.release()

    def _move(self, to: Path) -> JournalMoved:
        journal = self._runtime.journal
        replaces = self._path.is_file()
        if replaces and to.exists() and to.stat().st_dev != self._path.stat().st_dev:
            raise Refused(f"{to}: another file system than {self._path}: it cannot take its name")
        target = DirectDevice(to, writable=True, lock=True)
        before = journal.body.ring_size
        try:
            move_journal(journal, target, os.urandom)
        except JournalFailed as error:
            self._runtime.halt(f"journal move: {error}")
            raise
        except BaseException:
            target.close()
            raise
        if replaces:
            take_name(to, self._path)
        log.info("journal moved to=%s ring=%d before=%d", to, journal.body.ring_size, before)
        return JournalMoved(
            device=str(self._path if replaces else to),
            journal_id=journal.page.journal_id.hex(),
            ring_bytes=journal.body.ring_size,
            ring_bytes_before=before,
        )
