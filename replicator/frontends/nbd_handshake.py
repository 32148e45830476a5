"""Drive the server's side of the NBD handshake over a socket, within one deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from replicator.codec import nbd
from replicator.codec.nbd import ProtocolViolation
from replicator.model import HostVolume

HANDSHAKE_SECONDS = 10.0
"""From accept to transmission; a client that needs longer is disconnected."""
MAX_OPTIONS = 64


def negotiate(connection: socket.socket, volumes: Sequence[HostVolume]) -> HostVolume | None:
    """Return the volume that the client chose; None if it left without choosing one.

    Raises ProtocolViolation or OSError (TimeoutError at the deadline). On return the next byte
    of the socket is the first of a request and the socket has no timeout.
    """
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    connection.settimeout(HANDSHAKE_SECONDS)
    connection.sendall(nbd.GREETING)
    flags = _receive(connection, nbd.CLIENT_FLAGS_LENGTH, deadline)
    no_zeroes = nbd.decode_client_flags(flags)
    for _ in range(MAX_OPTIONS):
        option = nbd.decode_option(_receive(connection, nbd.OPTION_HEADER_LENGTH, deadline))
        content = _receive(connection, option.length, deadline)
        reply, chosen, finished = _answer(option.number, content, volumes, no_zeroes=no_zeroes)
        connection.sendall(reply)
        if finished:
            connection.settimeout(None)
            return chosen
    raise ProtocolViolation(f"more than {MAX_OPTIONS} options without a choice")


def _answer(
    option: int, content: bytes, volumes: Sequence[HostVolume], *, no_zeroes: bool
) -> tuple[bytes, HostVolume | None, bool]:
    """Return the reply, the chosen volume and whether the handshake is over."""
    if option == nbd.OPTION_EXPORT_NAME:
        volume = _find(nbd.decode_name(content), volumes)
        if volume is None:
            raise ProtocolViolation(f"no export {content[:64]!r}")
        return nbd.encode_export_name_reply(volume.size_bytes, no_zeroes=no_zeroes), volume, True
    if option == nbd.OPTION_ABORT:
        return nbd.encode_acknowledge(option), None, True
    if option == nbd.OPTION_LIST:
        if content:
            return nbd.encode_option_error(option, nbd.ERROR_INVALID, "no data"), None, False
        return nbd.encode_list([volume.name for volume in volumes]), None, False
    if option in (nbd.OPTION_INFO, nbd.OPTION_GO):
        name = nbd.decode_export_choice(content)
        if name is None:
            refusal = nbd.encode_option_error(option, nbd.ERROR_INVALID, "malformed")
            return refusal, None, False
        volume = _find(name, volumes)
        if volume is None:
            names = ", ".join(volume.name for volume in volumes)
            refusal = nbd.encode_option_error(option, nbd.ERROR_UNKNOWN, f"exports: {names}")
            return refusal, None, False
        return nbd.encode_export(option, volume.size_bytes), volume, option == nbd.OPTION_GO
    return nbd.encode_option_error(option, nbd.ERROR_UNSUPPORTED, "not supported"), None, False


def _find(name: str | None, volumes: Sequence[HostVolume]) -> HostVolume | None:
    """Return the volume called ``name``; an empty name is the only volume of a group of one."""
    if name == "" and len(volumes) == 1:
        return volumes[0]
    return next((volume for volume in volumes if volume.name == name), None)


def _receive(connection: socket.socket, length: int, deadline: float) -> bytes:
    """Return exactly ``length`` bytes; raise TimeoutError at the deadline."""
    parts = bytearray()
    while len(parts) < length:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("handshake took too long")
        connection.settimeout(left)
        part = connection.recv(length - len(parts))
        if not part:
            raise ConnectionResetError("client left during the handshake")
        parts += part
    return bytes(parts)
