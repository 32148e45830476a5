"""Three sites under one folder: topology, files, journals, processes."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from replicator.codec import naming
from replicator.codec.topology import Topology
from replicator.embedded.daemon import EmbeddedSite
from replicator.errors import DaemonUnreachable, NotBlank
from replicator.group.devices import new_journal
from replicator.journal.format import format_journal
from replicator.seams.boot import boot_id
from replicator.seams.filedevice import DirectDevice, preallocate
from replicator.seams.nodefiles import read_topology
from replicator.status import GroupStatus, PositionStatus

GROUP = "orders"
SITES = ("a", "b", "c")
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class LabPlan:
    """What the lab is made of; sizes and intervals as the topology file writes them."""

    volumes: Mapping[str, str] = field(default_factory=lambda: {"files": "96MiB", "db": "64MiB"})
    journal: str = "128MiB"
    when_full: str = "hold"
    interval: Mapping[str, object] = field(default_factory=lambda: {"fixed": "100ms"})
    site_options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What the topology file says of single sites besides or instead (interval, rpo, ...)."""
    group_options: Mapping[str, object] = field(default_factory=dict)
    """What it says of the group besides (verify, ...)."""
    sites: tuple[str, ...] = SITES
    """The first is primary, each other one pulls from the one before it."""


NEAR_SITES: Mapping[str, Mapping[str, object]] = {
    "async": {},
    "bunker": {"link": "sync-or-stop", "data": "none"},
    "sync": {"link": "sync-or-stop"},
}
"""What the topology file says of site b, by the name of the topology."""


