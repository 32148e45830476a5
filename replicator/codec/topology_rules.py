"""What must hold between the parts of a topology: chains, references, collisions.

These rules see the values as far as they could be read; a part that was refused already is not
refused again for what follows from that.
"""

from __future__ import annotations

from collections.abc import Iterable

from replicator.codec import naming
from replicator.codec.section import Section
from replicator.codec.topology import Group, GroupSite, Topology


def check_group_sites(group: Group, section: Section) -> None:
    """Refuse more or fewer than one primary, and upstreams that do not lead to it."""
    if not group.sites:
        return
    primaries = [site.name for site in group.sites if site.primary]
    if len(primaries) != 1:
        section.refuse(
            "sites", f"expected exactly one primary, got {', '.join(primaries) or 'none'}"
        )
    upstream_of = {site.name: site.upstream for site in group.sites}
    for site in group.sites:
        if site.upstream is None:
            continue
        key = f"sites.{site.name}.upstream"
        if site.upstream == site.name:
            section.refuse(key, f"{site.name} cannot be its own upstream")
        elif site.upstream not in upstream_of:
            known = ", ".join(upstream_of)
            section.refuse(key, f"unknown site {site.upstream!r}, expected one of: {known}")
        elif cycle := _cycle_from(site.name, upstream_of):
            section.refuse(key, f"cycle of upstreams: {' -> '.join(cycle)}")
    near = [site for site in group.sites if site.sync and site.upstream in upstream_of]
    _check_sync_links(near, primaries, section)


def _check_sync_links(near: list[GroupSite], primaries: list[str], section: Section) -> None:
    """Refuse a sync link that does not begin at the primary, and a second one."""
    for site in near:
        if len(primaries) == 1 and site.upstream != primaries[0]:
            section.refuse(
                f"sites.{site.name}.upstream",
                f"a sync link begins at the primary {primaries[0]}, not at {site.upstream}: the "
                "primary alone writes a near site's journal",
            )
    for site in near[1:]:
        section.refuse(
            f"sites.{site.name}.link",
            f"expected at most one sync link in a group, {near[0].name} has one already",
        )


def _cycle_from(start: str, upstream_of: dict[str, str | None]) -> list[str]:
    chain = [start]
    while (upstream := upstream_of.get(chain[-1])) is not None:
        if upstream == start:
            return [*chain, start]
        if upstream in chain:
            return [*chain, upstream]
        chain.append(upstream)
    return []


def check_whole(topology: Topology, root: Section) -> None:
    """Refuse what does not fit together across groups, sites and hosts."""
    _check_addresses(topology, root)
    _check_references(topology, root)
    _check_initiators(topology, root)
    _check_collisions(topology, root)


def _check_addresses(topology: Topology, root: Section) -> None:
    used = [(site.address, site.name) for site in topology.sites if site.address]
    for address, first, second in _repeated(used):
        root.refuse(f"sites.{second}.address", f"duplicate address {address}, also of {first}")
    folders = [
        (site.devices.path, site.name)
        for site in topology.sites
        if site.devices.kind == "directory" and site.devices.path
    ]
    for folder, first, second in _repeated(folders):
        root.refuse(f"sites.{second}.devices", f"the same directory as {first}: {folder}")


def _check_references(topology: Topology, root: Section) -> None:
    sites = [site.name for site in topology.sites]
    groups = [group.name for group in topology.groups]
    for group in topology.groups:
        for site in group.sites:
            if sites and site.name not in sites:
                known = ", ".join(sites) or "none"
                root.refuse(
                    f"groups.{group.name}.sites.{site.name}",
                    f"unknown site {site.name!r}, the file's sites are: {known}",
                )
    for host in topology.hosts:
        place = f"hosts.{host.name}.groups"
        if root.has("hosts") and not host.groups:
            root.refuse(place, "expected at least one group")
        for name in host.groups:
            if name not in groups:
                known = ", ".join(groups) or "none"
                root.refuse(place, f"unknown group {name!r}, expected one of: {known}")
        if len(set(host.groups)) != len(host.groups):
            root.refuse(place, "duplicate group")


def _check_initiators(topology: Topology, root: Section) -> None:
    sites = {
        naming.site_initiator_iqn(topology.iqn_prefix, site.name): site.name
        for site in topology.sites
    }
    site_names = set(sites.values())
    for host in topology.hosts:
        if host.initiator in sites:
            owner = sites[host.initiator]
            root.refuse(
                f"hosts.{host.name}.initiator", f"duplicate: it is the initiator of site {owner}"
            )
        if host.name in site_names:
            root.refuse(f"hosts.{host.name}", "duplicate name: a site is called the same")
    used = [(host.initiator, host.name) for host in topology.hosts if host.initiator]
    for initiator, first, second in _repeated(used):
        root.refuse(f"hosts.{second}.initiator", f"duplicate initiator {initiator} of {first}")


def _check_collisions(topology: Topology, root: Section) -> None:
    """Refuse two volumes whose device, or backstore, would have the same name at one site."""
    for site in topology.sites:
        names = []
        for group in topology.groups_at(site.name):
            names.append((naming.journal_path(site, group.name), f"groups.{group.name}.journal"))
            part = next(each for each in group.sites if each.name == site.name)
            for volume in group.volumes if part.data else ():
                path = naming.volume_path(site, group.name, volume.name)
                names.append((path, f"groups.{group.name}.volumes.{volume.name}"))
        for path, first, second in _repeated(names):
            if first.split(".")[1] != second.split(".")[1]:
                root.refuse(second, f"device collides with {first}: both are {path} at {site.name}")


def _repeated(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return (key, its first owner, a later owner) for each key that comes again."""
    seen: dict[str, str] = {}
    repeated: list[tuple[str, str, str]] = []
    for key, owner in pairs:
        if key in seen:
            repeated.append((key, seen[key], owner))
        else:
            seen[key] = owner
    return repeated
