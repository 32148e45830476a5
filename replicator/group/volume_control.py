"""The commands ``volumes`` and ``volume-change``: what is asked for, who is ready, and do it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from replicator.codec.catalog_records import VolumeChange, encode_event
from replicator.codec.records import RecordKind
from replicator.codec.volume_changes import Promise, covers
from replicator.errors import Refused, UsageError
from replicator.group.report import volume_statuses
from replicator.group.site import SiteRuntime
from replicator.model import ControlRecord, Pair
from replicator.status import VolumeChanged, VolumeChangeStatus, VolumeListing

DURABLE_SECONDS = 20.0
"""How long a command waits for its event to be durable."""


class VolumeControl:
    """Answers the commands; one change at a time, and only at a serving primary."""

    def __init__(self, runtime: SiteRuntime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._under_way: VolumeChange | None = None
        self._done = threading.Event()
        self._end: Pair | None = None

    def listing(self) -> VolumeListing:
        """Return the volumes, the changes that the topology asks for, and who is prepared."""
        runtime, watch = self._runtime, self._runtime.watch
        unreadable = (watch.unreadable,) if watch.unreadable else ()
        return VolumeListing(
            group=runtime.group.name,
            site=runtime.part.name,
            volumes=volume_statuses(runtime),
            changes=tuple(self._change_status(each) for each in watch.difference.changes),
            violations=unreadable + watch.difference.violations,
        )

    def change(self, arguments: Mapping[str, object]) -> VolumeChanged:
        """Append the change ``action`` of volume ``name``: durable at this primary on return.

        Raises Refused with what is missing and what to type, UsageError for malformed arguments.
        """
        action, name = arguments.get("action"), arguments.get("name")
        if not isinstance(action, str) or not isinstance(name, str):
            raise UsageError("expected an action and a volume's name")
        with self._lock:
            self._settle()
            change = self._wanted(action, name)
            missing = {s: why for s, why in self._change_status(change).prepared.items() if why}
            if missing:
                listed = "; ".join(f"{site}: {why}" for site, why in missing.items())
                raise Refused(f"cannot {action} {name} yet, not every site is prepared: {listed}")
            end = self._append(change)
            self._runtime.watch.step()  # so that the next listing is without it
        return VolumeChanged(action=action, name=name, position=end.position)

    def _settle(self) -> None:
        if self._under_way is None:
            return
        if not self._done.is_set():
            raise Refused(
                f"{self._under_way.action} {self._under_way.name} is still under way: its event "
                "is not durable yet; look at replicatorctl status (is the journal full?)"
            )
        self._under_way = None

    def _wanted(self, action: str, name: str) -> VolumeChange:
        runtime = self._runtime
        if runtime.state != "serving" or runtime.runner is None:
            raise Refused(
                f"site {runtime.part.name} is {runtime.state}: volumes are changed at the "
                "primary while it serves"
            )
        runtime.watch.step()
        if runtime.watch.unreadable:
            raise Refused(runtime.watch.unreadable)
        changes = runtime.watch.difference.changes
        for change in changes:
            if (change.action, change.name) == (action, name):
                return change
        violations = [each for each in runtime.watch.difference.violations if name in each]
        if violations:
            raise Refused("; ".join(violations))
        asked = ", ".join(f"{each.action} {each.name}" for each in changes) or "nothing"
        raise Refused(
            f"the topology does not ask to {action} {name}; it asks for: {asked}; edit "
            "groups.GROUP.volumes in the topology file at every site first"
        )

    def _append(self, change: VolumeChange) -> Pair:
        runner = self._runtime.runner
        assert runner is not None
        self._under_way, self._end = change, None
        self._done = done = threading.Event()

        def durable(end: Pair) -> None:
            self._end = end
            done.set()

        record = ControlRecord(RecordKind.VOLUME, encode_event(change), on_durable=durable)
        runner.submit_control([record])
        if not done.wait(DURABLE_SECONDS):
            raise Refused(
                f"{change.action} {change.name} was asked for, but is not durable after "
                f"{DURABLE_SECONDS:g} s; it will happen when the journal can take it: look at "
                "replicatorctl status and volume list"
            )
        self._under_way = None
        assert self._end is not None
        return self._end

    def _change_status(self, change: VolumeChange) -> VolumeChangeStatus:
        runtime = self._runtime
        own = runtime.journal.body.prepared.get(change.id)
        why = runtime.watch.obstacles.get(change.id, "not yet")
        prepared = {runtime.part.name: "" if covers(own, change) else why}
        for site, peer in runtime.devices.peers.items():
            if peer.statement is None:
                prepared[site] = "its page was not read yet; look at replicatorctl status"
            elif peer.statement.newer.body.catalog is not None:
                prepared[site] = _missing(peer.statement.older.body.prepared, change)
        return VolumeChangeStatus(
            action=change.action,
            id=change.id,
            name=change.name,
            size_bytes=change.size_bytes,
            prepared=prepared,
        )


def _missing(published: Mapping[int, Promise], change: VolumeChange) -> str:
    """Return why a site that published this is not prepared, empty if it is."""
    if covers(published.get(change.id), change):
        return ""
    if change.action == "remove":
        return "its topology file still names the volume"
    return "it has not said so: topology file there, device there? see volume list at that site"
