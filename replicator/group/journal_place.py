"""Where a site's journal is after it was moved: the old one's page names the device."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from replicator.errors import NotAJournal, WrongJournal
from replicator.journal.pages import read_statement, write_page
from replicator.seams.filedevice import DirectDevice

log = logging.getLogger(__name__)


def take_name(new: Path, old: Path) -> None:
    """Give the file ``new`` the name of ``old``, durably."""
    os.replace(new, old)
    folder = os.open(old.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def current_journal(path: Path) -> Path:
    """Return the device that holds the journal: ``path``, or where its page says it was moved.

    A file that had not got its name yet when the process ended gets it. The page that says so is
    made durable before anything acts on it. Raises WrongJournal if what it names is not there.
    """
    device = DirectDevice(path, writable=True, lock=True)
    try:
        try:
            page = read_statement(device).newer
        except NotAJournal:
            return path
        if page.body.moved_to is None:
            return path
        write_page(device, page)
    finally:
        device.close()
    journal_id, name = page.body.moved_to
    new = Path(name)
    if not new.exists() or _journal_id(new) != journal_id:
        raise WrongJournal(
            f"{path}: this journal was moved to {name} (journal id {journal_id.hex()}), which is "
            "not there; bring that device back, this one is a journal no more"
        )
    if path.is_file():
        take_name(new, path)
        return path
    log.warning("journal was moved path=%s to=%s: rename it, then target apply", path, new)
    return new


def _journal_id(path: Path) -> bytes:
    device = DirectDevice(path, writable=False)
    try:
        return read_statement(device).newer.journal_id
    finally:
        device.close()