class EmbeddedLab:
    """The lab in ``folder``. ``make`` creates it; ``start`` and ``stop`` run all of it."""

    def __init__(self, folder: Path, plan: LabPlan | None = None) -> None:
        self.folder = folder.absolute()
        self.plan = plan or LabPlan()
        self.topology_path = self.folder / "topology.yml"
        self.sites: dict[str, EmbeddedSite] = {}

    def make(self) -> None:
        """Write the topology, preallocate every file, format the journals.

        Raises NotBlank if the folder holds something else than an earlier lab, DeviceUnusable if
        there is no room.
        """
        self._clear()
        for name in self.plan.sites:
            (self.folder / name).mkdir(parents=True)
        self.topology_path.write_text(yaml.safe_dump(self._topology(), sort_keys=False))
        topology = read_topology(self.topology_path)
        for name in self.plan.sites:
            self.make_files(topology, name)
            self.sites[name] = EmbeddedSite(self.topology_path, topology, GROUP, name)

    def _clear(self) -> None:
        """Remove an earlier lab, and nothing else."""
        if not self.folder.exists():
            return
        if any(self.folder.iterdir()) and not self.topology_path.exists():
            raise NotBlank(f"{self.folder}: holds something that is no lab; name another folder")
        shutil.rmtree(self.folder)

    def _topology(self) -> dict[str, object]:
        chain = self.plan.sites
        sites: dict[str, object] = {chain[0]: {"primary": True}}
        for upstream, name in itertools.pairwise(chain):
            part = {"upstream": upstream, "link": "pull", **self.plan.site_options.get(name, {})}
            if part["link"] == "pull" and "interval" not in part:
                part["interval"] = copy.deepcopy(dict(self.plan.interval))  # YAML would alias it
            sites[name] = part
        group = {
            "volumes": dict(self.plan.volumes),
            "journal": {"size": self.plan.journal, "when_full": self.plan.when_full},
            "sites": sites,
            **self.plan.group_options,
        }
        places = {
            name: {"address": f"198.51.100.{11 + at}", "devices": f"directory:{name}"}
            for at, name in enumerate(chain)
        }
        return {"groups": {GROUP: group}, "sites": places}

    @staticmethod
    def make_files(topology: Topology, name: str) -> None:
        """Preallocate one site's files and format its journal."""
        site, group = topology.site(name), topology.group(GROUP)
        for volume in group.volumes if group.site(name).data else ():
            path = Path(naming.volume_path(site, GROUP, volume.name))
            preallocate(path, volume.size_bytes, written=True)
        journal = Path(naming.journal_path(site, GROUP))
        preallocate(journal, group.journal.size_bytes, written=True)
        device = DirectDevice(journal, writable=True, lock=True)
        try:
            format_journal(device, new_journal(group, name), os.urandom, boot_id())
        finally:
            device.close()

    def set_volumes(self, volumes: Mapping[str, object]) -> None:
        """Write the topology anew with these volumes (name to size, or to id and size).

        Files that are missing are made and those that are too small are lengthened, at every
        site, as role ``volumes`` does on a node; nothing is taken away.
        """
        content = self._topology()
        groups = content["groups"]
        assert isinstance(groups, dict)
        groups[GROUP]["volumes"] = dict(volumes)
        fresh = self.topology_path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(content, sort_keys=False))
        topology = read_topology(fresh)
        for name in self.plan.sites:
            for volume in topology.group(GROUP).volumes:
                path = Path(naming.volume_path(topology.site(name), GROUP, volume.name))
                if not path.exists():
                    preallocate(path, volume.size_bytes, written=True)
                elif path.stat().st_size < volume.size_bytes:
                    os.truncate(path, volume.size_bytes)
        fresh.replace(self.topology_path)

    def remake_journal(self, name: str) -> None:
        """Replace a site's journal by a freshly formatted one, as a replaced disk would be.

        The file stays the same one: other sites hold it open, as they hold a LUN.
        """
        topology = read_topology(self.topology_path)
        with self.sites[name].journal_path.open("r+b") as file:
            file.write(bytes(topology.group(GROUP).journal.size_bytes))
        self.make_files(topology, name)

    @property
    def primary(self) -> EmbeddedSite:
        """The site that clients write at."""
        return self.sites[self.plan.sites[0]]

    def start(self) -> None:
        """Start every site's daemon and wait until each is ready."""
        for site in self.sites.values():
            site.start()
        self.wait_serving()

    def wait_serving(self, timeout: float = 30.0) -> None:
        """Wait until the primary serves: with a sync link that is when the near site has been met.

        Raises DaemonUnreachable with the state and reason that it had in the end.
        """
        deadline = time.monotonic() + timeout
        while (own := self.primary.status().own).state != "serving":
            if own.state == "halted" or time.monotonic() > deadline:
                raise DaemonUnreachable(f"site {own.site}: {own.state}: {own.reason}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End every daemon, the downstream ones last."""
        for site in self.sites.values():
            site.stop()

    def kill_all(self) -> None:
        """End every daemon at once (for the way out of a failure)."""
        for site in self.sites.values():
            if site.running:
                site.kill()

    def wait_converged(
        self, timeout: float = 60.0, watch: Callable[[], object] = lambda: None
    ) -> PositionStatus:
        """Wait until b and c have restored, durably, all that a holds; return that point.

        Clients must have ended. Raises DaemonUnreachable with what was missing in the end.
        """
        deadline = time.monotonic() + timeout
        while True:
            points = {name: _own_points(site.status()) for name, site in self.sites.items()}
            head = points[self.plan.sites[0]][0]
            if all(restored == head for _, restored in points.values()):
                return head
            if time.monotonic() > deadline:
                said = {n: (r.position, d.position) for n, (r, d) in points.items()}
                raise DaemonUnreachable(
                    f"not converged within {timeout:g} s: (received, restored) at each site: {said}"
                )
            watch()
            time.sleep(_POLL_SECONDS)

    def digests(self, volumes: Iterable[str] = ()) -> dict[str, dict[str, str]]:
        """Return SHA-256 of every site's volumes (the plan's, or these), by volume and site."""
        return {
            volume: {
                name: file_digest(site.volume_path(volume))
                for name, site in self.sites.items()
                if site.volume_path(volume).exists()
            }
            for volume in volumes or self.plan.volumes
        }


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_points(status: GroupStatus) -> tuple[PositionStatus, PositionStatus]:
    own = status.own
    nothing = PositionStatus(position=0, digest="", sequence=0, time_ns=0)
    return own.received or nothing, own.restored or nothing
