"""The writer's page of a sync link: what the primary states in the near site's journal.

The primary writes this ring from afar, so it alone knows what is durable in it. Same envelope as
an owner's page (kind 2), in two copies of its own; ``journal_id`` is that of the journal in which
it stands. Void outside the epoch that it names, and where the owner's page is sealed.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from replicator.codec.batch import Point
from replicator.codec.digest import DIGEST_BYTES
from replicator.codec.page import Envelope, PageDamaged, PageKind, enclose, open_envelope


class WriterBody(msgspec.Struct, frozen=True, kw_only=True):
    """What the writer states about the near ring; positions in bytes.

    ``flushed`` is durable in this ring and in the writer's own. ``synced_since`` is the position
    from which on every batch is durable here before the next one is built, so that ``committed``
    in a header that stands there or beyond proves what it says for this ring too; None while the
    writer brings up what is missing.
    """

    site: str
    epoch_id: bytes
    flushed: Point
    synced_since: int | None


_WRITER_BODY = msgspec.msgpack.Decoder(WriterBody)  # built now: see codec/__init__.py


@dataclass(frozen=True, slots=True)
class WriterPage:
    """A valid writer's page."""

    generation: int
    group_id: bytes
    journal_id: bytes
    boot_id: bytes
    body: WriterBody


def encode_writer_page(page: WriterPage) -> bytes:
    """Return the 4 KiB of ``page``."""
    envelope = Envelope(
        PageKind.WRITER, page.generation, page.group_id, page.journal_id, page.boot_id
    )
    return enclose(envelope, msgspec.msgpack.encode(page.body))


def decode_writer_page(block: bytes | memoryview) -> WriterPage:
    """Return the page in ``block`` (4 KiB); PageDamaged says what is wrong."""
    envelope, encoded = open_envelope(block, PageKind.WRITER)
    try:
        body = _WRITER_BODY.decode(encoded)
    except msgspec.MsgspecError as error:
        raise PageDamaged(f"page body: {error}") from error
    since = body.synced_since
    if body.flushed.position < 0 or (since is not None and since < 0):
        raise PageDamaged(f"page body makes no sense: flushed {body.flushed.position}")
    if len(body.epoch_id) != DIGEST_BYTES or len(body.flushed.digest) != DIGEST_BYTES:
        raise PageDamaged("page body makes no sense: a digest or id that is not 16 bytes long")
    return WriterPage(*envelope[1:], body)
