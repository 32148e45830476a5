"""Every name that is derived from the topology, in one place: paths, IQNs, NAA ids, CHAP users.

Pure functions: the same topology gives the same names at every node, so that one site can
compute what another one exports. Names of groups, sites and volumes hold no dot, which is why
the dotted forms below cannot collide; the dashed ones are checked by ``topology_file``.
"""

from __future__ import annotations

import hashlib

from replicator.codec.topology import Group, Site, Topology

DEFAULT_TOPOLOGY_PATH = "/etc/towline/topology.yml"
DEFAULT_SITE_PATH = "/etc/towline/site"
DEFAULT_SECRETS_PATH = "/etc/towline/secrets.yml"
STATE_DIRECTORY = "/var/lib/towline"
RUN_DIRECTORY = "/run/towline"
CONTROL_UNIX_GROUP = "towline"
PORTAL_PORT = 3260
JOURNAL_SUFFIX = "journal"
TCMU_HANDLER = "towline"

NAA_VENDOR = "6001405"
"""NAA type 6 and LIO's IEEE company id: what the kernel puts before the serial's digits."""


def journal_path(site: Site, group: str) -> str:
    """Return the path of ``group``'s journal volume at ``site``, as seen at that site."""
    if site.devices.kind == "lvm":
        return f"/dev/{site.devices.path}/{group}-{JOURNAL_SUFFIX}"
    return f"{site.devices.path}/{group}.{JOURNAL_SUFFIX}"


def next_journal_path(site: Site, group: str) -> str:
    """Return where a directory site makes the journal that takes the present one's place."""
    return f"{journal_path(site, group)}.next"


def volume_path(site: Site, group: str, volume: str) -> str:
    """Return the path of a data volume at ``site``, as seen at that site."""
    if site.devices.kind == "lvm":
        return f"/dev/{site.devices.path}/{group}-{volume}"
    return f"{site.devices.path}/{group}.{volume}.img"


def images_directory(site: Site, group: str) -> str:
    """Return where the notes of a group's kept images are (on files, the clones too)."""
    if site.devices.kind == "lvm":
        return f"{STATE_DIRECTORY}/images/{group}"
    return f"{site.devices.path}/{group}.images"


def image_volume_path(site: Site, group: str, volume: str, image: str) -> str:
    """Return the path of a volume's clone in a kept image; names hold no dot, so it is unique."""
    if site.devices.kind == "lvm":
        return f"/dev/{site.devices.path}/{group}-{volume}.{image}"
    return f"{images_directory(site, group)}/{image}.{volume}.img"


def peer_journal_path(topology: Topology, group: str, peer: str) -> str:
    """Return where another site finds ``peer``'s journal: its iSCSI LUN, or the file itself."""
    site = topology.site(peer)
    if site.devices.kind == "directory":
        return journal_path(site, group)
    target = journal_target_iqn(topology.iqn_prefix, group, peer)
    return f"/dev/disk/by-path/ip-{portal(site)}-iscsi-{target}-lun-0"


def leg_path(topology: Topology, group: str, near: str) -> str:
    """Return where the primary writes the journal of a sync link's near site."""
    site = topology.site(near)
    if site.devices.kind == "directory":
        return journal_path(site, group)
    target = leg_target_iqn(topology.iqn_prefix, group, near)
    return f"/dev/disk/by-path/ip-{portal(site)}-iscsi-{target}-lun-0"


def state_directory(site: Site) -> str:
    """Return where a site keeps its sockets: its own directory, or the system's run directory."""
    return site.devices.path if site.devices.kind == "directory" else RUN_DIRECTORY


def control_socket_path(site: Site, group: str) -> str:
    """Return the Unix socket on which ``group``'s replicatord answers at ``site``."""
    return f"{state_directory(site)}/{group}.sock"


def nbd_socket_path(site: Site, group: str) -> str:
    """Return the Unix socket of the NBD front end; the export's name is the volume's name."""
    return f"{state_directory(site)}/{group}.nbd"


def portal(site: Site) -> str:
    """Return ADDRESS:PORT of a site's iSCSI targets."""
    return f"{site.address}:{PORTAL_PORT}"


def journal_target_iqn(prefix: str, group: str, site: str) -> str:
    """Return the target that exports ``group``'s journal at ``site`` to the other sites."""
    return f"{prefix}:{group}.{site}.journal"


def leg_target_iqn(prefix: str, group: str, site: str) -> str:
    """Return the target on which the primary, and nobody else, writes ``site``'s journal."""
    return f"{prefix}:{group}.{site}.leg"


def data_target_iqn(prefix: str, group: str, site: str) -> str:
    """Return the target that exports ``group``'s data volumes at ``site`` to hosts."""
    return f"{prefix}:{group}.{site}.data"


def site_initiator_iqn(prefix: str, site: str) -> str:
    """Return the initiator name with which ``site`` logs in at its peers."""
    return f"{prefix}:{site}.initiator"


def initiators(topology: Topology) -> dict[str, str]:
    """Return every initiator name of the topology, sites and hosts, with its CHAP user's name."""
    found = {site_initiator_iqn(topology.iqn_prefix, s.name): s.name for s in topology.sites}
    found.update({host.initiator: host.name for host in topology.hosts})
    return found


def chap_userid(initiator_name: str) -> str:
    """Return the user with which a site or host of that name proves itself to a target."""
    return initiator_name


def chap_mutual_userid(target_site: str) -> str:
    """Return the user with which the targets of a site prove themselves to an initiator."""
    return target_site


def journal_backstore(group: str) -> str:
    """Return the name of the LIO block backstore on ``group``'s journal volume."""
    return f"{group}-{JOURNAL_SUFFIX}"


def volume_backstore(group: str, volume: str) -> str:
    """Return the name of the LIO user backstore of a data volume."""
    return f"{group}-{volume}"


def tcmu_config(group: str, volume: str) -> str:
    """Return the configuration string of a user backstore (handler, group, volume)."""
    return f"{TCMU_HANDLER}/{group}/{volume}"


def uio_name_suffix(group: str, volume: str) -> str:
    """Return how the name of a volume's UIO device ends: ``tcm-user/HBA/NAME/CONFIG``."""
    return f"/{volume_backstore(group, volume)}/{tcmu_config(group, volume)}"


def data_lun(group: Group, volume: str) -> int:
    """Return the LUN of a data volume: its id less one, so that no change moves another one."""
    return group.volume(volume).id - 1


def target_port_group(group: Group, site: str) -> int:
    """Return the ALUA target port group (and relative port) of a site, from 1."""
    return [each.name for each in group.sites].index(site) + 1


def volume_serial(group: str, volume: str) -> str:
    """Return the unit serial number of a volume: 25 hex digits, the same at every site.

    25 digits are what follows the company id in an NAA 6 designator, so that what the kernel
    derives from the serial (``spc_gen_naa_6h_vendor_specific``) is ``volume_naa``.
    """
    digest = hashlib.sha256(f"towline/{group}/{volume}".encode()).hexdigest()
    return digest[:25]


def volume_naa(group: str, volume: str) -> str:
    """Return the NAA designator of a volume: 32 hex digits, the same at every site."""
    return NAA_VENDOR + volume_serial(group, volume)


def journal_serial(group: str, site: str) -> str:
    """Return the unit serial number of a site's journal LUN: every journal has its own."""
    return hashlib.sha256(f"towline-journal/{group}/{site}".encode()).hexdigest()[:25]
