"""The NBD protocol as bytes: newstyle fixed handshake, requests and simple replies.

Source: the NBD project's ``doc/proto.md``. Everything on the wire is big-endian. Structured
replies and TLS are not offered (their options get ERR_UNSUP, which the protocol allows). Only the
commands below exist; every answered write is durable, so FLUSH has nothing left to do and FUA
changes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

# Handshake (proto.md, "Newstyle negotiation" and "Option types").
GREETING: Final = b"NBDMAGIC" + b"IHAVEOPT" + (0b11).to_bytes(2, "big")
"""Both magics and the flags FIXED_NEWSTYLE and NO_ZEROES: all that the server says first."""
CLIENT_FIXED_NEWSTYLE: Final = 1
CLIENT_NO_ZEROES: Final = 2
CLIENT_FLAGS_LENGTH: Final = 4
OPTION_HEADER_LENGTH: Final = 16
MAX_OPTION_LENGTH: Final = 65536
"""An export name may have 4096 bytes; an option longer than this is no honest client's."""

OPTION_EXPORT_NAME: Final = 1
OPTION_ABORT: Final = 2
OPTION_LIST: Final = 3
OPTION_INFO: Final = 6
OPTION_GO: Final = 7

_REPLY_ACK: Final = 1
_REPLY_SERVER: Final = 2
_REPLY_INFO: Final = 3
ERROR_UNSUPPORTED: Final = 0x80000001
ERROR_INVALID: Final = 0x80000003
ERROR_UNKNOWN: Final = 0x80000006
ERROR_TOO_BIG: Final = 0x80000009

_INFO_EXPORT: Final = 0
_INFO_BLOCK_SIZE: Final = 3

TRANSMISSION_FLAGS: Final = 1 | 4 | 8 | 32 | 64 | 256
"""HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN (an answered
write is on the volume, where every connection reads)."""

MIN_BLOCK: Final = 512
PREFERRED_BLOCK: Final = 4096
MAX_PAYLOAD: Final = 32 << 20
"""Longest READ or WRITE, bytes; also what clients assume that do not ask."""

# Transmission (proto.md, "Request message" and "Simple reply message").
COMMAND_READ: Final = 0
COMMAND_WRITE: Final = 1
COMMAND_DISCONNECT: Final = 2
COMMAND_FLUSH: Final = 3
COMMAND_TRIM: Final = 4
COMMAND_WRITE_ZEROES: Final = 6

FLAG_FUA: Final = 1
FLAG_NO_HOLE: Final = 2

EIO: Final = 5
EINVAL: Final = 22
ENOSPC: Final = 28
ESHUTDOWN: Final = 108

_REQUEST_MAGIC: Final = 0x25609513
_REPLY_MAGIC: Final = 0x67446698
_OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
_REQUEST: Final = struct.Struct(">IHH8sQI")
_REPLY_HEAD: Final = struct.Struct(">II")
_OPTION: Final = struct.Struct(">8sII")
_OPTION_REPLY: Final = struct.Struct(">QIII")

REQUEST_LENGTH: Final = _REQUEST.size
SUCCESS: Final = _REPLY_HEAD.pack(_REPLY_MAGIC, 0)
"""Head of a simple reply without error; the request's cookie follows."""


class ProtocolViolation(Exception):
    """The peer does not speak the protocol; nothing that it sends from here on has a meaning."""


class Option(NamedTuple):
    """What the client asks during the handshake."""

    number: int
    length: int


class Request(NamedTuple):
    """One request; ``payload`` is where a WRITE's bytes begin in the decoded buffer."""

    flags: int
    command: int
    cookie: bytes
    offset: int
    length: int
    payload: int


def decode_client_flags(flags: bytes) -> bool:
    """Return whether the client wants NO_ZEROES; raise ProtocolViolation on unknown flags."""
    value = int.from_bytes(flags, "big")
    if value & ~(CLIENT_FIXED_NEWSTYLE | CLIENT_NO_ZEROES):
        raise ProtocolViolation(f"unknown client flags {value:#x}")
    return bool(value & CLIENT_NO_ZEROES)


def decode_option(header: bytes) -> Option:
    """Return the option of a 16-byte header; raise ProtocolViolation if it cannot be one."""
    magic, number, length = _OPTION.unpack(header)
    if magic != b"IHAVEOPT":
        raise ProtocolViolation(f"option magic expected, got {magic!r}")
    if length > MAX_OPTION_LENGTH:
        raise ProtocolViolation(f"option {number} of {length} bytes, at most {MAX_OPTION_LENGTH}")
    return Option(number, length)


