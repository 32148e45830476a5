"""One volume behind a TCMU ring: commands of the ring in, requests and answers out.

Two threads come here. The ring's thread calls ``take`` and ``carry_out``; the commit (or apply)
thread calls ``answer``. Only the answers are shared, under ``_lock``. A late answer of a unit that
was closed is dropped: its command was given back to the initiator by the ring's reset.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from replicator.codec.scsi import sense
from replicator.codec.scsi.actions import (
    Action,
    Answer,
    CompareAndWrite,
    Fail,
    Parameters,
    Read,
    Verify,
    VerifyMode,
    Write,
    WriteSame,
    Zero,
)
from replicator.codec.scsi.device import MAX_TRANSFER_BLOCKS, AluaState, ScsiDevice
from replicator.codec.scsi.dispatch import decode
from replicator.codec.scsi.sense import STATUS_BUSY, STATUS_CHECK_CONDITION, STATUS_GOOD, Sense
from replicator.codec.tcmu import Ring
from replicator.errors import DeviceFailed, DeviceUnusable
from replicator.model import SECTOR, HostFailure, HostVolume, HostWrite, WriteKind

_LOG = logging.getLogger(__name__)
_MAX_WRITE_BYTES = MAX_TRANSFER_BLOCKS * SECTOR
_PATTERN_BYTES = 65536
_ALWAYS_ANSWERED = frozenset((0x03, 0x12, 0xA0))
"""REQUEST SENSE, INQUIRY, REPORT LUNS: no unit attention stops them (SAM-5 5.14)."""
_WRITE, _ZERO, _COMPARE = WriteKind.WRITE, WriteKind.ZERO, WriteKind.COMPARE_AND_WRITE


class _Parts:
    """A command that became several requests: answered after the last, with the first failure."""

    __slots__ = ("command_id", "failed", "remaining")

    def __init__(self, command_id: int, remaining: int) -> None:
        self.command_id = command_id
        self.remaining = remaining
        self.failed: HostWrite | None = None


class LogicalUnit:
    """Serves the commands of one ring; an AnswerSink for the requests that it makes."""

    def __init__(
        self, volume: HostVolume, device: ScsiDevice, ring: Ring, ring_doorbell: Callable[[], None]
    ) -> None:
        """Serve ``volume`` as ``device`` over ``ring``; ``ring_doorbell`` follows each publish."""
        self.volume = volume
        self.device = device
        self._ring = ring
        self._ring_doorbell = ring_doorbell
        self._lock = threading.Lock()
        self._closed = False
        self.asked_early = False
        """Whether the ring held another command when the last answers were given."""
        self._removed = False
        self._attention: Sense | None = None
        self._direct: list[tuple[int, Action, list[memoryview]]] = []

    def grow(self, blocks: int) -> None:
        """Tell hosts of the new capacity: the next command that can, gets unit attention 2A/09.

        One command of one host gets it (the ring does not tell the nexus); the others see the new
        capacity when they look.
        """
        self._attention = sense.CAPACITY_CHANGED
        self.device = replace(self.device, blocks=blocks)

    def refuse(self) -> None:
        """Answer every command but the identifying ones with LOGICAL UNIT NOT SUPPORTED."""
        self._removed = True

    def _unusual(self, opcode: int) -> Action | None:
        """Return what to answer instead: the unit was removed, or has to tell something."""
        if opcode in _ALWAYS_ANSWERED:
            return None
        if self._removed:
            return Fail(sense.LOGICAL_UNIT_NOT_SUPPORTED)
        attention, self._attention = self._attention, None
        return Fail(attention) if attention else None

    def take(self) -> list[HostWrite]:
        """Return the changes among the commands waiting in the ring; keep the rest.

        Raises RingBroken. ``carry_out`` must follow: the caller submits the changes in between,
        so that they are being committed while reads are served.
        """
        device, direct = self.device, self._direct
        volume_id = self.volume.volume_id
        writes: list[HostWrite] = []
        for command_id, cdb, buffers in self._ring.take():
            action = decode(cdb, device)
            if self._removed or self._attention:
                action = self._unusual(cdb[0]) or action
            if type(action) is Parameters:
                action = self._with_parameters(action, buffers)
            if type(action) is Write:
                offset, length = action
                if len(buffers) == 1 and len(buffers[0]) == length:
                    request = HostWrite(
                        self, volume_id, _WRITE, offset, length, buffers, command_id
                    )
                    writes.append(request)
                    continue
            made = self._changes(command_id, action, buffers)
            if isinstance(made, list):
                writes += made
            else:
                direct.append((command_id, made, buffers))
        return writes

    def _with_parameters(self, action: Parameters, buffers: list[memoryview]) -> Action:
        given = b"".join(buffers)
        if len(given) < action.length:
            return Fail(sense.INFORMATION_UNIT_SHORT)
        return action.decode(given[: action.length], self.device)

    def _changes(
        self, command_id: int, action: Action, buffers: list[memoryview]
    ) -> list[HostWrite] | Action:
        """Return the requests that carry out ``action``, or what to answer without any."""
        if isinstance(action, Write):
            data = _cut(buffers, action.length)
            if data is None:
                return Fail(sense.INFORMATION_UNIT_SHORT)
            if not action.length:
                return Answer()
            return [self._request(_WRITE, action.offset, action.length, data, command_id)]
        if isinstance(action, Zero):
            return self._requests(command_id, [(_ZERO, *each, []) for each in action.ranges])
        if isinstance(action, WriteSame):
            return self._write_same(command_id, action, buffers)
        if isinstance(action, CompareAndWrite):
            return self._compare_and_write(command_id, action, buffers)
        return action

    def _request(
        self,
        kind: WriteKind,
        offset: int,
        length: int,
        data: Sequence[memoryview | bytes],
        tag: object,
    ) -> HostWrite:
        return HostWrite(self, self.volume.volume_id, kind, offset, length, data, tag)

    def _requests(
        self,
        command_id: int,
        pieces: list[tuple[WriteKind, int, int, list[memoryview | bytes]]],
    ) -> list[HostWrite]:
        tag: object = command_id if len(pieces) == 1 else _Parts(command_id, len(pieces))
        return [self._request(*piece, tag) for piece in pieces]

    def _write_same(
        self, command_id: int, action: WriteSame, buffers: list[memoryview]
    ) -> list[HostWrite] | Action:
        """Repeat one block: as one ZERO if it is zeros, else in writes of the transfer limit."""
        block = b"".join(buffers)
        if len(block) != SECTOR:
            return Fail(sense.INFORMATION_UNIT_SHORT)
        offset, length = action
        if not any(block):
            return self._requests(command_id, [(_ZERO, offset, length, [])])
        pattern = memoryview(block * (_PATTERN_BYTES // SECTOR))
        pieces: list[tuple[WriteKind, int, int, list[memoryview | bytes]]] = []
        for start in range(offset, offset + length, _MAX_WRITE_BYTES):
            size = min(_MAX_WRITE_BYTES, offset + length - start)
            data: list[memoryview | bytes] = [pattern] * (size // _PATTERN_BYTES)
            if size % _PATTERN_BYTES:
                data.append(pattern[: size % _PATTERN_BYTES])
            pieces.append((_WRITE, start, size, data))
        return self._requests(command_id, pieces)

    def _compare_and_write(
        self, command_id: int, action: CompareAndWrite, buffers: list[memoryview]
    ) -> list[HostWrite] | Action:
        both, length = b"".join(buffers), action.length
        if not length:  # 256 blocks wrap to 0 in the CDB's byte: Data-Out tells them apart
            return Fail(sense.INVALID_FIELD_IN_CDB) if both else Answer()
        if len(both) != 2 * length:
            return Fail(sense.INFORMATION_UNIT_SHORT)
        request = self._request(_COMPARE, action.offset, length, [both[length:]], command_id)
        request.expected = both[:length]
        return [request]

    def carry_out(self) -> None:
        """Serve what ``take`` kept (reads, identity, refusals), and publish the answers once."""
        if not self._direct:
            return
        answers = [self._respond(*each) for each in self._direct]
        self._direct.clear()
        with self._lock:
            if self._closed:
                return
            for answer in answers:
                self._ring.put(*answer)
            self._ring.publish()
            self._ring_doorbell()

    def _respond(
        self, command_id: int, action: Action, buffers: list[memoryview]
    ) -> tuple[int, int, int, bytes]:
        """Return (id, status, read length, sense), after the Data-In is in the ring's memory."""
        try:
            if isinstance(action, Read):
                return command_id, STATUS_GOOD, self._read(action, buffers), b""
            if isinstance(action, Verify):
                self._verify(action, buffers)
                return command_id, STATUS_GOOD, 0, b""
        except DeviceFailed:
            return _check_condition(command_id, sense.MEDIUM_READ_ERROR)
        except _Unequal as unequal:
            return _check_condition(command_id, unequal.sense)
        if isinstance(action, Fail):
            return _check_condition(command_id, action.sense)
        assert isinstance(action, Answer), action
        return command_id, STATUS_GOOD, _fill(buffers, action.content), b""

    def _read(self, action: Read, buffers: list[memoryview]) -> int:
        """Fill the Data-In from the volume; return its length if the host has room for more."""
        offset, length = action
        if len(buffers) == 1 and len(buffers[0]) == length:
            self.volume.read_into(offset, buffers)
            return 0
        room = sum(map(len, buffers))
        data = _cut(buffers, min(room, length))
        if data:
            self.volume.read_into(offset, data)
        if room > length:
            _blank(buffers, length)
        return length if room > length else 0

    def _verify(self, action: Verify, buffers: list[memoryview]) -> None:
        """Read the range and compare; raise _Unequal with the first difference."""
        offset, length, mode = action
        found = memoryview(bytearray(length))
        if mode is VerifyMode.READABLE:
            if length:
                self.volume.read_into(offset, [found])
            return
        given = b"".join(buffers)
        wanted = length if mode is VerifyMode.COMPARE or not length else SECTOR
        if len(given) < wanted:
            raise _Unequal(sense.INFORMATION_UNIT_SHORT)
        if length:
            self.volume.read_into(offset, [found])
        expected = given[:length] if mode is VerifyMode.COMPARE else given * (length // SECTOR)
        if found != expected:
            raise _Unequal(sense.miscompare_at(_first_difference(found, expected)))

    def answer(self, requests: Sequence[HostWrite]) -> None:
        """Answer ``requests`` with one tail update and one doorbell (AnswerSink)."""
        with self._lock:
            if self._closed:
                return
            self.asked_early = self._ring.has_more()
            put = self._ring.put
            for request in requests:
                tag = request.tag
                if request.failure is None and type(tag) is int:
                    put(tag, STATUS_GOOD)
                else:
                    self._answer_other(request, tag)
            self._ring.publish()
            try:
                self._ring_doorbell()
            except DeviceUnusable as error:  # the target was removed under load
                _LOG.error("TCMU answers lost volume=%s reason=%s", self.volume.name, error)

    def _answer_other(self, request: HostWrite, tag: object) -> None:
        """Answer a request that failed, or one part of a command (under the lock)."""
        failed: HostWrite | None = request if request.failure else None
        if isinstance(tag, _Parts):
            tag.failed = tag.failed or failed
            tag.remaining -= 1
            if tag.remaining:
                return
            command_id, failed = tag.command_id, tag.failed
        else:
            assert isinstance(tag, int)
            command_id = tag
        if failed is None:
            self._ring.put(command_id, STATUS_GOOD)
        else:
            self._ring.put(command_id, *self._failure(failed))

    def _failure(self, request: HostWrite) -> tuple[int, int, bytes]:
        """Return (status, 0, sense) for a failed request.

        Not ready while the port is active is a pause (a restart, a handover): BUSY, which
        initiators send again; in standby it is said so, and multipath looks for another path.
        """
        if request.failure is HostFailure.MISCOMPARE:
            found = sense.miscompare_at(request.failure_offset)
        elif request.failure is HostFailure.MEDIUM_ERROR:
            found = sense.MEDIUM_WRITE_ERROR
        elif request.failure is HostFailure.NO_VOLUME:
            found = sense.LOGICAL_UNIT_NOT_SUPPORTED
        elif self.device.alua is AluaState.ACTIVE:
            return STATUS_BUSY, 0, b""
        else:
            found = sense.STANDBY
        return STATUS_CHECK_CONDITION, 0, sense.encode_sense(found)

    def close(self) -> None:
        """Drop every later answer and let go of the ring's memory."""
        with self._lock:
            self._closed = True
            self._ring.release()


class _Unequal(Exception):
    """What VERIFY found different, as sense."""

    def __init__(self, found: Sense) -> None:
        super().__init__(found)
        self.sense = found


def _check_condition(command_id: int, found: Sense) -> tuple[int, int, int, bytes]:
    return command_id, STATUS_CHECK_CONDITION, 0, sense.encode_sense(found)


def _cut(buffers: list[memoryview], length: int) -> list[memoryview] | None:
    """Return the first ``length`` bytes of ``buffers``, None if they hold fewer."""
    pieces = []
    for buffer in buffers:
        if not length:
            break
        piece = buffer[:length]
        pieces.append(piece)
        length -= len(piece)
    return None if length else pieces


def _fill(buffers: list[memoryview], content: bytes) -> int:
    """Copy ``content`` to the Data-In; return its length if the host has room for more."""
    at = 0
    for buffer in buffers:
        piece = content[at : at + len(buffer)]
        buffer[: len(piece)] = piece
        at += len(piece)
    if at == len(content):
        _blank(buffers, at)
    return at if at < sum(map(len, buffers)) else 0


def _blank(buffers: list[memoryview], start: int) -> None:
    """Zero the Data-In from ``start`` on, so that no old bytes of the ring reach a host."""
    for buffer in buffers:
        if start < len(buffer):
            buffer[start:] = bytes(len(buffer) - start)
        start = max(0, start - len(buffer))


def _first_difference(found: memoryview, expected: bytes) -> int:
    """Return the first offset at which two different buffers of one length differ."""
    low, high = 0, len(expected)
    while high - low > 1:
        middle = (low + high) // 2
        if found[low:middle] != expected[low:middle]:
            high = middle
        else:
            low = middle
    return low
