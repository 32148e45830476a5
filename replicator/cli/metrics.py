"""replicatorctl metrics: what this node knows, for Prometheus: once, or over HTTP."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator

from replicator.cli.node import Node, add_topology_flags, site_name, topology_path
from replicator.daemon.control import ask
from replicator.errors import DeviceUnusable, TowlineError, UsageError
from replicator.seams.nodefiles import read_topology
from replicator.status import GroupStatus, unseen_site

DEFAULT_PORT = 9700
_PATIENCE_SECONDS = 2.0
_ENDING = {signal.SIGTERM, signal.SIGINT}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``metrics``."""
    parser = commands.add_parser("metrics", help="print metrics for Prometheus, or serve them")
    add_topology_flags(parser)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        help=f"serve over HTTP until told to end, such as 127.0.0.1:{DEFAULT_PORT}",
    )
    parser.set_defaults(run=run_metrics)


def run_metrics(arguments: argparse.Namespace) -> int:
    """Print the metrics of every group at this site, or serve them."""
    # Only this command needs prometheus_client, so only it loads it.
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server
    from prometheus_client.core import Metric

    from replicator.daemon.metrics import families

    path, name = topology_path(arguments), site_name(arguments)
    _nodes(path, name)  # a bad topology is refused now and not at the first scrape

    class Collector:
        """Asks each group's daemon at each scrape; groups may come and go."""

        def collect(self) -> Iterator[Metric]:
            yield from families([_status(node) for node in _nodes(path, name)])

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    if arguments.listen is None:
        print(generate_latest(registry).decode(), end="")
        return 0
    address, port = parse_listen(arguments.listen)
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise DeviceUnusable(
            f"{arguments.listen}: cannot serve metrics there: {error.strerror or error}"
        ) from error
    print(f"serving http://{address}:{server.server_port}/metrics", flush=True)
    signal.sigwait(_ENDING)
    server.shutdown()
    thread.join()
    return 0


def parse_listen(text: str) -> tuple[str, int]:
    """Return address and port of ``ADDRESS:PORT``; UsageError otherwise (port 0: any)."""
    address, colon, port = text.rpartition(":")
    if not colon or not address or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen: expected ADDRESS:PORT such as 127.0.0.1:9700, got {text!r}")
    return address.strip("[]"), int(port)


def _nodes(path: str, site: str) -> list[Node]:
    topology = read_topology(path)
    here = topology.site(site)
    return [Node(topology, here, group) for group in topology.groups_at(site)]


def _status(node: Node) -> GroupStatus:
    try:
        return ask(
            node.control_socket, "status", kind=GroupStatus, timeout_seconds=_PATIENCE_SECONDS
        )
    except TowlineError as error:
        own = unseen_site(node.site.name, str(error))
        return GroupStatus(group=node.group.name, site=node.site.name, at_ns=0, sites=(own,))
