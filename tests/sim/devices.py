"""Simulated devices: what a disk with a volatile cache may do to the bytes it was given.

The fault model, in words:

- A write is visible to every reader on return and durable only after a flush that succeeded.
- When the power goes, every 512-byte sector written since the last flush is kept or lost on its
  own: torn and reordered. How much survives varies from crash to crash: nothing, everything, a
  prefix in write order with a torn end, or each sector with a probability drawn for that crash.
- When only the process is killed, the device keeps what was written; the write in flight is torn.
- A failed write leaves any subset of its sectors behind. A failed flush makes any subset durable;
  the rest stays visible, but no later flush ever makes it durable (as Linux does it).
- A device may flip bits, lose or misdirect a write that it reported as done, or answer a read
  with what was there before.
- A reader on another machine may see the write in flight torn, until it has seen it whole.

A crash of a machine is a crash of all its devices; after it every call raises SimulatedCrash.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replicator.errors import DeviceFailed
from replicator.model import BLOCK, SECTOR

Observer = Callable[["SimDevice", str], None]
"""Called after every operation that changes a device, with the device and what it was."""


class SimulatedCrash(BaseException):
    """The machine lost its power or the process was killed; nothing may catch this but a test."""


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong on a device.

    ``operation`` is write (zero counts as one), flush, read, or remote-read (by another machine);
    ``effect`` is error, lost, misdirected (write), stale or flipped (reads). It strikes after
    ``skip`` good operations, once or (``forever``) each time from then on.
    """

    operation: str
    effect: str = "error"
    skip: int = 0
    forever: bool = False
    lowest: int = 0
    """Only what begins at this device offset or beyond is struck."""
    struck: int = 0
    before: bytes = b""
    """For a stale read: the whole device as it was at an earlier moment."""


