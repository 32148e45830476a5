"""The front end that a site's kind of devices calls for: TCMU on LVM, NBD in a directory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from replicator.codec import naming
from replicator.codec.scsi.device import ScsiDevice
from replicator.codec.topology import Group, Site
from replicator.errors import DeviceUnusable
from replicator.frontends.nbd import NbdServer, listen_unix
from replicator.frontends.tcmu import Export, TcmuFrontend
from replicator.model import SECTOR, HostService, HostVolume
from replicator.seams.uio import UserBackstore


class FrontEnd(Protocol):
    """What the daemon does with a front end. ``hold`` comes before recovery, ``start`` after."""

    kind: str

    def hold(self) -> None: ...
    def start(self, service: HostService) -> None: ...
    def follow(self) -> None:
        """Follow volumes that came, grew or went; called about once a second while serving."""

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

    def follow(self) -> None:
        """Nothing to do: the handshake asks for the volumes of that moment."""

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
        self._service: HostService | None = None
        self._backstores: dict[str, UserBackstore] = {}

    def hold(self) -> None:
        """Have the kernel give back the commands of a handler that died; DeviceUnusable if the
        target is not there at all."""
        missing = []
        for volume in self._group.volumes:
            suffix = naming.uio_name_suffix(self._group.name, volume.name)
            try:
                backstore = UserBackstore.find(suffix)
            except DeviceUnusable as error:
                missing.append(error)  # one that the topology adds has none until it is added
                continue
            backstore.hold()
            self._backstores[volume.name] = backstore
        if missing and not self._backstores:
            raise missing[0]

    def start(self, service: HostService) -> None:
        """Serve the rings and let the commands go."""
        self._service = service
        exports = [
            self._export(volume) for volume in service.volumes if volume.name in self._backstores
        ]
        self._frontend = TcmuFrontend(service, exports)
        self._frontend.start()

    def follow(self) -> None:
        """Serve volumes whose backstore has appeared, tell of grown ones, refuse for removed ones.

        A volume that was added has no backstore until ``replicatorctl target apply`` has run.
        """
        frontend, service = self._frontend, self._service
        if frontend is None or service is None:
            return
        volumes = {volume.volume_id: volume for volume in service.volumes}
        served = frontend.served_blocks()
        for volume_id in served.keys() - volumes.keys():
            frontend.refuse(volume_id)
        for volume_id, volume in volumes.items():
            blocks = volume.size_bytes // SECTOR
            if volume_id not in served:
                self._serve_new(frontend, volume)
            elif served[volume_id] < blocks:
                frontend.grow(volume_id, blocks)

    def _serve_new(self, frontend: TcmuFrontend, volume: HostVolume) -> None:
        suffix = naming.uio_name_suffix(self._group.name, volume.name)
        with contextlib.suppress(DeviceUnusable):  # not there yet: the next turn looks again
            backstore = UserBackstore.find(suffix)
            backstore.hold()
            self._backstores[volume.name] = backstore
            frontend.add(self._export(volume))

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


def front_end_of(site: Site, group: Group, *, serves: bool) -> FrontEnd | None:
    """Return the primary's front end; None at a site that serves no hosts."""
    if not serves:
        return None
    return TcmuFrontEnd(site, group) if site.devices.kind == "lvm" else NbdFrontEnd(site, group)
