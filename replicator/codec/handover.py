"""The payload of a ``handover`` event: the primary's last word, and who is to go on from there."""

from __future__ import annotations

import msgspec


class Handover(msgspec.Struct, frozen=True):
    """Hosts are answered no more by ``site``; everything answered lies below the batch's end."""

    site: str
    to: str


_HANDOVER = msgspec.msgpack.Decoder(Handover)  # built now: see codec/__init__.py


def encode_handover(handover: Handover) -> bytes:
    """Return the payload of a handover event."""
    return msgspec.msgpack.encode(handover)


def decode_handover(payload: bytes | memoryview) -> Handover | None:
    """Return what a handover event says; None if it makes no sense (a faulty writer)."""
    try:
        return _HANDOVER.decode(payload)
    except msgspec.MsgspecError:
        return None
