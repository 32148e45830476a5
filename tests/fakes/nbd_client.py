"""A small NBD client of our own, written from proto.md and not from the server's codec.

It can have many requests in flight and can misbehave on purpose.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from types import TracebackType

READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
REQUEST_MAGIC = 0x25609513
REPLY_MAGIC = 0x67446698
DEADLINE_SECONDS = 20.0


class NbdClient:
    """One connection; the handshake is done by the constructor unless ``export`` is None."""

    def __init__(self, path: Path, export: str | None) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.size_bytes = 0
        self._next_cookie = 0
        try:
            self.socket.connect(str(path))
            assert self.receive(18) == b"NBDMAGICIHAVEOPT\x00\x03"
            self.socket.sendall(struct.pack(">I", 3))
            if export is not None:
                self._go(export)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> NbdClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def receive(self, length: int) -> bytes:
        """Return exactly ``length`` bytes; ConnectionError if the server leaves."""
        parts = bytearray()
        while len(parts) < length:
            part = self.socket.recv(length - len(parts))
            if not part:
                raise ConnectionError("the server closed the connection")
            parts += part
        return bytes(parts)

    def option(self, number: int, content: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option; return every (reply type, content) up to the last one."""
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(content)) + content)
        replies = []
        while True:
            magic, echoed, kind, length = struct.unpack(">QIII", self.receive(20))
            assert (magic, echoed) == (0x3E889045565A9, number)
            replies.append((kind, self.receive(length)))
            if kind == 1 or kind & 0x80000000:
                return replies

    def _go(self, export: str) -> None:
        name = export.encode()
        replies = self.option(7, struct.pack(">I", len(name)) + name + bytes(2))
        if replies[-1][0] != 1:
            raise ConnectionError(f"export {export}: {replies[-1][1].decode()}")
        self.size_bytes = struct.unpack(">Q", replies[0][1][2:10])[0]

    def send(
        self, command: int, offset: int, length: int, payload: bytes = b"", flags: int = 0
    ) -> int:
        """Send one request; return its cookie."""
        self._next_cookie += 1
        head = struct.pack(
            ">IHHQQI", REQUEST_MAGIC, flags, command, self._next_cookie, offset, length
        )
        self.socket.sendall(head + payload)
        return self._next_cookie

    def reply(self, lengths: dict[int, int] | None = None) -> tuple[int, int, bytes]:
        """Return (cookie, error, content) of the next reply; ``lengths`` of reads by cookie."""
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert magic == REPLY_MAGIC, hex(magic)
        length = 0 if error else (lengths or {}).get(cookie, 0)
        return cookie, error, self.receive(length)

    def ask(
        self, command: int, offset: int = 0, length: int = 0, payload: bytes = b"", flags: int = 0
    ) -> tuple[int, bytes]:
        """Send one request and wait for its reply: (error, content)."""
        cookie = self.send(command, offset, length, payload, flags)
        wanted = {cookie: length} if command == READ else {}
        answered, error, content = self.reply(wanted)
        assert answered == cookie
        return error, content

    def write(self, offset: int, payload: bytes) -> int:
        """Write and return the error."""
        return self.ask(WRITE, offset, len(payload), payload)[0]

    def read(self, offset: int, length: int) -> bytes:
        """Read; the request must succeed."""
        error, content = self.ask(READ, offset, length)
        assert error == 0
        return content
