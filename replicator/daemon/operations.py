"""What an operator tells a running site to do: handlers of the control socket.

Each one returns a value for JSON, and refuses with a reason and the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from replicator.codec.batch import Point
from replicator.codec.page import RestoreStop
from replicator.codec.points import parse_point
from replicator.daemon.control import Handler
from replicator.errors import Refused, UsageError
from replicator.group.report import restore_status
from replicator.group.site import SiteRuntime
from replicator.journal.bookmarks import find_bookmarks
from replicator.status import RestoreStatus


def operations(runtime: SiteRuntime) -> Mapping[str, Handler]:
    """Return the handlers by command."""
    return {
        "peer-accept": lambda arguments: accept_peer(runtime, _text(arguments, "site")),
        "restore-status": lambda _: restore_status(runtime),
        "restore-pause": lambda _: hold_restore(runtime, RestoreStop("paused")),
        "restore-resume": lambda _: hold_restore(runtime, None),
        "restore-stop": lambda arguments: stop_restore(runtime, _text(arguments, "at")),
    }


def _text(arguments: Mapping[str, object], key: str) -> str:
    value = arguments.get(key)
    if not isinstance(value, str):
        raise UsageError(f"argument {key}: expected a text, got {value!r}")
    return value


def accept_peer(runtime: SiteRuntime, site: str) -> dict[str, str]:
    """Forget what was known of a peer's journal, so that a new one is accepted: durable on return.

    Its next page is believed as at first contact; what it lacks comes by a gap and a resync.
    """
    peer = runtime.devices.peers.get(site)
    if peer is None:
        known = ", ".join(runtime.devices.peers)
        raise UsageError(f"no peer is called {site!r}; this site's peers are: {known}")
    known_id = peer.forget()
    runtime.journal.publish()
    return {"site": site, "forgotten_journal_id": known_id}


def stop_restore(runtime: SiteRuntime, at: str) -> RestoreStatus:
    """Let restore go on up to a point and no further: durable on return."""
    try:
        stop = parse_point(at)
    except ValueError as error:
        raise UsageError(f"--at: {error}") from error
    stop = _resolved(runtime, stop)
    return hold_restore(runtime, stop, lambda at: _refuse_what_was_passed(at, stop))


def _refuse_what_was_passed(at: Point, stop: RestoreStop) -> None:
    if stop.kind == "position" and stop.value < at.position:
        raise Refused(
            f"volumes are at position {at.position} already, beyond {stop.value}; an earlier state "
            "comes from the ring: replicatorctl restore to"
        )
    if stop.kind == "time" and stop.value < at.time_ns:
        raise Refused(
            f"volumes hold records of {at.time_ns / 1e9:.3f} already (seconds since 1970, the "
            "log's time); an earlier state comes from the ring: replicatorctl restore to"
        )


def _resolved(runtime: SiteRuntime, stop: RestoreStop) -> RestoreStop:
    """Return the position of a bookmark that the own ring holds already; others stay as they are.

    A bookmark that is yet to come is stopped at when it comes.
    """
    if stop.kind != "bookmark":
        return stop
    found = [each for each in find_bookmarks(runtime.journal.device) if each.name == stop.name]
    return RestoreStop("position", value=found[-1].at.position, name=stop.name) if found else stop


def hold_restore(
    runtime: SiteRuntime, stop: RestoreStop | None, judge: Callable[[Point], None] = lambda _: None
) -> RestoreStatus:
    """Set or clear an operator's hold on restore: durable on return."""
    if runtime.primary or not runtime.part.data:
        what = "is the primary" if runtime.primary else "keeps only a journal"
        raise Refused(f"site {runtime.part.name} {what}: it restores nothing")
    runtime.hold_restore(stop, judge)
    return restore_status(runtime)
