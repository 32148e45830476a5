"""The TCMU front end: serves the volumes of a group to LIO, in one thread.

A wake-up takes every command of every ring, submits all their changes at once, then serves reads;
answers of the commit loop come from its own thread (``LogicalUnit.answer``), or from this one when
one command at a time is all that comes (lone_client).

Start: ``UserBackstore.hold`` for each volume, recover the journal, then ``start`` (which maps the
rings and lets go). Stop: take no more, wait for what is with the commit loop, unmap; the kernel
keeps later commands until the next start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from replicator.codec.scsi.device import AluaState, ScsiDevice
from replicator.codec.tcmu import Ring
from replicator.errors import DeviceUnusable, RingBroken, TowlineError
from replicator.frontends.logical_unit import LogicalUnit
from replicator.frontends.lone_client import LoneClient
from replicator.model import HostService, HostVolume, HostWrite
from replicator.seams.uio import UioMapping, UserBackstore

_LOG = logging.getLogger(__name__)
_DRAIN_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Export:
    """A volume with its identity and the kernel's device that hosts reach it through."""

    volume: HostVolume
    device: ScsiDevice
    backstore: UserBackstore


@dataclass(slots=True)
class _Served:
    export: Export
    mapping: UioMapping
    ring: Ring
    unit: LogicalUnit
    halted: str = ""


class TcmuFrontend:
    """Serves ``exports`` between ``start`` and ``stop``."""

    def __init__(
        self,
        service: HostService,
        exports: Sequence[Export],
        on_halt: Callable[[TowlineError], None] | None = None,
    ) -> None:
        """Prepare; ``on_halt`` is told, from the ring's thread, of a device that was halted."""
        self._service = service
        self._exports = list(exports)
        self._on_halt = on_halt
        self._served: dict[int, _Served] = {}
        self._lone = LoneClient()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._poll: select.epoll | None = None

    def start(self) -> None:
        """Map every ring, serve, and let the kernel hand commands out.

        Raises DeviceBusy, DeviceUnusable or RingBroken, with nothing left open.
        """
        self._stopping = False
        try:
            for export in self._exports:
                mapping = export.backstore.open()
                self._served[mapping.fileno()] = _serve(export, mapping)
        except TowlineError:
            self._close()
            raise
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="tcmu", daemon=True)
        self._thread.start()
        for export in self._exports:
            export.backstore.let_go()

    def stop(self, drain_seconds: float = 10.0) -> None:
        """Take no more commands, wait for answers up to ``drain_seconds``, and unmap.

        The service must still answer meanwhile. What it has not answered then is given back to
        the initiators by the next start.
        """
        if self._thread is None:
            return
        for served in self._served.values():
            with contextlib.suppress(DeviceUnusable):  # the target may be gone already
                served.export.backstore.block()
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._thread = None
        self._drain(time.monotonic() + drain_seconds)
        self._close()
        os.close(self._wake)

    def served_blocks(self) -> dict[int, int]:
        """Return the capacity that hosts were told of each served volume, by volume id."""
        return {
            served.export.volume.volume_id: served.unit.device.blocks
            for served in list(self._served.values())
        }

    def add(self, export: Export) -> None:
        """Serve one more volume; its backstore is held. Raises as ``start`` does."""
        mapping = export.backstore.open()
        served = _serve(export, mapping)
        poll = self._poll
        assert poll is not None
        self._served[mapping.fileno()] = served
        poll.register(mapping.fileno(), select.EPOLLIN)
        export.backstore.let_go()
        _LOG.info("volume is served from now on volume=%s", export.volume.name)

    def grow(self, volume_id: int, blocks: int) -> None:
        """Tell hosts the new capacity of a volume."""
        for served in self._units_of(volume_id):
            served.unit.grow(blocks)

    def refuse(self, volume_id: int) -> None:
        """Refuse every command for a volume that was removed from the group."""
        for served in self._units_of(volume_id):
            served.unit.refuse()

    def _units_of(self, volume_id: int) -> list[_Served]:
        served = list(self._served.values())
        return [each for each in served if each.export.volume.volume_id == volume_id]

    def set_alua(self, state: AluaState) -> None:
        """Tell hosts ``state`` from now on (the kernel's own state is set with the target)."""
        for served in self._served.values():
            served.unit.device = replace(served.unit.device, alua=state)

    def halted(self) -> dict[str, str]:
        """Return the volumes whose device was halted, with the reason."""
        return {s.export.volume.name: s.halted for s in self._served.values() if s.halted}

    def _drain(self, deadline: float) -> None:
        waiting = [served for served in self._served.values() if not served.halted]
        while any(served.ring.outstanding for served in waiting):
            if time.monotonic() > deadline:
                count = sum(served.ring.outstanding for served in waiting)
                _LOG.warning("stopping with commands unanswered count=%d", count)
                return
            time.sleep(_DRAIN_POLL_SECONDS)

    def _close(self) -> None:
        for served in self._served.values():
            served.unit.close()
            served.mapping.close()
        self._served.clear()

    def _run(self) -> None:
        """Serve until ``stop``; every wait is for a command or for ``stop``."""
        poll = self._poll
        assert poll is not None
        poll.register(self._wake, select.EPOLLIN)
        for descriptor in self._served:
            poll.register(descriptor, select.EPOLLIN)
        ready = list(self._served)
        try:
            while not self._stopping:
                self._serve_ready([d for d in ready if d in self._served], poll)
                ready = [descriptor for descriptor, _ in poll.poll()]
        finally:
            poll.close()

    def _serve_ready(self, descriptors: list[int], poll: select.epoll) -> None:
        """Serve the rings until they are empty."""
        active = []
        for descriptor in descriptors:
            served = self._served[descriptor]
            try:
                served.mapping.take_interrupt()
                active.append(served)
            except DeviceUnusable as error:
                self._halt(served, error, poll)
        while active and not self._stopping:
            writes = []
            for served in active:
                try:
                    writes += served.unit.take()
                except RingBroken as error:
                    self._halt(served, error, poll)
            if writes:
                self._submit(writes)
            for served in active:
                try:
                    served.unit.carry_out()
                except DeviceUnusable as error:
                    self._halt(served, error, poll)
            active = [s for s in active if not s.halted and s.ring.has_more()]

    def _submit(self, writes: list[HostWrite]) -> None:
        """Hand the writes to the group; commit here what is all that the hosts have asked."""
        rings = [each for each in self._served.values() if not each.halted]
        lone = len(writes) == 1 and sum(each.ring.outstanding for each in rings) == 1
        if not self._lone.saw(lone=lone):
            self._service.submit(writes)
            return
        self._service.submit_alone(writes)
        unit = writes[0].origin
        if any(
            each.unit.asked_early if each.unit is unit else each.ring.has_more() for each in rings
        ):
            self._lone.sent_early()

    def _halt(self, served: _Served, error: TowlineError, poll: select.epoll) -> None:
        """Serve this device no more; its commands stay with the kernel."""
        served.halted = str(error)
        poll.unregister(served.mapping.fileno())
        _LOG.error("TCMU device halted volume=%s reason=%s", served.export.volume.name, error)
        if self._on_halt is not None:
            self._on_halt(error)


def _serve(export: Export, mapping: UioMapping) -> _Served:
    try:
        ring = Ring(mapping.memory)
    except RingBroken:
        mapping.close()
        raise
    unit = LogicalUnit(export.volume, export.device, ring, mapping.ring_doorbell)
    return _Served(export, mapping, ring, unit)