class Machine:
    """The devices of one site: one power supply and one counter of operations.

    ``crash_at`` stops the machine at its Nth changing operation (from 1): before it, in the middle
    of it or after it (``crash_phase``). Who catches SimulatedCrash calls ``lose_power`` or ``kill``
    and builds a new stack on the same devices.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.rng = random.Random(seed)
        self.devices: list[SimDevice] = []
        self.operations = 0
        self.crash_at: int | None = None
        self.crash_phase = "after"
        self.crashed = False
        self.power_losses = 0
        self.observers: list[Observer] = []
        self.counts: Counter[str] = Counter()

    def lose_power(self, survival: str | None = None) -> None:
        """Drop what the volatile caches lose, and start up again."""
        self.power_losses += 1
        survival = survival or self.rng.choice(("none", "all", "prefix", "some", "some"))
        for device in self.devices:
            device.content = device.surviving(self.rng, survival)
            device.forget_cache()
        self._start()

    def kill(self) -> None:
        """End the process only: the devices keep everything that they were given."""
        self._start()

    def _start(self) -> None:
        self.crashed = False
        self.crash_at = None
        for device in self.devices:
            device.distrusted = False

    def fork_after_power_loss(self, seed: int, survival: str | None = None) -> Machine:
        """Return the machine as it would come up if the power went now; self is not changed."""
        fork = Machine(self.name, seed)
        survival = survival or fork.rng.choice(("none", "all", "prefix", "some", "some"))
        for device in self.devices:
            type(device)(fork, device.name, device.size_bytes, device.surviving(fork.rng, survival))
        return fork

    def fork_after_kill(self, seed: int) -> Machine:
        """Return the machine as it is if only the process ends now: nothing is lost yet."""
        fork = Machine(self.name, seed)
        for device in self.devices:
            copy = type(device)(fork, device.name, device.size_bytes, bytearray(device.content))
            copy._cache = list(device._cache)
            copy._doomed = dict(device._doomed)
        return fork

    def __getitem__(self, name: str) -> SimDevice:
        return next(device for device in self.devices if device.name == name)


class SimDevice:
    """A disk with a volatile cache; see the module's text for what it may do."""

    alignment = SECTOR
    kind = "volume"

    def __init__(
        self, machine: Machine, name: str, size_bytes: int, content: bytearray | None = None
    ) -> None:
        self.machine = machine
        self.name = name
        self.size_bytes = size_bytes
        self.content = bytearray(size_bytes) if content is None else content
        self.faults: list[Fault] = []
        self.distrusted = False
        self.closed = False
        self.racing = False
        """Whether the last write may still be seen torn from another machine."""
        self._cache: list[tuple[int, bytes, bytes]] = []
        """Unflushed writes in order: offset, what was there, what was written."""
        self._doomed: dict[int, bytes] = {}
        """Sectors that a failed flush dropped: offset of the sector, its durable bytes."""
        machine.devices.append(self)

    # -- what a failed or crashed machine does ------------------------------------------------

    def _strike(self, operation: str, offset: int = 1 << 62) -> Fault | None:
        for fault in self.faults:
            if fault.operation != operation or offset < fault.lowest:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.forever or not fault.struck:
                fault.struck += 1
                self.machine.counts[f"{operation}-{fault.effect}"] += 1
                return fault
        return None

    def _begin(self) -> str | None:
        """Count one changing operation; return the phase if the machine stops at it."""
        machine = self.machine
        if machine.crashed:
            raise SimulatedCrash(machine.name)
        assert not self.closed, f"{self.name} is used after close"
        if self.distrusted:
            raise DeviceFailed(f"{self.name}: distrusted after a failed write or flush")
        machine.operations += 1
        if machine.crash_at is None or machine.operations < machine.crash_at:
            return None
        if machine.crash_phase == "before":
            self._stop()
        return machine.crash_phase

    def _stop(self) -> None:
        self.machine.crashed = True
        raise SimulatedCrash(f"{self.machine.name} at operation {self.machine.operations}")

    def _end(self, phase: str | None, operation: str) -> None:
        if phase is not None:
            self._stop()
        for observer in self.machine.observers:
            observer(self, operation)

    # -- changing operations ------------------------------------------------------------------

    def _write(self, offset: int, content: bytes) -> None:
        length = len(content)
        assert offset % self.alignment == 0 and length % self.alignment == 0, (offset, length)
        assert offset >= 0 and offset + length <= self.size_bytes, (self.name, offset, length)
        phase = self._begin()
        fault = self._strike("write", offset) if self.faults else None
        if phase == "middle" or (fault is not None and fault.effect == "error"):
            self._put_some(offset, content)
            if phase == "middle":
                self._stop()
            self.distrusted = True
            raise DeviceFailed(f"{self.name}: write of {length} bytes at {offset} failed")
        if fault is not None and fault.effect == "lost":
            return self._end(phase, "write")
        if fault is not None and fault.effect == "misdirected":
            room = (self.size_bytes - length) // self.alignment
            offset = self.machine.rng.randrange(room + 1) * self.alignment
        self._put(offset, content)
        return self._end(phase, "write")

    def _put(self, offset: int, content: bytes) -> None:
        end = offset + len(content)
        self._cache.append((offset, bytes(self.content[offset:end]), content))
        self.content[offset:end] = content
        self.racing = True

    def _put_some(self, offset: int, content: bytes) -> None:
        share = self.machine.rng.random()
        for start in range(0, len(content), SECTOR):
            if self.machine.rng.random() < share:
                self._put(offset + start, content[start : start + SECTOR])

    def flush(self) -> None:
        """Make completed writes durable, unless a fault strikes."""
        phase = self._begin()
        fault = self._strike("flush") if self.faults else None
        if fault is not None:
            self._fail_flush()
        if phase == "middle":
            self._stop()
        if self._doomed:
            for offset, _, content in self._cache:
                for sector in range(offset, offset + len(content), SECTOR):
                    self._doomed.pop(sector, None)
        self._cache.clear()
        self.racing = False
        self._end(phase, "flush")

    def put_from_afar(self, offset: int, content: bytes) -> None:
        """Take a write of another machine; this one's process knows nothing of it."""
        assert offset % self.alignment == 0 and len(content) % self.alignment == 0
        assert offset >= 0 and offset + len(content) <= self.size_bytes, (offset, len(content))
        self._put(offset, content)

    def flush_from_afar(self) -> None:
        """Make durable what was written, as another machine asks for it."""
        self.forget_cache()

    def _fail_flush(self) -> None:
        before = self.surviving(self.machine.rng, "none")
        for offset, _, content in self._cache:
            for sector in range(offset, offset + len(content), SECTOR):
                if self.machine.rng.random() < 0.5:
                    self._doomed[sector] = bytes(before[sector : sector + SECTOR])
        self._cache.clear()
        self.distrusted = True
        raise DeviceFailed(f"{self.name}: flush failed")

    def forget_cache(self) -> None:
        """Take the content as it stands for what is durable."""
        self._cache.clear()
        self._doomed.clear()
        self.racing = False

    def surviving(self, rng: random.Random, survival: str) -> bytearray:
        """Return what the device would hold if the power went now."""
        if not self._cache and not self._doomed:
            return bytearray(self.content)
        if survival == "all" and not self._doomed:
            return bytearray(self.content)
        durable = bytearray(self.content)
        for offset, before, _ in reversed(self._cache):
            durable[offset : offset + len(before)] = before
        for sector, before in self._doomed.items():
            durable[sector : sector + SECTOR] = before
        for offset, content in self._kept(rng, survival):
            durable[offset : offset + len(content)] = content
        return durable

    def _kept(self, rng: random.Random, survival: str) -> list[tuple[int, bytes]]:
        writes = [(offset, content) for offset, _, content in self._cache]
        if survival == "none":
            return []
        if survival == "all":
            return writes
        torn = writes
        kept: list[tuple[int, bytes]] = []
        if survival == "prefix":
            whole = rng.randrange(len(writes) + 1)
            kept, torn = writes[:whole], writes[whole : whole + 1]
        share = rng.random()
        chance = rng.random
        for offset, content in torn:
            for start in range(0, len(content), SECTOR):
                if chance() < share:
                    kept.append((offset + start, content[start : start + SECTOR]))
        return kept

    # -- reading ------------------------------------------------------------------------------

    def _read(self, offset: int, length: int) -> bytes:
        assert offset % self.alignment == 0 and length % self.alignment == 0, (offset, length)
        assert offset >= 0 and offset + length <= self.size_bytes, (self.name, offset, length)
        if self.machine.crashed:
            raise SimulatedCrash(self.machine.name)
        assert not self.closed, f"{self.name} is used after close"
        found = bytes(self.content[offset : offset + length])
        fault = self._strike("read", offset) if self.faults else None
        return found if fault is None else self._spoil(offset, found, fault)

    def _spoil(self, offset: int, found: bytes, fault: Fault) -> bytes:
        if fault.effect == "error":
            who = "peer:" if fault.operation == "remote-read" else ""
            raise DeviceFailed(f"{who}{self.name}: read of {len(found)} bytes at {offset} failed")
        if fault.effect == "stale":
            return fault.before[offset : offset + len(found)]
        assert fault.effect == "flipped", fault
        spoiled = bytearray(found)
        spoiled[self.machine.rng.randrange(len(spoiled))] ^= 1 << self.machine.rng.randrange(8)
        return bytes(spoiled)

    def seen_from_afar(self, offset: int, length: int) -> bytes:
        """Return what another machine reads: the write in flight may be torn, once."""
        found = bytes(self.content[offset : offset + length])
        fault = self._strike("remote-read", offset) if self.faults else None
        if fault is not None:
            return self._spoil(offset, found, fault)
        if not self.racing or not self._cache:
            return found
        start, before, _ = self._cache[-1]
        if start >= offset + length or start + len(before) <= offset:
            return found
        if self.machine.rng.random() < 0.5:
            self.racing = False
            return found
        torn = bytearray(found)
        share = self.machine.rng.random()
        for at in range(0, len(before), SECTOR):
            place = start + at - offset
            if 0 <= place < length and self.machine.rng.random() < share:
                torn[place : place + SECTOR] = before[at : at + SECTOR]
        self.machine.counts["read-torn"] += 1
        return bytes(torn)

    def flip(self, offset: int, bit: int = 0) -> None:
        """Let one bit rot, in the cache and on the platter."""
        self.content[offset] ^= 1 << bit
        self.machine.counts["flipped"] += 1

    def close(self) -> None:
        """End the use of this handle."""


