"""Bookmarks of a running group: the control command ``bookmark``."""

from __future__ import annotations

from replicator.codec.bookmarks import encode_bookmark
from replicator.codec.records import RecordKind
from replicator.errors import UsageError
from replicator.group.own_events import journal_event
from replicator.group.site import SiteRuntime
from replicator.status import BookmarkStatus, position_status


def make_bookmark(runtime: SiteRuntime, name: object) -> BookmarkStatus:
    """Journal a bookmark called ``name``: durable in the primary's journal on return."""
    try:
        payload = encode_bookmark(str(name))
    except ValueError as error:
        raise UsageError(str(error)) from error
    end = journal_event(runtime, RecordKind.BOOKMARK, payload, f"bookmark {name}")
    return BookmarkStatus(name=str(name), at=position_status(end))
