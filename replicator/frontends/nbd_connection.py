"""The transmission phase of one NBD connection.

The connection's thread receives into a chunk, decodes every request that is complete in it, hands
all their writes to the group in one call and serves the reads itself. Answers come from the commit
thread, or from this one for a client that has one request at a time (lone_client). A write longer
than a chunk becomes several journal records, and is answered when all of them are.
"""

from __future__ import annotations

import fcntl
import socket
import termios
import threading
from collections.abc import Iterator, Sequence

from replicator.codec import nbd
from replicator.codec.nbd import Request
from replicator.errors import DeviceFailed
from replicator.frontends.lone_client import LoneClient
from replicator.frontends.nbd_memory import CHUNK_BYTES, Chunk, ChunkAllowance, ChunkPool
from replicator.frontends.nbd_replies import ReplySender
from replicator.model import SECTOR, HostFailure, HostService, HostVolume, HostWrite, WriteKind

MAX_UNANSWERED = 1024
"""Records of one connection in flight: a bound for requests that carry no payload."""
MAX_DECODED = 256
"""Requests of one pass: the writes among them are submitted before more is decoded."""
READ_BUFFER_BYTES = (256 << 10) + SECTOR
"""Room for replies to reads: one of 256 KiB (what nbdcopy asks for) with its head, or many."""
GREEDY_BYTES = 16 << 10
"""When at least this much of a payload is missing, wait for all of it in one system call."""

_ERRORS = {
    HostFailure.MEDIUM_ERROR: nbd.EIO,
    HostFailure.MISCOMPARE: nbd.EIO,
    HostFailure.NOT_READY: nbd.ESHUTDOWN,
    HostFailure.NO_VOLUME: nbd.ESHUTDOWN,
}


class _SplitWrite:
    """A write of several records: how many are unanswered, and the first failure."""

    __slots__ = ("failure", "unanswered")

    def __init__(self) -> None:
        self.unanswered = 1  # the receiving thread's own share, until the last part is submitted
        self.failure: HostFailure | None = None


class _Tag:
    """What a record's answer needs: the request's cookie, where its payload lies."""

    __slots__ = ("chunk", "cookie", "split")

    def __init__(self, cookie: bytes, chunk: Chunk | None, split: _SplitWrite | None) -> None:
        self.cookie = cookie
        self.chunk = chunk
        self.split = split