class SimJournalDevice(SimDevice):
    """A journal volume (``JournalDevice``): 4 KiB alignment, as O_DIRECT asks for."""

    alignment = BLOCK
    kind = "journal"

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes as the site itself sees them."""
        return self._read(offset, length)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        """Return the bytes of each (offset, length)."""
        return b"".join(self._read(offset, length) for offset, length in ranges)

    def write(self, offset: int, content: memoryview | bytes) -> None:
        """Write ``content``; visible now, durable after ``flush``."""
        self._write(offset, bytes(content))


class SimVolumeDevice(SimDevice):
    """A data volume (``VolumeDevice``): the page cache is the volatile cache."""

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill ``buffers`` in order; fails after a failed write-back."""
        if self.distrusted:
            raise DeviceFailed(f"{self.name}: read refused after a failed write-back")
        found = memoryview(self._read(offset, sum(len(buffer) for buffer in buffers)))
        for buffer in buffers:
            buffer[:] = found[: len(buffer)]
            found = found[len(buffer) :]

    def write_from(self, offset: int, buffers: Sequence[memoryview | bytes]) -> None:
        """Write ``buffers`` in order from ``offset``."""
        self._write(offset, b"".join(buffers))

    def next_content(self, offset: int) -> int:
        """Return the first sector from ``offset`` on that is not all zeros."""
        left = bytes(self._read(offset, self.size_bytes - offset))
        zeros = len(left) - len(left.lstrip(bytes(1)))
        return offset + zeros // SECTOR * SECTOR

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""
        self._write(offset, bytes(length))

    def measure(self) -> int:
        """Return the size; a simulated device does not grow."""
        return self.size_bytes

    def retire(self) -> None:
        """Refuse everything from now on."""
        self.distrusted = True
