"""Replies of one NBD connection: many leave with one system call, and no poster ever waits.

Answers are posted by the commit thread, which must not wait for a client that does not read; read
replies are sent by the connection's own thread, which may. Whoever holds the sending lock also
sends what others have posted meanwhile. When the socket is full a thread of its own takes the
lock over and sends the rest.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterable

MAX_POSTED = 1024
"""Replies waiting for a client that does not read; with more, its requests are not read either."""


class ReplySender:
    """The sending half of a connection; thread-safe."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._posted: deque[bytes | memoryview] = deque()
        self._sending = threading.Lock()
        self._broken = False

    def post(self, replies: bytes) -> None:
        """Send ``replies`` now if the socket takes them, else as soon as it does; never waits."""
        self._posted.append(replies)
        while self._posted and self._sending.acquire(blocking=False):
            if not self._send_posted(socket.MSG_DONTWAIT):
                self._hand_over()
                return
            self._sending.release()

    def send(self, parts: Iterable[memoryview]) -> None:
        """Send ``parts`` after what is posted, with nothing between them, waiting for the client.

        Each part has left when the next one is asked for, so they may share memory.
        """
        with self._sending:
            if self._send_posted(0):
                for part in parts:
                    self._send_all(part)
        if self._posted:
            self.post(b"")

    def wait_for_room(self) -> None:
        """Wait until the client has read enough of what was posted."""
        if len(self._posted) > MAX_POSTED:
            self.send(())

    def close(self) -> None:
        """Close the socket when nobody is sending; what is posted from now on is dropped."""
        # Wakes a sender that waits for the client; the number of the descriptor must not be
        # free before that sender has let go of it.
        self._shut_down()
        with self._sending:
            self._posted.clear()
            self._connection.close()

    def _shut_down(self) -> None:
        self._broken = True
        with contextlib.suppress(OSError):  # the client may have gone first
            self._connection.shutdown(socket.SHUT_RDWR)

    def _send_posted(self, flags: int) -> bool:
        """Send what is posted (the lock is held); return False if the socket takes no more."""
        while self._posted:
            replies = b"".join(self._take_posted())
            if self._broken:
                continue
            try:
                sent = self._connection.send(replies, flags)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._broken = True
                continue
            if sent < len(replies):
                self._posted.appendleft(memoryview(replies)[sent:])
                if flags & socket.MSG_DONTWAIT:
                    return False
        return True

    def _take_posted(self) -> list[bytes | memoryview]:
        return [self._posted.popleft() for _ in range(len(self._posted))]

    def _send_all(self, part: memoryview) -> None:
        if self._broken:
            return
        try:
            self._connection.sendall(part)
        except OSError:
            self._broken = True

    def _hand_over(self) -> None:
        """Let a thread of its own go on sending; it owns the lock now."""
        try:
            threading.Thread(target=self._drain, name="nbd-drain", daemon=True).start()
        except RuntimeError:  # no more threads: this client cannot be served
            self._shut_down()
            self._posted.clear()
            self._sending.release()

    def _drain(self) -> None:
        self._send_posted(0)
        self._sending.release()
        if self._posted:
            self.post(b"")