def decode_export_choice(content: bytes) -> str | None:
    """Return the export name in the content of INFO or GO; None if its lengths do not fit."""
    if len(content) < 6:
        return None
    name_length = int.from_bytes(content[:4], "big")
    rest = content[4 + name_length :]
    if len(content) < 6 + name_length or len(rest) != 2 + 2 * int.from_bytes(rest[:2], "big"):
        return None
    return decode_name(content[4 : 4 + name_length])


def decode_name(name: bytes) -> str | None:
    """Return an export name; None if it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def encode_acknowledge(option: int) -> bytes:
    """Return the reply that ends a successful option."""
    return _OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, _REPLY_ACK, 0)


def encode_option_error(option: int, error: int, reason: str) -> bytes:
    """Return the reply that refuses an option, with a text for people."""
    text = reason.encode()
    return _OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, error, len(text)) + text


def encode_list(names: Sequence[str]) -> bytes:
    """Return the whole answer to LIST."""
    replies = b""
    for name in names:
        encoded = name.encode()
        content = len(encoded).to_bytes(4, "big") + encoded
        head = _OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, OPTION_LIST, _REPLY_SERVER, len(content))
        replies += head + content
    return replies + encode_acknowledge(OPTION_LIST)


def encode_export(option: int, size_bytes: int) -> bytes:
    """Return the whole answer to INFO or GO for an export: EXPORT, BLOCK_SIZE, ACK.

    The protocol lets a server send information that was not asked for.
    """
    export = struct.pack(">HQH", _INFO_EXPORT, size_bytes, TRANSMISSION_FLAGS)
    sizes = struct.pack(">HIII", _INFO_BLOCK_SIZE, MIN_BLOCK, PREFERRED_BLOCK, MAX_PAYLOAD)
    replies = b""
    for content in (export, sizes):
        head = _OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, _REPLY_INFO, len(content))
        replies += head + content
    return replies + encode_acknowledge(option)


def encode_export_name_reply(size_bytes: int, *, no_zeroes: bool) -> bytes:
    """Return what follows EXPORT_NAME, which has no reply header and no way to refuse."""
    reply = struct.pack(">QH", size_bytes, TRANSMISSION_FLAGS)
    return reply if no_zeroes else reply + bytes(124)


def decode_requests(
    buffer: bytes | bytearray | memoryview, start: int, end: int, limit: int
) -> tuple[list[Request], int, Request | None]:
    """Decode up to ``limit`` requests that lie complete in ``buffer[start:end]``, in one pass.

    Returns them, where the first undecoded byte is, and, if what begins there is a WRITE whose
    header is there but whose payload is not, that request. Raises ProtocolViolation for a wrong
    magic or a WRITE longer than MAX_PAYLOAD (its payload cannot be skipped in good time).
    """
    requests: list[Request] = []
    unpack = _REQUEST.unpack_from
    while start + REQUEST_LENGTH <= end and len(requests) < limit:
        magic, flags, command, cookie, offset, length = unpack(buffer, start)
        if magic != _REQUEST_MAGIC:
            raise ProtocolViolation(f"request magic expected, got {magic:#x}")
        payload = start + REQUEST_LENGTH
        request = Request(flags, command, cookie, offset, length, payload)
        if command == COMMAND_WRITE:
            if payload + length > end:
                if length > MAX_PAYLOAD:
                    raise ProtocolViolation(f"write of {length} bytes, at most {MAX_PAYLOAD}")
                return requests, start, request
            payload += length
        requests.append(request)
        start = payload
    return requests, start, None


def encode_error(error: int, cookie: bytes) -> bytes:
    """Return the simple reply that refuses a request."""
    return _REPLY_HEAD.pack(_REPLY_MAGIC, error) + cookie


def check_request(request: Request, size_bytes: int) -> int:
    """Return 0 if a READ, WRITE, TRIM or WRITE_ZEROES fits the volume, else the NBD error.

    proto.md: EINVAL for what is not aligned, unknown flags and reads past the end; ENOSPC for
    writes past the end.
    """
    flags, command, _, offset, length, _ = request
    allowed = FLAG_FUA | FLAG_NO_HOLE if command == COMMAND_WRITE_ZEROES else FLAG_FUA
    if flags & ~allowed or (offset | length) % MIN_BLOCK:
        return EINVAL
    if command == COMMAND_READ and length > MAX_PAYLOAD:
        return EINVAL
    if offset + length > size_bytes:
        return EINVAL if command in (COMMAND_READ, COMMAND_TRIM) else ENOSPC
    return 0
