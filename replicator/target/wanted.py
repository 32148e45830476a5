"""The wanted LIO tree of a site, from the topology and its CHAP secrets. Pure.

Two targets per group, on purpose: a session that holds a writable LUN could EXTENDED COPY into a
read-only one of the same target. The journal target maps its LUN read-only for every other site;
the data target maps the volumes for the group's hosts and is enabled at the primary alone. At the
near site of a sync link a third one, the leg, maps the journal writable for its one writer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from replicator.codec import naming
from replicator.codec.scsi.device import AluaState
from replicator.codec.target_tree import (
    BlockBackstore,
    Credentials,
    Kind,
    MappedLun,
    Tree,
    UserBackstore,
    in_creation_order,
)
from replicator.codec.topology import Group, Site, Topology
from replicator.errors import ConfigError

HW_MAX_SECTORS = 2048
DATA_AREA_MIB = 64

JOURNAL_ATTRIBUTES = {"emulate_3pc": "0", "emulate_pr": "0", "emulate_tpu": "0", "emulate_caw": "0"}
"""No EXTENDED COPY, reservations, UNMAP or COMPARE AND WRITE on a journal."""
VOLUME_ATTRIBUTES = {"cmd_time_out": "0"}
"""A command waits for its answer as long as a restart of the daemon takes."""
TPG_ATTRIBUTES = {
    "authentication": "1",
    "generate_node_acls": "0",
    "cache_dynamic_acls": "0",
    "demo_mode_write_protect": "1",
    "demo_mode_discovery": "0",
}
TPG_PARAMETERS = {
    "AuthMethod": "CHAP",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "FirstBurstLength": "262144",
    "MaxBurstLength": "1048576",
    "MaxRecvDataSegmentLength": "262144",
    "MaxXmitDataSegmentLength": "262144",
}
"""Unsolicited data and large segments: a 128 KiB write is one request and no turn-around."""


@dataclass(frozen=True, slots=True)
class ChapSecret:
    """The two passwords of one initiator; neither is ever shown."""

    password: str = field(repr=False)
    mutual_password: str = field(repr=False)


def wanted_tree(
    topology: Topology,
    site_name: str,
    secrets: Mapping[str, ChapSecret],
    serves: Callable[[Group], bool] | None = None,
    writer: Callable[[Group], str | None] | None = None,
) -> Tree:
    """Return what LIO should hold at ``site_name``.

    ``serves`` tells whether this site answers hosts for a group, ``writer`` which other site may
    write the group's ring here (None: nobody); by default both are as the topology has it. Raises
    ConfigError with every initiator that has no secret.
    """
    site = topology.site(site_name)
    tree: Tree = {}
    if site.devices.kind != "lvm":
        return tree
    # Authentication is asked for and no user may: node records are static, nobody discovers.
    tree[Kind.DISCOVERY_CLOSED, "iscsi"] = True
    builder = _Builder(topology, site, secrets, tree)
    for group in topology.groups_at(site_name):
        serving = group.primary.name == site_name if serves is None else serves(group)
        part = group.site(site_name)
        may_write = (part.upstream if part.sync else None) if writer is None else writer(group)
        builder.add_journal_target(group, written_from_afar=part.sync)
        if part.sync:
            builder.add_leg_target(group, may_write)
        if part.data:
            builder.add_data_target(group, serving)
    if builder.missing:
        raise ConfigError(
            naming.DEFAULT_SECRETS_PATH,
            [f"no CHAP entry for {initiator}" for initiator in sorted(builder.missing)],
        )
    return in_creation_order(tree)


@dataclass(slots=True)
class _Builder:
    topology: Topology
    site: Site
    secrets: Mapping[str, ChapSecret]
    tree: Tree
    missing: set[str] = field(default_factory=set)

    def add_journal_target(self, group: Group, *, written_from_afar: bool) -> None:
        name = naming.journal_backstore(group.name)
        self.tree[Kind.BACKSTORE, "block", name] = BlockBackstore(
            naming.journal_path(self.site, group.name),
            naming.journal_serial(group.name, self.site.name),
            read_only=not written_from_afar,
        )
        for attribute, value in JOURNAL_ATTRIBUTES.items():
            self.tree[Kind.BACKSTORE_ATTRIBUTE, "block", name, attribute] = value
        iqn = naming.journal_target_iqn(self.topology.iqn_prefix, group.name, self.site.name)
        self._add_target(iqn, enabled=True)
        self.tree[Kind.LUN, iqn, "0"] = f"block/{name}"
        for peer in group.peers(self.site.name):
            initiator = naming.site_initiator_iqn(self.topology.iqn_prefix, peer.name)
            self._add_acl(iqn, initiator, peer.name)
            self.tree[Kind.MAPPED_LUN, iqn, initiator, "0"] = MappedLun(0, write_protect=True)

    def add_leg_target(self, group: Group, writer: str | None) -> None:
        """Map the journal writable for its one writer; without one nobody can log in at all."""
        iqn = naming.leg_target_iqn(self.topology.iqn_prefix, group.name, self.site.name)
        self._add_target(iqn, enabled=writer is not None)
        self.tree[Kind.LUN, iqn, "0"] = f"block/{naming.journal_backstore(group.name)}"
        if writer is not None:
            initiator = naming.site_initiator_iqn(self.topology.iqn_prefix, writer)
            self._add_acl(iqn, initiator, writer)
            self.tree[Kind.MAPPED_LUN, iqn, initiator, "0"] = MappedLun(0, write_protect=False)

    def add_data_target(self, group: Group, serving: bool) -> None:
        iqn = naming.data_target_iqn(self.topology.iqn_prefix, group.name, self.site.name)
        self._add_target(iqn, enabled=serving)
        for volume in group.volumes:
            name = naming.volume_backstore(group.name, volume.name)
            self.tree[Kind.BACKSTORE, "user", name] = UserBackstore(
                naming.tcmu_config(group.name, volume.name),
                volume.size_bytes,
                naming.volume_serial(group.name, volume.name),
                HW_MAX_SECTORS,
                DATA_AREA_MIB,
            )
            for attribute, value in VOLUME_ATTRIBUTES.items():
                self.tree[Kind.BACKSTORE_ATTRIBUTE, "user", name, attribute] = value
            state = AluaState.ACTIVE if serving else AluaState.STANDBY
            self.tree[Kind.ALUA_STATE, "user", name] = int(state)
            lun = naming.data_lun(group, volume.name)
            self.tree[Kind.LUN, iqn, str(lun)] = f"user/{name}"
        for host in self.topology.hosts_of(group.name):
            self._add_acl(iqn, host.initiator, host.name)
            for volume in group.volumes:
                lun = naming.data_lun(group, volume.name)
                key = (Kind.MAPPED_LUN, iqn, host.initiator, str(lun))
                self.tree[key] = MappedLun(lun, write_protect=False)

    def _add_target(self, iqn: str, enabled: bool) -> None:
        self.tree[Kind.TARGET, iqn] = True
        for attribute, value in TPG_ATTRIBUTES.items():
            self.tree[Kind.TPG_ATTRIBUTE, iqn, attribute] = value
        for parameter, value in TPG_PARAMETERS.items():
            self.tree[Kind.TPG_PARAMETER, iqn, parameter] = value
        self.tree[Kind.PORTAL, iqn, naming.portal(self.site)] = True
        self.tree[Kind.ENABLED, iqn] = enabled

    def _add_acl(self, iqn: str, initiator: str, initiator_name: str) -> None:
        self.tree[Kind.ACL, iqn, initiator] = True
        secret = self.secrets.get(initiator)
        if secret is None:
            self.missing.add(initiator)
            return
        self.tree[Kind.CHAP, iqn, initiator] = Credentials(
            userid=naming.chap_userid(initiator_name),
            mutual_userid=naming.chap_mutual_userid(self.site.name),
            password=secret.password,
            mutual_password=secret.mutual_password,
        )
