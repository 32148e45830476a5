"""Values that every layer shares: identities, pairs, host requests.

Sizes, offsets and positions are bytes. A *position* is a 64-bit byte offset in the group's log;
a *pair* is a position with the digest of the batch that ends there (design: pairs are compared,
positions alone never are).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

BLOCK = 4096
"""Unit of everything in a journal, bytes."""

SECTOR = 512
"""Unit and alignment of host requests, bytes."""

NO_DIGEST = bytes(16)


class Pair(NamedTuple):
    """A position and the digest of the batch that ends there; (0, zeros) is the empty log."""

    position: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.position}:{self.digest.hex()[:8]}"


ORIGIN = Pair(0, NO_DIGEST)


class WriteKind(Enum):
    """What a host asks to be changed."""

    WRITE = "write"
    ZERO = "zero"
    COMPARE_AND_WRITE = "compare-and-write"


class HostFailure(Enum):
    """Why a host request was not carried out, for the front end to translate."""

    MEDIUM_ERROR = "medium-error"
    MISCOMPARE = "miscompare"
    NOT_READY = "not-ready"
    NO_VOLUME = "no-volume"
    """The volume was removed from the group."""


@dataclass(slots=True)
class HostWrite:
    """One change that a host asks for; answered exactly once, through ``origin``.

    ``offset`` and ``length`` are bytes, multiples of SECTOR, inside the volume (the front end has
    checked). ``buffers`` hold ``length`` bytes in order and stay unchanged until the answer
    (none for ZERO). ``expected`` is the compare half of COMPARE AND WRITE (SBC-4 5.3).
    """

    origin: AnswerSink
    volume_id: int
    kind: WriteKind
    offset: int
    length: int
    buffers: Sequence[memoryview | bytes]
    tag: object = None
    expected: bytes = b""
    failure: HostFailure | None = None
    failure_offset: int = field(default=0)


@dataclass(slots=True)
class ControlRecord:
    """An event that the group journals itself (RecordKind, CONTROL_KINDS).

    ``kind`` is a RecordKind; ``payload`` is what the kind's codec makes. ``on_durable`` gets the
    position and digest at which its batch ends when that is durable in the journal and its effect
    on the catalog is published; it is called from the commit thread and must not wait.
    """

    kind: int
    payload: bytes | memoryview
    volume_id: int = 0
    offset: int = 0
    on_durable: Callable[[Pair], None] = lambda _: None


@dataclass(slots=True)
class ChunkRecord:
    """A piece of a volume that the group journals as it is: to be copied, or to be verified.

    ``kind`` is RecordKind.COPY, VERIFY or ZERO; ``offset`` and ``length`` are bytes, multiples of
    SECTOR. ZERO is for a hole of the volume, however long, and fails if it is one no more.
    The commit loop reads the content when all lower records are on the volume. ``on_durable``
    gets the end of its batch, and ``sent_bytes`` then says how much payload it took (0 for zeros);
    ``on_failed`` is called if the volume cannot be read. Both come from the commit thread and must
    not wait.
    """

    kind: int
    volume_id: int
    offset: int
    length: int
    on_durable: Callable[[Pair], None] = lambda _: None
    on_failed: Callable[[], None] = lambda: None
    sent_bytes: int = 0


class AnswerSink(Protocol):
    """Where answers go: one per NBD connection or TCMU ring."""

    def answer(self, requests: Sequence[HostWrite]) -> None:
        """Answer ``requests`` (``failure`` None means durable and readable).

        Called from the commit or apply thread with many requests at once so that they cost one
        system call; must not raise and must not wait for the host for long.
        """


class HostVolume(Protocol):
    """A data volume as a front end sees it."""

    @property
    def name(self) -> str: ...
    @property
    def volume_id(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill ``buffers`` from ``offset``; never waits behind a flush.

        Raises DeviceFailed if the volume has failed or the read fails (the host gets MEDIUM
        ERROR, never zeros).
        """


class HostService(Protocol):
    """A consistency group as a front end sees it (implemented by the commit loop's runner)."""

    @property
    def volumes(self) -> Sequence[HostVolume]: ...

    def submit(self, requests: Sequence[HostWrite]) -> None:
        """Queue ``requests``; each is answered through its ``origin``, in batches.

        Returns at once, except that it waits when the bounded queue is full (backpressure).
        """

    def submit_alone(self, requests: Sequence[HostWrite]) -> None:
        """As ``submit``, but may carry the requests out before it returns, in this thread.

        For a client that has one request at a time (frontends.lone_client): a read that it sent
        meanwhile would wait behind a flush.
        """
