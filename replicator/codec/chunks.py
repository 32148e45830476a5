"""The payload of a ``verify`` record: what the primary's volume held at the record's place.

MessagePack of an array: bytes covered from the record's offset, digest of these bytes. The row's
length is the payload's, as of every record with a payload.
"""

from __future__ import annotations

import msgspec

from replicator.codec.digest import DIGEST_BYTES, digest


class VerifyPayload(msgspec.Struct, frozen=True, array_like=True):
    """``length`` bytes of a volume have ``digest``."""

    length: int
    digest: bytes


_VERIFY_PAYLOAD = msgspec.msgpack.Decoder(VerifyPayload)  # built now: see codec/__init__.py


def chunk_digest(content: bytes | bytearray | memoryview) -> bytes:
    """Return the digest of a chunk's bytes."""
    return digest(content)


def encode_verify(length: int, content_digest: bytes) -> bytes:
    """Return the payload of a verify record."""
    return msgspec.msgpack.encode(VerifyPayload(length, content_digest))


def decode_verify(payload: bytes | memoryview) -> VerifyPayload:
    """Return what a verify record says; ValueError if it makes no sense (a faulty writer)."""
    try:
        verify = _VERIFY_PAYLOAD.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(f"verify payload: {error}") from error
    if verify.length <= 0 or len(verify.digest) != DIGEST_BYTES:
        raise ValueError(f"verify payload: {verify.length} bytes, digest {verify.digest.hex()}")
    return verify
