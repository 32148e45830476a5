"""The payload of a ``bookmark`` event: a name for the position at which its batch ends.

MessagePack of a map with ``name``. A name may be given again; each is a bookmark of its own.
"""

from __future__ import annotations

import re

import msgspec

NAME_RULE = "1 to 63 characters: letters, digits, '.', '_' or '-', a letter or digit first"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Bookmark(msgspec.Struct, frozen=True):
    """What a bookmark event says."""

    name: str


_BOOKMARK = msgspec.msgpack.Decoder(Bookmark)  # built now: see codec/__init__.py


def is_bookmark_name(text: str) -> bool:
    """Say whether a bookmark may be called ``text``."""
    return _NAME.fullmatch(text) is not None


def encode_bookmark(name: str) -> bytes:
    """Return the payload of a bookmark event; ValueError for a name that breaks NAME_RULE."""
    if not is_bookmark_name(name):
        raise ValueError(f"bad bookmark name {name!r}, expected {NAME_RULE}")
    return msgspec.msgpack.encode(Bookmark(name))


def decode_bookmark(payload: bytes | memoryview) -> Bookmark | None:
    """Return what a bookmark event says; None if it makes no sense (a faulty writer).

    Such an event changes nothing, so nobody has to halt because of it.
    """
    try:
        bookmark = _BOOKMARK.decode(payload)
    except msgspec.MsgspecError:
        return None
    return bookmark if is_bookmark_name(bookmark.name) else None
