"""The QEMU command line of one machine."""

from __future__ import annotations

import os
from pathlib import Path

from .description import Cable, Lab, Machine
from .image import Image
from .places import Places
from .seed import MANAGEMENT_MAC

# Emulated guests run 1.2 to 1.5 times faster with these.
EMULATED_CPU = "max,-erms,-fsrm"
KERNEL_OPTIONS = (
    "root=LABEL=root ro console=ttyS0 quiet loglevel=4 panic=5 net.ifnames=0 "
    "systemd.show_status=0 init_on_alloc=0 tsc=reliable mitigations=off"
)


def kvm_works() -> bool:
    """Tell whether KVM truly runs here: the device opens and the CPU has vmx or svm."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "vmx" in flags or "svm" in flags


def accepts_direct_io(folder: Path) -> bool:
    """Tell whether files in a folder can be opened with O_DIRECT (not so on some tmpfs)."""
    probe = folder / ".direct-io"
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


def cable_socket(places: Places, cable: Cable, machine: str) -> Path:
    """Return the datagram socket of one end of a cable."""
    return places.sockets / f"{cable.name}.{machine}"


def qmp_socket(places: Places, machine: str) -> Path:
    return places.sockets / f"{machine}.qmp"


def pid_file(places: Places, machine: str) -> Path:
    return places.state / machine / "qemu.pid"


def command(lab: Lab, machine: Machine, image: Image, places: Places) -> list[str]:
    """Return the whole command; QEMU goes into the background when the machine has started."""
    folder = places.state / machine.name
    accelerator = "kvm" if kvm_works() else "tcg,thread=multi,tb-size=256"
    return [
        "qemu-system-x86_64",
        *("-name", f"towline-{machine.name}", "-daemonize", "-pidfile"),
        str(pid_file(places, machine.name)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"),
        *("-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else EMULATED_CPU),
        *("-smp", "1", "-m", str(machine.memory_mib), "-device", "virtio-rng-pci"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", KERNEL_OPTIONS),
        *("-chardev", f"file,id=console,path={folder / 'console.log'},append=on"),
        *("-serial", "chardev:console"),
        *("-qmp", f"unix:{qmp_socket(places, machine.name)},server=on,wait=off"),
        *_disk("root", folder / "root.qcow2", "qcow2", "unsafe"),
        *_disk("seed", folder / "seed.img", "raw", "writeback"),
        *_data_disks(machine, folder),
        *_management(machine),
        *(
            option
            for cable in lab.cables_of(machine.name)
            for option in _cable(cable, machine, places)
        ),
    ]


def _disk(name: str, path: Path, form: str, cache: str) -> tuple[str, ...]:
    drive = f"if=none,id={name},file={path},format={form},cache={cache},discard=unmap"
    if cache == "none":
        drive += ",aio=native"
    return ("-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}")


def _data_disks(machine: Machine, folder: Path) -> list[str]:
    cache = "none" if accepts_direct_io(folder) else "writeback"
    return [
        option
        for disk in machine.disks
        for option in _disk(disk.name, folder / f"{disk.name}.raw", "raw", cache)
    ]


def _management(machine: Machine) -> tuple[str, ...]:
    mac = MANAGEMENT_MAC.format(number=machine.number)
    forward = f"hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22"
    return (
        *("-netdev", f"user,id=management,restrict=on,{forward}"),
        *("-device", f"virtio-net-pci,netdev=management,mac={mac},romfile="),
    )


def _cable(cable: Cable, machine: Machine, places: Places) -> tuple[str, ...]:
    here = cable_socket(places, cable, machine.name)
    there = cable_socket(places, cable, cable.other_end(machine.name))
    mac = cable.mac(machine.name)
    return (
        "-netdev",
        f"dgram,id={cable.name},local.type=unix,local.path={here},"
        f"remote.type=unix,remote.path={there}",
        "-device",
        f"virtio-net-pci,netdev={cable.name},mac={mac},romfile=",
    )
