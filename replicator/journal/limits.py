"""Up to where a ring may be believed: durability is stated per ring (models m1 and m2).

Pure. The owner's page states what its ring durably holds. Beyond that only the site that writes
the ring in the current epoch can know more: a primary in its own ring, by ``committed`` in the
headers of later batches; the primary of a sync link in the near ring, by its writer's page and, as
far as that says so, by the same headers.
"""

from __future__ import annotations

from typing import NamedTuple

from replicator.codec.batch import Point
from replicator.codec.page import Page
from replicator.codec.writer_page import WriterPage


class Limit(NamedTuple):
    """``stated`` is durable by a page's word; ``headers_from`` is the position from which
    ``committed`` in headers proves more, None if it proves nothing."""

    stated: Point
    headers_from: int | None


def ring_limit(page: Page, writer_page: WriterPage | None) -> Limit:
    """Return the limit of the ring that ``page`` is about."""
    body = page.body
    if body.role == "primary":
        return Limit(body.head, None if body.sealed else 0)
    if writer_page is None or not in_force(page, writer_page):
        return Limit(body.head, None)
    word = writer_page.body
    stated = max(body.head, word.flushed, key=lambda point: point.position)
    return Limit(stated, word.synced_since)


def in_force(page: Page, writer_page: WriterPage) -> bool:
    """Whether the writer's page counts: its ring, its epoch, and not sealed."""
    body, word = page.body, writer_page.body
    return (
        body.sealed is None
        and (body.writer, body.writer_epoch) == (word.site, word.epoch_id)
        and writer_page.journal_id == page.journal_id
    )
