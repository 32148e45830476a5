"""What a front end has to do for a command: the values that ``decode`` returns.

Offsets and lengths are bytes. ``length`` of Data-Out actions is what the CDB announces; the front
end checks it against the data that the transport brought.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from replicator.codec.scsi.device import ScsiDevice
from replicator.codec.scsi.sense import Sense


class Answer(NamedTuple):
    """GOOD status with this Data-In, already cut to the allocation length."""

    content: bytes = b""


class Fail(NamedTuple):
    """CHECK CONDITION with this sense."""

    sense: Sense


class Read(NamedTuple):
    """Return the range."""

    offset: int
    length: int


class Write(NamedTuple):
    """Write the Data-Out to the range."""

    offset: int
    length: int


class Zero(NamedTuple):
    """Make the ranges (offset, length) read as zeros: UNMAP, WRITE SAME without data."""

    ranges: tuple[tuple[int, int], ...]


class WriteSame(NamedTuple):
    """Repeat the one block of Data-Out over the range (as Zero if that block is zeros)."""

    offset: int
    length: int


class CompareAndWrite(NamedTuple):
    """Data-Out holds ``length`` bytes to compare with, then ``length`` bytes to write."""

    offset: int
    length: int


class VerifyMode(Enum):
    """What VERIFY compares (BYTCHK, SBC-3 5.33)."""

    READABLE = 0
    COMPARE = 1
    COMPARE_ONE_BLOCK = 3


class Verify(NamedTuple):
    """Check that the range can be read, or equals the Data-Out."""

    offset: int
    length: int
    mode: VerifyMode


class Parameters(NamedTuple):
    """Take ``length`` bytes of parameter list and decode them with ``decode``."""

    length: int
    decode: Callable[[bytes, ScsiDevice], Action]


Action = Answer | Fail | Read | Write | Zero | WriteSame | CompareAndWrite | Verify | Parameters

GOOD = Answer()
