"""Open a site's own devices and its view of the peers', as the topology names them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from replicator.codec import naming
from replicator.codec.history import Catalog, VolumeEntry
from replicator.codec.topology import Group, GroupSite, Topology
from replicator.codec.volume_changes import describe_change, difference
from replicator.errors import DeviceUnusable, WrongJournal
from replicator.group.image import Images
from replicator.group.journal_place import current_journal
from replicator.group.standing import roles_have_changed
from replicator.group.volume_set import OpenVolume, VolumeSet
from replicator.journal.format import NewJournal
from replicator.journal.journal import Journal, Owner
from replicator.journal.layout import ring_place
from replicator.journal.peer import Peer
from replicator.seams.blockdevice import VolumeDevice
from replicator.seams.filedevice import CachedDevice, DirectDevice
from replicator.seams.legdevice import FileLeg, IscsiLeg, LegDevice
from replicator.seams.movabledevice import MovableDevice
from replicator.seams.remotedevice import RemoteJournalDevice
from replicator.seams.volume import DataVolume

log = logging.getLogger(__name__)


def _no_device(name: str) -> VolumeDevice:
    raise DeviceUnusable(f"volume {name}: this site has no device for it")


@dataclass(frozen=True, slots=True)
class SiteDevices:
    """What a site works with: own journal (locked), own data volumes, peers' journals."""

    journal: Journal
    volumes: dict[int, DataVolume]
    peers: dict[str, Peer]
    open_volume: OpenVolume = _no_device
    """Opens the device of a volume that comes to the group later."""
    images: Images | None = None
    """Where the last consistent state of the volumes may be kept."""
    leg: LegDevice | None = None
    """At the primary of a sync link: the near site's journal, to be written."""

    def close(self) -> None:
        """Close everything; locks are given up."""
        self.journal.device.close()
        for volume in self.volumes.values():
            volume.device.close()
        for peer in self.peers.values():
            peer.close()
        if self.leg is not None:
            self.leg.close()


def catalog_volumes(group: Group) -> tuple[VolumeEntry, ...]:
    """Return the group's volumes as a catalog states them."""
    return tuple(VolumeEntry(each.id, each.name, each.size_bytes) for each in group.volumes)


def new_journal(group: Group, site: str) -> NewJournal:
    """Return what the journal of ``group`` at ``site`` is to be formatted for."""
    part = group.site(site)
    return NewJournal(
        group=group.name,
        site=site,
        upstream=part.upstream,
        smallest_ring=ring_place(group.journal.size_bytes).size,
        volumes=catalog_volumes(group) if part.primary else (),
        writer=part.upstream if part.sync else None,
    )


def check_catalog(journal: Journal, catalog: Catalog, group: Group) -> None:
    """Refuse (WrongJournal) a topology that asks for what the group's volumes can never become.

    What it may ask for (volumes added, grown, removed) is only logged: the catalog is in force.
    """
    found = difference(catalog, group)
    if found.violations:
        raise WrongJournal(
            f"{journal.device.name}: {'; '.join(found.violations)}; mend the topology file"
        )
    for change in found.changes:
        log.warning("topology differs from the group change=%r", describe_change(change))


def open_site(topology: Topology, group_name: str, site_name: str, boot_id: bytes) -> SiteDevices:
    """Open and check every own device of a site; nothing is written.

    Raises the errors of the devices and of Journal.open; WrongJournal if role or volumes differ
    from the topology; whatever was opened is closed again.
    """
    group = topology.group(group_name)
    site = topology.site(site_name)
    part = group.site(site_name)
    others = tuple(each.name for each in group.peers(site_name))
    path = current_journal(Path(naming.journal_path(site, group_name)))
    device = MovableDevice(DirectDevice(path, writable=True, lock=True))

    def open_volume(name: str) -> VolumeDevice:
        return CachedDevice(Path(naming.volume_path(site, group_name, name)))

    opened = VolumeSet(open_volume)
    try:
        journal = Journal.open(device, Owner(group_name, site_name, boot_id, others))
        _check_role(journal, part)
        if journal.attached:
            check_catalog(journal, journal.catalog, group)
        opened.prepare(_first_volumes(journal, group) if part.data else ())
    except BaseException:
        device.close()
        opened.close()
        raise
    peers = {
        name: Peer(
            name,
            RemoteJournalDevice(Path(naming.peer_journal_path(topology, group_name, name))),
            journal,
        )
        for name in others
    }
    images = Images(topology.site(part.name), group.name, copies=False)
    leg = _leg(topology, group, part)
    return SiteDevices(journal, opened.by_id, peers, open_volume, images, leg)


def _leg(topology: Topology, group: Group, part: GroupSite) -> LegDevice | None:
    near = group.near
    if near is None or not part.primary:
        return None
    path = Path(naming.leg_path(topology, group.name, near.name))
    if topology.site(near.name).devices.kind == "directory":
        return FileLeg(path)
    return IscsiLeg(path, naming.leg_target_iqn(topology.iqn_prefix, group.name, near.name))


def _first_volumes(journal: Journal, group: Group) -> tuple[VolumeEntry, ...]:
    """Return the volumes to begin with: the group's, or the topology's where none is known yet."""
    return journal.catalog.volumes if journal.attached else catalog_volumes(group)


def _check_role(journal: Journal, part: GroupSite) -> None:
    body, upstream = journal.body, part.upstream
    writer = upstream if part.sync else None
    if body.writer != writer:
        raise WrongJournal(
            f"{journal.device.name}: its page says that {body.writer or 'its owner'} writes it, "
            f"the topology's link {part.link} means {writer or 'its owner'}; a journal is "
            "formatted for its link, and links are not changed by editing the topology"
        )
    if roles_have_changed(journal):
        if body.upstream != upstream:
            log.info("the page's role holds upstream=%s topology=%s", body.upstream, upstream)
        return
    if body.upstream != upstream:
        raise WrongJournal(
            f"{journal.device.name}: its page says upstream {body.upstream or 'none (primary)'}, "
            f"the topology says {upstream or 'none (primary)'}; roles are not changed by editing "
            "the topology"
        )
