"""The TCMU command ring (linux/target_core_user.h, mailbox version 2) over any writable memory.

The kernel appends entries at ``cmd_head``; ``Ring.take`` reads them in order and keeps its own
position. Answers may come in any order: each is written over the oldest entry not yet given back
(with the id of the command that it answers), and ``publish`` moves ``cmd_tail``. That entry has
been taken before, so nothing unread is overwritten.

The kernel is trusted not to attack, but not to be free of bugs: any value that does not fit makes
RingBroken and nothing of that round is served. One thread takes; answering needs a lock of the
caller's.

Offsets: mailbox version 0, flags 2, ring offset 4, ring size 8, head 12, tail 64. Entry: length
and opcode 0, id 4, kernel flags 6, user flags 7, iovec counts 8, 12 and 16, CDB offset 24,
iovecs 48; answer: status 8, read length 12, sense 16.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import NamedTuple

from replicator.codec.scsi.dispatch import cdb_length
from replicator.errors import RingBroken

MAILBOX_VERSION = 2
FLAG_OUT_OF_ORDER = 0x1
FLAG_READ_LENGTH = 0x2

_MAILBOX = struct.Struct("<HHIII")
_ENTRY = struct.Struct("<IHBBIII4xQ")
_IOVEC = struct.Struct("<QQ")
_ANSWER = struct.Struct("<HBBBxxxI")
_SENSE_BYTES = 96
_SENSE_OFFSET = 16
_IOVEC_OFFSET = 48
_MINIMUM_ENTRY = 112
_HEAD_WORD, _TAIL_WORD = 3, 16
_MAILBOX_BYTES = 128
_OP_PAD, _OP_COMMAND, _OP_TASK_MANAGEMENT = 0, 1, 2
_UFLAG_READ_LENGTH = 0x2
_CDB_LENGTHS = bytes(cdb_length(opcode) for opcode in range(256))


class RingCommand(NamedTuple):
    """One command of the ring: its id, its CDB, and its data memory in order."""

    command_id: int
    cdb: bytes
    buffers: list[memoryview]


class Ring:
    """The command ring of one device, from the mapped memory of its UIO device."""

    __slots__ = (
        "_data_start",
        "_memory",
        "_outstanding",
        "_position",
        "_ring_offset",
        "_ring_size",
        "_slots",
        "_tail",
        "_words",
    )

    def __init__(self, memory: memoryview) -> None:
        """Read the control page; RingBroken if it is not a version 2 mailbox that fits."""
        if memory.readonly or len(memory) < _MAILBOX_BYTES or len(memory) % 4:
            raise RingBroken(f"TCMU map of {len(memory)} bytes is no ring; is this a TCMU device?")
        version, flags, offset, size, head = _MAILBOX.unpack_from(memory)
        if version != MAILBOX_VERSION:
            raise RingBroken(f"TCMU mailbox version: expected {MAILBOX_VERSION}, got {version}")
        needed = FLAG_OUT_OF_ORDER | FLAG_READ_LENGTH
        if flags & needed != needed:
            raise RingBroken(f"TCMU mailbox flags: expected {needed:#x} among them, got {flags:#x}")
        if offset < _MAILBOX_BYTES or offset % 8 or size % 8 or not size:
            raise RingBroken(f"TCMU command ring at {offset}, {size} bytes: not aligned")
        if offset + size > len(memory):
            raise RingBroken(
                f"TCMU command ring at {offset}, {size} bytes, passes the map of {len(memory)}"
            )
        self._memory = memory
        self._words = memory.cast("B").cast("I")
        self._ring_offset = offset
        self._ring_size = size
        self._data_start = offset + size
        self._tail = self._words[_TAIL_WORD]
        self._position = self._tail
        self._slots: deque[tuple[int, int]] = deque()
        self._outstanding: set[int] = set()
        self._checked(self._position, "tail")
        self._checked(head, "head")

    @property
    def outstanding(self) -> int:
        """Return how many commands were taken and not answered."""
        return len(self._outstanding)

    def has_more(self) -> bool:
        """Tell whether the kernel has appended since the last ``take``."""
        return self._words[_HEAD_WORD] != self._position

    def release(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        self._words.release()

    def _checked(self, offset: int, what: str) -> int:
        if offset >= self._ring_size or offset % 8:
            raise RingBroken(f"TCMU {what} {offset} is not in the ring of {self._ring_size} bytes")
        return offset

    def take(self) -> list[RingCommand]:
        """Return every command that the kernel has appended; RingBroken on strange values."""
        head = self._words[_HEAD_WORD]
        if head == self._position:
            return []
        self._checked(head, "head")
        memory, words = self._memory, self._words
        size, base = self._ring_size, self._ring_offset
        unpack = _ENTRY.unpack_from
        position = self._position
        commands: list[RingCommand] = []
        slots: list[tuple[int, int]] = []
        while position != head:
            start = base + position
            word = words[start >> 2]
            length, operation = word & ~7, word & 7
            end = position + length
            if length < 8 or end > (head if position < head else size):
                raise RingBroken(f"TCMU entry at {position}: length {length} passes head {head}")
            following = end if end != size else 0
            if operation == _OP_COMMAND:
                if length < _MINIMUM_ENTRY:
                    raise RingBroken(f"TCMU entry at {position}: {length} bytes hold no command")
                _, command_id, _, _, count, bidi, dif, cdb_offset = unpack(memory, start)
                buffers = self._buffers(start, length, count, bidi + dif)
                cdb = self._cdb(cdb_offset)
                if command_id in self._outstanding:
                    raise RingBroken(f"TCMU command id {command_id} is used twice")
                self._outstanding.add(command_id)
                commands.append(RingCommand(command_id, cdb, buffers))
                slots.append((start, following))
            elif operation not in (_OP_PAD, _OP_TASK_MANAGEMENT):
                raise RingBroken(f"TCMU entry at {position}: unknown operation {operation}")
            position = following
        self._slots.extend(slots)
        self._position = position
        return commands

    def _buffers(self, start: int, length: int, count: int, others: int) -> list[memoryview]:
        """Return the data memory of an entry, each piece inside the data area."""
        if _IOVEC_OFFSET + _IOVEC.size * (count + others) > length:
            raise RingBroken(f"TCMU entry of {length} bytes: {count}+{others} iovecs do not fit")
        memory, total = self._memory, len(self._memory)
        buffers = []
        for index in range(count):
            base, size = _IOVEC.unpack_from(memory, start + _IOVEC_OFFSET + _IOVEC.size * index)
            if base < self._data_start or base + size > total:
                raise RingBroken(f"TCMU iovec {base}+{size} is not in the data area ({total})")
            buffers.append(memory[base : base + size])
        return buffers

    def _cdb(self, offset: int) -> bytes:
        """Return the CDB at ``offset``, which must lie in the command ring."""
        memory, end = self._memory, self._data_start
        if not self._ring_offset <= offset <= end - 8:
            raise RingBroken(f"TCMU CDB offset {offset} is not in the command ring")
        length = _CDB_LENGTHS[memory[offset]]
        if memory[offset] == 0x7F:
            length = cdb_length(0x7F, memory[offset + 7])
        if offset + length > end:
            raise RingBroken(f"TCMU CDB at {offset} passes the command ring")
        return bytes(memory[offset : offset + length])

    def put(self, command_id: int, status: int, read_length: int = 0, sense: bytes = b"") -> None:
        """Write the answer of a command; the kernel sees it after ``publish``.

        ``read_length`` says that less was read than the host has room for (0: not said). Each id
        is answered once: the kernel halts the ring otherwise, so that is our own mistake.
        """
        self._outstanding.remove(command_id)
        start, self._tail = self._slots.popleft()
        flags = _UFLAG_READ_LENGTH if read_length else 0
        _ANSWER.pack_into(self._memory, start + 4, command_id, 0, flags, status, read_length)
        if sense:
            padded = sense[:_SENSE_BYTES].ljust(_SENSE_BYTES, b"\0")
            at = start + _SENSE_OFFSET
            self._memory[at : at + _SENSE_BYTES] = padded

    def publish(self) -> None:
        """Give the answered entries back: one store, after which the doorbell is rung."""
        self._words[_TAIL_WORD] = self._tail
