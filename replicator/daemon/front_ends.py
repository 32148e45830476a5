"""The front end that a site's kind of devices calls for: TCMU on LVM, NBD in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from replicator.codec import naming
from replicator.codec.scsi.device import ScsiDevice
from replicator.codec.topology import Group, Site
from replicator.frontends.nbd import NbdServer, listen_unix
from replicator.frontends.tcmu import Export, TcmuFrontend
from replicator.model import SECTOR, HostService, HostVolume
from replicator.seams.uio import UserBackstore


class FrontEnd(Protocol):
    """What the daemon does with a front end. ``hold`` comes before recovery, ``start`` after."""

    kind: str

    def hold(self) -> None: ...
    def start(self, service: HostService) -> None: ...
    def stop(self) -> None: ...


class NbdFrontEnd:
    """The NBD server of a directory site; its socket appears when the group serves."""

    kind = "nbd"

    def __init__(self, site: Site, group: Group) -> None:
        self._path = Path(naming.nbd_socket_path(site, group.name))
        self._server: NbdServer | None = None

    def hold(self) -> None:
        """Nothing to hold: clients reconnect."""

    def start(self, service: HostService) -> None:
        """Listen; DeviceBusy or DeviceUnusable if that cannot be."""
        self._server = NbdServer(service, [listen_unix(self._path)])
        self._server.start()

    def stop(self) -> None:
        """Hang up on every client; what was not answered stays so."""
        if self._server is not None:
            self._server.close()
            self._server = None


class TcmuFrontEnd:
    """The LIO user backstores of a group, made by ``replicatorctl target apply``."""

    kind = "tcmu"

    def __init__(self, site: Site, group: Group) -> None:
        self._site = site
        self._group = group
        self._frontend: TcmuFrontend | None = None
        self._backstores: dict[str, UserBackstore] = {}

    def hold(self) -> None:
        """Have the kernel give back the commands of a handler that died; DeviceUnusable if the
        target is not there."""
        for volume in self._group.volumes:
            suffix = naming.uio_name_suffix(self._group.name, volume.name)
            backstore = UserBackstore.find(suffix)
            backstore.hold()
            self._backstores[volume.name] = backstore

    def start(self, service: HostService) -> None:
        """Serve the rings and let the commands go."""
        exports = [self._export(volume) for volume in service.volumes]
        self._frontend = TcmuFrontend(service, exports)
        self._frontend.start()

    def stop(self) -> None:
        """Answer what is with the group, leave the rest in the kernel for the next start."""
        if self._frontend is not None:
            self._frontend.stop()
            self._frontend = None

    def _export(self, volume: HostVolume) -> Export:
        port = naming.target_port_group(self._group, self._site.name)
        device = ScsiDevice(
            serial=naming.volume_serial(self._group.name, volume.name),
            naa=bytes.fromhex(naming.volume_naa(self._group.name, volume.name)),
            blocks=volume.size_bytes // SECTOR,
            port_group=port,
            relative_port=port,
        )
        return Export(volume, device, self._backstores[volume.name])


def front_end_of(site: Site, group: Group) -> FrontEnd | None:
    """Return the primary's front end; None at a site that serves no hosts."""
    if not group.site(site.name).primary:
        return None
    return TcmuFrontEnd(site, group) if site.devices.kind == "lvm" else NbdFrontEnd(site, group)
