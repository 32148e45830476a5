"""The control commands of verification: verify-start, -stop, -status, -repair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from replicator.codec.differing import overlaps
from replicator.codec.history import VolumeEntry
from replicator.codec.page import OwnerBody, VerifyRun
from replicator.codec.topology_file import MAXIMUM_VERIFY_RATE, MINIMUM_VERIFY_RATE
from replicator.daemon.control import Handler
from replicator.errors import Refused, UsageError
from replicator.group.devices import catalog_volumes
from replicator.group.site import SiteRuntime
from replicator.group.verification import Verification, ask_repair
from replicator.status import (
    VerifiedSite,
    VerifyRunStatus,
    VerifyStatus,
    verified_site,
    verify_run_status,
)


def verify_handlers(runtime: SiteRuntime) -> Mapping[str, Handler]:
    """Return the handlers by command."""
    return {
        "verify-start": lambda given: start_verify(runtime, given),
        "verify-stop": lambda _: stop_verify(runtime),
        "verify-status": lambda _: verify_status(runtime),
        "verify-repair": lambda given: repair(runtime, force=given.get("force") is True),
    }


def start_verify(runtime: SiteRuntime, given: Mapping[str, object]) -> VerifyStatus:
    """Begin a pass at the primary: ``rate`` in bytes a second, ``repeat``, ``volume`` by name."""
    rate, repeat, volume = given.get("rate"), given.get("repeat") is True, given.get("volume")
    if not isinstance(rate, int | float) or not MINIMUM_VERIFY_RATE <= rate <= MAXIMUM_VERIFY_RATE:
        raise UsageError(f"rate: expected 64kbit to 1000Gbit, got {rate!r} bytes a second")
    only = 0
    if volume is not None:
        known = {entry.name: entry.id for entry in _volumes(runtime)}
        if volume not in known:
            raise UsageError(f"no volume is called {volume!r}; the group has: {', '.join(known)}")
        only = known[str(volume)]
    _verification(runtime).verify.start(float(rate), repeat=repeat, only=only)
    runtime.wake("verify")
    return verify_status(runtime)


def stop_verify(runtime: SiteRuntime) -> VerifyStatus:
    """End the run; Refused if none runs."""
    verification = _verification(runtime)
    run = verification.verify.run
    if run is None or run.state != "running":
        raise Refused(f"group {runtime.group.name}: no verification runs")
    verification.verify.stop()
    return verify_status(runtime)


def repair(runtime: SiteRuntime, *, force: bool) -> VerifyStatus:
    """Ask the primary for what differs here.

    Refused if nothing differs, at the primary itself, and, without ``force``, if another site
    differs at the same place: then it may well be the primary's volume that has changed.
    """
    own = runtime.journal.body
    if runtime.primary:
        raise Refused(
            f"site {runtime.part.name} is the primary: others are compared with it; ask at the "
            "site that differs (replicatorctl verify report)"
        )
    if not own.verified.differs:
        raise Refused(f"site {runtime.part.name}: no piece of its volumes is known to differ")
    for body in _other_pages(runtime):
        if not force and overlaps(own.verified.differs, body.verified.differs):
            raise Refused(
                f"site {body.site} differs at the same place: the primary's own volume may be the "
                "one that has changed, and a repair would carry that on; compare the three first, "
                "then --force"
            )
    ask_repair(runtime.journal)
    return verify_status(runtime)


def verify_status(runtime: SiteRuntime) -> VerifyStatus:
    """Return what this node knows; reads no device."""
    names = {entry.id: entry.name for entry in _volumes(runtime)}
    sites = []
    for part in runtime.group.sites:
        if part.name == runtime.part.name:
            judge = runtime.judge
            own = verified_site(runtime.journal.body, names, "daemon")
            sites.append(
                replace(
                    own,
                    verified_bytes=judge.verified_bytes,
                    skipped_bytes=judge.skipped_bytes,
                )
            )
            continue
        statement = runtime.devices.peers[part.name].statement
        if statement is None:
            sites.append(VerifiedSite(site=part.name, view="none", reason="not read yet"))
        else:
            sites.append(verified_site(statement.newer.body, names, "page"))
    return VerifyStatus(
        group=runtime.group.name,
        site=runtime.part.name,
        run=_run_status(runtime),
        sites=tuple(sites),
    )


def _run_status(runtime: SiteRuntime) -> VerifyRunStatus | None:
    volumes = _volumes(runtime)
    if runtime.verification is None:
        stated = [_run_of(body) for body in _other_pages(runtime)]
        runs = [run for run in stated if run is not None]
        return verify_run_status(runs[0], volumes) if runs else None
    verify = runtime.verification.verify
    if verify.run is None:
        return None
    status = verify_run_status(verify.run, volumes)
    status = replace(status, unreadable_bytes=verify.unreadable_bytes)
    if status.state == "running" and verify.held:
        return replace(status, state="held", reason=verify.held)
    return status


def _run_of(body: OwnerBody) -> VerifyRun | None:
    return body.verify_run if body.role == "primary" else None


def _other_pages(runtime: SiteRuntime) -> Iterator[OwnerBody]:
    for peer in runtime.devices.peers.values():
        if peer.statement is not None:
            yield peer.statement.newer.body


def _volumes(runtime: SiteRuntime) -> tuple[VolumeEntry, ...]:
    if runtime.journal.attached:
        return runtime.journal.catalog.volumes
    return catalog_volumes(runtime.group)


def _verification(runtime: SiteRuntime) -> Verification:
    if runtime.verification is None or runtime.state != "serving":
        raise Refused(
            f"site {runtime.part.name} is {runtime.state}, not a serving primary: verification is "
            f"started and stopped at {runtime.group.primary.name}"
        )
    return runtime.verification
