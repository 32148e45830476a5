"""Payloads of resync-begin and resync-end: which gaps the copies between them will fill."""

from __future__ import annotations

import msgspec

ID_BYTES = 16


class ResyncBegin(msgspec.Struct, frozen=True):
    """A resync begins: ``gaps`` names each site with the id of its gap."""

    id: bytes
    gaps: tuple[tuple[str, bytes], ...]


_RESYNC_BEGIN = msgspec.msgpack.Decoder(ResyncBegin)  # built now: see codec/__init__.py


class ResyncEnd(msgspec.Struct, frozen=True):
    """Everything that the begin of ``id`` promised is in the log below here."""

    id: bytes


_RESYNC_END = msgspec.msgpack.Decoder(ResyncEnd)  # built now: see codec/__init__.py


def encode_resync(event: ResyncBegin | ResyncEnd) -> bytes:
    """Return the payload of an event."""
    return msgspec.msgpack.encode(event)


def decode_begin(payload: bytes | memoryview) -> ResyncBegin | None:
    """Return what a resync-begin says; None if it makes no sense, so that it fills no gap."""
    try:
        return _RESYNC_BEGIN.decode(payload)
    except msgspec.MsgspecError:
        return None


def decode_end(payload: bytes | memoryview) -> ResyncEnd | None:
    """Return what a resync-end says; None if it makes no sense, so that it clears no mark."""
    try:
        return _RESYNC_END.decode(payload)
    except msgspec.MsgspecError:
        return None
