"""A kept image of a site's volumes: what it holds, and which points of the log it leads to.

The clones of an image need not be taken at one moment. The volumes held every record below
``restart`` when the first was begun, and none above ``consistent_from`` when the last had ended;
so the clones and all records from ``restart`` up to a point at or above ``consistent_from``, in
order, are exactly the volumes at that point.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from replicator.codec.batch import Point


class ImageVolume(msgspec.Struct, frozen=True, kw_only=True):
    """One volume's clone; ``path`` is a file or a block device."""

    id: int
    name: str
    size_bytes: int
    path: str


class ImageNote(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside the clones, last: without it there is no image."""

    name: str
    group: str
    site: str
    group_id: str
    taken_at_ns: int
    how: Literal["reflink", "copy", "snapshot", "volumes"]
    restart: Point
    consistent_from: int
    """Position; the site's clock and the log's need not agree, so only positions count."""
    volumes: tuple[ImageVolume, ...]
    retired: tuple[int, ...] = ()
    as_of: int = 0
    """Position up to which ``volumes`` follow the log's events (``Catalog.as_of``)."""
    schema: int = 1


_IMAGE_NOTE = msgspec.json.Decoder(ImageNote)  # built now: see codec/__init__.py


def encode_note(note: ImageNote) -> bytes:
    """Return the JSON of ``note``."""
    return msgspec.json.format(msgspec.json.encode(note), indent=2) + b"\n"


def decode_note(content: bytes) -> ImageNote:
    """Return the note; msgspec.MsgspecError if the bytes are not one."""
    return _IMAGE_NOTE.decode(content)
