#!/usr/bin/python
"""Ansible module: what one node is to hold and whom it is to talk to, from the topology file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: towline_topology
short_description: Derive one node's volumes, targets and sessions from the topology
description:
  - Runs on the controller, with the project's own code for reading the topology and for names.
  - Refuses a topology that does not fit together, with every violation at once.
options:
  project: {description: The project's folder., type: path, required: true}
  file: {description: The topology file., type: path, required: true}
  node: {description: The name of a site or of a host in it., type: str, required: true}
"""

RETURN = r"""
plan:
  description: Kind, initiator, devices, logical volumes, sessions, names of CHAP entries.
  returned: success
  type: dict
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "path", "required": True},
            "file": {"type": "path", "required": True},
            "node": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    sys.path.insert(0, str(Path(module.params["project"]).resolve()))
    try:
        module.exit_json(changed=False, plan=plan(module.params["file"], module.params["node"]))
    except ImportError as error:
        module.fail_json(msg=f"the controller's Python lacks a package: {error}")
    except ValueError as error:
        module.fail_json(msg=str(error))


def plan(path: str, node: str) -> dict[str, Any]:
    """Return the plan of the site or host called ``node``; ValueError says what is wrong."""
    from replicator.errors import TowlineError
    from replicator.seams.nodefiles import read_topology

    try:
        topology = read_topology(path)
    except TowlineError as error:
        raise ValueError(str(error)) from error
    sites = [site.name for site in topology.sites]
    hosts = [host.name for host in topology.hosts]
    if node in sites:
        return _site_plan(topology, node)
    if node in hosts:
        return _host_plan(topology, node)
    raise ValueError(f"{path} has neither a site nor a host {node}: sites {sites}, hosts {hosts}")


def _site_plan(topology: Any, name: str) -> dict[str, Any]:
    from replicator.codec import naming

    site = topology.site(name)
    groups = topology.groups_at(name)
    prefix = topology.iqn_prefix
    own = naming.site_initiator_iqn(prefix, name)
    sessions = [
        _session(topology, naming.journal_target_iqn(prefix, group.name, peer.name), peer.name, 1)
        | {"group": group.name, "purpose": "journal"}
        for group in groups
        for peer in group.peers(name)
        if topology.site(peer.name).devices.kind == "lvm"
    ]
    sessions += [
        _session(topology, naming.leg_target_iqn(prefix, group.name, near.name), near.name, 1)
        | {"group": group.name, "purpose": "leg"}
        for group in groups
        if (near := group.near) is not None
        and near.upstream == name
        and topology.site(near.name).devices.kind == "lvm"
    ]
    allowed = {own}
    for group in groups:
        allowed |= {naming.site_initiator_iqn(prefix, peer.name) for peer in group.peers(name)}
        allowed |= {host.initiator for host in topology.hosts_of(group.name)}
    return {
        "kind": "site",
        "groups": [group.name for group in groups],
        "prefix": prefix,
        "initiator": own,
        "chap_user": naming.chap_userid(name),
        "devices": {"kind": site.devices.kind, "path": site.devices.path},
        "volumes": [volume for group in groups for volume in _volumes(site, group)],
        "journals": {group.name: naming.journal_path(site, group.name) for group in groups},
        "sessions": sessions,
        "chap_entries": sorted(allowed),
    }


def _volumes(site: Any, group: Any) -> list[dict[str, Any]]:
    """Return the journal volume and the data volumes of a group at a site."""
    from replicator.codec import naming

    sizes = {naming.journal_path(site, group.name): group.journal.size_bytes}
    for volume in group.volumes if group.site(site.name).data else ():
        sizes[naming.volume_path(site, group.name, volume.name)] = volume.size_bytes
    return [
        {"name": path.rsplit("/", 1)[1], "path": path, "size_bytes": size_bytes}
        for path, size_bytes in sizes.items()
    ]


def _host_plan(topology: Any, name: str) -> dict[str, Any]:
    from replicator.codec import naming

    host = topology.host(name)
    sessions = []
    for group in map(topology.group, host.groups):
        site = group.primary.name
        target = naming.data_target_iqn(topology.iqn_prefix, group.name, site)
        session = _session(topology, target, site, len(group.volumes))
        volumes = {volume.name: session["devices"][i] for i, volume in enumerate(group.volumes)}
        sessions.append(session | {"group": group.name, "purpose": "data", "volumes": volumes})
    return {
        "kind": "host",
        "groups": list(host.groups),
        "prefix": topology.iqn_prefix,
        "initiator": host.initiator,
        "chap_user": naming.chap_userid(name),
        "sessions": sessions,
        "chap_entries": [host.initiator],
    }


def _session(topology: Any, target: str, site: str, luns: int) -> dict[str, Any]:
    from replicator.codec import naming

    portal = naming.portal(topology.site(site))
    by_path = f"/dev/disk/by-path/ip-{portal}-iscsi-{target}-lun-"
    return {
        "target": target,
        "address": topology.site(site).address,
        "port": naming.PORTAL_PORT,
        "site": site,
        "mutual_user": naming.chap_mutual_userid(site),
        "devices": [f"{by_path}{lun}" for lun in range(luns)],
    }


if __name__ == "__main__":
    main()
