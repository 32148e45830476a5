"""replicatord: one group at one site, in the foreground.

Start: topology, devices (locked), hold the front end, recover, redo, serve, answer on the control
socket, READY=1. SIGTERM and SIGINT end it: the front end first, then the movers, a last
checkpoint. A failure before READY ends the process with the exit code of its error; after it
the daemon stays, halted, so that ``replicatorctl status`` can say why.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from replicator import __version__
from replicator.clock import SystemClock
from replicator.codec import naming
from replicator.daemon.changing_roles import role_handlers
from replicator.daemon.control import ControlServer, Handler
from replicator.daemon.front_ends import FrontEnd, front_end_of
from replicator.daemon.notify import notify_systemd
from replicator.daemon.operations import operations
from replicator.daemon.verifying import verify_handlers
from replicator.errors import TowlineError
from replicator.group.bookmarking import make_bookmark
from replicator.group.commit_runner import CommitRunner
from replicator.group.devices import open_site
from replicator.group.journal_move import JournalMove
from replicator.group.report import group_status, pull_history
from replicator.group.site import SiteRuntime
from replicator.group.volume_control import VolumeControl
from replicator.seams.boot import boot_id
from replicator.seams.nodefiles import ChangedTopology, read_site_name, read_topology

log = logging.getLogger("replicatord")

_ENDING = {signal.SIGTERM, signal.SIGINT}
_ANEW = signal.SIGUSR1
"""The process sends it to itself when the group's role here has changed."""

_SWITCH_SECONDS = 0.0005
"""Interpreter switch interval: a thread that comes back from the kernel waits no longer."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="replicatord", description="Run one consistency group.")
    parser.add_argument("--group", required=True, help="consistency group to run")
    parser.add_argument(
        "--topology",
        default=os.environ.get("TOWLINE_TOPOLOGY", naming.DEFAULT_TOPOLOGY_PATH),
        help="topology file (TOWLINE_TOPOLOGY; default %(default)s)",
    )
    parser.add_argument(
        "--site",
        default=os.environ.get("TOWLINE_SITE"),
        help=f"this node's site (TOWLINE_SITE; default: content of {naming.DEFAULT_SITE_PATH})",
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING"])
    parser.add_argument("--version", action="version", version=f"replicatord {__version__}")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run until told to end; return the exit code."""
    arguments = _arguments(argv)
    logging.basicConfig(
        level=arguments.log_level,
        format="level=%(levelname)s logger=%(name)s message=%(message)r",
        stream=sys.stderr,
    )
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Waited for with sigwait: a handler that sets an Event can meet the main thread inside it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, _ANEW})
    try:
        return _run(arguments)
    except TowlineError as error:
        print(f"replicatord: {error}", file=sys.stderr)
        return error.exit_code


def _run(arguments: argparse.Namespace) -> int:
    """Run the group in rounds: a change of its role here ends one and begins the next."""
    topology = read_topology(arguments.topology)
    site_name = arguments.site or read_site_name(naming.DEFAULT_SITE_PATH)
    group = topology.group(arguments.group)
    started_at = SystemClock().monotonic()
    handlers: dict[str, Handler] = {}
    path = naming.control_socket_path(topology.site(site_name), group.name)
    server = ControlServer(path, handlers)
    started = False
    try:
        while True:
            devices = open_site(topology, group.name, site_name, boot_id())
            changed = ChangedTopology(arguments.topology, group.name)
            runtime = SiteRuntime(group, site_name, devices, SystemClock(), changed.read)
            front_end = front_end_of(topology.site(site_name), group, serves=runtime.primary)
            handlers.update(_handlers(runtime, front_end, started_at))
            journal_path = naming.journal_path(topology.site(site_name), group.name)
            handlers["journal-move"] = JournalMove(runtime, journal_path).move
            if not started:
                server.start()
                started = True
            if not _serve(runtime, front_end):
                return 0
            log.info("begins anew group=%s site=%s", group.name, site_name)
    finally:
        server.close()


def _handlers(
    runtime: SiteRuntime, front_end: FrontEnd | None, started_at: float
) -> dict[str, Handler]:
    kind = front_end.kind if front_end else "none"
    volumes = VolumeControl(runtime)
    known = {"group": runtime.group.name, "site": runtime.part.name, "version": __version__}
    return {
        "status": lambda _: group_status(runtime, kind, started_at),
        "pulls": lambda _: pull_history(runtime),
        "bookmark": lambda given: make_bookmark(runtime, given.get("name", "")),
        **operations(runtime),
        "volumes": lambda _: volumes.listing(),
        "volume-change": volumes.change,
        **verify_handlers(runtime),
        **role_handlers(runtime),
        "ping": lambda _: known,
    }


def _serve(runtime: SiteRuntime, front_end: FrontEnd | None) -> bool:
    """Run until told to end (False) or until the role has changed (True); all is closed then."""
    runtime.on_role_change = lambda: os.kill(os.getpid(), _ANEW)
    try:
        if front_end is not None:
            front_end.hold()
            runtime.on_halt = _in_background(front_end)
            runtime.hang_up = front_end.stop
            runtime.on_serving = _starting(runtime, front_end)
        runtime.start()
        if front_end is not None and runtime.state == "halted":
            front_end.stop()
        gc.freeze()  # what is loaded by now lives as long as the process
        notify_systemd("READY=1")
        log.info(
            "ready group=%s site=%s state=%s", runtime.group.name, runtime.part.name, runtime.state
        )
        again = signal.sigwait({*_ENDING, _ANEW}) == _ANEW
        if not again:
            notify_systemd("STOPPING=1")
    finally:
        if front_end is not None:
            front_end.stop()
        runtime.stop()
    log.info("ended" if not again else "role changed")
    return again


def _starting(runtime: SiteRuntime, front_end: FrontEnd) -> Callable[[CommitRunner], None]:
    def start(runner: CommitRunner) -> None:
        front_end.start(runner)
        runtime.on_volumes = front_end.follow

    return start


def _in_background(front_end: FrontEnd) -> Callable[[], None]:
    """A halt may come from a thread that the front end waits for, so hang up from another one."""
    return lambda: threading.Thread(target=front_end.stop, name="halt", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
