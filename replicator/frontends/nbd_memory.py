"""Receive memory of NBD connections: chunks with a count of the unanswered writes inside.

A write's payload stays where the socket put it until the write is answered. Memory is bounded
twice: every connection may always hold RESERVED_CHUNKS (so that a crowd of slow clients cannot
starve the others), and takes more from a shared allowance while there is some. A connection that
gets none stops reading its socket, which is the backpressure that its client feels.
"""

from __future__ import annotations

import threading

CHUNK_BYTES = 256 << 10
RESERVED_CHUNKS = 2
"""One that is being received and one whose writes are being answered; both are needed to make
progress, because a write may begin in one and go on in the next."""
SHARED_CHUNKS = 96


class Chunk:
    """Memory that the socket fills; free again when nothing in it waits for an answer."""

    __slots__ = ("memory", "unanswered", "view")

    def __init__(self) -> None:
        self.memory = bytearray(CHUNK_BYTES)
        self.view = memoryview(self.memory)
        self.unanswered = 0


class ChunkAllowance:
    """How many chunks one connection holds, and where it waits for one."""

    __slots__ = ("held", "returned")

    def __init__(self, pool: ChunkPool) -> None:
        self.held = 0
        self.returned = threading.Condition(pool.lock)


class ChunkPool:
    """All chunks of a server; thread-safe."""

    def __init__(self, shared_chunks: int = SHARED_CHUNKS) -> None:
        self.lock = threading.Lock()
        self._free: list[Chunk] = []
        self._shared_left = shared_chunks

    def acquire(self, allowance: ChunkAllowance, timeout: float | None = None) -> Chunk | None:
        """Return a chunk; wait for the connection's own to come back when it may take no more.

        Returns None after ``timeout`` seconds (None waits for ever).
        """
        with self.lock:
            while allowance.held >= RESERVED_CHUNKS and self._shared_left == 0:
                if not allowance.returned.wait(timeout):
                    return None
            if allowance.held >= RESERVED_CHUNKS:
                self._shared_left -= 1
            allowance.held += 1
            return self._free.pop() if self._free else Chunk()

    def release(self, allowance: ChunkAllowance, chunk: Chunk) -> None:
        """Take back a chunk in which nothing is unanswered."""
        assert chunk.unanswered == 0
        with self.lock:
            allowance.held -= 1
            if allowance.held >= RESERVED_CHUNKS:
                self._shared_left += 1
            self._free.append(chunk)
            allowance.returned.notify()