class NbdConnection:
    """One client in the transmission phase; the origin (AnswerSink) of its writes."""

    def __init__(
        self, connection: socket.socket, service: HostService, volume: HostVolume, pool: ChunkPool
    ) -> None:
        self._connection = connection
        self._service = service
        self._volume = volume
        self._pool = pool
        self._allowance = ChunkAllowance(pool)
        self._replies = ReplySender(connection)
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)
        self._unanswered = 0
        self._lone = LoneClient()
        self._committing = False  # this connection's thread commits the one request there is
        self._chunk: Chunk | None = None
        self._start = 0  # first byte of the chunk that is not decoded
        self._end = 0  # end of what was received into it
        self._read_buffer: memoryview | None = None

    def serve(self) -> None:
        """Serve requests until the client leaves; raise ProtocolViolation or OSError."""
        try:
            self._chunk = self._pool.acquire(self._allowance)
            while self._serve_received():
                pass
        finally:
            self._replies.close()
            self._replace_chunk(None)

    def answer(self, requests: Sequence[HostWrite]) -> None:
        """Send the replies of ``requests`` and free their payloads (model.AnswerSink)."""
        if self._committing and self._has_received():
            self._lone.sent_early()
        replies = []
        with self._lock:
            for request in requests:
                tag = request.tag
                assert isinstance(tag, _Tag)
                if tag.chunk is not None:
                    self._settle(tag.chunk)
                failure = request.failure
                if tag.split is not None:
                    failure = tag.split.failure = tag.split.failure or failure
                    tag.split.unanswered -= 1
                    if tag.split.unanswered:
                        continue
                if failure is None:
                    replies.append(nbd.SUCCESS + tag.cookie)
                else:
                    replies.append(nbd.encode_error(_ERRORS[failure], tag.cookie))
            self._unanswered -= len(requests)
            self._answered.notify()
        if replies:
            self._replies.post(b"".join(replies))

    def _serve_received(self) -> bool:
        """Decode and carry out what is there, then receive more; False when the client left."""
        chunk = self._chunk
        assert chunk is not None
        requests, self._start, partial = nbd.decode_requests(
            chunk.memory, self._start, self._end, MAX_DECODED
        )
        if requests:
            if not self._carry_out(requests, chunk):
                return False
            if len(requests) == MAX_DECODED:
                return True
        if partial is not None and partial.length > CHUNK_BYTES - nbd.REQUEST_LENGTH:
            return self._receive_long_write(partial)
        needed = nbd.REQUEST_LENGTH if partial is None else nbd.REQUEST_LENGTH + partial.length
        self._make_room(needed)
        return self._receive(self._start + needed - self._end)

    def _make_room(self, needed: int) -> None:
        """See that ``needed`` bytes from ``_start`` fit into the chunk, moving what is there."""
        chunk = self._chunk
        assert chunk is not None
        if self._start == self._end and chunk.unanswered == 0:
            self._start = self._end = 0
        if self._start + needed <= CHUNK_BYTES:
            return
        received = self._end - self._start
        fresh = self._pool.acquire(self._allowance)
        assert fresh is not None
        fresh.view[:received] = chunk.view[self._start : self._end]
        self._replace_chunk(fresh)
        self._start, self._end = 0, received

    def _receive(self, missing: int) -> bool:
        """Receive what there is, or all that is ``missing`` when that is much."""
        assert self._chunk is not None
        if missing >= GREEDY_BYTES:
            room = self._chunk.view[self._end : self._end + missing]
            received = self._connection.recv_into(room, 0, socket.MSG_WAITALL)
        else:
            received = self._connection.recv_into(self._chunk.view[self._end :])
        self._end += received
        return received > 0

    def _carry_out(self, requests: list[Request], chunk: Chunk) -> bool:
        """Submit the writes, answer the reads; False if the client says goodbye."""
        writes: list[HostWrite] = []
        reads: list[Request] = []
        replies: list[bytes] = []
        size_bytes = self._volume.size_bytes
        stays = True
        for request in requests:
            command = request.command
            if command in (nbd.COMMAND_WRITE, nbd.COMMAND_TRIM, nbd.COMMAND_WRITE_ZEROES):
                error = nbd.check_request(request, size_bytes)
                if error or not request.length:
                    replies.append(nbd.encode_error(error, request.cookie))
                else:
                    writes.append(self._host_write(request, chunk))
            elif command == nbd.COMMAND_READ:
                reads.append(request)
            elif command == nbd.COMMAND_FLUSH:  # every answered write is durable
                replies.append(nbd.SUCCESS + request.cookie)
            elif command == nbd.COMMAND_DISCONNECT:
                stays = False
                break
            else:
                replies.append(nbd.encode_error(nbd.EINVAL, request.cookie))
        alone = self._lone.saw(lone=len(requests) == 1 and not self._unanswered)
        if writes:
            self._submit(writes, alone)
        if replies:
            self._replies.post(b"".join(replies))
            self._replies.wait_for_room()
        if reads:
            self._serve_reads(reads)
        return stays

    def _host_write(self, request: Request, chunk: Chunk) -> HostWrite:
        _, command, cookie, offset, length, payload = request
        volume_id = self._volume.volume_id
        if command != nbd.COMMAND_WRITE:
            tag = _Tag(cookie, None, None)
            return HostWrite(self, volume_id, WriteKind.ZERO, offset, length, (), tag)
        buffers = (chunk.view[payload : payload + length],)
        tag = _Tag(cookie, chunk, None)
        return HostWrite(self, volume_id, WriteKind.WRITE, offset, length, buffers, tag)

    def _has_received(self) -> bool:
        """Whether the socket holds bytes that were not taken from it."""
        count = fcntl.ioctl(self._connection.fileno(), termios.FIONREAD, bytes(4))
        return count != bytes(4)

    def _submit(self, writes: list[HostWrite], alone: bool = False) -> None:
        with self._lock:
            while self._unanswered > MAX_UNANSWERED:
                self._answered.wait()
            self._unanswered += len(writes)
            for write in writes:
                tag = write.tag
                assert isinstance(tag, _Tag)
                if tag.chunk is not None:
                    tag.chunk.unanswered += 1
        self._replies.wait_for_room()
        if alone:
            self._committing = True
            self._service.submit_alone(writes)
            self._committing = False
        else:
            self._service.submit(writes)

    def _receive_long_write(self, request: Request) -> bool:
        """Receive a write that no chunk holds, and submit each chunkful as one record."""
        error = nbd.check_request(request, self._volume.size_bytes)
        split = _SplitWrite()
        offset, left = request.offset, request.length
        self._start = request.payload
        while left:
            self._make_room(min(left, SECTOR))
            assert self._chunk is not None
            part = min(left, (CHUNK_BYTES - self._start) // SECTOR * SECTOR or left)
            while self._end < self._start + part:
                if not self._receive(self._start + part - self._end):
                    return False
            if not error:
                buffers = (self._chunk.view[self._start : self._start + part],)
                tag = _Tag(request.cookie, self._chunk, split)
                kind, volume_id = WriteKind.WRITE, self._volume.volume_id
                with self._lock:
                    split.unanswered += 1
                self._submit([HostWrite(self, volume_id, kind, offset, part, buffers, tag)])
            self._start += part
            offset, left = offset + part, left - part
        self._finish_long_write(request, split, error)
        return True

    def _finish_long_write(self, request: Request, split: _SplitWrite, error: int) -> None:
        """Give up the receiving thread's share, and reply if all parts are answered."""
        with self._lock:
            split.unanswered -= 1
            if split.unanswered:
                return
        if split.failure is not None:
            error = _ERRORS[split.failure]
        self._replies.post(nbd.encode_error(error, request.cookie))

    def _serve_reads(self, requests: list[Request]) -> None:
        """Read each request from the volume; short ones share a buffer and a system call."""
        if self._read_buffer is None:
            self._read_buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        buffer, used = self._read_buffer, 0
        for request in requests:
            head = nbd.SUCCESS + request.cookie
            if used and used + len(head) + request.length > READ_BUFFER_BYTES:
                self._replies.send((buffer[:used],))
                used = 0
            error = nbd.check_request(request, self._volume.size_bytes)
            first = min(request.length, READ_BUFFER_BYTES - SECTOR)
            content = buffer[used + len(head) : used + len(head) + first]
            if not error and not self._read(request.offset, content):
                error = nbd.EIO
            if error:
                head = nbd.encode_error(error, request.cookie)
            buffer[used : used + len(head)] = head
            used += len(head) if error else len(head) + first
            if not error and first < request.length:
                self._replies.send(self._long_reply(request, used, first))
                used = 0
        if used:
            self._replies.send((buffer[:used],))

    def _long_reply(self, request: Request, used: int, sent: int) -> Iterator[memoryview]:
        """Yield what the buffer holds, which ends with a read's first bytes, then all the others.

        The reply's head has said that there is no error, so a failure now can only end the
        connection (proto.md, simple replies): ConnectionAbortedError.
        """
        assert self._read_buffer is not None
        yield self._read_buffer[:used]
        while sent < request.length:
            content = self._read_buffer[: request.length - sent]
            if not self._read(request.offset + sent, content):
                raise ConnectionAbortedError("read failed in the middle of a long reply")
            yield content
            sent += len(content)

    def _read(self, offset: int, content: memoryview) -> bool:
        """Fill ``content`` from the volume; return False if that failed."""
        try:
            if content:
                self._volume.read_into(offset, (content,))
        except DeviceFailed:
            return False
        return True

    def _settle(self, chunk: Chunk) -> None:
        """Count one answer (the lock is held); a chunk that is not received into goes back."""
        chunk.unanswered -= 1
        if chunk.unanswered == 0 and chunk is not self._chunk:
            self._pool.release(self._allowance, chunk)

    def _replace_chunk(self, fresh: Chunk | None) -> None:
        with self._lock:
            old, self._chunk = self._chunk, fresh
            if old is not None and old.unanswered == 0:
                self._pool.release(self._allowance, old)
