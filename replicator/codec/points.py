"""A point of the log as an operator writes it: a position, a time of the log, or a bookmark."""

from __future__ import annotations

from datetime import UTC, datetime

from replicator.codec.bookmarks import NAME_RULE, is_bookmark_name
from replicator.codec.page import RestoreStop

EXPECTED = (
    f"a position in bytes (1048576), a time (2026-11-25T15:00:00Z, UTC unless it says), or a "
    f"bookmark's name ({NAME_RULE})"
)


def parse_point(text: str) -> RestoreStop:
    """Return what ``text`` names; ValueError says what was expected.

    Digits alone are a position; what reads as an ISO 8601 time is one; anything else is a
    bookmark.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return RestoreStop("position", value=int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is not None:
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return RestoreStop("time", value=int(moment.timestamp() * 1e9))
    if not is_bookmark_name(text):
        raise ValueError(f"expected {EXPECTED}, got {text!r}")
    return RestoreStop("bookmark", name=text)
