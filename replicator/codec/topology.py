"""The topology as values: groups, volumes, sites, links, hosts.

These are only values and look-ups; ``topology_file`` makes them from YAML and refuses every file
in which something does not fit together, so whoever holds a Topology may rely on it: names are
unique and well-formed, each group has one primary, every other site's upstream chain ends there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeVar

import msgspec

from replicator.errors import UsageError

DeviceKind = Literal["lvm", "directory"]
PullInput = Literal["records", "traffic", "capacity", "load", "source"]
Link = Literal["pull", "sync-or-stop", "sync-or-degrade"]


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A data volume of a group; ``id`` is what records in the journal name, never reused."""

    id: int
    name: str
    size_bytes: int


WhenFull = Literal["detach", "throttle", "hold"]


class JournalPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How large each site's journal volume is, and what happens when it is full."""

    size_bytes: int
    when_full: WhenFull = "detach"
    throttle_seconds: float = 0.0
    """For how long hosts may wait for a reader before it is left behind; not with hold."""


class FixedInterval(msgspec.Struct, frozen=True, kw_only=True, tag="fixed"):
    """Pull every so many seconds, whatever happens."""

    seconds: float


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The shortest and longest interval that one input may propose, seconds."""

    min_seconds: float
    max_seconds: float


class AdaptiveInterval(msgspec.Struct, frozen=True, kw_only=True, tag="adaptive"):
    """Pull at an interval between two bounds, computed from the named inputs and a target RPO.

    ``bounds`` narrows what single inputs may propose. ``traffic_limit`` is bytes a second (set if
    and only if ``traffic`` is an input), ``load_limit`` a part of the machine from 0 to 1.
    Without an input there is a target RPO, which then decides alone.
    """

    inputs: tuple[PullInput, ...] = ("records", "capacity", "source")
    min_seconds: float = 0.1
    max_seconds: float = 1.0
    bounds: dict[PullInput, Bounds] = {}
    traffic_limit: float | None = None
    load_limit: float = 0.7
    rpo_seconds: float | None = None

    def bounds_of(self, name: str) -> tuple[float, float]:
        """Return the shortest and longest interval that input ``name`` may propose, seconds."""
        for each, bounds in self.bounds.items():
            if each == name:
                return bounds.min_seconds, bounds.max_seconds
        return self.min_seconds, self.max_seconds


Interval = FixedInterval | AdaptiveInterval


class RestorePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a site brings its volumes up to date: slower above a load, and so much later.

    ``load_limit`` is a part of the own machine, 0 to 1, None: whatever the load.
    """

    load_limit: float | None = None
    delay_seconds: float = 0.0


class GroupSite(msgspec.Struct, frozen=True, kw_only=True):
    """A site's part in one group; ``upstream`` is where its journal's content comes from.

    With ``link`` pull the site reads it there itself; with a sync link ``upstream`` is the
    primary, which writes this site's ring. ``data`` False is a site that keeps only a journal.
    """

    name: str
    primary: bool = False
    upstream: str | None = None
    link: Link = "pull"
    data: bool = True
    interval: Interval = AdaptiveInterval()
    restore: RestorePolicy = RestorePolicy()
    rpo_seconds: float | None = None
    """The most lag behind the primary that the operator wants here; also in ``interval``."""

    @property
    def sync(self) -> bool:
        """Whether the primary writes this site's ring."""
        return self.link != "pull"


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A consistency group: volumes that share one sequence of writes."""

    name: str
    volumes: tuple[Volume, ...]
    journal: JournalPolicy
    sites: tuple[GroupSite, ...]
    verify_rate: float | None = None
    """Bytes of volumes a second that the primary verifies, again and again; None: not by itself."""

    def volume(self, name: str) -> Volume:
        """Return the volume called ``name``; UsageError names those that exist."""
        return _named(self.volumes, name, f"volume of group {self.name}")

    def site(self, name: str) -> GroupSite:
        """Return the part of site ``name``; UsageError names those that exist."""
        return _named(self.sites, name, f"site of group {self.name}")

    @property
    def primary(self) -> GroupSite:
        """Return the site that hosts write at, as the file has it (a journal may know better)."""
        return next(site for site in self.sites if site.primary)

    def peers(self, name: str) -> tuple[GroupSite, ...]:
        """Return every site but ``name``, in the order of the file."""
        return tuple(site for site in self.sites if site.name != name)

    def downstream(self, name: str) -> tuple[GroupSite, ...]:
        """Return the sites that pull from ``name``."""
        return tuple(site for site in self.sites if site.upstream == name and not site.sync)

    @property
    def near(self) -> GroupSite | None:
        """Return the site at the near end of the sync link, None without one."""
        return next((site for site in self.sites if site.sync), None)


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """Where a site's volumes live: ``path`` is a volume group's name or an absolute directory."""

    kind: DeviceKind
    path: str


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A place with its own journals and volumes; ``address`` is its portal's IPv4 address."""

    name: str
    address: str
    devices: Devices


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that may log in to the data targets of ``groups``."""

    name: str
    initiator: str
    groups: tuple[str, ...]


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the one file says; the same at every node."""

    iqn_prefix: str
    groups: tuple[Group, ...]
    sites: tuple[Site, ...]
    hosts: tuple[Host, ...]

    def group(self, name: str) -> Group:
        """Return the group called ``name``; UsageError names those that exist."""
        return _named(self.groups, name, "group")

    def site(self, name: str) -> Site:
        """Return the site called ``name``; UsageError names those that exist."""
        return _named(self.sites, name, "site")

    def host(self, name: str) -> Host:
        """Return the host called ``name``; UsageError names those that exist."""
        return _named(self.hosts, name, "host")

    def groups_at(self, site: str) -> tuple[Group, ...]:
        """Return the groups that have a part at ``site``."""
        return tuple(g for g in self.groups if any(part.name == site for part in g.sites))

    def hosts_of(self, group: str) -> tuple[Host, ...]:
        """Return the hosts that may use ``group``."""
        return tuple(host for host in self.hosts if group in host.groups)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_T = TypeVar("_T", bound=_Named)


def _named(things: Iterable[_T], name: str, what: str) -> _T:
    known = []
    for thing in things:
        if thing.name == name:
            return thing
        known.append(thing.name)
    raise UsageError(
        f"no {what} is called {name!r}; the topology has: {', '.join(known) or 'none'}"
    )
